"""The benchmark of the decoders measures both, on frames that are the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import decoders
import pytest
from feed import Clip

from k710.errors import UsageError
from uniformerv2.data.decode import Pixels, decode_frames
from uniformerv2.data.torchcodec_library import load


@pytest.fixture(scope="module")
def clip(shared: Path) -> Clip:
    try:
        load()
    except UsageError as error:
        pytest.skip(f"{error.message} ({error.hint})")
    return Clip(path=shared / "videos/kinetics_340x256_28fps.mp4", num_source=280)


def test_both_decoders_are_measured(clip: Clip) -> None:
    spent = decoders.measure([clip], 8, rounds=1)
    assert sorted(spent) == ["pyav", "torchcodec"]
    row = {"encoding": "default", "frames": 8, **spent}
    text = decoders.table({"clips": ["a"], "rounds": 1, "torchcodec": "0", "cpu_ms": [row]})
    assert text.splitlines()[-1].startswith(f"| default | 8 | {spent['pyav']:.1f} |")


def test_decoders_that_disagree_are_not_measured(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(data: bytes, indices: Sequence[int]) -> Pixels:
        return decode_frames(data, indices) ^ 1

    monkeypatch.setattr(decoders, "DECODERS", {"pyav": decode_frames, "torchcodec": other})
    with pytest.raises(AssertionError):
        decoders.measure([clip], 2, rounds=1)
