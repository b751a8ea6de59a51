"""The kinds of image transformers that a backbone can start from, and how a checkpoint is recognised as one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from k710.errors import CheckpointError
from uniformerv2.weights.clip_family import read_clip, read_hf_clip
from uniformerv2.weights.image_source import ImageSource
from uniformerv2.weights.vit_family import has_class_row, read_vit


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageKind:
    """A format of image transformers, and what its models compute beside their weights."""

    about: str
    """Whose models these are, in a few words."""
    read: Callable[[ImageSource], None]
    """Explains the entries of a checkpoint."""
    gelu: Literal["quick", "exact"] = "exact"
    """Activation, which no weight shows."""
    norm_eps: float = 1e-6
    """Added to the variance in norms, which no weight shows."""
    pre_norm_eps: float = 1e-5
    """The same in those models of the kind that have a norm before the first layer."""
    pre_norm: Literal["always", "never", "as_file"] = "never"
    """Whether a norm stands before the first layer."""


KINDS: dict[str, ImageKind] = {
    "clip": ImageKind(about="OpenAI CLIP", read=read_clip, gelu="quick", norm_eps=1e-5, pre_norm="always"),
    "open_clip": ImageKind(
        about="open_clip with exact GELU: LAION, DataComp", read=read_clip, norm_eps=1e-5, pre_norm="as_file"
    ),
    "open_clip_quickgelu": ImageKind(
        about="open_clip models named -quickgelu", read=read_clip, gelu="quick", norm_eps=1e-5, pre_norm="as_file"
    ),
    "hf_clip": ImageKind(
        about="Hugging Face CLIP, hidden_act quick_gelu",
        read=read_hf_clip,
        gelu="quick",
        norm_eps=1e-5,
        pre_norm="always",
    ),
    "hf_clip_gelu": ImageKind(
        about="Hugging Face CLIP, hidden_act gelu", read=read_hf_clip, norm_eps=1e-5, pre_norm="always"
    ),
    "dino": ImageKind(about="DINO", read=read_vit),
    "dinov2": ImageKind(about="DINOv2 without registers", read=read_vit),
    "mae": ImageKind(about="MAE", read=read_vit),
    "beit": ImageKind(about="BEiT and BEiT v2 without relative positions", read=read_vit),
    "deit3": ImageKind(about="DeiT III", read=read_vit),
    "timm": ImageKind(about="timm's VisionTransformer", read=read_vit, pre_norm="as_file"),
    "timm_quickgelu": ImageKind(
        about="timm models named clip_quickgelu", read=read_vit, gelu="quick", norm_eps=1e-5, pre_norm="always"
    ),
}
"""Name after ``--init`` -> format."""

_PRE_NORMS = ("ln_pre.weight", "norm_pre.weight", "pre_layrnorm.weight")
_OPENAI_FACTS = {"input_resolution", "context_length", "vocab_size"}

# Each needs something that our backbone does not compute, so that no mapping of weights could be exact.
_REFUSED = (
    (r"(.*\.)?(register_tokens|reg_token)", "register tokens beside the patches", "take the model without registers"),
    (r"dist_token|head_dist\..*", "a distillation token beside the class token", "take the model without distillation"),
    (r".*\.mlp\.(w1|w2|w3|w12|fc1_[gx])\..*", "gated MLPs (SwiGLU)", "take a smaller model of the family"),
    (r".*\.(q_norm|k_norm|ln_q|ln_k)\..*", "norms of query and key", "take a model without them"),
    (r".*\.attn\.(q|k|v)_proj\..*|(.*\.)?rope\..*|.*freqs.*", "rotary positions (EVA)", "take a plain transformer"),
    (r"(.*\.)?attn_pool.*|head\.(attention|probe).*", "attention that pools the patches", "take a class-token model"),
    (
        r".*\.(attn|mlp)\.(norm|ln|inner_attn_ln|ffn_ln)\..*",
        "norms inside attention or MLP",
        "take a plain transformer",
    ),
    (r"trunk\..*", "a timm model inside open_clip", "save its `visual.trunk` by itself, and start from timm:PATH"),
    (r"layer[1-4]\..*|attnpool\..*", "convolutions: it is a ResNet", "take a ViT of the same family"),
    (r"patch_embed\.(backbone|norm|proj\.\d).*", "more than one convolution before the layers", "take a plain ViT"),
    (
        r"embeddings\.patch_embeddings\..*",
        "the names of Hugging Face, which are read for CLIP only",
        "take the family's original checkpoint, or timm's",
    ),
)


def require_kind(source: ImageSource, kind: str) -> None:
    """Raise a ``CheckpointError`` unless ``source`` can be of ``kind``: with what stands against it, or what it is.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    for name in source.entries:
        for pattern, what, hint in _REFUSED:
            if re.fullmatch(pattern, name):
                raise CheckpointError(f"the image transformer has {what} ({source.key_of(name)})", hint=hint)
    possible = _possible_kinds(source)
    if not possible:
        known = f"kinds: {', '.join(KINDS)}"
        if any("transformer.dec." in name or "lmhra" in name for name in source.entries):
            known = "they look like a UniFormerV2: take official:PATH, or run:PATH"
        raise CheckpointError("the weights are not of an image transformer that is known here", hint=known)
    if kind not in possible:
        *others, last = possible
        looks_like = f"{', '.join(others)} or {last}" if others else last
        raise CheckpointError(
            f"the weights are not of kind {kind}, they look like {looks_like}",
            hint=f"start from {possible[0]}:PATH",
        )
    _require_tokens(source, kind)


