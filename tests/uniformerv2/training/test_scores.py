"""Scores of a view: each clip once, by whichever rank, and nothing of a training run disturbed."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from small_build import clips_of_build, write_build

from k710.config import read_toml
from k710.errors import FeedError
from k710.shards.index import ShardIndex, View
from uniformerv2 import UniFormerV2
from uniformerv2.config import resolve_recipe
from uniformerv2.data.augment import test_views as spatial_views
from uniformerv2.data.decode import decode_frames
from uniformerv2.data.feed import Hole
from uniformerv2.data.sampling import eval_indices
from uniformerv2.scores import (
    ScoredBatch,
    Scoring,
    ScoringStoppedError,
    clips_of_view,
    ranks_of_class,
    scorable,
    score_view,
    scored_in_turns,
)
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.feeds import target_labels
from uniformerv2.training.source import new_model
from uniformerv2.training.stopping import StopFlag

CPU = torch.device("cpu")


@pytest.fixture
def index(build: Path) -> ShardIndex:
    return ShardIndex(build)


@pytest.fixture
def model(recipe: str) -> UniFormerV2:
    return new_model(resolve_recipe(read_toml(Path(recipe)), (), where="tiny").model, seed=3)


def score(model: UniFormerV2, index: ShardIndex, **changes: Any):  # type: ignore[no-untyped-def]
    view = index.view("k400-val")
    how = {"clips": 2, "crops": 3, "workers": 0, "ranks": Ranks(device=CPU), "views_per_batch": 12} | changes
    return score_view(model, index, view, targets=target_labels(view, "k710", index.labels), **how)


def scoring(model: UniFormerV2, index: ShardIndex, view: View, **changes: Any) -> Scoring:
    return Scoring(
        **{
            "clips": clips_of_view(model, index, view, clips=2, crops=3, frame_order="source"),
            "positions": scorable(view, target_labels(view, "k710", index.labels)),
            "views_per_batch": 12,
            "workers": 0,
            "ranks": Ranks(device=CPU),
        }
        | changes
    )


def test_test_views_come_in_the_published_order(model: UniFormerV2, index: ShardIndex) -> None:
    # View v of a clip is crop v % crops of test clip v // crops.
    view = index.view("k400-val")
    position, views_VCTHW = clips_of_view(model, index, view, clips=2, crops=3, frame_order="source")[1]  # type: ignore[misc]
    assert (position, views_VCTHW.shape) == (1, (6, 3, 2, 32, 32))
    for number in range(6):
        indices = eval_indices(8, 2, number // 3, 2)
        frames_THWC = decode_frames(index.read_clip(view, 1), indices)
        assert torch.equal(views_VCTHW[number], spatial_views(frames_THWC, 32, 3)[number % 3])


def test_an_accelerator_is_sent_frames_and_makes_the_same_scores_of_them(model: UniFormerV2, index: ShardIndex) -> None:
    view = index.view("k400-val")
    how = {"clips": 2, "crops": 3}
    here = clips_of_view(model, index, view, **how)  # type: ignore[arg-type]
    with torch.device("meta"):
        there = clips_of_view(UniFormerV2(model.config), index, view, **how)  # type: ignore[arg-type]
    assert (here.frames_only, there.frames_only) == (False, True)
    plain, sent = (all_batches(model.eval(), scoring(model, index, view, clips=clips)) for clips in (here, there))
    assert all(np.array_equal(a.scores_NK, b.scores_NK) for a, b in zip(plain, sent, strict=True))


def test_all_ranks_end_at_the_same_turn_when_one_is_told_to_stop(model: UniFormerV2, index: ShardIndex) -> None:
    view = index.view("k400-val")

    def turns(ranks: Ranks) -> list[int]:
        stop, found = StopFlag(), list[int]()
        if ranks.rank == 1:
            stop.signal = signal.SIGTERM
        with pytest.raises(ScoringStoppedError):
            found.extend(map(len, scored_in_turns(model.eval(), scoring(model, index, view, ranks=ranks, stop=stop))))
        return found

    assert on_threads(2, turns) == [[2], [2]]


def test_a_training_run_is_left_as_it_was(model: UniFormerV2, index: ShardIndex) -> None:
    model.train()
    model.transformer.resblocks[0].eval()
    modes = [module.training for module in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state, torch_state = random.getstate(), torch.get_rng_state()
    for workers in (0, 1):
        assert score(model, index, workers=workers).scored == 6
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert random.getstate() == state
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_scores_are_those_of_evaluation_mode(model: UniFormerV2, index: ShardIndex) -> None:
    assert model.config.dropout > 0
    view = index.view("k400-val")
    trained = all_batches(model.train(), scoring(model, index, view))
    evaluated = all_batches(model.eval(), scoring(model, index, view))
    assert all(np.array_equal(a.scores_NK, b.scores_NK) for a, b in zip(trained, evaluated, strict=True))


def test_a_clip_that_cannot_be_read_is_reported_and_not_replaced(
    model: UniFormerV2, tmp_path: Path, drawn: list[bytes]
) -> None:
    clips = [replace(c, data=b"no video") if c.id == "valid000002" else c for c in clips_of_build()]
    found = score(model, ShardIndex(write_build(tmp_path / "holed", clips, drawn)))
    assert found.scored == 5
    assert [hole.position for hole in found.holes] == [2]


def test_a_view_of_which_nothing_can_be_read_has_no_score(
    model: UniFormerV2, tmp_path: Path, drawn: list[bytes]
) -> None:
    clips = [replace(c, data=b"no video") if "valid" in c.id else c for c in clips_of_build()]
    with pytest.raises(FeedError, match="none of the 6 clips of view k400-val could be read"):
        score(model, ShardIndex(write_build(tmp_path / "holed", clips, drawn)))
    gone = [replace(c, status="unavailable") if "valid" in c.id else c for c in clips_of_build()]
    with pytest.raises(FeedError, match="view k400-val has no clip with bytes and a class"):
        score(model, ShardIndex(write_build(tmp_path / "gone", gone, drawn)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Threads(Ranks):
    """Ranks that are threads of one process."""

    barrier: threading.Barrier
    told: dict[int, Any] = field(default_factory=dict)

    def gather(self, value: Any) -> list[Any]:
        self.told[self.rank] = value
        self.barrier.wait(timeout=30)
        found = [self.told[rank] for rank in range(self.world)]
        self.barrier.wait(timeout=30)
        return found


def on_threads(world: int, work: Callable[[Ranks], Any]) -> list[Any]:
    barrier, told = threading.Barrier(world), dict[int, Any]()
    ranks = [_Threads(device=CPU, rank=rank, world=world, barrier=barrier, told=told) for rank in range(world)]
    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(work, ranks))


@pytest.mark.parametrize("world", [2, 3, 8])
def test_each_clip_is_scored_once_to_the_same_bits_whatever_the_number_of_ranks(
    model: UniFormerV2, index: ShardIndex, world: int
) -> None:
    view = index.view("k400-val")
    alone = all_batches(model, scoring(model, index, view, views_per_batch=6))

    def work(ranks: Ranks) -> list[ScoredBatch]:
        return all_batches(model, scoring(model, index, view, views_per_batch=6, ranks=ranks))

    for found in on_threads(world, work):
        assert [batch.positions for batch in found] == [(position,) for position in range(6)]
        assert all(np.array_equal(a.scores_NK, b.scores_NK) for a, b in zip(alone, found, strict=True))


def all_batches(model: UniFormerV2, scoring: Scoring) -> list[ScoredBatch]:
    batches = [batch for turn in scored_in_turns(model, scoring) for batch in turn]
    return sorted(batches, key=lambda batch: batch.number)


def test_batches_that_are_done_are_not_scored_again_and_change_no_other(model: UniFormerV2, index: ShardIndex) -> None:
    view = index.view("k400-val")
    whole = all_batches(model, scoring(model, index, view))
    rest = all_batches(model, scoring(model, index, view, done=frozenset({1})))
    assert [batch.number for batch in whole] == [0, 1, 2]
    assert [batch.number for batch in rest] == [0, 2]
    assert np.array_equal(rest[1].scores_NK, whole[2].scores_NK)


class _Split(torch.nn.Module):
    """A model whose forward pass waits for all ranks, as one whose weights are split over them does."""

    def __init__(self, config: Any, barrier: threading.Barrier) -> None:
        super().__init__()
        self.config, self._barrier = config, barrier
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.weight.full_tensor = None  # type: ignore[attr-defined]

    def forward(self, clip_BCTHW: torch.Tensor) -> torch.Tensor:
        self._barrier.wait(timeout=30)
        return clip_BCTHW.flatten(1)[:, :710]


def test_ranks_take_part_in_the_forward_passes_of_a_model_that_is_split_over_them(
    model: UniFormerV2, tmp_path: Path, drawn: list[bytes]
) -> None:
    # Five batches for two ranks, one of them of holes alone, each of two forward passes.
    clips = [replace(c, data=b"no video") if c.id == "valid000001" else c for c in clips_of_build()]
    clips = [c for c in clips if c.id != "valid000005"]
    index = ShardIndex(write_build(tmp_path / "odd", clips, drawn))
    barrier = threading.Barrier(2)

    def work(ranks: Ranks) -> int:
        return int(score(_Split(model.config, barrier), index, views_per_batch=3, ranks=ranks).scored)  # type: ignore[arg-type]

    assert on_threads(2, work) == [4, 4]


class _Echo(torch.nn.Module):
    """A model whose logits are the first pixels of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, clip_BCTHW: torch.Tensor) -> torch.Tensor:
        return self.scale * clip_BCTHW.flatten(1)[:, :3]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Local:
    is_local: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class _OneClip(torch.utils.data.Dataset[tuple[int, torch.Tensor] | Hole]):
    views: torch.Tensor
    clips: _Local = _Local()
    num_clips: int = 3
    num_crops: int = 1
    frames_only: bool = False

    def __getitem__(self, position: int) -> tuple[int, torch.Tensor]:
        return position, self.views


