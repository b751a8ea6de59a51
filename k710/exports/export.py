"""A build's views in the form that another tool reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from k710.config import to_mapping
from k710.errors import FeedError, UsageError
from k710.exports import clips
from k710.exports.clips import NO_CLASS, Build, Clip, ExportView, Wanted
from k710.exports.extract import Extracted, clip_file, extract
from k710.exports.folder import EXPORT_FILE, ExportFolder
from k710.exports.formats import FORMATS
from k710.exports.job import ExportJob, Files, Format, Progress, Written
from k710.exports.summary import ExportSummary, ViewSummary, readme, reasons
from k710.labels import CANONICAL, MERGED, TAXONOMIES
from k710.outside import require_outside_builds

EXPORTS_FOLDER = "exports"
README_FILE = "README.md"
TARGETS = (*TAXONOMIES, MERGED)
_WHY_NOT = {
    "target": "reads the shards, whose samples say their class in every release",
    "order": "has no class numbers of an order that could be chosen",
    "extract": "reads no files of clips",
    "planned": "needs the clips themselves",
}
"""Why a format does not take a flag."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """What to export."""

    format: str
    """A name of ``FORMATS``."""
    build: str = "k710-data"
    """Folder or fsspec URL of the build."""
    out: Path | None = None
    """Folder of the export; None: ``exports/{format}`` in the build."""
    views: tuple[str, ...] = ()
    """Views; none: every one in which some clip has a class."""
    target: str | None = None
    """Taxonomy that numbers the classes; None: each view's own."""
    order: str | None = None
    """Order of the class numbers; None: the one that the tool expects."""
    extract: Path | None = None
    """Folder for the clips as files."""
    planned: bool = False
    """Whether clips without bytes are listed."""


def export(config: ExportConfig, progress: Progress | None = None) -> ExportSummary:
    """Write the views of a build for another tool; run again, it goes on, and replaces what it wrote before.

    Raises:
        UsageError: flags that the format does not take, an unknown view or order, a view without classes where none
            may be, clips that are in shards where files are needed, a path that the tool cannot read, or a folder that
            holds something else.
        FeedError: no build there, or a damaged one.
    """
    kind = FORMATS.get(config.format)
    if kind is None:
        raise UsageError(f"unknown format {config.format!r}", hint=f"known: {', '.join(FORMATS)}")
    _check_flags(config, kind)
    build = clips.read_build(config.build)
    _require_bytes(config, kind, build)
    folder = ExportFolder(_out_of(config, build), config.format)
    views, notes = _views(config, kind, build)
    files, extracted = _files(config, kind, build, views, progress or _silent)
    folder.begin()
    written = kind.write(ExportJob(build=build, views=views, folder=folder, files=files))
    notes = (*notes, *written.notes, *_strangers(extracted))
    summary = ExportSummary(
        format=config.format,
        build=config.build,
        out=folder.root,
        views={view.name: _view_summary(view, kind, written) for view in views},
        extract=config.extract,
        files_written=0 if extracted is None else extracted.written,
        files_kept=0 if extracted is None else extracted.kept,
        notes=notes,
    )
    if not folder.holds(README_FILE):
        folder.text(README_FILE, readme(summary, written.how, build.statement))
    # No paths of this machine: an export may be published.
    folder.finish(
        {
            "views": to_mapping(summary.views),
            "notes": list(summary.notes),
            "digests": build.lock.get("digests", {}),
            "class_table": build.labels.digest,
            "audit": build.statement,
            "not_named": [] if extracted is None else list(extracted.strangers),
        }
    )
    return summary


def _check_flags(config: ExportConfig, kind: Format) -> None:
    given = {
        "target": config.target is not None,
        "order": config.order is not None,
        "extract": config.extract is not None,
        "planned": config.planned,
    }
    for flag, is_given in given.items():
        if is_given and flag not in kind.flags:
            raise UsageError(f"--{flag}: {config.format} {_WHY_NOT[flag]}", hint=f"leave --{flag} out")
    if config.target is not None and config.target not in TARGETS:
        raise UsageError(f"--target {config.target}: unknown", hint=f"known: {', '.join(TARGETS)}")


def _require_bytes(config: ExportConfig, kind: Format, build: Build) -> None:
    if not build.has_index and not kind.planned:
        raise FeedError(
            f"{config.build}: the build has no clips yet", hint="run `k710 build` with --videos; csv needs none"
        )
    if kind.reads == "shards" and not build.has_shards:
        raise UsageError(
            f"{config.build}: the build has no shards, which {config.format} reads",
            hint="`--encode none` leaves clips where they are; build with another --encode",
        )


