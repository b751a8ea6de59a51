"""`k710 lineage` on the command line: what weights have seen, counted against lists, and lists added."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from k710.shards.index import ShardIndex
from uniformerv2.training.checkpoint import MODEL_FILE, Provenance, lineage_path, save_model
from uniformerv2.training.classes import ClassTable
from uniformerv2.training.lineage import Lineage

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def model(built: Path, tmp_path: Path) -> Path:
    """Weights that have seen the train view of the toy."""
    view = ShardIndex(built).view("k710-train")
    provenance = Provenance(
        config={"recipe": {"model": {}}},
        classes=ClassTable(taxonomy="k710", names=("abseiling",)),
        data_digest=view.data_digest,
        lineage=Lineage().with_view(view.name, view.id_hashes),
    )
    save_model(tmp_path / "run" / MODEL_FILE, {"weight": torch.zeros(2)}, provenance)
    return tmp_path / "run" / MODEL_FILE


@pytest.fixture
def held_out(toy: Path) -> Path:
    """The validation list of Kinetics-400."""
    return toy / "annotations" / "kinetics400" / "val.csv"


def ids_in(path: Path) -> set[str]:
    with path.open(newline="") as handle:
        return {row["youtube_id"] for row in csv.DictReader(handle)}


def test_a_lineage_is_printed(k710: Run, model: Path) -> None:
    num = len(set(Lineage.from_plain(plain_lineage(model)).all_hashes.tolist()))
    code, out, _ = k710("lineage", model.parent)
    assert code == 0
    assert out.splitlines() == [f"seen: k710-train ({num} videos)", f"  k710-train: {num} videos"]
    code, out, _ = k710("lineage", model, "--json")
    assert (json.loads(out)["known"], json.loads(out)["views"]) == (True, {"k710-train": num})


def plain_lineage(model: Path) -> dict[str, object]:
    from uniformerv2.training.source import read_source

    return read_source(model).lineage.to_plain()


def test_it_is_counted_against_a_build_a_view_and_a_list(k710: Run, model: Path, built: Path, held_out: Path) -> None:
    code, out, _ = k710("lineage", model, "--against", built, "--against", f"{built}:k710-train", "--against", held_out)
    lines = out.splitlines()
    assert code == 0
    num = len(ids_in(held_out))
    assert f"{built} k400:val: 0 of {num} videos seen" in lines
    train = plain_lineage(model)["views"]["k710-train"].numel()  # type: ignore[index]
    assert f"{built}:k710-train: {train} of {train} videos seen" in lines
    assert lines[-1] == f"{held_out}: 0 of {num} videos seen"


def test_a_list_is_added_to_new_weights(k710: Run, model: Path, held_out: Path, tmp_path: Path) -> None:
    out_file, num = tmp_path / "new.safetensors", len(ids_in(held_out))
    code, out, _ = k710("lineage", model, "--add", held_out, "--out", out_file, "--against", held_out)
    assert code == 0
    assert f"{held_out}: {num} of {num} videos seen" in out
    assert out.splitlines()[-1] == f"done added {num} videos -> {out_file}"
    assert str(tmp_path) not in json.dumps(list(plain_lineage(out_file)["views"]))  # type: ignore[call-overload]
    code, out, _ = k710("lineage", out_file)
    assert f"k400/val.csv (added): {num} videos" in out


def test_a_view_and_the_lists_of_a_folder_are_added_under_their_names(
    k710: Run, model: Path, toy: Path, built: Path, tmp_path: Path
) -> None:
    lists = ("--add", f"{built}:k600-val", "--add", toy / "annotations" / "kinetics400")
    code, out, _ = k710("lineage", model, *lists, "--out", tmp_path / "new.safetensors", "--json")
    assert (code, sorted(json.loads(out)["views"])) == (0, ["k400:train (added)", "k600-val (added)", "k710-train"])


def test_of_an_unknown_lineage_the_count_is_a_least_one_until_it_is_complete(
    k710: Run, model: Path, held_out: Path, tmp_path: Path
) -> None:
    lineage_path(model).unlink()
    num = len(ids_in(held_out))
    _, out, _ = k710("lineage", model, "--against", held_out)
    assert "lineage unknown" in out
    assert out.splitlines()[-1] == f"{held_out}: at least 0 of {num} videos seen"
    code, out, _ = k710("lineage", model, "--add", held_out, "--complete", "--out", tmp_path / "new.safetensors")
    assert (code, out.startswith("seen: k400/val.csv (added)")) == (0, True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--add", "list.csv"), "--add and --out go together"),
        (("--out", "new.safetensors"), "--add and --out go together"),
        (("--complete",), "--add and --out go together"),
        (("--against", "none.csv"), "none.csv: no such file or folder"),
    ],
)
def test_what_makes_no_sense_is_refused(k710: Run, model: Path, flags: tuple[str, ...], said: str) -> None:
    code, _, err = k710("lineage", model, *flags)
    assert (code, said in err) == (2, True)
