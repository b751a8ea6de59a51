"""The circuit breaker: when nobody asks, who tries again, and that all processes see the same."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k710.clips.sources.youtube.breaker import MAX_REST_S, TROUBLE_IN_A_ROW, TROUBLE_REST_S, Answer, Breaker, Turn
from k710.clips.sources.youtube.shared_record import SharedRecord

FORK = multiprocessing.get_context("fork")
GIVEN, WALL, TROUBLE = Answer.GIVEN, Answer.WALL, Answer.TROUBLE


class World:
    """A breaker with a rest of an hour, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.now = 100.0
        self.breaker = Breaker(folder, rest_s=3600, trial_s=600, clock=lambda: self.now)

    def ask(self, answer: Answer, why: str = "not a bot") -> Turn:
        turn = self.breaker.enter()
        if not turn.wait_s:
            self.breaker.report(turn, answer, why)
        return turn


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_one_refusal_to_be_asked_stops_all(world: World) -> None:
    world.ask(WALL)
    turn = world.breaker.enter()
    assert turn == Turn(wait_s=3600, why="not a bot")


def test_videos_that_are_gone_stop_nobody(world: World) -> None:
    for _ in range(100):
        assert world.ask(GIVEN).wait_s == 0


def test_trouble_stops_all_only_when_there_is_nothing_else(world: World) -> None:
    for answer in [TROUBLE] * (TROUBLE_IN_A_ROW - 1) + [GIVEN] + [TROUBLE] * (TROUBLE_IN_A_ROW - 1):
        assert world.ask(answer).wait_s == 0
    world.ask(TROUBLE, "no network")
    assert world.breaker.enter() == Turn(wait_s=TROUBLE_REST_S, why="no network")


def test_after_the_rest_one_tries_and_the_others_wait_for_it(world: World) -> None:
    world.ask(WALL)
    world.now += 3600
    trial = world.breaker.enter()
    assert trial.is_trial
    assert world.breaker.enter().wait_s == 600
    world.breaker.report(trial, GIVEN)
    assert world.breaker.enter() == Turn()


def test_a_trial_that_is_refused_doubles_the_rest_up_to_a_limit(world: World) -> None:
    world.ask(WALL)
    rests = []
    for _ in range(5):
        rests.append(world.breaker.enter().wait_s)
        world.now += rests[-1]
        world.ask(WALL)
    assert rests == [3600, 7200, 14400, MAX_REST_S, MAX_REST_S]


def test_an_answer_to_a_request_from_before_does_not_close_it(world: World) -> None:
    early = world.breaker.enter()
    world.ask(WALL)
    world.breaker.report(early, GIVEN)
    assert world.breaker.enter().wait_s == 3600


def test_refusals_of_requests_from_before_do_not_lengthen_the_rest(world: World) -> None:
    early = [world.breaker.enter() for _ in range(8)]
    for turn in early:
        world.breaker.report(turn, WALL)
        world.now += 1
    assert world.breaker.enter().wait_s == 3600 - 8


def test_a_trial_that_was_given_back_is_another_ones(world: World) -> None:
    world.ask(WALL)
    world.now += 3600
    world.breaker.leave(world.breaker.enter())
    assert world.breaker.enter().is_trial


def test_a_trial_whose_process_died_is_another_ones_after_a_while(world: World) -> None:
    world.ask(WALL)
    world.now += 3600
    assert world.breaker.enter().is_trial
    world.now += 600
    assert world.breaker.enter().is_trial


def test_to_look_takes_no_trial(world: World) -> None:
    assert world.breaker.peek() is None
    world.ask(WALL)
    world.now += 3600
    assert world.breaker.peek() == Turn(wait_s=0, why="not a bot")
    assert world.breaker.enter().is_trial


def test_a_clock_that_goes_back_does_not_stop_it_for_ever(world: World) -> None:
    world.now = 1e7
    world.ask(WALL)
    world.now = 0.0
    assert world.breaker.enter().wait_s == MAX_REST_S
    world.now += MAX_REST_S
    assert world.breaker.enter().is_trial


@pytest.mark.parametrize("content", [b"{", b'{"until_s": "soon"}', b'{"rest_s": [], "until_s": 1}'])
def test_a_damaged_record_lets_one_try(world: World, tmp_path: Path, content: bytes) -> None:
    SharedRecord(tmp_path, "breaker").path.write_bytes(content)
    assert world.breaker.enter().is_trial
    assert world.breaker.enter().wait_s > 0


def test_a_long_reason_in_any_script_fits_the_record(world: World) -> None:
    world.ask(WALL, "\N{FACE WITH TEARS OF JOY}" * 500)
    assert world.breaker.enter().wait_s == 3600


@settings(max_examples=50)
@given(steps=st.lists(st.tuples(st.sampled_from([GIVEN, WALL, TROUBLE]), st.floats(0, 2000)), max_size=40))
def test_while_it_is_open_at_most_one_asks(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Answer, float]]
) -> None:
    world = World(tmp_path_factory.mktemp("state"))
    for answer, passed_s in steps:
        was_open = world.breaker.peek() is not None
        turns = [world.breaker.enter() for _ in range(3)]
        asking = [turn for turn in turns if not turn.wait_s]
        if was_open:
            assert len(asking) <= 1
            assert all(turn.is_trial for turn in asking)
        else:
            assert len(asking) == 3
        for turn in asking:
            world.breaker.report(turn, answer, "why")
        world.now += passed_s


def _ask_on(folder: Path, walls_at: int, told: Connection) -> None:
    breaker = Breaker(folder, rest_s=3600, trial_s=600)
    asked = 0
    for _ in range(300):
        turn = breaker.enter()
        if turn.wait_s:
            break
        asked += 1
        breaker.report(turn, WALL if asked == walls_at else GIVEN, "not a bot")
        time.sleep(0.005)
    told.send(asked)


def test_a_refusal_that_one_process_meets_stops_the_others(tmp_path: Path) -> None:
    readers = []
    for walls_at in (10, 1000, 1000):
        reader, writer = FORK.Pipe(duplex=False)
        FORK.Process(target=_ask_on, args=(tmp_path, walls_at, writer)).start()
        readers.append(reader)
    asked = [reader.recv() for reader in readers]
    assert asked[0] == 10
    assert all(number < 200 for number in asked[1:])


def _try(folder: Path, told: Connection) -> None:
    told.send(Breaker(folder, rest_s=0.01, trial_s=0.3).enter().is_trial)
    time.sleep(60)


def test_a_trial_whose_process_is_killed_does_not_keep_it_open(tmp_path: Path) -> None:
    ours = Breaker(tmp_path, rest_s=0.01, trial_s=0.3)
    ours.report(ours.enter(), WALL)
    time.sleep(0.05)
    reader, writer = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_try, args=(tmp_path, writer))
    process.start()
    assert reader.recv() is True
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert ours.enter().wait_s > 0
    time.sleep(0.35)
    assert ours.enter().is_trial
