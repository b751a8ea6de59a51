"""What pre-training and fine-tuning share: leak check, run folder, feed, loop, final weights."""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack

from uniformerv2.data.streaming import RESUME_NOTE
from uniformerv2.data.torchcodec_check import require_decoder
from uniformerv2.training.carried import carry
from uniformerv2.training.checkpoint import (
    MODEL_FILE,
    Checkpoint,
    Provenance,
    RunState,
    go_on,
    nowhere,
)
from uniformerv2.training.classes import ClassTable
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.engine import train
from uniformerv2.training.feature_plan import FeaturePlan, plan_features
from uniformerv2.training.feeds import Feed, indexed_feed, streamed_feed, target_labels
from uniformerv2.training.folder import open_run
from uniformerv2.training.job import Job
from uniformerv2.training.lineage import Lineage, Overlap, overlaps, own_lists, refuse_leaks
from uniformerv2.training.metrics import OnProgress, Progress
from uniformerv2.training.saves import Saves
from uniformerv2.training.scaling import with_precision
from uniformerv2.training.stopping import stop_flag
from uniformerv2.training.task import RunSummary, Task
from uniformerv2.training.validation import ValidationView, validate
from uniformerv2.training.writer import Writer


def run(task: Task, ranks: Ranks, on_progress: OnProgress) -> RunSummary:
    """Bring the run of ``task`` to its end, from wherever it is."""
    task = dataclasses.replace(task, recipe=with_precision(task.recipe, ranks.device))
    with ExitStack() as guard:
        return _run(task, ranks, on_progress, guard)


def _run(task: Task, ranks: Ranks, on_progress: OnProgress, guard: ExitStack) -> RunSummary:
    began = time.perf_counter()
    found = _check_leaks(task, task.lineage)
    # Before the folder is made: a batch that does not fit, or a view that is not there, leaves nothing behind.
    feed, scored = _feed_of(task, ranks), _scored(task)
    went_on = ranks.from_first(
        lambda: open_run(task.out, task.settings, resume=task.resume, fresh=task.fresh, guard=guard)
    )
    saves = Saves(task.out, task.recipe.runtime.keep_checkpoints)
    saved = saves.newest() if went_on else None
    if said := (*saves.said, *_unused(task)):
        on_progress(Progress(stage="train", step=saved.state.step if saved else 0, total_steps=0, said=said))
    if saved is not None:
        found = _check_leaks(task, saved.provenance.lineage)
    # Final weights are only written at the end; a checkpoint that is gone since was removed to make room.
    finished_before = _has(MODEL_FILE, task, ranks, went_on)
    trained = finished_before or (saved is not None and saved.state.epoch >= task.recipe.optim.epochs)
    state = _state(task, feed, saved, trained=trained)
    provenance = saved.provenance if saved is not None and trained else _provenance(task, saved, feed)
    writer = Writer(task, provenance, ranks, saves, saved)
    guard.callback(writer.close)
    if not finished_before:
        state = _train(task, feed, scored, state, saved, writer, ranks, on_progress)
        writer.finish()
    holes, loss = writer.totals()
    return RunSummary(
        command=task.command,
        target=task.target,
        out=task.out,
        model=writer.model_path,
        view=feed.name if feed else None,
        data_digest=state.data_digest,
        epochs=task.recipe.optim.epochs,
        steps=state.step,
        clips_per_epoch=feed.batching.num_clips if feed else 0,
        clips_taken_out=feed.num_taken_out if feed else 0,
        holes=holes,
        loss=loss,
        window=state.window,
        seconds=time.perf_counter() - began,
        resumed_at_step=saved.state.step if saved is not None else None,
        already_done=finished_before,
        overlaps=found,
        leaks_allowed=any(o.own for o in found),
        lineage=writer.provenance.lineage.statement,
        not_checked=tuple(task.index.lock.get("not_checked", ())) if task.index else (),
        leaks_checked=task.index is not None and writer.provenance.lineage.known,
        said=(*saves.said, *writer.said),
    )


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


def _unused(task: Task) -> tuple[str, ...]:
    """What was asked for and does nothing, a sentence each."""
    if task.reading.cache is None:
        return ()
    if task.index is None:
        return (f"--cache {task.reading.cache}: not used, streamed shards are not kept",)
    if task.index.store.is_local:
        return (f"--cache {task.reading.cache}: not used, the build is on a local disk already",)
    return ()


