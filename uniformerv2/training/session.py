"""What pre-training and fine-tuning share: leak check, run folder, feed, loop, final weights."""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from k710.errors import UsageError
from k710.labels import LabelMap
from k710.shards.index import View
from uniformerv2.data.feed import ClipBytes, RestOfRun, TrainClips, running, train_loader
from uniformerv2.data.order import OBJECT_STORE_WINDOW, Batching, Order
from uniformerv2.training.checkpoint import (
    CHECKPOINT_FILE,
    MODEL_FILE,
    Checkpoint,
    Provenance,
    RunState,
    go_on,
    load_checkpoint,
)
from uniformerv2.training.classes import ClassTable
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.engine import Job, train
from uniformerv2.training.folder import open_run
from uniformerv2.training.lineage import Lineage, Overlap, overlaps, own_lists, refuse_leaks
from uniformerv2.training.metrics import OnProgress
from uniformerv2.training.optim import make_optimizer
from uniformerv2.training.stopping import stop_flag
from uniformerv2.training.task import RunSummary, Task
from uniformerv2.training.writer import Writer


def run(task: Task, ranks: Ranks, on_progress: OnProgress) -> RunSummary:
    """Bring the run of ``task`` to its end, from wherever it is."""
    with ExitStack() as guard:
        return _run(task, ranks, on_progress, guard)


