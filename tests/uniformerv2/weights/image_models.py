"""Small random image transformers of every family, in the family's own format, with the tokens that they compute.

Where the library ``transformers`` has the family, its model computes the tokens and only the names are changed here;
elsewhere the definition is written out with plain torch. Axes: N images, L tokens, C width.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, LAYERS, HEADS, PATCH, SIZE = 32, 2, 2, 8, 32
GRID = SIZE // PATCH

Tokens = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class ImageModel:
    """A checkpoint, and what the model in it computes."""

    state: dict[str, Any]
    """In the family's format."""
    tokens: Tokens
    """Images [N, 3, SIZE, SIZE] to all tokens [N, L, C] after the last layer, before any last norm."""


def drawn(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Random tensors; embeddings are small, so that the epsilon of the norms counts, and the rest is of order one."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if re.search(r"embed|cls_token|conv1|class_emb|pos|mask_token", name):
            state[name] = 0.02 * noise if noise.ndim < 4 else 0.02 * noise / noise[0].numel() ** 0.5
        elif noise.ndim > 1:
            state[name] = noise / shape[1] ** 0.5
        else:
            state[name] = 0.4 + 0.4 * noise
    return state


def openai_clip(prefix: str = "visual.") -> ImageModel:
    """OpenAI's format; a whole CLIP when there is a prefix."""
    visual = drawn(_clip_shapes())
    state = {f"{prefix}{name}": value for name, value in visual.items()}
    if prefix:
        state |= {
            "transformer.resblocks.0.ln_1.weight": torch.ones(8),
            "token_embedding.weight": torch.ones(9, 8),
            "positional_embedding": torch.ones(7, 8),
            "ln_final.bias": torch.ones(8),
            "text_projection": torch.ones(8, 8),
            "logit_scale": torch.ones(()),
            "input_resolution": torch.tensor(SIZE),
            "context_length": torch.tensor(7),
            "vocab_size": torch.tensor(9),
        }
    return ImageModel(state=state, tokens=lambda images: clip_tokens(visual, images, quick=True))


def open_clip(*, quick: bool, layer_scale: bool = False, pre_norm: bool = True) -> ImageModel:
    """open_clip's format, as its trainer saves it."""
    shapes = _clip_shapes()
    if layer_scale:
        shapes |= {f"transformer.resblocks.{i}.ls_{j}.gamma": (WIDTH,) for i in range(LAYERS) for j in (1, 2)}
    if not pre_norm:
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith("ln_pre")}
    visual = drawn(shapes, seed=1)
    weights = {f"module.visual.{name}": value for name, value in visual.items()}
    weights["module.logit_scale"] = torch.ones(())
    weights["module.transformer.resblocks.0.ln_1.weight"] = torch.ones(8)
    state = {"epoch": 3, "name": "a run", "state_dict": weights, "optimizer": {"state": {}}}
    return ImageModel(state=state, tokens=lambda images: clip_tokens(visual, images, quick=quick))


@torch.no_grad()
def clip_tokens(state: dict[str, Tensor], images: Tensor, *, quick: bool) -> Tensor:
    """CLIP's image transformer written out, with torch's own attention module."""
    patches_NSC = F.conv2d(images, state["conv1.weight"], stride=PATCH).flatten(2).mT
    class_N1C = state["class_embedding"].expand(len(images), 1, -1)
    x = torch.cat([class_N1C, patches_NSC], dim=1) + state["positional_embedding"]
    if "ln_pre.weight" in state:
        x = F.layer_norm(x, (WIDTH,), state["ln_pre.weight"], state["ln_pre.bias"], 1e-5)
    for i in range(LAYERS):
        p = {k.removeprefix(b): v for b in [f"transformer.resblocks.{i}."] for k, v in state.items() if k.startswith(b)}
        attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        attention.load_state_dict({k.removeprefix("attn."): v for k, v in p.items() if k.startswith("attn.")})
        y = F.layer_norm(x, (WIDTH,), p["ln_1.weight"], p["ln_1.bias"], 1e-5)
        x = x + attention(y, y, y, need_weights=False)[0] * p.get("ls_1.gamma", 1.0)
        y = F.layer_norm(x, (WIDTH,), p["ln_2.weight"], p["ln_2.bias"], 1e-5)
        y = F.linear(y, p["mlp.c_fc.weight"], p["mlp.c_fc.bias"])
        y = y * torch.sigmoid(1.702 * y) if quick else F.gelu(y)
        x = x + F.linear(y, p["mlp.c_proj.weight"], p["mlp.c_proj.bias"]) * p.get("ls_2.gamma", 1.0)
    return x


