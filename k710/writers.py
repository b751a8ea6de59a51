"""Who may write to a build: one run alone, or the tasks of one plan together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from k710.claims import TakenError, told
from k710.clips.ledger import LEDGER_FILE, merge_ledgers
from k710.errors import UsageError
from k710.home import HeldClaim, Home, LocalHome
from k710.shards.executors.array import ArrayTask

_ALONE = "alone"
_LISTS = "lists"


@contextmanager
def sole_writer(out: Path, *, plan: str = "", home: Home | None = None) -> Iterator[HeldClaim]:
    """Hold the build at ``out`` against everybody; the ledgers of tasks before are then in one.

    Args:
        out: folder of the build.
        plan: digest of the plan, when tasks of it may wait until this ends; they go away otherwise.
        home: where the build lies; None: in ``out``.

    Raises:
        TakenError: another run is writing to it.
    """
    home = LocalHome(out) if home is None else home
    claims = home.claims
    with ExitStack() as stack:
        try:
            stack.enter_context(home.guarded(f"another k710 build is writing to {out}"))
        except UsageError as error:
            raise TakenError(error.message, hint=error.hint) from error
        held = stack.enter_context(claims.held(_ALONE, {"who": "another k710 build", "plan": plan}))
        for name, facts in claims.alive().items():
            if name != _ALONE:
                raise _taken(home, name, facts)
        home.pull(held)
        merge_ledgers(home.out / LEDGER_FILE)
        home.merged()
        yield held


@contextmanager
def task_writer(home: Home, task: ArrayTask, plan: str) -> Iterator[HeldClaim]:
    """Hold the part of one task in the build at ``home``, beside other tasks of the same plan and number.

    Raises:
        TakenError: this task runs already, or somebody is there with another plan, another number of tasks, or alone.
    """
    claims = home.claims
    with claims.held(task.name, {"who": str(task), "plan": plan, "num_tasks": task.num}) as held:
        # The one that writes the index of this plan is soon done.
        while alone := claims.alive().get(_ALONE):
            if alone.get("plan") != plan:
                raise _taken(home, _ALONE, alone)
            time.sleep(home.poll_s)
        for name, facts in claims.alive().items():
            same = facts.get("plan", plan) == plan and facts.get("num_tasks", task.num) == task.num
            if name != task.name and not same:
                raise _taken(home, name, facts)
        home.pull(held)
        yield held


def once_for_all(home: Home, plan: str, *, is_done: Callable[[], bool], do: Callable[[], None]) -> None:
    """Let one of the tasks of a plan do what all need; returns when it is done, whoever did it."""
    while not is_done():
        try:
            with home.claims.held(_LISTS, {"who": "a task that writes the lists", "plan": plan}):
                if not is_done():
                    do()
                return
        except TakenError:
            time.sleep(home.poll_s)


def _taken(home: Home, name: str, facts: dict[str, Any]) -> TakenError:
    return TakenError(
        f"{home.url or home.out}: {told(name, facts)} is writing to it",
        hint="wait for it; tasks that run at the same time need the same lists, settings and --num-tasks",
    )
