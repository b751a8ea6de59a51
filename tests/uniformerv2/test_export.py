"""Exported files compute what the model computes, say what they are, and are whole or absent. Axes: B clip."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import full_disk
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from k710.errors import AnswerIsNo, CheckpointError, UsageError
from uniformerv2 import UniFormerV2, UniFormerV2Config, formats
from uniformerv2.data.sampling import eval_indices
from uniformerv2.export import ExportConfig, export
from uniformerv2.formats import FORMATS, Facts, description, export_onnx, export_program, export_pt2

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TINY = UniFormerV2Config(
    image_size=32, patch_size=16, width=32, layers=2, heads=2, num_frames=4, num_classes=5, global_layers=(0, 1)
)
PLAIN = replace(TINY, layers=1, global_layers=())
FACTS = Facts(classes=("a", "b", "c", "d", "é"), input_known=True, source_sha256="ab" * 32, data_digest="cd" * 32)
MADE = ("channels", "normalisation", "mean", "std", "frames", "resize")
ONE = replace(TINY, layers=1, global_layers=(0,))
VARIANTS = {
    "kinetics kind, odd frames, not square": replace(ONE, image_size=(32, 48), num_frames=3),
    "ssv2 kind, parallel": replace(ONE, local_blocks=2, temporal_downsample=True, fusion="parallel", dropout=0.5),
    "frozen, hierarchical_kv": replace(TINY, frozen_backbone=True, fusion="hierarchical_kv"),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def model_of(config: UniFormerV2Config) -> UniFormerV2:
    """Fresh blocks are identities and would hide mistakes: every parameter and statistic gets a value of its own."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        model = UniFormerV2(config)
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                noise = 0.1 * torch.randn(value.shape)
                value.add_(noise.abs() if name.endswith("running_var") else noise)
    return model


def clips(config: UniFormerV2Config, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(count, 3, config.num_frames, *config.frame_size, generator=generator)


@torch.no_grad()
def logits(model: UniFormerV2, clip_BCTHW: Tensor) -> Tensor:
    return model.eval()(clip_BCTHW)  # type: ignore[no-any-return]


def onnx_logits(path: Path, clip_BCTHW: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"clip": clip_BCTHW.numpy()})[0])


def write(model: UniFormerV2, path: Path, facts: Facts = FACTS) -> formats.Written:
    return FORMATS[path.suffix][1](model, path, facts)