def hf_clip(*, quick: bool, prefix: str = "", whole: bool = False) -> ImageModel:
    """Hugging Face's ``CLIPVisionModel``; inside a whole CLIP when asked for."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    model = CLIPVisionModel(CLIPVisionConfig(**_sizes(), hidden_act="quick_gelu" if quick else "gelu"))
    own = _randomise(model)
    state: dict[str, Any] = {f"{prefix}{name}": value for name, value in own.items()}
    state[f"{prefix}embeddings.position_ids"] = torch.arange(1 + GRID**2)[None]
    if whole:
        state |= {
            "text_model.final_layer_norm.weight": torch.ones(8),
            "text_model.embeddings.position_ids": torch.arange(7),
            "text_projection.weight": torch.ones(8, 8),
            "visual_projection.weight": torch.ones(8, WIDTH),
            "logit_scale": torch.ones(()),
        }
    return ImageModel(state=state, tokens=_hooked(model, model.encoder.layers[-1]))


def dino() -> ImageModel:
    """DINO's full training checkpoint, around the library's ViT."""
    from transformers import ViTConfig, ViTModel

    model = ViTModel(ViTConfig(**_sizes(), layer_norm_eps=1e-6), add_pooling_layer=False)
    own = _original_names(_randomise(model))
    head = {"head.mlp.0.weight": torch.ones(8, WIDTH), "head.last_layer.weight_g": torch.ones(9, 1)}
    student = {f"module.backbone.{k}": torch.zeros_like(v) for k, v in own.items()}
    state = {"student": student, "teacher": {f"backbone.{k}": v for k, v in own.items()} | head, "epoch": 9}
    return ImageModel(state=state, tokens=_hooked(model, model.layers[-1]))


def dinov2(*, chunked: bool = False) -> ImageModel:
    """DINOv2's backbone; ``chunked`` as its training saves it."""
    from transformers import Dinov2Config, Dinov2Model

    sizes = {name: value for name, value in _sizes().items() if name != "intermediate_size"}
    model = Dinov2Model(Dinov2Config(**sizes))
    state: dict[str, Any] = _original_names(_randomise(model))
    if chunked:
        state = {re.sub(r"^blocks\.(\d)", r"blocks.\1.\1", k): v for k, v in state.items()}
        state = {f"backbone.{k}": v for k, v in state.items()}
        state |= {"dino_head.mlp.0.weight": torch.ones(8, 8), "ibot_head.mlp.0.weight": torch.ones(8, 8)}
        state = {"teacher": state}
    return ImageModel(state=state, tokens=_hooked(model, model.encoder.layer[-1]))


def mae() -> ImageModel:
    """MAE's pre-training checkpoint, around the library's encoder with nothing hidden."""
    from transformers import ViTMAEConfig, ViTMAEModel

    model = ViTMAEModel(ViTMAEConfig(**_sizes(), layer_norm_eps=1e-6, mask_ratio=0.0))
    state = _original_names(_randomise(model))
    state |= {"mask_token": torch.ones(1, 1, 8), "decoder_pos_embed": torch.ones(1, 17, 8)}
    state |= {"decoder_blocks.0.attn.qkv.weight": torch.ones(24, 8), "decoder_pred.bias": torch.ones(3)}
    in_order = torch.arange(GRID**2, dtype=torch.float32)
    hooked = _hooked(model, model.layers[-1], noise=in_order)
    return ImageModel(state={"model": state}, tokens=hooked)


def beit(*, positions: str = "absolute", constant: bool = True, shared: bool = False) -> ImageModel:
    """BEiT with a relative position bias that is the same at every distance, if ``constant``."""
    from transformers import BeitConfig, BeitModel

    relative = {"use_shared_relative_position_bias" if shared else "use_relative_position_bias": True}
    model = BeitModel(
        BeitConfig(
            **_sizes(),
            layer_norm_eps=1e-6,
            layer_scale_init_value=0.1,
            use_absolute_position_embeddings=positions == "absolute",
            **relative,
        ),
        add_pooling_layer=False,
    )
    for name, parameter in model.named_parameters():
        if "relative_position_bias_table" in name:
            parameter.data = torch.randn(parameter.shape)
            if constant:
                parameter.data = parameter.data[:1].expand_as(parameter.data).clone()
    own = _randomise(model, keep="relative_position_bias_table")
    state: dict[str, Any] = _original_names(own)
    state["blocks.0.attn.relative_position_index"] = torch.arange(4)
    return ImageModel(state={"model": state}, tokens=_hooked(model, model.layers[-1]))


