"""A build on many machines, clip by clip, as discrete events: the array executor and Ray as they are built.

array   Task i has every n-th shard in order of name. A free node takes the next task, reads the lists, and its workers
        share the clips of the task; one process of the task commits them and packs its shards. A task that lost its
        node starts again where it was, once its claim on the folder has run out.
ray     All workers share one queue of clips; one process on one machine commits and packs all of them.

A worker has the clip that it is at and one more, so it waits when what it made before the last has not been committed.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

Events = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Machines, and what befalls them."""

    nodes: int
    """Machines."""
    workers: int
    """Clips that each makes at a time."""
    speeds: tuple[float, ...] = ()
    """Of each node, 1 for one on which the clips were measured; empty: all are 1."""
    lost_every_s: float = math.inf
    """Mean time between two losses of one node: a crash, or its owner takes it back."""
    away_s: float = 0.0
    """Until it, or one in its place, is there again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """What a task and a clip cost beside the making of the clip, in seconds at speed 1."""

    start_s: float = 0.0
    """From the start of a task to its first clip: lists, folders of videos, ledger."""
    commit_s: float = 0.0
    """Of the one process that commits, for a clip."""
    batch_s: float = 0.0
    """Of the same process, for all the clips together that were done while it was at those before."""
    pack_s: float = 0.0
    """Of the same process, for a clip that goes into a shard."""
    claim_s: float = 0.0
    """How long the claim of a task that lost its node keeps the next run of it out."""
    finish_s: float = 0.0
    """The index and the audit, once all is there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Requests:
    """What an object store is asked for, and how much of that it takes."""

    source_reads: int = 0
    """Before a clip is made."""
    clip_writes: int = 0
    """When it is made."""
    packed_reads: int = 0
    """For a clip, when its shard is packed."""
    packed_writes: int = 0
    """The same; removing counts as a write."""
    shard_writes: int = 0
    """For a shard: its parts, their opening and closing, its marker."""
    most_reads_per_s: float = math.inf
    """What the store answers."""
    most_writes_per_s: float = math.inf
    """The same."""
    backoff_s: float = 0.1
    """Before a refused request is sent again; twice as long after each refusal."""


@dataclass(kw_only=True, slots=True)
class Found:
    """What a simulated build came to."""

    makespan_s: float = 0.0
    """From the start to the index."""
    done: list[int]
    """How often each clip was committed."""
    useful_s: float = 0.0
    """Worker seconds in clips that were committed."""
    lost_s: float = 0.0
    """Worker seconds in clips that were not, and in starts that came to nothing."""
    held_s: float = 0.0
    """Worker seconds for which nodes were held by a task."""
    starts: int = 0
    """Starts of tasks, again ones too."""
    losses: int = 0
    """Nodes lost while they were at something."""
    refused: int = 0
    """Requests that the store refused and that were sent again."""
    reads_in: list[int] = field(default_factory=list)
    """Reads of each second."""
    writes_in: list[int] = field(default_factory=list)
    """Writes of each second."""
    ended_s: list[float] = field(default_factory=list)
    """When each task ended."""


class _Limit:
    """A store that takes so many requests a second; one over that is sent again, each time after twice the wait."""

    def __init__(self, per_s: float, backoff_s: float, seconds: list[int]) -> None:
        self._per_s, self._backoff_s, self._seconds = per_s, backoff_s, seconds
        self._free_at = 0.0
        self.refused = 0

    def ask(self, now: float, number: int) -> float:
        """How long it takes until ``number`` requests have been taken."""
        if not number:
            return 0.0
        second = int(now)
        self._seconds.extend([0] * (second + 1 - len(self._seconds)))
        self._seconds[second] += number
        if math.isinf(self._per_s):
            return 0.0
        # Up to a second's worth may come at once.
        self._free_at = max(self._free_at, now - 1.0) + number / self._per_s
        late_s = self._free_at - now
        if late_s <= 0:
            return 0.0
        refusals = math.ceil(math.log2(late_s / self._backoff_s + 1))
        self.refused += refusals
        return float(self._backoff_s * (2**refusals - 1))


