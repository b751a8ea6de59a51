"""The shards of a build in the folder of an export: linked where the build is on a disk, else by their URLs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from k710.errors import FeedError, UsageError

if TYPE_CHECKING:
    from k710.exports.clips import Build, ExportView
    from k710.exports.job import ExportJob

_REPAIR = "run `k710 build` again, which writes it anew"
_THREADS = 8
"""An object store is asked for two things of each shard, and answers each after a while."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One shard."""

    name: str
    """Relative to the build."""
    address: str
    """How a reader in the export's folder finds it: the name of its link there, or its URL."""
    clips: int
    """Samples in it."""
    size_bytes: int
    """Of the tar."""
    sha256: str
    """Of the tar."""
    md5: str
    """Of the tar."""


def shards_of(job: ExportJob, named: Callable[[Shard], str] | None = None) -> dict[str, list[Shard]]:
    """View -> its shards, in order of name; those of a build on a disk are linked into the folder, as ``named``.

    Raises:
        FeedError: a shard is missing or not as long as its marker says, its marker is damaged, or a view is no
            union of whole shards.
        UsageError: a view has no shard.
    """
    counts = job.build.shard_counts
    by_view = {view.name: _of_view(view, counts) for view in job.views}
    names = sorted({name for found in by_view.values() for name in found})
    with ThreadPoolExecutor(_THREADS) as pool:
        shards = dict(zip(names, pool.map(lambda name: _shard(job.build, name, counts), names), strict=True))
    if job.build.store.is_local:
        for name in names:
            shards[name] = replace(shards[name], address=named(shards[name]) if named else name)
            root = Path(job.build.store.root)
            job.folder.link(shards[name].address, root / name, root)
    return {view: [shards[name] for name in found] for view, found in by_view.items()}


def distinct(by_view: Mapping[str, Iterable[Shard]]) -> list[Shard]:
    """Every shard once, in order of name."""
    found = {shard.name: shard for shards in by_view.values() for shard in shards}
    return [found[name] for name in sorted(found)]


def folders(shards: Iterable[Shard]) -> list[str]:
    """The folders of some shards as readers find them; a view has every shard of each."""
    return list(dict.fromkeys(str(shard.address).rpartition("/")[0] for shard in shards))


def require_plain(shards: Iterable[Shard], tool: str, characters: str) -> None:
    """Refuse addresses with characters that have a meaning for a tool."""
    for shard in shards:
        found = next((c for c in characters if c in shard.address), None)
        if found is not None:
            raise UsageError(
                f"{shard.address}: {tool} reads {found!r} as a pattern", hint="move the build to a plainer path"
            )


def _of_view(view: ExportView, counts: Counter[str]) -> list[str]:
    inside = Counter(clip.shard for clip in view.clips if clip.shard is not None)
    if not inside:
        raise UsageError(f"view {view.name} has no clips in shards", hint="leave it out, by --view for the others")
    for name, number in inside.items():
        if counts[name] != number:
            raise FeedError(f"{name}: holds clips that are not in {view.name}", hint="`k710 build --replan` mends it")
    return sorted(inside)


def _shard(build: Build, name: str, counts: Counter[str]) -> Shard:
    marker = str(PurePosixPath(name).with_suffix(".json"))
    try:
        facts: dict[str, Any] = json.loads(build.store.read(marker))
        found = Shard(
            name=name,
            address=build.store.url(name),
            clips=int(facts["clips"]),
            size_bytes=int(facts["size_bytes"]),
            sha256=str(facts["sha256"]),
            md5=str(facts["md5"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise FeedError(f"{build.store.url(marker)}: damaged ({error})", hint=_REPAIR) from error
    if found.clips != counts[name]:
        raise FeedError(
            f"{build.store.url(marker)}: counts {found.clips} clips, the index {counts[name]}", hint=_REPAIR
        )
    size_bytes = build.store.size_bytes(name)
    if size_bytes not in (None, found.size_bytes):
        raise FeedError(
            f"{build.store.url(name)}: {size_bytes:,} bytes, its marker says {found.size_bytes:,}",
            hint=f"{_REPAIR}; `k710 verify` says what else is damaged",
        )
    return found
