"""CLIP's image transformer under our names: OpenAI's and open_clip's format, and that of Hugging Face.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision (arXiv 2103.00020).
"""

from __future__ import annotations

import re

from uniformerv2.weights.image_source import SCALED_LAYERS, ImageSource

_LAYER = "transformer.resblocks."
_NO_LAST_NORM = "the class token goes to the head without a last norm"
_PROJECTION = "projects to the space shared with text, which a classifier does not use"
_UNUSED = {
    "proj": _PROJECTION,
    "ln_post.weight": _NO_LAST_NORM,
    "ln_post.bias": _NO_LAST_NORM,
    "post_layernorm.weight": _NO_LAST_NORM,
    "post_layernorm.bias": _NO_LAST_NORM,
    "visual_projection.weight": _PROJECTION,
}
_OURS = re.compile(
    r"class_embedding|positional_embedding|conv1\.weight|ln_pre\.(weight|bias)"
    r"|transformer\.resblocks\.\d+\.(attn\.in_proj_(weight|bias)|attn\.out_proj\.(weight|bias)"
    r"|ln_[12]\.(weight|bias)|mlp\.c_(fc|proj)\.(weight|bias))"
)
_SCALE = re.compile(r"(transformer\.resblocks\.\d+\.)ls_([12])\.gamma")

_HF_TOP = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm.weight": "ln_pre.weight",  # sic: the misspelling is the published name
    "pre_layrnorm.bias": "ln_pre.bias",
}
_HF_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_HF_KEY = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")


def read_clip(source: ImageSource) -> None:
    """Explain the entries of an OpenAI or open_clip image transformer, whose names are ours but for layer scales."""
    for name in list(source.entries):
        if name in _UNUSED:
            source.ignore(name, _UNUSED[name])
        elif _OURS.fullmatch(name):
            source.rename(name, name)
    scales = {name: match for name in source.entries if (match := _SCALE.fullmatch(name))}
    source.scale_layers({name: match[1] + SCALED_LAYERS[match[2]] for name, match in scales.items()})


def read_hf_clip(source: ImageSource) -> None:
    """Explain the entries of a Hugging Face ``CLIPVisionModel``, which has query, key and value apart."""
    for name in list(source.entries):
        match = _HF_KEY.fullmatch(name)
        if name in _UNUSED:
            source.ignore(name, _UNUSED[name])
        elif name in _HF_TOP:
            source.rename(name, _HF_TOP[name])
        elif match and match[2] in _HF_LAYER:
            source.rename(name, f"{_LAYER}{match[1]}.{_HF_LAYER[match[2]]}.{match[3]}")
        elif match and match[2] == "self_attn.q_proj":
            names = tuple(name.replace("q_proj", part) for part in ("q_proj", "k_proj", "v_proj"))
            source.stack_rows(names, f"{_LAYER}{match[1]}.attn.in_proj_{match[3]}", "query, key and value stacked")
