"""The report of an image transformer: every entry of the source and every key of the model, exactly once."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import image_models as models
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_models import SIZE, WIDTH
from test_image_vit_oracles import BASE, CASES, every_case
from torch import Tensor, nn
from torch.nn import functional as F

from k710.errors import CheckpointError
from uniformerv2 import UniFormerV2
from uniformerv2.weights.files import read_weights
from uniformerv2.weights.image_source import ImageSource, open_source
from uniformerv2.weights.image_vit import load_image_vit, source_settings

WRAPPERS = ("teacher", "student", "state_dict", "model")


def keys_of(checkpoint: Mapping[str, Any]) -> list[str]:
    """Keys of the weights and of what stands around them; those around are written with the path to them."""
    for wrapper in WRAPPERS:
        if isinstance(inner := checkpoint.get(wrapper), Mapping):
            return [key for key in checkpoint if key != wrapper] + keys_of(inner)
    return list(checkpoint)


@every_case
def test_every_entry_and_every_key_is_accounted_for_once(case: str) -> None:
    kind, make, _ = CASES[case]
    source = make().state
    model = UniFormerV2(dataclasses.replace(BASE, **source_settings(kind, source), local_blocks=1))
    report = load_image_vit(model, kind, source)
    changed = [report.prefix + name for name, _ in (*report.renamed, *report.folded)]
    ignored = [key for key, _ in report.ignored]
    keys = keys_of(source)
    same = [k for name in report.taken if (k := report.prefix + name) in keys and k not in changed]
    assert sorted([*changed, *ignored, *same]) == sorted(keys)
    assert all(reason for _, reason in (*report.ignored, *report.folded))
    assert sorted([*report.taken, *report.fresh]) == sorted(model.state_dict())
    assert {key for _, key in report.renamed} <= set(report.taken)


def test_the_report_reads_well() -> None:
    source = models.dinov2(chunked=True).state
    settings = source_settings("dinov2", source)
    config = dataclasses.replace(BASE, **settings, image_size=2 * SIZE, temporal_downsample=True, num_frames=4)
    assert str(load_image_vit(UniFormerV2(config), "dinov2", source)).splitlines() == [
        "27 taken (27 renamed, 1 resized, 1 inflated)",
        "prefix 'backbone.' stripped",
        "1 folded: added to the positions of the patches",
        "4 folded: layer scale, multiplied into the layer before it",
        "2 ignored: head of the self-distillation",
        "1 ignored: stands for patches that were hidden in pre-training",
        "2 ignored: the class token goes to the head without a last norm",
        "22 left fresh: transformer.temporal_cls_token (1), transformer.balance (1), transformer.dpe (2), "
        "transformer.dec (14), transformer.proj (4)",
    ]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"model": w, "optimizer": {}, "epoch": 3},
        lambda w: {"state_dict": {f"module.{k}": v for k, v in w.items()}},
        lambda w: {"teacher": {f"module.backbone.{k}": v for k, v in w.items()}, "student": {}},
        lambda w: {"student": {f"module.backbone.{k}": v for k, v in w.items()}},
        lambda w: {"module": {"model": w}},
        lambda w: {f"module._orig_mod.model.{k}": v for k, v in w.items()},
        lambda w: {f"teacher.backbone.{k}": v for k, v in w.items()} | {"student.backbone.cls_token": torch.ones(1)},
    ],
)
def test_wrappers_are_taken_off(wrap: Any) -> None:
    weights = models.timm().state
    source = wrap(weights)
    model = UniFormerV2(dataclasses.replace(BASE, **source_settings("dino", source)))
    report = load_image_vit(model, "dino", source)
    assert torch.equal(model.class_embedding, weights["cls_token"].view(-1))
    assert len(report.taken) == 27


@pytest.mark.parametrize("beside", [{"state_dict": {}}, {"model_state": {}, "state_dict": {}}])
def test_an_empty_wrapper_is_not_taken_for_the_weights(beside: dict[str, Any]) -> None:
    weights = models.timm().state
    assert set(open_source({**beside, "model": weights}).entries) == set(open_source(weights).entries)


def test_the_mark_of_a_compiled_part_is_taken_out_and_reported() -> None:
    weights = models.timm().state
    marked = {key.replace("blocks.1.", "blocks.1._orig_mod."): value for key, value in weights.items()}
    model = UniFormerV2(dataclasses.replace(BASE, **source_settings("timm", marked)))
    report = load_image_vit(model, "timm", marked)
    assert torch.equal(model.state_dict()["transformer.resblocks.1.ln_1.bias"], weights["blocks.1.norm1.bias"])
    assert ("blocks.1._orig_mod.norm1.bias", "transformer.resblocks.1.ln_1.bias") in report.renamed
    with pytest.raises(CheckpointError, match=r"has blocks\.1\.norm1\.bias twice"):
        open_source({**marked, "blocks.1.norm1.bias": weights["blocks.1.norm1.bias"]})


def test_of_a_self_distillation_the_teacher_is_taken() -> None:
    weights = models.timm().state
    source = open_source({"student": {"cls_token": torch.ones(1)}, "epoch": 3, "teacher": weights})
    assert "patch_embed.proj.weight" in source.entries
    assert ("student", "the student; the weights of its teacher are taken") in source.ignored


class Holder(nn.Module):
    """Nothing but tensors under dotted names, some of them whole numbers."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name in dict.fromkeys(key.partition(".")[0] for key in state):
            inner = {key.partition(".")[2]: value for key, value in state.items() if key.partition(".")[0] == name}
            if "" in inner:
                self.register_buffer(name, inner[""])
            else:
                self.add_module(name, Holder(inner))

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_torchscript_archive_of_clip_is_the_same_source(tmp_path: Path) -> None:
    state = models.openai_clip().state
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Holder(state)), tmp_path / "ViT.pt")
    content = read_weights(tmp_path / "ViT.pt")
    model = UniFormerV2(dataclasses.replace(BASE, **source_settings("clip", content)))
    report = load_image_vit(model, "clip", content)
    assert torch.equal(model.positional_embedding, state["visual.positional_embedding"])
    assert {"input_resolution", "context_length", "vocab_size"} <= {key for key, _ in report.ignored}


def test_half_precision_is_read_as_it_is() -> None:
    state = {key: value.half() for key, value in models.timm().state.items()}
    model = UniFormerV2(dataclasses.replace(BASE, **source_settings("timm", state)))
    load_image_vit(model, "timm", state)
    assert torch.equal(model.class_embedding, state["cls_token"].float().view(-1))


def test_the_source_is_left_as_it_was() -> None:
    source = models.deit3().state
    before = {key: value.clone() for key, value in source["model"].items()}
    model = UniFormerV2(dataclasses.replace(BASE, **source_settings("deit3", source)))
    load_image_vit(model, "deit3", source)
    assert source["model"].keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in source["model"].items())


@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(1e-5, 10.0))
def test_a_folded_layer_scale_changes_no_output(seed: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, bias, scale = (torch.randn(s, generator=generator) for s in ((WIDTH, 8), (WIDTH,), (WIDTH,)))
    source: ImageSource = open_source({"gamma_1": spread * scale})
    source.tensors |= {"layer.weight": weight, "layer.bias": bias}
    source.scale_rows("gamma_1", "layer")
    x = torch.randn(5, 8, generator=generator)
    expected = F.linear(x, weight, bias) * (spread * scale)
    actual = F.linear(x, source.tensors["layer.weight"], source.tensors["layer.bias"])
    torch.testing.assert_close(actual, expected, atol=1e-5 * spread, rtol=1e-5)