def _out_of(config: ExportConfig, build: Build) -> Path:
    """The folder of the export, which is none of the build's own."""
    if config.out is None:
        if not build.store.is_local:
            raise UsageError(f"{config.build}: exports are written to a disk", hint="name a folder with --out")
        return Path(build.store.root, EXPORTS_FOLDER, config.format)
    _require_apart("--out", config.out, build)
    return config.out


def _require_apart(flag: str, folder: Path, build: Build) -> None:
    """Refuse a folder in any build, but for the place that this one has for exports."""
    own = Path(build.store.root, EXPORTS_FOLDER) if build.store.is_local else None
    require_outside_builds(folder, flag, except_for=own)


def _views(config: ExportConfig, kind: Format, build: Build) -> tuple[tuple[ExportView, ...], tuple[str, ...]]:
    """What is listed of each view, and what to say of views that were left out."""
    clips.require_views(build, config.views)
    found, notes = [], []
    for name in config.views or clips.scored_views(build):
        view = clips.read_view(build, name, _wanted(config, kind, build, name))
        if view.clips:
            found.append(view)
        elif config.views:
            raise UsageError(_nothing(view, config.format), hint="leave it out, by --view for the others")
        else:
            notes.append(_nothing(view, config.format))
    if not found:
        raise UsageError(
            f"{config.build}: no view has clips that {config.format} could list", hint="; ".join(notes) or "name --view"
        )
    if not build.has_index:
        notes.append("the build has no videos yet: every planned clip is listed")
    return tuple(found), tuple(notes)


def _nothing(view: ExportView, name: str) -> str:
    """Why a view is not listed."""
    if view.left_out.get(NO_CLASS) and len(view.left_out) == 1:
        return f"view {view.name} has no classes, and {name} lists only clips with one"
    return f"view {view.name} has no clip that {name} could list ({reasons(view.left_out) or 'it is empty'})"


def _wanted(config: ExportConfig, kind: Format, build: Build, view: str) -> Wanted:
    release = view.rpartition("-")[0]
    taxonomy = config.target or (MERGED if release == MERGED else build.lock["releases"][release])
    name = config.order or (kind.order or CANONICAL).format(taxonomy=taxonomy)
    # The merged classes of a user's table have another name.
    order = clips.named_order(CANONICAL if name == MERGED else name, build.labels, taxonomy)
    if config.target is not None and order.taxonomy != config.target:
        raise UsageError(
            f"--order {order.name} numbers {order.taxonomy}, not --target {config.target}", hint="leave one of them out"
        )
    return Wanted(order=order, planned=config.planned or not build.has_index, unlabelled=kind.unlabelled)


def _files(
    config: ExportConfig, kind: Format, build: Build, views: Sequence[ExportView], progress: Progress
) -> tuple[Files | None, Extracted | None]:
    """Where the clips are as files, for a format that reads files."""
    if kind.reads != "files":
        return None, None
    listed = {clip.key: clip for view in views for clip in view.clips}
    if config.extract is not None:
        _require_apart("--extract", config.extract, build)
        files = Files(root=config.extract, paths={key: clip_file(clip) for key, clip in listed.items()})
    else:
        files = _in_place(config, build, listed)
    if kind.check is not None:
        kind.check(files)
    if config.extract is None:
        return files, None
    return files, extract(build.store, listed.values(), config.extract, progress)


def _in_place(config: ExportConfig, build: Build, listed: Mapping[str, Clip]) -> Files:
    """The clips where they are, which shards are not."""
    in_shards = sum(clip.shard is not None for clip in listed.values())
    if in_shards or not build.store.is_local:
        raise UsageError(
            f"{config.format} reads files, and {in_shards or len(listed):,} clips are in shards or elsewhere",
            hint="--extract DIR writes them to DIR",
        )
    root = Path(build.store.root).absolute()
    return Files(root=None, paths={key: str(root / str(clip.path)) for key, clip in listed.items()})


def _strangers(extracted: Extracted | None) -> tuple[str, ...]:
    if extracted is None or not extracted.strangers:
        return ()
    count = f"{len(extracted.strangers):,} file{'s' * (len(extracted.strangers) != 1)}"
    return (f"the folder of --extract holds {count} that this export does not name; {EXPORT_FILE} lists them",)


def _view_summary(view: ExportView, kind: Format, written: Written) -> ViewSummary:
    is_numbered = kind.order is not None and not kind.by_name
    return ViewSummary(
        file=written.files[view.name],
        clips=len(view.clips),
        planned=view.planned,
        left_out=view.left_out,
        order=view.order.name if is_numbered else None,
        origin=view.order.origin if is_numbered else None,
        taxonomy=view.order.taxonomy if kind.order is not None else None,
        digest=view.digest,
    )


def _silent(stage: str, done: int, total: int) -> None:
    """No progress."""
