"""A dataset card for Hugging Face datasets, from the lock: `load_dataset` reads a release by its splits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from k710.exports.job import ExportJob, Format, Written
from k710.exports.shards import Shard, folders, require_plain, shards_of
from k710.exports.summary import NO_AUDIT
from k710.labels import MERGED

if TYPE_CHECKING:
    from k710.exports.clips import Build, ExportView

_SPLIT_WORDS = {"val": "validation"}
"""Words of the hub that are not ours."""
_FEATURES: tuple[dict[str, Any], ...] = (
    {"name": "mp4", "dtype": {"video": {"decode": False}}},
    {"name": "json", "dtype": "json"},
    {"name": "cls", "dtype": "int64"},
    {"name": "__key__", "dtype": "string"},
    {"name": "__url__", "dtype": "string"},
)
"""Guessed from the first samples, the columns would lose labels that these do not have."""
_HIDDEN = "__"
"""How names begin that the library takes for those of hidden files."""
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

_HOW = """\
```python
from datasets import load_dataset

data = load_dataset("FOLDER", "{release}", split="{split}", streaming=True)
for sample in data:
    sample["__key__"], sample["mp4"]["bytes"], sample["json"]["labels"]
```

Without `streaming=True` every clip is copied into the library's cache. `cls` is the canonical class; the class in a
release is in `json`: `labels["k400"]["index"]`. Videos come as bytes; `cast_column("mp4", Video())` decodes them, with
torchcodec. To publish the folder, upload it with its links followed, and add a `license` to the head of the card."""

_LICENCE = """\
None is named here: that is for whoever publishes this. The Kinetics annotations are published by DeepMind under
CC BY 4.0. The videos belong to those who uploaded them; that an annotation is free says nothing of its video. A video
that its owner takes down leaves a build by `k710 forget`, and this export when it is written again."""


def _write(job: ExportJob) -> Written:
    by_view = shards_of(job)
    for shards in by_view.values():
        require_plain(shards, "the library", "*?[]")
    first = job.views[0]
    how = _HOW.format(release=first.release, split=_split(first))
    hidden = sum(clip.key.startswith(_HIDDEN) for clip in _distinct(job.views))
    notes = [
        f"{hidden:,} clip{'s' * (hidden != 1)} whose id begins with `__` {'are' if hidden != 1 else 'is'} left out by "
        "the library's reader, which takes such names for hidden files; webdataset reads them"
    ]
    card = _card(job, by_view, how, notes if hidden else [])
    job.folder.text("README.md", card)
    files = {view.name: f"{view.release}, split {_split(view)}" for view in job.views}
    return Written(files=files, how=how, notes=tuple(notes if hidden else ()))


def _split(view: ExportView) -> str:
    return _SPLIT_WORDS.get(view.split, view.split)


def _distinct(views: Sequence[ExportView]) -> list[Any]:
    return list({clip.key: clip for view in views for clip in view.clips}.values())


def _card(job: ExportJob, by_view: Mapping[str, Sequence[Shard]], how: str, notes: Sequence[str]) -> str:
    build = job.build
    rows = [f"| {v.release} | {_split(v)} | {len(v.clips):,} | {v.planned:,} | `{v.digest[:16]}` |" for v in job.views]
    names = ", ".join(f"`{name}`" for name in build.lock.get("releases", {}))
    parts = [
        _head(job.views, by_view),
        f"# {_title(job.views)}",
        f"Clips of the releases {names}, made by k710 {build.lock.get('k710', '')} from annotation lists and videos. "
        "Each clip is stored once; a view is a union of whole shards.",
        "| configuration | split | clips | planned | digest of the view |\n|---|---|---|---|---|\n" + "\n".join(rows),
        "Planned clips that are not here had no usable video.",
        *(f"Note: {note}." for note in notes),
        "## Leaks",
        build.statement or NO_AUDIT,
        f"Lists that were not given, and so not checked: {_listed(build.lock.get('not_checked', []))}.",
        "## How to read it",
        how,
        "## Where it is from",
        _sources(build),
        "## Licence",
        _LICENCE,
    ]
    return "\n\n".join(parts) + "\n"


def _head(views: Sequence[ExportView], by_view: Mapping[str, Sequence[Shard]]) -> str:
    """The card's YAML; what stands in braces and brackets is JSON, which YAML includes."""
    releases = list(dict.fromkeys(view.release for view in views))
    default = MERGED if MERGED in releases else releases[-1]
    size = next((word for limit, word in _SIZES if len(_distinct(views)) < limit), "1M<n<10M")
    lines = [
        "---",
        f"pretty_name: {json.dumps(_title(views))}",
        "task_categories:",
        "- video-classification",
        "size_categories:",
        f"- {size}",
        "configs:",
    ]
    for release in releases:
        lines += [
            f"- config_name: {release}",
            *(["  default: true"] if release == default else []),
            "  data_files:",
        ]
        for view in (v for v in views if v.release == release):
            lines += [f"  - split: {_split(view)}", "    path:"]
            lines += [f"    - {json.dumps(folder + '/*.tar')}" for folder in folders(by_view[view.name])]
    lines += ["dataset_info:"]
    for release in releases:
        lines += [f"- config_name: {release}", "  features:", *(f"  - {json.dumps(f)}" for f in _FEATURES)]
    return "\n".join([*lines, "---"])


def _title(views: Sequence[ExportView]) -> str:
    return "Kinetics-710 views: " + ", ".join(view.name for view in views)


def _sources(build: Build) -> str:
    inputs = build.lock.get("inputs", {})
    rows = [f"| {name} | {facts['rows']:,} | `{facts['sha256']}` |" for name, facts in inputs.items()]
    digests = [f"- {name}: `{value}`" for name, value in build.lock.get("digests", {}).items()]
    table = "| list | rows | sha256 |\n|---|---|---|\n" + "\n".join(rows)
    return f"{table}\n\nDigests of the build:\n\n" + "\n".join([*digests, f"- class table: `{build.labels.digest}`"])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"


HF = Format(
    summary="Write a dataset card for Hugging Face datasets beside links to the shards.",
    reads="shards",
    write=_write,
    unlabelled="single clips",
)
