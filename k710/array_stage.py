"""One task of an array job: the lists once for all tasks, then the clips and shards that are its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from k710.build_files import outcomes_so_far, write_lock, write_plan
from k710.errors import SourceError
from k710.home import HeldClaim, Home
from k710.list_stage import ListPlan
from k710.shards.index import LOCK_FILE
from k710.writers import once_for_all


def share_lists(home: Home, held: HeldClaim, plan: ListPlan, ffmpeg: str) -> None:
    """Have the lists of ``plan`` in the build, written by this task or another, with the ffmpeg that all use.

    Raises:
        SourceError: the other tasks use another ffmpeg.
    """
    out = home.out

    def write() -> None:
        plan.audit.update(outcomes_so_far(out))
        # The lock with its ffmpeg last: tasks that find it find all the rest, or another one's change to it.
        known = _lock_on_disk(out).get("ffmpeg")
        write_plan(out, plan)
        write_lock(out, {**plan.lock, "ffmpeg": known or ffmpeg})
        home.publish()

    def is_written() -> bool:
        home.pull(held)
        return _is_written(out, plan)

    once_for_all(home, plan.lock["digests"]["plan"], is_done=is_written, do=write)
    theirs = _lock_on_disk(out).get("ffmpeg")
    if theirs != ffmpeg:
        raise SourceError(
            f"{out}: other tasks use another ffmpeg ({theirs}) than this machine has ({ffmpeg}), which gives "
            "other bytes",
            hint="install the same on every machine, or name it by K710_FFMPEG; `k710 build` on one machine changes it",
        )


def _is_written(out: Path, plan: ListPlan) -> bool:
    """Whether all that the lists decide lies in the build as this task would write it."""
    lock = _lock_on_disk(out)
    if not lock.pop("ffmpeg", None) or lock != _as_json({k: v for k, v in plan.lock.items() if k != "ffmpeg"}):
        return False
    if not (out / "audit.json").exists() or not (out / "audit.md").exists():
        return False
    views = {f"views/{view['name']}.json": view for view in plan.view_documents}
    try:
        return all((out / name).read_bytes() == data for name, data in plan.tables.items()) and all(
            json.loads((out / name).read_bytes()) == _as_json(view) for name, view in views.items()
        )
    except (OSError, ValueError):
        return False


def _lock_on_disk(out: Path) -> dict[str, Any]:
    try:
        lock = json.loads((out / LOCK_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return lock if isinstance(lock, dict) else {}


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
