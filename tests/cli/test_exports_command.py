"""`k710 export FORMAT` as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


def test_lists_are_written_with_what_was_left_out_and_where(k710: Run, built: Path, tmp_path: Path) -> None:
    flags = ("--out", tmp_path / "lists", "--extract", tmp_path / "clips", "--view", "k710-train", "--view", "k400-val")
    code, said, err = k710("export", "mmaction2", built, *flags)
    assert code == 0
    assert "extracting clips: " in err
    lines = said.splitlines()
    assert "clips, classes as mmaction2_k710, left out: " in lines[0]
    assert lines[0].endswith("without bytes -> k710_train_list_videos.txt")
    assert lines[-2] == f"files: {len(list((tmp_path / 'clips').glob('??/*.mp4')))} written, 0 kept -> {tmp_path}/clips"
    assert lines[-1].startswith("done ")
    assert lines[-1].endswith(f"without bytes left out) -> {tmp_path / 'lists'}")


def test_an_audit_of_what_was_exported_finds_no_leak_where_the_build_has_none(
    k710: Run, built: Path, tmp_path: Path
) -> None:
    assert k710("export", "csv", built, "--out", tmp_path / "csv")[0] == 0
    lists = ("--train", tmp_path / "csv/k710/train.csv", "--eval", *sorted(tmp_path.glob("csv/k[467]00/val.csv")))
    code, said, err = k710("audit", *lists, "--fail-on-leak")
    assert (code, err) == (0, "")
    assert "Leak-free against the lists given: k400:val, k600:val, k700:val." in said
    code, _, err = k710("audit", "--train", tmp_path / "csv/k710/val.csv", *lists[2:], "--fail-on-leak")
    assert code == 1
    assert "training lists leak" in err


def test_a_machine_reads_the_summary(k710: Run, built: Path, tmp_path: Path) -> None:
    code, said, _ = k710("export", "wids", built, "--out", tmp_path / "wids", "--view", "k710-val", "--json")
    summary = json.loads(said)
    assert code == 0
    assert summary["views"]["k710-val"]["file"] == "k710-val.json"
    index = json.loads((tmp_path / "wids/k710-val.json").read_text())
    assert summary["views"]["k710-val"]["clips"] == sum(shard["nsamples"] for shard in index["shardlist"])


def test_an_export_goes_into_the_build_unless_told_otherwise(
    k710: Run, toy: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "k710-data").mkdir()
    for path in built.iterdir():
        (tmp_path / "k710-data" / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    assert k710("export", "hf", "--view", "k400-val")[0] == 0
    assert (tmp_path / "k710-data/exports/hf/README.md").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("slowfast",), "--extract DIR writes them to DIR"),
        (("vjepa2", "--extract", "a b"), "--extract takes a folder without one"),
        (("csv", "--view", "nope"), "view 'nope' is not in"),
        (("wids", "--target", "k400"), "No such option: --target"),
        (("csv", "--extract", "clips"), "No such option: --extract"),
        (("tfds",), "No such command 'tfds'"),
        (("--out", "model.onnx"), "No such option: --out"),
    ],
)
def test_what_cannot_be_is_refused_with_2_and_what_to_do(
    k710: Run, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    where = () if words[0] in ("--out", "tfds") else (built, "--out", "out")
    code, _, err = k710("export", *words, *where)
    assert code == 2
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_each_format_has_the_options_that_it_takes() -> None:
    import typer.main

    from cli.main import make_app

    commands = typer.main.get_command(make_app()).commands["export"].commands  # type: ignore[attr-defined]
    flags = {name: {p.opts[0] for p in command.params} - {"--help"} for name, command in commands.items()}
    every = {"build", "--out", "--view", "--json"}
    numbered = {"--target", "--order"}
    assert flags["mmaction2"] == flags["vjepa2"] == every | numbered | {"--extract"}
    assert flags["wids"] == flags["energon"] == flags["hf"] == every
    assert flags["croissant"] == every | numbered
    assert flags["csv"] == every | {"--target", "--planned"}
    assert flags["model"] == {"--out", "--from", "--force", "--set", "--json"}
