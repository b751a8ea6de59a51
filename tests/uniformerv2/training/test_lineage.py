"""What weights have seen, and the leaks in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from k710.errors import AnswerIsNo, CheckpointError, UsageError
from k710.segments import id_hash
from k710.shards.index import ShardIndex
from uniformerv2.lineage import add_to_lineage, hashed, held_out_lists, lineage_of
from uniformerv2.training import checkpoint
from uniformerv2.training.checkpoint import MODEL_FILE, Provenance, lineage_path, save_model
from uniformerv2.training.classes import ClassTable
from uniformerv2.training.lineage import (
    Lineage,
    overlaps,
    own_lists,
    read_lineage,
    refuse_leaks,
    write_lineage,
)


def hashes(*ids: str) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(sorted(map(id_hash, ids)), dtype=np.uint64)


def test_a_lineage_comes_back_from_its_file(tmp_path: Path) -> None:
    lineage = Lineage(not_checked=("k700:train",)).with_view("k710-train", hashes("a", "b")).with_view("x", hashes("c"))
    digest = write_lineage(tmp_path / "model.lineage.parquet", lineage)
    back = read_lineage(tmp_path / "model.lineage.parquet", digest=digest, known=True, not_checked=["k700:train"])
    assert back.statement == lineage.statement
    assert back.count_in(hashes("a", "c", "d")) == 2


def test_a_missing_lineage_file_means_unknown(tmp_path: Path) -> None:
    lineage = read_lineage(tmp_path / "none.parquet", digest="", known=True, not_checked=[])
    assert not lineage.known
    assert "lineage unknown" in lineage.statement


def test_another_models_lineage_is_refused(tmp_path: Path) -> None:
    write_lineage(tmp_path / "model.lineage.parquet", Lineage().with_view("x", hashes("a")))
    with pytest.raises(CheckpointError, match="digests differ"):
        read_lineage(tmp_path / "model.lineage.parquet", digest="0" * 64, known=True, not_checked=[])


def test_once_unknown_stays_unknown_after_more_training() -> None:
    lineage = Lineage(known=False).with_view("k400-train", hashes("a"))
    assert lineage.statement.startswith("lineage unknown")
    assert lineage.statement.endswith("; known: k400-train (1 videos)")


def test_a_lineage_survives_plain_values() -> None:
    lineage = Lineage(not_checked=("k700:train",)).with_view("x", hashes("a", "b"))
    back = Lineage.from_plain(lineage.to_plain())
    assert back.statement == lineage.statement
    assert np.array_equal(back.views["x"], lineage.views["x"])


def test_a_leak_into_the_targets_own_list_is_refused_by_name(build: Path) -> None:
    index = ShardIndex(build)
    seen = Lineage().with_view("k710-train", hashes("valid000000", "valid000001", "train000000"))
    found = overlaps(seen, index, own_lists(index, "k400", ("k400",)))
    with pytest.raises(AnswerIsNo, match="leak into k400: k710-train has 2 videos of k400:val") as caught:
        refuse_leaks(found, "k400")
    assert "--allow-leaks" in caught.value.hint


def test_overlap_with_another_targets_list_is_reported_and_no_error(build: Path) -> None:
    index = ShardIndex(build)
    seen = Lineage().with_view("k710-train", hashes("holds000000"))
    found = overlaps(seen, index, own_lists(index, "k400", ("k400",)))
    refuse_leaks(found, "k400")
    assert [(o.held_out, o.videos, o.own) for o in found] == [("k600:holdout", 1, False)]


def test_k710_must_not_see_any_protected_list(build: Path) -> None:
    index = ShardIndex(build)
    assert own_lists(index, "k710", ()) == ("k400:val", "k600:holdout")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file that has seen two videos of ``k710-train``."""
    lineage = Lineage(not_checked=("k700:train",)).with_view("k710-train", hashes("train000000", "valid000001"))
    classes = ClassTable(taxonomy="k400", names=("abseiling", "zumba"))
    config = {"recipe": {"model": {"width": 16}}}
    path = tmp_path / "run" / MODEL_FILE
    save_model(
        path,
        {"weight": torch.arange(6.0).view(2, 3)},
        Provenance(config=config, classes=classes, data_digest="d", lineage=lineage),
    )
    return path