def deit3() -> ImageModel:
    """DeiT III's format: positions without a class row, layer scales."""
    shapes = _vit_shapes(class_row=False) | {f"blocks.{i}.gamma_{j}": (WIDTH,) for i in range(LAYERS) for j in (1, 2)}
    state = drawn(shapes, seed=2)
    return ImageModel(state={"model": state}, tokens=lambda images: vit_tokens(state, images))


def timm(*, kind: str = "plain") -> ImageModel:
    """timm's format: ``plain``, ``clip``, ``quick`` (the same with QuickGELU), ``scaled`` or ``without_bias``."""
    shapes = _vit_shapes(class_row=kind != "scaled")
    if kind in ("clip", "quick"):
        del shapes["patch_embed.proj.bias"]
        shapes |= {"norm_pre.weight": (WIDTH,), "norm_pre.bias": (WIDTH,)}
    if kind == "scaled":
        shapes |= {f"blocks.{i}.ls{j}.gamma": (WIDTH,) for i in range(LAYERS) for j in (1, 2)}
    if kind == "without_bias":
        shapes = {name: shape for name, shape in shapes.items() if not name.endswith("qkv.bias")}
    state = drawn(shapes, seed=3)
    eps = 1e-5 if kind in ("clip", "quick") else 1e-6
    return ImageModel(state=state, tokens=lambda images: vit_tokens(state, images, eps=eps, quick=kind == "quick"))


