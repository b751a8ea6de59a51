"""State dicts as other programs save them, brought to the published names; no tensor is touched.

{"model_state" | "state_dict" | ...: {...}}            unwrapped
module.backbone.conv1.weight, _orig_mod.conv1.weight   conv1.weight
backbone.transformer.norm.*, cls_head.fc_cls.*         transformer.proj.0.*, transformer.proj.2.*   (mmaction2)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from k710.errors import CheckpointError

PREFIXES = ("module.", "model.", "backbone.", "_orig_mod.")
"""Written in front of every key by data-parallel wrappers, by models around the model, by the official code and by
``torch.compile``."""
WRAPPERS = ("model_state", "state_dict", "model", "module")
"""Entries of a training checkpoint under which the weights are: PySlowFast's and the official code's, Lightning's and
mmengine's, timm's, DeepSpeed's. The first that is there and not empty counts."""
STUDENT = "the student; the weights of its teacher are taken"
"""Why a student's weights beside a teacher's are left out."""

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The weights of a checkpoint under published names, and what was done to bring them there."""

    weights: Mapping[str, Any]
    """Published name -> tensor or array, as it is in the checkpoint."""
    ignored: Pairs = ()
    """Entries that are no weights of the model, each with the reason."""
    prefix: str = ""
    """Prefix that was taken off every key."""
    renamed: Pairs = ()
    """Entries (without prefix) that had another name, each with the published one."""
    class_order: str = ""
    """Order of the head's rows, where the program that wrote the checkpoint has one; empty: unknown."""


def read_layout(checkpoint: Mapping[str, Any]) -> Layout:
    """The weights in ``checkpoint`` under published names: the official layout, ours, or mmaction2's.

    Raises:
        CheckpointError: it is an optimiser's state or an image transformer, or two entries have one name.
    """
    inner, ignored = unwrap(checkpoint)
    stripped, prefix = strip_prefixes(inner)
    _refuse_other_things(stripped)
    weights: dict[str, Any] = {}
    renamed: list[tuple[str, str]] = []
    by_mmaction2 = any(without_compile(key).startswith(_MMACTION2_HEAD) for key in stripped)
    for key, value in stripped.items():
        plain = without_compile(key)
        if by_mmaction2 and plain.startswith("data_preprocessor."):
            ignored.append((key, "normalises frames, which the feed does here"))
            continue
        name = _from_mmaction2(plain) if by_mmaction2 else plain
        if name in weights:
            raise CheckpointError(f"the checkpoint has {name} twice", hint="it holds two models: save one of them")
        weights[name] = value
        # What mmaction2 calls backbone. is a prefix that its head alone lacks: only other names are worth a line.
        if name != (key.removeprefix("backbone.") if by_mmaction2 else key):
            renamed.append((key, name))
    return Layout(
        weights=weights,
        ignored=tuple(ignored),
        prefix=prefix + ("backbone." if by_mmaction2 else ""),
        renamed=tuple(renamed),
        class_order="mmaction2" if by_mmaction2 else "",
    )


def unwrap(
    checkpoint: Mapping[str, Any], wrappers: tuple[str, ...] = WRAPPERS
) -> tuple[Mapping[str, Any], list[tuple[str, str]]]:
    """The weights inside a training checkpoint, and the path of every other entry with the reason it is no weight."""
    ignored: list[tuple[str, str]] = []
    path = ""
    # Twice at most in what is known, DeepSpeed's file around a trainer's; but a pickle may hold itself.
    for _ in range(_MOST_WRAPPERS):
        inner = next((n for n in wrappers if isinstance(checkpoint.get(n), Mapping) and checkpoint[n]), "")
        if not inner:
            break
        for key in checkpoint:
            if key != inner:
                beside_teacher = (inner, key) == ("teacher", "student")
                ignored.append((f"{path}{key}", STUDENT if beside_teacher else "training state, not a weight"))
        path += f"{inner}/"
        checkpoint = checkpoint[inner]
    return checkpoint, ignored


def strip_prefixes(weights: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The same weights without the prefixes that all keys share, and what was taken off."""
    stripped = {str(key): value for key, value in weights.items()}
    removed = ""
    while prefix := next((p for p in PREFIXES if stripped and all(k.startswith(p) for k in stripped)), ""):
        stripped = {key.removeprefix(prefix): value for key, value in stripped.items()}
        removed += prefix
    return stripped, removed


def without_compile(key: str) -> str:
    """A key without the mark that ``torch.compile`` leaves, which stands wherever a part was compiled."""
    return ".".join(part for part in key.split(".") if part != "_orig_mod")


_MOST_WRAPPERS = 5
_MMACTION2_HEAD = "cls_head.fc_cls."
_MMACTION2_NAMES = (
    ("backbone.transformer.norm.", "transformer.proj.0."),
    (_MMACTION2_HEAD, "transformer.proj.2."),
    ("backbone.", ""),
)
"""Beginning of mmaction2's name -> of the published one; the first that fits counts."""


def _from_mmaction2(key: str) -> str:
    for theirs, ours in _MMACTION2_NAMES:
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


_IMAGE_MODELS = (
    (("vision_model.", "text_model."), "CLIP, as Hugging Face names it", "hf_clip:PATH"),
    (("visual.", "conv1.", "class_embedding", "token_embedding."), "CLIP", "clip:PATH"),
    (("patch_embed.", "cls_token", "pos_embed", "embeddings.", "vit."), "ViT", "KIND:PATH"),
)
"""Beginnings of keys, the image transformer that has them, and how to start from it."""
_VIDEO_MARKS = ("transformer.temporal_cls_token", "transformer.dec.", "transformer.dpe.", "transformer.proj.")


def _refuse_other_things(weights: Mapping[str, Any]) -> None:
    """Raise a ``CheckpointError`` for what is well known and not a UniFormerV2; a list of keys would say less."""
    if "param_groups" in weights:
        raise CheckpointError(
            "the checkpoint is the state of an optimiser, not weights",
            hint="give the state dict of a model, or a checkpoint with `model_state`",
        )
    plain = [without_compile(key) for key in weights]
    if any(mark in key for key in plain for mark in (*_VIDEO_MARKS, "cls_head.")):
        return
    for marks, name, option in _IMAGE_MODELS:
        if any(key.startswith(marks) for key in plain):
            raise CheckpointError(
                f"the checkpoint looks like an image transformer ({name}), not like a UniFormerV2",
                hint=f"start from it with --init {option} (docs/commands.md lists the kinds)",
            )