def _run(task: Task, ranks: Ranks, on_progress: OnProgress, guard: ExitStack) -> RunSummary:
    began = time.perf_counter()
    found = _check_leaks(task, task.lineage)
    feed = _feed_of(task, ranks)  # before the folder is made: a batch that does not fit leaves nothing behind
    went_on = ranks.from_first(
        lambda: open_run(task.out, task.settings, resume=task.resume, fresh=task.fresh, guard=guard)
    )
    saved = load_checkpoint(task.out / CHECKPOINT_FILE) if _has(CHECKPOINT_FILE, task, ranks, went_on) else None
    if saved is not None:
        found = _check_leaks(task, saved.provenance.lineage)
    # Final weights are only written at the end; a checkpoint that is gone since was removed to make room.
    finished_before = _has(MODEL_FILE, task, ranks, went_on)
    trained = finished_before or (saved is not None and saved.state.epoch >= task.recipe.optim.epochs)
    state = _state(task, feed, saved, trained=trained)
    writer = Writer(task, saved.provenance if saved is not None and trained else _provenance(task, saved, feed), ranks)
    if not finished_before:
        state = _train(task, feed, state, saved, writer, ranks, on_progress)
        ranks.from_first(writer.finish)
    return RunSummary(
        command=task.command,
        target=task.target,
        out=task.out,
        model=writer.model_path,
        view=task.view.name if task.view else None,
        data_digest=state.data_digest,
        epochs=task.recipe.optim.epochs,
        steps=state.step,
        clips_per_epoch=feed.order.num_clips if feed else 0,
        clips_taken_out=len(feed.order.taken_out) if feed else 0,
        holes=writer.holes,
        loss=writer.loss,
        window=state.window,
        seconds=time.perf_counter() - began,
        resumed_at_step=saved.state.step if saved is not None else None,
        already_done=finished_before,
        overlaps=found,
        leaks_allowed=any(o.own for o in found),
        lineage=writer.provenance.lineage.statement,
        not_checked=tuple(task.index.lock.get("not_checked", ())) if task.index else (),
        leaks_checked=task.index is not None and writer.provenance.lineage.known,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Feed:
    order: Order
    batching: Batching
    clips: TrainClips


def _check_leaks(task: Task, lineage: Lineage) -> tuple[Overlap, ...]:
    """Overlaps of ``lineage`` and the train view with held-out lists; one with the target's own ends the run."""
    if task.index is None:
        return ()
    if task.view is not None:
        lineage = lineage.with_view(task.view.name, task.view.id_hashes)
    found = overlaps(lineage, task.index, own_lists(task.index, task.target, task.releases))
    if not task.allow_leaks:
        refuse_leaks(found, task.target)
    return found


def _has(name: str, task: Task, ranks: Ranks, went_on: bool) -> bool:
    return went_on and ranks.from_first((task.out / name).is_file)


def _feed_of(task: Task, ranks: Ranks) -> _Feed | None:
    if task.index is None or task.view is None:
        return None
    recipe, view = task.recipe, task.view
    labels = target_labels(view, task.target, task.labels)
    window = recipe.data.window
    order = Order(
        seed=recipe.seed,
        view_digest=view.digest,
        num_planned=len(view),
        window=(0 if task.index.store.is_local else OBJECT_STORE_WINDOW) if window < 0 else window,
        taken_out=np.flatnonzero((view.offsets < 0) | (labels < 0)),
    )
    clips = TrainClips(
        clips=ClipBytes(task.index.store, view),
        labels=labels,
        num_frames=recipe.model.num_frames,
        size_px=recipe.size_px,
        augment=recipe.augment,
        seed=recipe.seed,
        repeats=recipe.data.repeats,
    )
    batching = Batching(
        num_clips=order.num_clips,
        global_batch=recipe.data.global_batch,
        micro_batch=recipe.data.micro_batch,
        world=ranks.world,
    )
    return _Feed(order=order, batching=batching, clips=clips)


def target_labels(view: View, target: str, labels: LabelMap) -> npt.NDArray[np.int64]:
    """Index in ``target`` of each clip's class; -1 where the view has no class for it.

    Raises:
        UsageError: the view has classes that the target lacks.
    """
    index = np.array([-1 if (i := labels.index_in(target, c)) is None else i for c in range(len(labels.rows))])
    outside = (view.classes >= 0) & (index[view.classes] < 0)
    if outside.any():
        name = labels.rows[int(view.classes[outside][0])].name
        raise UsageError(
            f"view {view.name} has {int(outside.sum())} clips of classes that {target} lacks, such as {name!r}",
            hint="name a view of the same taxonomy",
        )
    return np.where(view.classes < 0, -1, index[view.classes])


def _state(task: Task, feed: _Feed | None, saved: Checkpoint | None, *, trained: bool) -> RunState:
    """Where the run is, ``trained`` to its end or not."""
    if saved is not None and trained:
        return saved.state
    now = RunState(
        view_digest=task.view.digest if task.view else "",
        data_digest=task.view.data_digest if task.view else "",
        window=feed.order.window if feed else 0,
        taken_out_digest=feed.order.taken_out_digest if feed else "",
        global_batch=task.recipe.data.global_batch,
    )
    if saved is not None:
        return go_on(saved.state, now, restart_epoch=task.recipe.runtime.restart_epoch)
    if trained and feed is not None:
        epochs = task.recipe.optim.epochs
        return dataclasses.replace(now, epoch=epochs, step=epochs * feed.batching.steps_per_epoch)
    return now


def _train(
    task: Task,
    feed: _Feed | None,
    state: RunState,
    saved: Checkpoint | None,
    writer: Writer,
    ranks: Ranks,
    on_progress: OnProgress,
) -> RunState:
    recipe = task.recipe
    task.model.to(ranks.device)
    task.model.recompute_layers(recipe.runtime.recompute_layers, every=recipe.runtime.recompute_every)
    optimizer = make_optimizer(task.model, recipe.optim)
    if saved is not None:
        task.model.load_state_dict(saved.model)
        optimizer.load_state_dict(saved.optimizer)
    if feed is None or state.epoch >= recipe.optim.epochs:
        return state
    if recipe.runtime.compile:
        task.model.compile_blocks()
    rest = RestOfRun(
        feed.order,
        feed.batching,
        rank=ranks.rank,
        epoch=state.epoch,
        step_in_epoch=state.step_in_epoch,
        epochs=recipe.optim.epochs,
    )
    loader = train_loader(feed.clips, rest, workers=recipe.data.workers, pin=ranks.device.type == "cuda")
    with stop_flag() as stop, running(loader) as batches:
        writer.begin(state, optimizer, stop)
        job = Job(
            model=task.model,
            optimizer=optimizer,
            recipe=recipe,
            batches=batches,
            accumulation=feed.batching.accumulation,
            steps_per_epoch=feed.batching.steps_per_epoch,
            num_clips=feed.order.num_clips,
            ranks=ranks,
        )
        return train(job, state, stop, writer.after_step, on_progress)


def _provenance(task: Task, saved: Checkpoint | None, feed: _Feed | None) -> Provenance:
    lineage = saved.provenance.lineage if saved is not None else task.lineage
    if feed is not None and task.view is not None and task.index is not None:
        trained = np.setdiff1d(np.arange(len(task.view)), feed.order.taken_out)
        unchecked = tuple(task.index.lock.get("not_checked", ()))
        lineage = lineage.with_view(task.view.name, task.view.id_hashes[trained], unchecked)
    return Provenance(
        config=task.settings,
        classes=ClassTable.of(task.labels, task.target),
        data_digest=task.view.data_digest if task.view else "",
        lineage=lineage,
    )