@torch.no_grad()
def vit_tokens(state: dict[str, Tensor], images: Tensor, *, eps: float = 1e-6, quick: bool = False) -> Tensor:
    """A plain image transformer written out: positions on all tokens, or without a class row on the patches."""
    x = F.conv2d(images, state["patch_embed.proj.weight"], state.get("patch_embed.proj.bias"), PATCH).flatten(2).mT
    class_N1C = state["cls_token"].expand(len(images), -1, -1)
    positions = state["pos_embed"]
    with_class = positions.shape[1] == 1 + x.shape[1]
    x = torch.cat([class_N1C, x], 1) + positions if with_class else torch.cat([class_N1C, x + positions], 1)
    if "norm_pre.weight" in state:
        x = F.layer_norm(x, (WIDTH,), state["norm_pre.weight"], state["norm_pre.bias"], eps)
    for i in range(LAYERS):
        p = {k.removeprefix(b): v for b in [f"blocks.{i}."] for k, v in state.items() if k.startswith(b)}
        y = F.layer_norm(x, (WIDTH,), p["norm1.weight"], p["norm1.bias"], eps)
        qkv = F.linear(y, p["attn.qkv.weight"], p.get("attn.qkv.bias"))
        q, k, v = qkv.reshape(*y.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = ((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
        y = F.linear(y, p["attn.proj.weight"], p["attn.proj.bias"])
        x = x + y * p.get("gamma_1", p.get("ls1.gamma", torch.ones(())))
        y = F.layer_norm(x, (WIDTH,), p["norm2.weight"], p["norm2.bias"], eps)
        y = F.linear(y, p["mlp.fc1.weight"], p["mlp.fc1.bias"])
        y = y * torch.sigmoid(1.702 * y) if quick else F.gelu(y)
        y = F.linear(y, p["mlp.fc2.weight"], p["mlp.fc2.bias"])
        x = x + y * p.get("gamma_2", p.get("ls2.gamma", torch.ones(())))
    return x


def _sizes() -> dict[str, int]:
    return {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * WIDTH,
        "image_size": SIZE,
        "patch_size": PATCH,
    }


def _clip_shapes() -> dict[str, tuple[int, ...]]:
    c = WIDTH
    shapes: dict[str, tuple[int, ...]] = {
        "class_embedding": (c,),
        "positional_embedding": (1 + GRID**2, c),
        "conv1.weight": (c, 3, PATCH, PATCH),
        "ln_pre.weight": (c,),
        "ln_pre.bias": (c,),
        "ln_post.weight": (c,),
        "ln_post.bias": (c,),
        "proj": (c, 16),
    }
    for i in range(LAYERS):
        layer = {
            "attn.in_proj_weight": (3 * c, c),
            "attn.in_proj_bias": (3 * c,),
            "attn.out_proj.weight": (c, c),
            "attn.out_proj.bias": (c,),
            "ln_1.weight": (c,),
            "ln_1.bias": (c,),
            "mlp.c_fc.weight": (4 * c, c),
            "mlp.c_fc.bias": (4 * c,),
            "mlp.c_proj.weight": (c, 4 * c),
            "mlp.c_proj.bias": (c,),
            "ln_2.weight": (c,),
            "ln_2.bias": (c,),
        }
        shapes |= {f"transformer.resblocks.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


def _vit_shapes(*, class_row: bool) -> dict[str, tuple[int, ...]]:
    c = WIDTH
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, c),
        "pos_embed": (1, class_row + GRID**2, c),
        "patch_embed.proj.weight": (c, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (c,),
        "norm.weight": (c,),
        "norm.bias": (c,),
        "head.weight": (7, c),
        "head.bias": (7,),
    }
    for i in range(LAYERS):
        layer = {
            "norm1.weight": (c,),
            "norm1.bias": (c,),
            "attn.qkv.weight": (3 * c, c),
            "attn.qkv.bias": (3 * c,),
            "attn.proj.weight": (c, c),
            "attn.proj.bias": (c,),
            "norm2.weight": (c,),
            "norm2.bias": (c,),
            "mlp.fc1.weight": (4 * c, c),
            "mlp.fc1.bias": (4 * c,),
            "mlp.fc2.weight": (c, 4 * c),
            "mlp.fc2.bias": (c,),
        }
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


def _randomise(model: nn.Module, keep: str = "nothing") -> dict[str, Tensor]:
    """Give every parameter of the library's model a random value; its state dict."""
    parameters = {name: p for name, p in model.named_parameters() if keep not in name}
    values = drawn({name: tuple(p.shape) for name, p in parameters.items()}, seed=4)
    for name, parameter in parameters.items():
        parameter.data = values[name]
    model.eval()
    return {name: value.clone() for name, value in model.state_dict().items()}


def _hooked(model: nn.Module, last_layer: nn.Module, **arguments: Tensor) -> Tokens:
    """What comes out of ``last_layer``: the library's own outputs have the last norm applied."""

    @torch.no_grad()
    def tokens(images: Tensor) -> Tensor:
        caught: list[Tensor] = []
        given = {name: value.expand(len(images), -1) for name, value in arguments.items()}
        handle = last_layer.register_forward_hook(
            lambda _module, _inputs, out: caught.append(out[0] if isinstance(out, tuple) else out)
        )
        model(images, **given)
        handle.remove()
        return caught[0]

    return tokens


_ORIGINAL = {
    r"^embeddings\.cls_token$": "cls_token",
    r"^embeddings\.mask_token$": "mask_token",
    r"^embeddings\.position_embeddings$": "pos_embed",
    r"^embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"^layernorm\.": "norm.",
    r"^relative_position_bias\.": "rel_pos_bias.",
    r"^(encoder\.layer|layers)\.": "blocks.",
    r"\.layernorm_before\.": ".norm1.",
    r"\.layernorm_after\.": ".norm2.",
    r"\.attention\.o_proj\.": ".attn.proj.",
    r"\.layer_scale(\d)\.lambda1$": r".ls\1.gamma",
    r"\.lambda_(\d)$": r".gamma_\1",
    r"\.relative_position_bias\.relative_position_bias_table$": ".attn.relative_position_bias_table",
}


def _original_names(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The library's names as those of the families' own code, with query, key and value in one."""
    state: dict[str, Tensor] = {}
    for name, value in own.items():
        if re.search(r"\.attention\.[kv]_proj\.", name):
            continue
        original = name
        for pattern, replacement in _ORIGINAL.items():
            original = re.sub(pattern, replacement, original)
        if ".q_proj." in name:
            stem = original.partition(".attention.")[0] + ".attn."
            parts = [own.get(name.replace("q_proj", f"{p}_proj")) for p in "qkv"]
            if parts[1] is None:  # BEiT's key has no bias
                assert parts[0] is not None
                assert parts[2] is not None
                state |= {f"{stem}q_bias": parts[0], f"{stem}v_bias": parts[2]}
            else:
                kind = name.rpartition(".")[2]
                state[f"{stem}qkv.{kind}"] = torch.cat([p for p in parts if p is not None])
        else:
            state[original] = value
    return state