@pytest.mark.parametrize("name", VARIANTS)
def test_onnx_runtime_computes_what_the_model_computes_in_any_batch(name: str, tmp_path: Path) -> None:
    model = model_of(VARIANTS[name])
    written = export_onnx(model, tmp_path / "model.onnx", FACTS)
    assert written.difference < 1e-5
    assert written.external_data is None
    assert written.size_bytes == (tmp_path / "model.onnx").stat().st_size
    for count in (1, 3, 5):
        clip_BCTHW = clips(model.config, count)
        difference = onnx_logits(tmp_path / "model.onnx", clip_BCTHW) - logits(model, clip_BCTHW)
        assert difference.abs().max() < 1e-4
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_a_program_runs_without_the_model_and_says_what_it_is(tmp_path: Path) -> None:
    model = model_of(replace(TINY, fusion="hierarchical_q", gelu="exact", pre_norm=False, num_frames=1))
    assert export_pt2(model, tmp_path / "model.pt2", FACTS).difference < 1e-6
    files = {"k710.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=files)
    for count in (1, 5):
        clip_BCTHW = clips(model.config, count)
        found = program.module()(clip_BCTHW)
        torch.testing.assert_close(found, logits(model, clip_BCTHW), rtol=0, atol=1e-6)
        assert not found.requires_grad
    assert json.loads(files["k710.json"])["classes"] == ["a", "b", "c", "d", "é"]
    assert set(program.state_dict) >= set(model.state_dict())
    content = (tmp_path / "model.pt2").read_bytes()
    assert str(Path(formats.__file__).parent).encode() not in content


def test_an_onnx_file_says_all_that_is_needed_to_use_it(tmp_path: Path) -> None:
    config = replace(PLAIN, image_size=(32, 48))
    export_onnx(model_of(config), tmp_path / "model.onnx", FACTS)
    stored = onnx.load(tmp_path / "model.onnx")
    facts = {p.key: p.value for p in stored.metadata_props}
    given = json.loads(facts["input"])
    assert (facts["schema"], facts["schema_version"]) == ("k710.export", "1")
    assert facts["program"].startswith("k710 ")
    assert json.loads(facts["classes"]) == ["a", "b", "c", "d", "é"]
    assert facts["source_sha256"] == "ab" * 32
    assert given["shape"] == ["batch", 3, 4, 32, 48]
    assert (given["channels"], given["mean"], given["std"]) == ("RGB", [0.45] * 3, [0.225] * 3)
    assert [v.name for v in (*stored.graph.input, *stored.graph.output)] == ["clip", "logits"]
    assert stored.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert str(Path(formats.__file__).parent).encode() not in (tmp_path / "model.onnx").read_bytes()


@given(num_frames=st.integers(1, 64), num_source=st.integers(1, 3000))
def test_the_frames_that_a_file_names_are_those_of_our_single_test_clip(num_frames: int, num_source: int) -> None:
    said = description(replace(TINY, num_frames=num_frames), FACTS)["input"]["frames"]
    formula = said.partition("in Python: ")[2]
    assert eval(formula, {"n": num_source}) == eval_indices(num_source, num_frames, clip=0, num_clips=1)


def test_what_is_not_known_of_the_input_is_not_said() -> None:
    known, unknown = (description(TINY, replace(FACTS, input_known=is_known))["input"] for is_known in (True, False))
    assert set(known) == {*unknown, *MADE}
    assert not set(unknown) & set(MADE)


def test_weights_beyond_one_file_stand_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "SINGLE_FILE_BYTES", 1000)
    model = model_of(PLAIN)
    written = export_onnx(model, tmp_path / "model.onnx")
    assert written.external_data == tmp_path / "model.onnx.data"
    assert written.size_bytes == sum(p.stat().st_size for p in tmp_path.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    clip_BCTHW = clips(PLAIN, 2)
    torch.testing.assert_close(
        onnx_logits(tmp_path / "model.onnx", clip_BCTHW), logits(model, clip_BCTHW), rtol=0, atol=1e-5
    )


def test_no_data_file_of_an_older_export_stays_beside_a_graph_that_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = model_of(PLAIN), tmp_path / "model.onnx"
    with monkeypatch.context() as patched:
        patched.setattr(formats, "SINGLE_FILE_BYTES", 1000)
        export_onnx(model, path)
    assert export_onnx(model, path).external_data is None
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_an_export_that_ends_between_two_files_leaves_no_old_graph_beside_new_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "model.onnx", Path.replace

    def replace_all_but_the_graph(old: Path, new: Path) -> Path:
        if new == path:
            raise OSError(5, "Input/output error")
        return real(old, new)

    path.write_text("old graph")
    path.with_name("model.onnx.data").write_text("old weights")
    monkeypatch.setattr(formats, "SINGLE_FILE_BYTES", 1000)
    monkeypatch.setattr(Path, "replace", replace_all_but_the_graph)
    with pytest.raises(UsageError, match="cannot be written"):
        export_onnx(model_of(PLAIN), path)
    assert not path.exists()


def test_an_export_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = model_of(PLAIN).train()
    model.recompute_layers(1)
    before, state = torch.get_rng_state(), {key: value.clone() for key, value in model.state_dict().items()}
    program = export_program(model)
    assert model.training
    assert model.transformer.recomputed == {0}
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    clip_BCTHW = clips(PLAIN, 2)
    torch.testing.assert_close(program.module()(clip_BCTHW), logits(model, clip_BCTHW), rtol=0, atol=1e-6)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_text("old")
    with full_disk(5000), pytest.raises(UsageError, match="cannot be written"):
        write(model_of(PLAIN), path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "old"


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".pyth"])
def test_a_file_that_computes_something_else_is_not_kept(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "TOLERANCE", 0.0)
    with pytest.raises(AnswerIsNo, match=f"model{suffix}: not written: its logits differ from the model's by"):
        write(model_of(PLAIN), tmp_path / f"model{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_other_precisions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"only fp32 models are exported, got torch\.bfloat16"):
        export_program(model_of(PLAIN).bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match="got autocast"):
        export_program(model_of(PLAIN))


def test_onnx_that_is_not_installed_is_named_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    with pytest.raises(UsageError, match="writing ONNX needs onnxscript") as caught:
        export(ExportConfig(source=tmp_path / "none", out=tmp_path / "model.onnx"))
    assert caught.value.hint == "pip install 'k710[export]'"


def published(path: Path, num_classes: int) -> Path:
    """A checkpoint that says nothing about itself, and ``recipe.toml`` of its model beside it."""
    config = replace(PLAIN, num_classes=num_classes)
    torch.save(model_of(config).state_dict(), path)
    lines = ("image_size = 32", "patch_size = 16", "width = 32", "layers = 1", "heads = 2", "num_frames = 4")
    (path.parent / "recipe.toml").write_text("\n".join(["[model]", *lines, "global_layers = []"]))
    return path


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    return published(tmp_path / "bare.pyth", 400)


def test_a_published_checkpoint_is_exported_with_its_recipe_and_class_order(bare: Path, tmp_path: Path) -> None:
    settings = (f"recipe={tmp_path / 'recipe.toml'}", "head.class_order=uniformerv2")
    summary = export(ExportConfig(source=bare, out=tmp_path / "new" / "model.pt2", overrides=settings))
    assert (summary.num_classes, summary.taxonomy, summary.input_shape) == (400, "k400", (3, 4, 32, 32))
    files = {"k710.json": ""}
    torch.export.load(summary.out, extra_files=files)
    facts = json.loads(files["k710.json"])
    assert len(set(facts["classes"])) == 400
    assert summary.input_known
    assert set(facts["input"]) >= set(MADE)
    assert facts["source_sha256"] == summary.source_sha256


def test_official_weights_need_no_class_names(bare: Path, tmp_path: Path) -> None:
    settings = (f"recipe={tmp_path / 'recipe.toml'}",)
    summary = export(ExportConfig(source=bare, out=tmp_path / "model.safetensors", overrides=settings))
    assert not summary.class_names
    weights, original = load_file(summary.out), torch.load(bare)
    assert all(torch.equal(weights[f"backbone.{key}"], value) for key, value in original.items())


def test_a_head_of_no_kinetics_taxonomy_is_exported_without_names(tmp_path: Path) -> None:
    source = published(tmp_path / "ssv2.pyth", 174)
    settings = (f"recipe={tmp_path / 'recipe.toml'}",)
    summary = export(ExportConfig(source=source, out=tmp_path / "model.pt2", overrides=settings))
    assert (summary.num_classes, summary.class_names, summary.input_known) == (174, False, False)
    files = {"k710.json": ""}
    torch.export.load(summary.out, extra_files=files)
    assert not set(json.loads(files["k710.json"])["input"]) & set(MADE)


def test_a_head_of_mmaction2_for_other_classes_is_exported_without_names(tmp_path: Path) -> None:
    source = published(tmp_path / "mit.pth", 339)
    head = {"transformer.proj.0.": "backbone.transformer.norm.", "transformer.proj.2.": "cls_head.fc_cls."}
    renamed = {}
    for key, value in torch.load(source).items():
        begin = next((b for b in head if key.startswith(b)), "")
        renamed[head.get(begin, "backbone.") + key.removeprefix(begin)] = value
    torch.save({"state_dict": renamed}, source)
    settings = (f"recipe={tmp_path / 'recipe.toml'}",)
    summary = export(ExportConfig(source=source, out=tmp_path / "model.pt2", overrides=settings))
    assert (summary.num_classes, summary.class_names) == (339, False)


@pytest.mark.parametrize("suffix", [".pt2", ".pyth"])
@pytest.mark.parametrize(("key", "value"), [("bias", torch.tensor(0.0)), ("weight", torch.tensor(0.0)), ("bias", None)])
def test_a_damaged_head_is_a_checkpoint_error(bare: Path, suffix: str, key: str, value: Tensor | None) -> None:
    state = torch.load(bare)
    state[f"transformer.proj.2.{key}"] = value
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, bare)
    settings = (f"recipe={bare.parent / 'recipe.toml'}",)
    with pytest.raises(CheckpointError, match="classifier"):
        export(ExportConfig(source=bare, out=bare.parent / f"model{suffix}", overrides=settings))