def settings_of(source: ImageSource, kind: str) -> dict[str, Any]:
    """The settings of a model that computes what ``source``, which is of ``kind``, computes."""
    pre_norm = {"always": True, "never": False, "as_file": any(name in source.entries for name in _PRE_NORMS)}
    form = KINDS[kind]
    has_pre_norm = pre_norm[form.pre_norm]
    return {
        "gelu": form.gelu,
        "norm_eps": form.pre_norm_eps if has_pre_norm else form.norm_eps,
        "pre_norm": has_pre_norm,
    }


def _require_tokens(source: ImageSource, kind: str) -> None:
    """Refuse an image transformer without a class token, or without positions that the model can have."""
    if not {"cls_token", "class_embedding", "embeddings.class_embedding"} & source.entries.keys():
        raise CheckpointError(
            "the image transformer has no class token, which UniFormerV2 gathers frames with",
            hint="take a model that pools by its class token",
        )
    if kind != "beit" and "patch_embed.proj.weight" in source.entries and "pos_embed" not in source.entries:
        raise CheckpointError(
            "the image transformer has no position table: it tells positions in a way that its weights do not show",
            hint="take a model with pos_embed",
        )


def _possible_kinds(source: ImageSource) -> tuple[str, ...]:
    """The kinds that entries of these names can be of; none for what is no image transformer, or for a UniFormerV2."""
    names = source.entries.keys()
    if "embeddings.patch_embedding.weight" in names:
        return "hf_clip", "hf_clip_gelu"
    if "patch_embed.proj.weight" in names:
        return _possible_vits(source)
    if "conv1.weight" not in names or not any(name.startswith("transformer.resblocks.") for name in names):
        return ()
    if any("transformer.dec." in name or "lmhra" in name for name in names):
        return ()
    # OpenAI's archives tell their sizes; open_clip's files do not. Exact GELU on OpenAI's weights would be wrong.
    if source.beside & _OPENAI_FACTS:
        return "clip", "open_clip_quickgelu"
    if "ln_pre.weight" not in names or any(re.search(r"\.ls_[12]\.", name) for name in names):
        return "open_clip", "open_clip_quickgelu"
    return "clip", "open_clip", "open_clip_quickgelu"


def _possible_vits(source: ImageSource) -> tuple[str, ...]:
    names = source.entries.keys()
    if any(name.startswith("decoder_") for name in names):
        return ("mae",)
    if any(name.endswith((".q_bias", "relative_position_bias_table")) for name in names):
        return ("beit",)
    # Two spellings of layer scales. In timm the first is that of models with rotary positions, which show nowhere else.
    if any(re.search(r"\.gamma_[12]$", name) for name in names):
        return () if has_class_row(source) or any(name in names for name in _PRE_NORMS) else ("deit3",)
    if any(name in names for name in _PRE_NORMS):
        return "timm", "timm_quickgelu"
    is_scaled = any(re.search(r"\.ls[12]\.gamma$", name) for name in names)
    if not has_class_row(source):
        return ("deit3", "timm") if is_scaled else ("timm",)
    if is_scaled:
        return ("dinov2",) if "mask_token" in names else ("dinov2", "timm")
    return ("dino",) if _has_dino_head(source) else ("dino", "mae", "timm")


def _has_dino_head(source: ImageSource) -> bool:
    return any(name.startswith(("head.mlp.", "head.last_layer.")) for name in (*source.entries, *source.beside))