def _has(name: str, task: Task, ranks: Ranks, went_on: bool) -> bool:
    return went_on and ranks.from_first((task.out / name).is_file)


def _feed_of(task: Task, ranks: Ranks) -> Feed | None:
    require_decoder(task.recipe.data.decoder)
    if task.stream is not None:
        return streamed_feed(task.stream, task.recipe, ranks.world)
    if task.index is None or task.view is None:
        return None
    labels = target_labels(task.view, task.target, task.labels)
    return indexed_feed(task.index, task.view, labels, task.recipe, task.reading, ranks.world)


def _scored(task: Task) -> ValidationView | None:
    name = task.recipe.validation.view
    if not name or task.index is None:
        return None
    view = task.index.view(name)
    return ValidationView(index=task.index, view=view, targets=target_labels(view, task.target, task.labels))


def _state(task: Task, feed: Feed | None, saved: Checkpoint | None, *, trained: bool) -> RunState:
    """Where the run is, ``trained`` to its end or not."""
    if saved is not None and trained:
        return saved.state
    now = feed.start() if feed else nowhere(task.recipe.data.global_batch)
    if saved is not None:
        return go_on(saved.state, now, restart_epoch=task.recipe.runtime.restart_epoch)
    if trained and feed is not None:
        epochs = task.recipe.optim.epochs
        return dataclasses.replace(now, epoch=epochs, step=epochs * feed.batching.steps_per_epoch)
    return now


def _train(
    task: Task,
    feed: Feed | None,
    scored: ValidationView | None,
    state: RunState,
    saved: Checkpoint | None,
    writer: Writer,
    ranks: Ranks,
    on_progress: OnProgress,
) -> RunState:
    carried = carry(task, ranks, saved)
    if feed is None:
        return state
    if task.recipe.runtime.compile:
        task.model.compile_blocks()

    def say(*said: str) -> None:
        on_progress(Progress(stage="train", step=state.step, total_steps=0, said=said))

    if not feed.stops_inside:
        say(RESUME_NOTE, *(("nothing is scored meanwhile: no build is read",) if task.recipe.validation.view else ()))
    plan = plan_features(task, feed, carried.model, ranks, epoch=state.epoch, say=say)
    if plan is not None:
        feed = plan.feed
    with ExitStack() as running_now:
        stop = running_now.enter_context(stop_flag())
        batches = running_now.enter_context(feed.batches(task.recipe, state, ranks))
        if plan is not None:
            batches = running_now.enter_context(plan.features.batches(batches, say))
        writer.begin(
            state,
            stop,
            feed,
            held=lambda: carried.held(ranks),
            validate=None if scored is None else lambda: validate(scored, carried, task.recipe, ranks, stop),
        )
        job = Job(
            model=carried.model,
            optimizer=carried.optimizer,
            recipe=task.recipe,
            batches=batches,
            accumulation=feed.batching.accumulation,
            steps_per_epoch=feed.batching.steps_per_epoch,
            num_clips=feed.batching.num_clips,
            ranks=ranks,
            guard=carried.guard,
            ema=carried.ema,
            features=plan.features if plan is not None else None,
            sharded=carried.sharded,
        )
        state = train(job, state, stop, writer.after_step, lambda progress: on_progress(writer.shown(progress)))
    writer.said += _damaged_features(plan, ranks)
    return state


def _damaged_features(plan: FeaturePlan | None, ranks: Ranks) -> tuple[str, ...]:
    """How many kept features were not as they were written, over all ranks, in a sentence."""
    if plan is None or not (damaged := sum(ranks.gather(plan.features.damaged))):
        return ()
    return (f"{damaged:,} files of features were damaged and computed again",)


def _provenance(task: Task, saved: Checkpoint | None, feed: Feed | None) -> Provenance:
    lineage = saved.provenance.lineage if saved is not None else task.lineage
    if feed is not None:
        lineage = feed.seen(lineage)
    return Provenance(
        config=task.settings,
        classes=ClassTable.of(task.labels, task.target),
        data_digest=feed.start().data_digest if feed else "",
        lineage=lineage,
    )