class _Job:
    """The clips that one process commits: those of a task, or all."""

    def __init__(self, env: simpy.Environment, leaves: Sequence[Sequence[int]]) -> None:
        self.queue = deque(clip for leaf in leaves for clip in leaf)
        self.waiting = {number: len(leaf) for number, leaf in enumerate(leaves)}
        self.leaf_of = {clip: number for number, leaf in enumerate(leaves) for clip in leaf}
        self.sizes = [len(leaf) for leaf in leaves]
        self.left = len(self.queue)
        self.batch_begins_s = 0.0
        self.writer_free_s = 0.0
        self.uncommitted: deque[tuple[float, int, float]] = deque()
        self.changed = env.event()

    def give_back(self, clip: int) -> None:
        """Let another make a clip."""
        self.queue.appendleft(clip)

    def begin_batch(self, now: float, batch_s: float) -> None:
        """A clip is done: it goes into the batch that waits for the one at work, or into a new one."""
        if now >= self.batch_begins_s:
            self.batch_begins_s = max(self.writer_free_s, now)
            self.writer_free_s = self.batch_begins_s + batch_s

    def forget_batches(self, now: float) -> None:
        """The process that commits is another one from now on."""
        self.batch_begins_s = self.writer_free_s = now


class Simulation:
    """One build."""

    def __init__(
        self,
        leaves: Sequence[Sequence[float]],
        cluster: Cluster,
        costs: Costs,
        requests: Requests,
        *,
        num_tasks: int | None,
        seed: int,
    ) -> None:
        """``leaves`` are seconds of each clip of each shard, in order of name; ``num_tasks`` None: Ray."""
        self.env = simpy.Environment()
        self._seconds = [seconds for leaf in leaves for seconds in leaf]
        self._cluster, self._costs, self._requests = cluster, costs, requests
        self._random = random.Random(seed)
        self.found = Found(done=[0] * len(self._seconds))
        self._reads = _Limit(requests.most_reads_per_s, requests.backoff_s, self.found.reads_in)
        self._writes = _Limit(requests.most_writes_per_s, requests.backoff_s, self.found.writes_in)
        number = itertools.count()
        numbered = [[next(number) for _ in leaf] for leaf in leaves]
        self._shared = num_tasks is None
        parts = [numbered] if num_tasks is None else [numbered[task::num_tasks] for task in range(num_tasks)]
        jobs = [_Job(self.env, part) for part in parts if part]
        self._tasks: simpy.Store = simpy.Store(self.env)
        self._tasks.items.extend(jobs)
        self._unfinished = len(jobs)
        self._over = self.env.event()

    def run(self) -> Found:
        """Let it happen."""
        speeds = self._cluster.speeds or (1.0,) * self._cluster.nodes
        job = self._tasks.items[0] if self._shared else None
        for speed in speeds:
            self.env.process(self._node(speed, job))
        self.env.run(until=self._over)
        found = self.found
        found.makespan_s = self.env.now + self._costs.finish_s
        found.refused = self._reads.refused + self._writes.refused
        if self._shared:
            found.starts, found.held_s = 1, found.makespan_s * self._cluster.nodes * self._cluster.workers
        return found

    def _node(self, speed: float, shared: _Job | None) -> Events:
        """The life of a node: it works, and is lost now and then."""
        if shared is not None:
            yield self.env.timeout(self._costs.start_s)
        while True:
            lost = self.env.event()
            self.env.process(self._losing(lost))
            while not lost.triggered:
                if shared is None:
                    yield from self._next_task(speed, lost)
                else:
                    yield from self._share(speed, shared, lost)
            yield self.env.timeout(self._cluster.away_s)

    def _next_task(self, speed: float, lost: simpy.Event) -> Events:
        """Wait for a task and do it, unless the node is lost before."""
        take = self._tasks.get()
        yield take | lost
        if not lost.triggered:
            assert isinstance(take.value, _Job)
            yield from self._do_task(speed, take.value, lost)
        elif take.triggered:
            # Given in the same moment.
            self._tasks.put(take.value)
        else:
            take.cancel()

    def _losing(self, lost: simpy.Event) -> Events:
        if math.isfinite(self._cluster.lost_every_s):
            yield self.env.timeout(self._random.expovariate(1 / self._cluster.lost_every_s))
            lost.succeed()

    def _do_task(self, speed: float, job: _Job, lost: simpy.Event) -> Events:
        """A node at a task of the array, until that is done or the node lost."""
        began, workers = self.env.now, self._cluster.workers
        crew: list[simpy.Process] = []
        self.found.starts += 1
        yield self.env.timeout(self._costs.start_s / speed) | lost
        if not lost.triggered:
            job.forget_batches(self.env.now)
            crew = [self.env.process(self._worker(speed, job)) for _ in range(workers)]
            yield self.env.all_of(crew) | lost
        if not lost.triggered:
            yield self.env.timeout(max(0.0, job.writer_free_s - self.env.now)) | lost
        self.found.held_s += (self.env.now - began) * workers
        if lost.triggered:
            self._lose(job, crew, began)
            return
        self.found.ended_s.append(self.env.now)
        self._unfinished -= 1
        if not self._unfinished:
            self._over.succeed()

    def _share(self, speed: float, job: _Job, lost: simpy.Event) -> Events:
        """A node at the clips that all share, until there is none in the queue or the node is lost."""
        crew = [self.env.process(self._worker(speed, job)) for _ in range(self._cluster.workers)]
        yield self.env.all_of(crew) | lost
        if lost.triggered:
            self.found.losses += 1
            _interrupt(crew)
        else:
            # What another, lost one was at may come back.
            yield job.changed | lost

    def _lose(self, job: _Job, crew: Sequence[simpy.Process], began: float) -> None:
        """What a lost node takes with it: what its workers were at, and what was not committed."""
        self.found.losses += 1
        _interrupt(crew)
        if not crew:
            self.found.lost_s += (self.env.now - began) * self._cluster.workers
        while job.uncommitted and job.uncommitted[-1][0] > self.env.now:
            _, clip, seconds = job.uncommitted.pop()
            self._uncommit(job, clip, seconds)
        job.forget_batches(self.env.now)
        self.env.process(self._again(job))

    def _again(self, job: _Job) -> Events:
        """The task waits until its claim has run out, and then for a node."""
        yield self.env.timeout(self._costs.claim_s)
        self._tasks.put(job)

    def _worker(self, speed: float, job: _Job) -> Events:
        """One worker of a node."""
        handled: tuple[float, float] = (0.0, 0.0)
        clip, began = -1, 0.0
        try:
            while job.queue:
                if handled[0] > self.env.now:
                    yield self.env.timeout(handled[0] - self.env.now)
                if not job.queue:
                    break
                clip, began = job.queue.popleft(), self.env.now
                wait_s = self._reads.ask(self.env.now, self._requests.source_reads)
                seconds = self._seconds[clip] / speed
                yield self.env.timeout(wait_s + seconds)
                wait_s = self._writes.ask(self.env.now, self._requests.clip_writes)
                if wait_s:
                    yield self.env.timeout(wait_s)
                handled = (handled[1], self._commit(job, clip, seconds))
                clip = -1
        except simpy.Interrupt:
            if clip >= 0:
                self.found.lost_s += self.env.now - began
                job.give_back(clip)
                self._tell(job)

    def _commit(self, job: _Job, clip: int, seconds: float) -> float:
        """Hand a clip to the process that commits; when that is done with it."""
        job.begin_batch(self.env.now, self._costs.batch_s)
        job.writer_free_s += self._costs.commit_s
        leaf = job.leaf_of[clip]
        job.waiting[leaf] -= 1
        if not job.waiting[leaf]:
            number = job.sizes[leaf]
            wait_s = self._reads.ask(self.env.now, self._requests.packed_reads * number)
            writes = self._requests.packed_writes * number + self._requests.shard_writes
            wait_s += self._writes.ask(self.env.now, writes)
            job.writer_free_s += self._costs.pack_s * number + wait_s
        while job.uncommitted and job.uncommitted[0][0] <= self.env.now:
            job.uncommitted.popleft()
        job.uncommitted.append((job.writer_free_s, clip, seconds))
        self.found.done[clip] += 1
        self.found.useful_s += seconds
        job.left -= 1
        if self._shared and not job.left:
            self.env.process(self._end(job))
        return job.writer_free_s

    def _uncommit(self, job: _Job, clip: int, seconds: float) -> None:
        """A clip that was made, and lost before it was committed."""
        self.found.done[clip] -= 1
        self.found.useful_s -= seconds
        self.found.lost_s += seconds
        job.waiting[job.leaf_of[clip]] += 1
        job.left += 1
        job.give_back(clip)

    def _tell(self, job: _Job) -> None:
        changed, job.changed = job.changed, self.env.event()
        changed.succeed()

    def _end(self, job: _Job) -> Events:
        """The last clip of a shared queue: its process commits and packs what there is, and that was all."""
        yield self.env.timeout(job.writer_free_s - self.env.now)
        self._over.succeed()


def _interrupt(crew: Sequence[simpy.Process]) -> None:
    for worker in crew:
        if worker.is_alive:
            worker.interrupt()
