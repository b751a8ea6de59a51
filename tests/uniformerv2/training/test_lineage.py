"""What weights have seen, and the leaks in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from k710.errors import AnswerIsNo, CheckpointError
from k710.segments import id_hash
from k710.shards.index import ShardIndex
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
    assert lineage.statement.endswith("; since then k400-train (1 videos)")


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
