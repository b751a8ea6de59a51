"""Trying clips again that came to nothing: the last build with its own arguments, with some clips open once more."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from k710.build import BuildConfig, build
from k710.build_files import ARGUMENTS, ARGUMENTS_FILE
from k710.build_summary import BuildSummary
from k710.clip_figures import SoFar
from k710.clips.outcomes import OK, STATUSES
from k710.clips.sources.chosen import moved
from k710.config import from_mapping
from k710.errors import FeedError, UsageError
from k710.list_stage import Progress
from k710.objects.copies import readable_build
from k710.shard_stage import Say

if TYPE_CHECKING:
    from k710.clips.sources.youtube import Access

DEFAULT_STATUSES = tuple(status for status in STATUSES if status != OK)
"""What is tried again unless it is said."""

_PATHS = ("annotations", "class_table")


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryConfig:
    """What to try again."""

    out: Path = Path("k710-data")
    """Folder of the build; of no account where ``store`` is given."""
    store: str = ""
    """As in ``BuildConfig``."""
    work: Path | None = None
    """As in ``BuildConfig``."""
    statuses: tuple[str, ...] = DEFAULT_STATUSES
    """Clips of which statuses; ``ok`` makes clips anew that are there."""
    videos: tuple[str, ...] = ()
    """Sources of videos in place of those of the last build; empty: those."""
    workers: int | None = None
    """Processes in place of as many as the last build had."""
    min_clips_pct: float | None = None
    """As in ``BuildConfig``, in place of what the last build had."""

    def __post_init__(self) -> None:
        unknown = [status for status in self.statuses if status not in STATUSES]
        if unknown or not self.statuses:
            raise UsageError(f"statuses must be some of {', '.join(STATUSES)}, got {', '.join(unknown) or 'none'}")


def retry(
    config: RetryConfig,
    progress: Progress | None = None,
    *,
    on_clips: Callable[[SoFar], None] | None = None,
    say: Say | None = None,
    access: Access | None = None,
) -> BuildSummary:
    """Run the last build again, and in it each clip whose status is among those of ``config``.

    ``access`` is what YouTube is to be shown; the last build did not keep it.

    Raises:
        UsageError: the lists or settings are not those of the build any more.
        FeedError: no build there, or one that has never come to clips.
    """
    with readable_build(config.store or str(config.out)) as folder:
        last = replace(last_build(folder), store=config.store, work=config.work)
    more = {"videos": config.videos, "workers": config.workers, "min_clips_pct": config.min_clips_pct}
    given = {name: value for name, value in more.items() if value not in ((), None)}
    reopen = frozenset(config.statuses)
    return build(replace(last, **given), progress, on_clips=on_clips, say=say, reopen=reopen, access=access)  # type: ignore[arg-type]


def last_build(out: Path) -> BuildConfig:
    """What the last build in ``out`` that came to clips was told; its relative paths as seen from here.

    Raises:
        FeedError: it is not recorded, or cannot be read.
    """
    path = out / ARGUMENTS_FILE
    try:
        document = json.loads(path.read_bytes())
        schema, folder, told = document["schema"], document["folder"], dict(document["config"])
        if schema != ARGUMENTS:
            raise FeedError(f"{path}: schema is {schema}, this version reads {ARGUMENTS}", hint=_HINT)
        for name in _PATHS:
            told[name] = told[name] and _from_here(folder, told[name])
        told["videos"] = [moved(video, functools.partial(_from_here, folder)) for video in told["videos"]]
        archives = told.get("sources", {}).get("archives", {})
        if archives.get("folder"):
            archives["folder"] = _from_here(folder, archives["folder"])
        return from_mapping(BuildConfig, {**told, "out": str(out)}, where=str(path))
    except FileNotFoundError as error:
        raise FeedError(f"{path}: no such file; no build here has come to clips", hint=_HINT) from error
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise FeedError(f"{path}: cannot be read ({error})", hint=_HINT) from error


_HINT = "run `k710 build` with its arguments, which also tries clips again whose files have changed"


def _from_here(folder: str, path: str) -> str:
    """A path that was meant from ``folder``, as it is called from the folder that we are in."""
    return path if os.path.isabs(path) else os.path.relpath(os.path.join(folder, path))  # noqa: PTH117, PTH118
