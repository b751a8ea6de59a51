"""Scores during training: of the weights as they are, and of their running average."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from k710.shards.index import ShardIndex, View
from uniformerv2.config import Recipe
from uniformerv2.scores import ViewScore, score_view
from uniformerv2.training.carried import Carried
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.metrics import Validation
from uniformerv2.training.stopping import StopFlag


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationView:
    """What is scored during training."""

    index: ShardIndex
    """The build that has the view."""
    view: View
    """Its clips."""
    targets: npt.NDArray[np.int64]
    """Class of each planned position in the order of the head; -1: none."""


def validate(scored: ValidationView, carried: Carried, recipe: Recipe, ranks: Ranks, stop: StopFlag) -> Validation:
    """The scores, the same on every rank, in fp32 as in the published validation; nothing that is carried changes.

    Raises:
        ScoringStoppedError: a rank was asked to stop; what was scored until then is lost.
    """
    own = _score(scored, carried, recipe, ranks, stop)
    average = None
    if carried.ema is not None:
        with carried.ema.in_place_of(carried.model):
            average = _score(scored, carried, recipe, ranks, stop)
    return Validation(
        view=scored.view.name,
        clips=own.scored,
        top1=own.top1,
        top5=own.top5,
        ema_top1=average.top1 if average is not None else None,
        ema_top5=average.top5 if average is not None else None,
        not_finite=own.not_finite,
        ema_not_finite=average.not_finite if average is not None else 0,
    )


def _score(scored: ValidationView, carried: Carried, recipe: Recipe, ranks: Ranks, stop: StopFlag) -> ViewScore:
    """One test clip and the centre crop of each, as in the published validation."""
    try:
        return score_view(
            carried.model,
            scored.index,
            scored.view,
            targets=scored.targets,
            clips=1,
            crops=1,
            workers=recipe.data.workers,
            ranks=ranks,
            views_per_batch=recipe.data.micro_batch,
            sampling=recipe.data.sampling,
            stride=recipe.data.stride,
            decoder=recipe.data.decoder,
            stop=stop,
        )
    finally:
        if carried.sharded:
            # What was gathered for this pass is not looked at again once other weights stand in its place.
            carried.model.reshard()  # type: ignore[operator]
