"""`k710 compare` on the command line: what is printed, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]

CLASSES = ["abseiling", "zumba"]


def document(ranks: dict[str, int], **changes: Any) -> dict[str, Any]:
    """A report as ``k710 evaluate --out`` writes it, of clips of class 0 and the ranks that it has."""
    predictions = [
        {"key": key, "label": 0, "predicted": int(rank > 1), "rank": rank, "any_of": rank == 1}
        for key, rank in ranks.items()
    ]
    right = sum(rank == 1 for rank in ranks.values()) / len(ranks)
    plain = {
        "schema_version": 2,
        "view": "k400-val",
        "taxonomy": "k400",
        "top1": right,
        "top5": 1.0,
        "any_of_top1": None,
        "chance": 1.0,
        "mean_class_top1": right,
        "clips_scored": len(ranks),
        "clips_listed": len(ranks),
        "clips_without_bytes": 0,
        "clips_without_class": 0,
        "failed": [],
        "lineage": "seen: k400-train (8 videos)",
        "seen_videos": 0,
        "seen_at_least": 0,
        "classes": [
            {"index": 0, "name": "[red]abseiling", "clips": len(ranks), "top1": right, "top5": 1.0, "predicted": 1}
        ],
        "confusions": [],
        "predictions": predictions,
        "test_clips": 4,
        "test_crops": 3,
        "test_views_from": "the default",
        "frame_sampling": "sparse",
        "settings": {},
        "model": {},
        "checkpoint": "model.safetensors",
        "checkpoint_sha256": str(ranks),
        "trained_on": "",
        "view_digest": "v",
        "data_digest": "d",
        "versions": {},
        "seconds": 1.0,
    }
    return plain | changes


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two reports of 40 clips; the second has six more right, and one clip of its own."""
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_text(json.dumps(document({f"clip{i:02d}": 1 if i < 20 else 3 for i in range(40)})))
    b.write_text(json.dumps(document({f"clip{i:02d}": 1 if i < 26 else 3 for i in range(41)})))
    return a, b


def test_the_difference_is_printed_with_its_interval(k710: Run, two: tuple[Path, Path]) -> None:
    code, out, err = k710("compare", *two)
    assert (code, err) == (0, "")
    assert "clips that both have scored: 40" in out
    assert "| top-1 |  50.00% |  65.00% |        +15.00 | +5.00 to +27.50 |" in out
    assert "| top-5 | 100.00% | 100.00% |         +0.00 |  +0.00 to +0.00 |" in out
    assert "| clips           |   20 |      0 |      6 |      14 |" in out
    assert "[red]abseiling" in out
    assert "only in B: 1 of its clips: clip40" in out
    assert "10,000 resamples, seed 0" in out


def test_all_of_it_is_there_as_json(k710: Run, two: tuple[Path, Path]) -> None:
    code, out, _ = k710("compare", *two, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["agreement"] == {"both": 20, "only_a": 0, "only_b": 6, "neither": 14}
    assert found["only_b"] == ["clip40"]


def test_what_makes_the_two_less_comparable_goes_to_stderr(k710: Run, two: tuple[Path, Path], tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    seen.write_text(json.dumps(json.loads(two[1].read_text()) | {"seen_videos": 4, "test_crops": 1}))
    code, _, err = k710("compare", two[0], seen)
    assert code == 0
    assert "WARNING: the test views differ: 4 x 3 and 4 x 1 (clips x crops)" in err
    assert "WARNING: B: the weights have seen 4 videos of k400-val" in err


def test_what_cannot_be_compared_ends_with_3_and_what_is_missing_with_2(
    k710: Run, two: tuple[Path, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps(json.loads(two[1].read_text()) | {"taxonomy": "k710"}))
    code, _, err = k710("compare", two[0], other)
    assert (code, "is scored in the classes of k400" in err) == (3, True)
    code, _, err = k710("compare", two[0], tmp_path / "none.json")
    assert (code, "cannot be read" in err) == (2, True)