@pytest.mark.parametrize("order", ["nonsense", "canonical"])
def test_a_format_without_room_for_classes_takes_no_order_of_them(bare: Path, order: str) -> None:
    config = ExportConfig(source=bare, out=bare.parent / "model.pth", overrides=(f"head.class_order={order}",))
    with pytest.raises(UsageError, match=r"head\.class_order: \.pth has no room for classes"):
        export(config)


def test_what_a_checkpoint_does_not_say_must_be_given(bare: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    with pytest.raises(CheckpointError, match="which class each row") as caught:
        export(ExportConfig(source=bare, out=out))
    assert "head.class_order=canonical" in caught.value.hint
    with pytest.raises(CheckpointError, match="what model it is of") as caught:
        export(ExportConfig(source=bare, out=out, overrides=("head.class_order=canonical",)))
    assert "--set recipe=" in caught.value.hint
    bodiless = ("head.class_order=canonical", "recipe=tiny_cpu_finetune")
    with pytest.raises(UsageError, match=r"tiny_cpu_finetune: has no \[model\] table"):
        export(ExportConfig(source=bare, out=out, overrides=bodiless))
    with pytest.raises(UsageError, match="unknown setting 'init'"):
        export(ExportConfig(source=bare, out=out, overrides=("head.init=random",)))
    assert not out.exists()


def test_missing_and_damaged_weights_are_checkpoint_errors(tmp_path: Path) -> None:
    (tmp_path / "damaged.pyth").write_bytes(b"PK\3\4 cut short")
    for source, said in (("none", "no such run"), ("damaged.pyth", "damaged")):
        with pytest.raises(CheckpointError, match=said):
            export(ExportConfig(source=tmp_path / source, out=tmp_path / "model.pyth"))
    assert [p.name for p in tmp_path.iterdir()] == ["damaged.pyth"]


def test_an_existing_file_is_replaced_only_when_asked(bare: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "model.pth", (f"recipe={tmp_path / 'recipe.toml'}",)
    out.write_text("mine")
    with pytest.raises(UsageError, match=r"model.pth: exists") as caught:
        ExportConfig(source=bare, out=out)
    assert "--force" in caught.value.hint
    assert export(ExportConfig(source=bare, out=out, force=True, overrides=settings)).largest_difference == 0
    assert len(torch.load(out)) > 0


def test_a_data_file_is_in_the_way_of_onnx_alone(tmp_path: Path) -> None:
    for suffix in FORMATS:
        (tmp_path / f"model{suffix}.data").write_text("mine")
    with pytest.raises(UsageError, match=r"model\.onnx\.data: exists"):
        ExportConfig(out=tmp_path / "model.onnx")
    assert ExportConfig(out=tmp_path / "model.pt2").out.name == "model.pt2"


def test_the_source_is_never_replaced_by_its_export(bare: Path, tmp_path: Path) -> None:
    before = bare.read_bytes()
    with pytest.raises(UsageError, match="is a file of the weights or of their run"):
        export(ExportConfig(source=bare, out=tmp_path / "." / bare.name, force=True))
    assert bare.read_bytes() == before


@pytest.mark.parametrize(("name", "said"), [("model.pb", r"\.onnx, \.pt2, \.pyth"), ("folder.onnx", "is a folder")])
def test_an_output_that_cannot_be_is_refused_at_once(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(UsageError, match=said):
        ExportConfig(out=tmp_path / name)