@pytest.mark.parametrize("views_per_batch", [1, 2, 3])
def test_the_score_of_a_clip_is_the_mean_softmax_of_its_test_views(views_per_batch: int) -> None:
    # One view is very sure of class 0, two are a little surer of class 1: the mean of the logits would say 0.
    logits_VK = torch.tensor([[9.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 2.0, 0.0]])
    how = Scoring(
        clips=_OneClip(views=logits_VK.view(3, 3, 1, 1, 1)),  # type: ignore[arg-type]
        positions=(7,),
        views_per_batch=views_per_batch,
        workers=0,
        ranks=Ranks(device=CPU),
    )
    (batch,) = all_batches(_Echo(), how)  # type: ignore[arg-type]
    assert batch.positions == (7,)
    np.testing.assert_allclose(batch.scores_NK[0], logits_VK.softmax(dim=1).mean(dim=0).numpy(), rtol=1e-6)
    assert int(batch.scores_NK.argmax()) == 1


@given(
    scores_NK=arrays.arrays(np.float32, (4, 6), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])),
    labels=st.lists(st.integers(0, 5), min_size=4, max_size=4),
)
def test_the_place_of_a_class_is_that_of_a_stable_sort(scores_NK: npt.NDArray[np.float32], labels: list[int]) -> None:
    order_NK = (-scores_NK).argsort(axis=1, kind="stable")
    expected = [list(order).index(label) + 1 for order, label in zip(order_NK, labels, strict=True)]
    assert ranks_of_class(scores_NK, np.array(labels)).tolist() == expected


def test_a_score_that_is_no_number_is_never_right() -> None:
    nan = float("nan")
    scores_NK = np.array([[nan, nan, nan], [nan, 0.2, 0.1], [0.5, nan, 0.1]], dtype=np.float32)
    assert (ranks_of_class(scores_NK, np.array([0, 0, 1])) > 1).all()
    assert ranks_of_class(scores_NK, np.array([2, 1, 0]))[1:].tolist() == [2, 2]
