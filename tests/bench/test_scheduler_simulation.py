"""The simulated scheduler loses no clip, is no faster than its workers, and is right where a formula says what is."""

from __future__ import annotations

import math

import pytest
import scheduler
import scheduler_workload
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_simulation import Cluster, Costs, Found, Requests, Simulation

Leaves = list[list[float]]

leaves_of_clips = st.lists(st.lists(st.floats(0.01, 20), min_size=1, max_size=12), min_size=1, max_size=12)
numbers_of_tasks = st.none() | st.integers(1, 15)


def run(leaves: Leaves, cluster: Cluster, num_tasks: int | None, **more: object) -> Found:
    costs, requests = more.get("costs", Costs()), more.get("requests", Requests())
    assert isinstance(costs, Costs)
    assert isinstance(requests, Requests)
    return Simulation(leaves, cluster, costs, requests, num_tasks=num_tasks, seed=1).run()


@settings(max_examples=60, deadline=None)
@given(
    leaves=leaves_of_clips,
    num_tasks=numbers_of_tasks,
    nodes=st.integers(1, 4),
    workers=st.integers(1, 3),
    lost_every_s=st.just(math.inf) | st.floats(60, 400),
    batch_s=st.floats(0, 0.5),
    most=st.just(math.inf) | st.floats(0.5, 5),
)
def test_each_clip_is_committed_once_and_no_sooner_than_the_workers_can(
    leaves: Leaves,
    num_tasks: int | None,
    nodes: int,
    workers: int,
    lost_every_s: float,
    batch_s: float,
    most: float,
) -> None:
    cluster = Cluster(nodes=nodes, workers=workers, lost_every_s=lost_every_s, away_s=5)
    costs = Costs(start_s=1, commit_s=0.01, batch_s=batch_s, pack_s=0.01, claim_s=10)
    requests = Requests(source_reads=1, clip_writes=2, shard_writes=3, most_reads_per_s=most, most_writes_per_s=most)
    found = run(leaves, cluster, num_tasks, costs=costs, requests=requests)
    work_s = sum(map(sum, leaves))
    assert found.done == [1] * sum(map(len, leaves))
    assert found.useful_s == pytest.approx(work_s)
    assert found.makespan_s >= work_s / (nodes * workers)
    assert found.makespan_s >= max(map(max, leaves))
    assert sum(found.reads_in) >= sum(map(len, leaves))


@given(
    nodes=st.integers(1, 4),
    workers=st.integers(1, 4),
    rounds=st.integers(1, 3),
    leaves_of_task=st.integers(1, 3),
    clips=st.integers(1, 9),
    start_s=st.floats(0, 50),
)
def test_equal_tasks_without_failures_take_the_rounds_of_the_clips(
    nodes: int, workers: int, rounds: int, leaves_of_task: int, clips: int, start_s: float
) -> None:
    num_tasks = nodes * rounds
    leaves = [[2.0] * clips for _ in range(num_tasks * leaves_of_task)]
    found = run(leaves, Cluster(nodes=nodes, workers=workers), num_tasks, costs=Costs(start_s=start_s, finish_s=7))
    of_one = start_s + math.ceil(leaves_of_task * clips / workers) * 2
    assert found.makespan_s == pytest.approx(rounds * of_one + 7)
    assert found.starts == num_tasks
    assert found.lost_s == 0


@given(nodes=st.integers(1, 4), workers=st.integers(1, 4), clips=st.integers(1, 60))
def test_a_shared_queue_of_equal_clips_takes_its_rounds(nodes: int, workers: int, clips: int) -> None:
    found = run([[3.0] * clips], Cluster(nodes=nodes, workers=workers), None)
    assert found.makespan_s == pytest.approx(math.ceil(clips / (nodes * workers)) * 3)


def test_a_slow_node_takes_as_much_longer_as_it_is_slower() -> None:
    leaves = [[2.0] * 10] * 2
    found = run(leaves, Cluster(nodes=2, workers=1, speeds=(1.0, 0.5)), 2)
    assert sorted(found.ended_s) == [20, 40]


def test_a_lost_node_costs_what_it_was_at_and_the_task_starts_again_after_its_claim() -> None:
    leaves = [[10.0] * 100]
    cluster = Cluster(nodes=1, workers=1, lost_every_s=400, away_s=30)
    found = run(leaves, cluster, 1, costs=Costs(start_s=5, claim_s=60))
    assert found.losses > 0
    assert found.starts == found.losses + 1
    assert 0 < found.lost_s <= found.losses * 10
    # A claim outlasts the machine, and then the lists are read again.
    assert found.makespan_s == pytest.approx(1000 + 5 * found.starts + 60 * found.losses + found.lost_s)


def test_clips_that_a_lost_node_had_not_committed_are_made_again() -> None:
    cluster = Cluster(nodes=1, workers=2, lost_every_s=100)
    found = run([[1.0] * 60], cluster, 1, costs=Costs(commit_s=5))
    assert found.losses > 0
    assert found.done == [1] * 60
    assert found.lost_s >= found.losses
    assert found.makespan_s > 60 * 5


def test_one_process_that_commits_for_all_holds_up_workers_that_are_faster() -> None:
    leaves = [[1.0] * 50] * 4
    found = run(leaves, Cluster(nodes=1, workers=100), None, costs=Costs(commit_s=0.5))
    assert found.makespan_s == pytest.approx(1 + 200 * 0.5)


def test_clips_that_are_done_meanwhile_are_committed_together() -> None:
    one_by_one = run([[1.0] * 100], Cluster(nodes=1, workers=1), 1, costs=Costs(batch_s=0.5))
    together = run([[1.0] * 100], Cluster(nodes=1, workers=20), 1, costs=Costs(batch_s=0.5))
    assert one_by_one.makespan_s == pytest.approx(100.5)
    assert together.makespan_s < 100 * 0.5 / 2


def test_a_store_is_asked_again_until_it_takes_a_request() -> None:
    requests = Requests(clip_writes=1, most_writes_per_s=10)
    found = run([[0.5] * 200], Cluster(nodes=1, workers=100), 1, requests=requests)
    assert sum(found.writes_in) == 200
    assert found.refused > 0
    # All but the first second's worth have to wait for their turn.
    assert found.makespan_s >= 190 / 10


def test_the_plan_holds_all_clips_in_shards_that_are_not_too_large() -> None:
    sizes = scheduler_workload.plan_sizes(1000, 0)
    assert sum(sizes) == 649_508
    assert max(sizes) <= 1000


def test_times_of_clips_have_the_measured_mean_but_for_large_ones_and_the_tail() -> None:
    plain = scheduler_workload.ClipTimes(large_part=0, tail_part=0)
    seconds = scheduler_workload.clip_seconds(100_000, plain, 3)
    assert seconds.mean() == pytest.approx(sum(plain.measured_s) / len(plain.measured_s), rel=0.01)
    assert seconds.min() > 0


def test_a_quarter_of_the_nodes_is_slow() -> None:
    speeds = scheduler_workload.node_speeds(40, 0.25, 0.5, 1)
    assert sum(speed == 0.5 for speed in speeds) == 10
    assert min(speed for speed in speeds if speed != 0.5) >= 0.8


def test_figures_refuse_a_clip_that_is_not_there() -> None:
    with pytest.raises(AssertionError, match="not committed once"):
        scheduler.figures_of(Found(done=[1, 0], makespan_s=1), 1)