def test_a_lineage_is_counted_against_lists(model: Path, build: Path) -> None:
    lists = held_out_lists(build)
    assert sorted(lists) == ["k400:val", "k600:holdout"]
    found = lineage_of(model.parent, against=lists)
    assert (found.known, found.views, found.videos) == (True, {"k710-train": 2}, 2)
    assert found.not_checked == ("k700:train",)
    assert [(one.name, one.videos, one.seen) for one in found.against] == [("k400:val", 6, 1), ("k600:holdout", 2, 0)]


def test_lists_are_added_to_new_weights_and_the_old_ones_stay(model: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in model.parent.iterdir()}
    out = tmp_path / "new.safetensors"
    lists = {"list": hashed(["train000000", "train000009", "train000009"])}
    found = add_to_lineage(model, out, lists, against={"l": lists["list"]})
    assert found.views == {"k710-train": 2, "list (added)": 2}
    assert (found.videos, found.added, found.against[0].seen) == (3, 1, 2)
    again = lineage_of(out)
    assert (again.views, again.known, again.not_checked) == (found.views, True, ("k700:train",))
    assert again.checkpoint_sha256 == found.checkpoint_sha256
    assert torch.equal(load_file(out)["weight"], load_file(model)["weight"])
    assert {path.name: path.read_bytes() for path in model.parent.iterdir()} == before


def test_an_unknown_lineage_stays_so_until_the_user_says_that_it_is_complete(model: Path, tmp_path: Path) -> None:
    lineage_path(model).unlink()
    lists = {"list": hashed(["a"])}
    part = add_to_lineage(model, tmp_path / "part.safetensors", lists)
    assert (part.known, part.views) == (False, {"list (added)": 1})
    whole = add_to_lineage(tmp_path / "part.safetensors", tmp_path / "whole.safetensors", lists, complete=True)
    assert (whole.known, whole.added) == (True, 0)
    assert (
        lineage_of(tmp_path / "whole.safetensors").statement == "seen: list (added) (1 videos); not checked: k700:train"
    )


def test_weights_that_are_not_ours_have_no_lineage_and_are_not_given_one(tmp_path: Path) -> None:
    foreign = tmp_path / "published.safetensors"
    save_file({"transformer.temporal_cls_token": torch.zeros(2)}, foreign)
    assert lineage_of(foreign).statement.startswith("lineage unknown")
    with pytest.raises(CheckpointError, match="does not say what model and classes it is of") as caught:
        add_to_lineage(foreign, tmp_path / "new.safetensors", {"list": hashed(["a"])})
    assert "k710 finetune --epochs 0" in caught.value.hint
    assert not (tmp_path / "new.safetensors").exists()


def test_no_file_is_replaced_by_weights_with_a_longer_lineage(model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    for out, said in (
        (tmp_path / "new.pt", "is written as a model file"),
        (tmp_path / "mine.safetensors", "exists"),
        (model, "is a file of the weights or of their run"),
        (model.with_name("model_best.safetensors"), "is a file of the weights or of their run"),
    ):
        with pytest.raises(UsageError, match=said):
            add_to_lineage(model, out, {"list": hashed(["a"])})


def test_whatever_ends_the_writing_leaves_no_weights_beside_another_lineage(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, lists = tmp_path / "new.safetensors", {"list": hashed(["a"])}

    def ended(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.safetensors.torch, "save_file", ended)
        with pytest.raises(KeyboardInterrupt):
            add_to_lineage(model, out, lists)
    assert lineage_path(out).is_file()
    assert not out.exists()
    assert add_to_lineage(model, out, lists).views == lineage_of(out).views


def test_ids_are_hashed_as_builds_hash_them() -> None:
    assert hashed(["b", "a", "b"]).tolist() == sorted([id_hash("a"), id_hash("b")])
    assert hashed(["a"], "opaque").tolist() == [id_hash("a", "opaque")]
