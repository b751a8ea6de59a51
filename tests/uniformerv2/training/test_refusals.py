"""What goes wrong around a run, and what is left of it: settings, folders, disks, damaged files."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from full_disk import full_disk
from safetensors.torch import load_file, save_file
from small_build import clips_of_build, write_build

from k710.errors import AnswerIsNo, CheckpointError, StoppedOnPurposeError, UsageError
from k710.labels import load_labels
from uniformerv2.config import read_recipe
from uniformerv2.evaluate import EvaluateConfig, evaluate
from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.training.checkpoint import load_checkpoint
from uniformerv2.training.metrics import Progress
from uniformerv2.training.saves import newest_checkpoint_path

NO_EPOCHS = ("optim.epochs=0", "optim.warmup_epochs=0")


@pytest.fixture
def config(build: Path, recipe: str, tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "run")


def stop_at(step: int):  # type: ignore[no-untyped-def]
    def progress(progress: Progress) -> None:
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("optim.base_lr=nan", "optim.base_lr must be a finite number, got nan"),
        ("optim.weight_decay=inf", "optim.weight_decay must be a finite number, got inf"),
        ("augment.aspect=[1.0, inf]", "augment.aspect must be a finite number, got inf"),
        ("optim.eps=0", "eps must be positive, got 0"),
        ("optim.betas=[0.9, 2]", "betas must be in"),
        ("seed=-1", "seed must be between 0 and"),
        ("seed=99999999999999999999999", "seed must be between 0 and"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_is_written(
    config: PretrainConfig, setting: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        pretrain(replace(config, overrides=(setting,)))
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("settings", "corrected"),
    [
        (("data.global_batch=5",), ("data.global_batch=5", "data.micro_batch=5")),
        (("data.global_batch=14",), ("data.global_batch=13", "data.micro_batch=13")),
    ],
)
def test_a_batch_that_does_not_fit_leaves_no_folder_so_that_the_hint_can_be_followed(
    config: PretrainConfig, settings: tuple[str, ...], corrected: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError):
        pretrain(replace(config, overrides=settings))
    assert not config.out.exists()
    assert pretrain(replace(config, overrides=corrected)).steps > 0


def test_a_recipe_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.toml").mkdir()
    for name in ("bytes.toml", "folder.toml"):
        with pytest.raises(UsageError, match=name):
            read_recipe(str(tmp_path / name))


def test_an_out_folder_that_cannot_be_made_is_refused(config: PretrainConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="file/run: cannot be written"):
        pretrain(replace(config, out=tmp_path / "file" / "run"))


def test_nothing_in_a_folder_of_somebody_else_is_touched(config: PretrainConfig) -> None:
    config.out.mkdir()
    (config.out / ".config.json.123.partial").write_text("not ours")
    (config.out / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="holds something that is not a run"):
        pretrain(config)
    assert {p.name for p in config.out.iterdir()} == {".config.json.123.partial", "thesis.tex"}


def test_what_a_run_killed_in_its_first_write_left_is_no_obstacle(config: PretrainConfig) -> None:
    config.out.mkdir()
    (config.out / ".config.json.123.partial").write_text("{")
    pretrain(replace(config, fresh=True, overrides=NO_EPOCHS))
    assert not (config.out / ".config.json.123.partial").exists()


def test_a_full_disk_is_said_and_leaves_the_checkpoint_before_it(config: PretrainConfig) -> None:
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(1))
    [path] = (config.out / "checkpoints").iterdir()
    whole = path.read_bytes()
    with (
        full_disk(len(whole) // 2),
        pytest.raises(CheckpointError, match=r"checkpoints/step-0000000\d.pt: cannot be written") as caught,
    ):
        pretrain(config)
    assert "make room" in caught.value.hint
    assert [path.read_bytes() for path in (config.out / "checkpoints").iterdir()] == [whole]
    assert pretrain(config).resumed_at_step == 2


def test_final_weights_that_cannot_be_written_are_written_by_the_next_call(config: PretrainConfig) -> None:
    config = replace(config, overrides=NO_EPOCHS)
    with full_disk(5000), pytest.raises(CheckpointError, match=r"model.safetensors: cannot be written"):
        pretrain(config)
    assert pretrain(config).model.is_file()


def test_a_finished_run_whose_checkpoint_was_removed_is_not_trained_again(config: PretrainConfig) -> None:
    pretrain(config)
    shutil.rmtree(config.out / "checkpoints")
    before = (config.out / "model.safetensors").stat().st_mtime_ns
    again = pretrain(config)
    assert (again.already_done, again.steps) == (True, 9)
    assert (config.out / "model.safetensors").stat().st_mtime_ns == before


def only_checkpoint(config: PretrainConfig) -> Path:
    """The only checkpoint that a run keeps."""
    pretrain(replace(config, overrides=("runtime.keep_checkpoints=1",)))
    [path] = (config.out / "checkpoints").iterdir()
    return path


@pytest.mark.parametrize("kept_bytes", [0, 100, 5000])
def test_a_cut_off_checkpoint_is_refused_and_kept(config: PretrainConfig, kept_bytes: int) -> None:
    path = only_checkpoint(config)
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(CheckpointError, match=rf"{path.name}: not a weights file") as caught:
        pretrain(config)
    assert "--fresh in a new folder" in caught.value.hint
    assert path.stat().st_size == kept_bytes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 3}, "schema version 3, this version reads 1 and 2"),
        ({"model": None}, "damaged"),
        ({"state": {"epoch": 1}}, "damaged"),
        ({"state": {"stranger": 1}}, "damaged"),
        ({"classes": {}}, "damaged"),
        ({"lineage": {}}, "damaged"),
    ],
)
def test_a_checkpoint_of_another_version_or_without_a_part_is_refused(
    config: PretrainConfig, change: dict[str, object], said: str
) -> None:
    path = only_checkpoint(config)
    content = torch.load(path, weights_only=True) | change
    torch.save({k: v for k, v in content.items() if v is not None}, path)
    with pytest.raises(CheckpointError, match=said):
        pretrain(config)


def test_final_weights_of_a_later_version_are_refused(config: PretrainConfig, tmp_path: Path) -> None:
    later, damaged = tmp_path / "later.safetensors", tmp_path / "damaged.safetensors"
    header = {"schema": "uniformerv2.checkpoint", "schema_version": 2}
    save_file({"a": torch.zeros(1)}, later, metadata={"uniformerv2": json.dumps(header)})
    save_file({"a": torch.zeros(1)}, damaged, metadata={"uniformerv2": json.dumps(header | {"schema_version": 1})})
    for path, said in ((later, "schema version 2"), (damaged, "damaged")):
        with pytest.raises(CheckpointError, match=said):
            pretrain(replace(config, init=f"run:{path}"))


def test_a_leak_in_what_the_run_has_already_seen_is_found_when_it_goes_on(
    config: PretrainConfig, tmp_path: Path, drawn: list[bytes]
) -> None:
    clips = clips_of_build()
    clips.append(replace(clips[0], id="valid000000"))
    leaky = write_build(tmp_path / "leaky", [c for c in clips if "k400-val" not in c.views], drawn)
    with pytest.raises(StoppedOnPurposeError):
        pretrain(replace(config, data=str(leaky)), on_progress=stop_at(3))
    on_clean_data = replace(config, overrides=("runtime.restart_epoch=true",))
    with pytest.raises(AnswerIsNo, match="leak into k710: k710-train has 1 videos of k400:val"):
        pretrain(on_clean_data)
    assert pretrain(replace(on_clean_data, allow_leaks=True)).leaks_allowed


def test_a_gradient_that_is_not_finite_is_never_applied(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(3))
    before = load_checkpoint(newest_checkpoint_path(config.out)).model
    backward = torch.Tensor.backward

    def overflowing(loss: torch.Tensor) -> None:
        backward(loss * float("inf"))  # type: ignore[no-untyped-call]

    monkeypatch.setattr(torch.Tensor, "backward", overflowing)
    with pytest.raises(UsageError, match=r"the norm of the gradient is (inf|nan) at step 4"):
        pretrain(replace(config, overrides=("runtime.checkpoint_every=1", "optim.max_bad_steps=0")))
    after = load_checkpoint(newest_checkpoint_path(config.out)).model
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_class_order_of_a_spreadsheet_is_read(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(replace(config, overrides=NO_EPOCHS))
    bare, order = tmp_path / "bare.safetensors", tmp_path / "order.csv"
    save_file(load_file(config.out / "model.safetensors"), bare)
    start = replace(
        config,
        out=tmp_path / "second",
        init=f"official:{bare}",
        overrides=(*NO_EPOCHS, f"head.class_order={order}"),
    )
    names = "".join(f'"{row.name}"\r\n' for row in load_labels().rows)
    order.write_bytes(f"\ufeffname\r\n{names}".encode())
    assert pretrain(start).model.is_file()
    order.write_bytes(b"name\n\xff\xfe\n")
    with pytest.raises(UsageError, match=r"order.csv: not UTF-8"):
        pretrain(replace(start, out=tmp_path / "third"))


@pytest.mark.parametrize("value", ["-1", "nan", "2"])
def test_a_share_of_holes_that_cannot_be_is_refused(config: PretrainConfig, value: str) -> None:
    exam = EvaluateConfig(view="k400-val", source=config.out, overrides=(f"max_hole_fraction={value}",))
    with pytest.raises(UsageError, match="max_hole_fraction"):
        evaluate(exam)


def test_a_report_that_cannot_be_written_is_refused_before_scoring(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(replace(config, overrides=NO_EPOCHS))
    exam = EvaluateConfig(view="k400-val", source=config.out, data=config.data, overrides=("workers=0",))
    (tmp_path / "file").write_text("x")
    seen: list[Progress] = []
    for out in (tmp_path, tmp_path / "file" / "report.json"):
        with pytest.raises(UsageError, match="cannot be written"):
            evaluate(replace(exam, out=out), on_progress=seen.append)
    assert seen == []
    evaluate(replace(exam, out=tmp_path / "new" / "folder" / "report.json"))
    assert (tmp_path / "new" / "folder" / "report.json").is_file()


def refuses_report(config: PretrainConfig, source: Path, out: Path) -> None:
    """An evaluation of ``source`` refuses ``out``, and leaves the folder of the run as it was."""
    before = {p: p.read_bytes() for p in config.out.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match=f"{out.name}: is a file of the weights or of their run"):
        evaluate(EvaluateConfig(view="k400-val", source=source, data=config.data, out=out, overrides=("workers=0",)))
    assert {p: p.read_bytes() for p in config.out.rglob("*") if p.is_file()} == before


def test_a_report_never_takes_the_place_of_a_file_of_the_run(config: PretrainConfig) -> None:
    pretrain(replace(config, overrides=("optim.epochs=1",)))
    files = [p for p in config.out.rglob("*") if p.is_file() and p.name != ".run-guard"]
    assert len(files) == 7
    for source in (config.out, newest_checkpoint_path(config.out)):
        for path in files:
            refuses_report(config, source, path)


def test_a_report_is_never_taken_for_a_file_that_the_run_lacks(config: PretrainConfig) -> None:
    pretrain(replace(config, overrides=NO_EPOCHS))
    lacking = ("checkpoint.pt", "checkpoints/step-00000123.pt", "model_best.safetensors", "log.jsonl", "log.csv")
    for name in lacking:
        refuses_report(config, config.out, config.out / name)


def test_a_report_never_takes_the_place_of_bare_weights_or_a_part_of_them(
    config: PretrainConfig, tmp_path: Path
) -> None:
    pretrain(replace(config, overrides=NO_EPOCHS))
    part, index, link = (tmp_path / n for n in ("a.safetensors", "a.safetensors.index.json", "link.json"))
    state = load_file(config.out / "model.safetensors")
    save_file(state, part)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(state, part.name)}))
    link.symlink_to(part)
    exam = EvaluateConfig(view="k400-val", source=index, data=config.data)
    for out in (index, part, link):
        before = out.read_bytes()
        with pytest.raises(UsageError, match="is a file of the weights or of their run"):
            evaluate(replace(exam, out=out))
        assert out.read_bytes() == before


def test_a_report_replaces_an_older_one_and_nothing_else(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(replace(config, overrides=NO_EPOCHS))
    report = tmp_path / "report.json"
    exam = EvaluateConfig(view="k400-val", source=config.out, data=config.data, out=report, overrides=("workers=0",))
    evaluate(exam)
    evaluate(replace(exam, clips=1))
    assert json.loads(report.read_text())["test_clips"] == 1
    foreign = (b"", b"years of work", b"[]", b"{}", b'{"schema_version": 1}', b"{" * 5000, b'{"a": "\xff"}')
    for content in foreign:
        report.write_bytes(content)
        with pytest.raises(UsageError, match=r"report.json: exists and is not a report"):
            evaluate(exam)
        assert report.read_bytes() == content


def test_a_report_does_not_wait_for_a_pipe(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(replace(config, overrides=NO_EPOCHS))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe: exists and is not a report"):
        evaluate(EvaluateConfig(view="k400-val", source=config.out, data=config.data, out=tmp_path / "pipe"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_an_evaluation_without_the_device_it_asks_for_names_its_own_setting(config: PretrainConfig) -> None:
    pretrain(replace(config, overrides=NO_EPOCHS))
    exam = EvaluateConfig(view="k400-val", source=config.out, data=config.data, overrides=("device=cuda",))
    with pytest.raises(UsageError) as caught:
        evaluate(exam)
    assert "--set device=cpu" in caught.value.hint
    assert "--devices" not in caught.value.hint
