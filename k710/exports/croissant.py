"""A Croissant description (MLCommons, version 1.0): shards with their checksums, the clips of each view as records."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from k710.exports.job import ExportJob, Format, Written
from k710.exports.kinetics_csv import seconds
from k710.exports.shards import Shard, distinct, shards_of

if TYPE_CHECKING:
    from k710.exports.clips import ExportView

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_COLUMNS = {
    "key": ("sc:Text", "Name of the clip's files."),
    "youtube_id": ("sc:Text", "Video that the clip is of."),
    "start_s": ("sc:Float", "Start in the video, in seconds."),
    "end_s": ("sc:Float", "End in the video, in seconds."),
    "label": ("sc:Integer", "Number of the class; -1: none."),
    "class_name": ("sc:Text", "Name of the class."),
}
_HOW = """\
```python
import mlcroissant

data = mlcroissant.Dataset("croissant.json")
labels = {record["NAME/key"]: record["NAME/label"] for record in data.records("NAME")}
for record in data.records("NAME-clips"):  # unpacks the shards of the view into its cache first
    record["NAME-clips/video"], labels[record["NAME-clips/key"]]
```

Text comes as bytes. The shards are linked under names with their checksums, since the library knows what it has
unpacked by name alone. The description names no licence: add `license` before you publish it."""


def _write(job: ExportJob) -> Written:
    by_view = shards_of(job, named=_with_checksum)
    files, tables = {}, {}
    for view in job.views:
        files[view.name] = f"{view.name}.csv"
        tables[view.name] = _table(view).encode()
        job.folder.data(files[view.name], tables[view.name])
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": "kinetics-710-views",
        "description": _description(job),
        "version": str(job.build.lock.get("k710", "")),
        "isLiveDataset": False,
        "distribution": [
            *(_shard_object(shard) for shard in distinct(by_view)),
            *(_table_object(files[v], data) for v, data in tables.items()),
            *(_videos(view, shards) for view, shards in by_view.items()),
        ],
        "recordSet": [found for view in job.views for found in _records(view, files[view.name])],
    }
    job.folder.text("croissant.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return Written(files=files, how=_HOW)


def _with_checksum(shard: Shard) -> str:
    """A name that another content does not have."""
    return f"{shard.name.removesuffix('.tar')}.{shard.sha256[:12]}.tar"


def _table(view: ExportView) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for c in view.clips:
        label = -1 if c.label is None else c.label
        writer.writerow((c.key, c.id, seconds(c.start_s), seconds(c.end_s), label, c.class_name or "none"))
    return text.getvalue()


def _description(job: ExportJob) -> str:
    counts = ", ".join(f"{view.name}: {len(view.clips):,} clips" for view in job.views)
    not_checked = ", ".join(job.build.lock.get("not_checked", [])) or "none"
    digests = "; ".join(f"{name} {value}" for name, value in job.build.lock.get("digests", {}).items())
    return (
        f"Clips of Kinetics videos with their classes. {counts}. Leaks: {job.build.statement or 'no audit'} "
        f"Lists that were not given: {not_checked}. Digests of the build: {digests}."
    )


def _shard_object(shard: Shard) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": shard.address,
        "name": shard.address,
        "contentUrl": shard.address,
        "contentSize": f"{shard.size_bytes} B",
        "encodingFormat": "application/x-tar",
        "sha256": shard.sha256,
    }


def _table_object(name: str, data: bytes) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{len(data)} B",
        "encodingFormat": "text/csv",
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _videos(view: str, shards: Sequence[Shard]) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{view}-videos",
        "name": f"{view}-videos",
        "containedIn": [{"@id": shard.address} for shard in shards],
        "encodingFormat": "video/mp4",
        "includes": "*.mp4",
    }


def _records(view: ExportView, table: str) -> list[dict[str, Any]]:
    """The clips of a view, and their videos: apart, since that of the facts can be read without the shards."""
    columns = [
        _field(view.name, column, kind, about, {"fileObject": {"@id": table}, "extract": {"column": column}})
        for column, (kind, about) in _COLUMNS.items()
    ]
    name, videos = f"{view.name}-clips", {"fileSet": {"@id": f"{view.name}-videos"}}
    of_file = {**videos, "extract": {"fileProperty": "filename"}, "transform": {"regex": "^(.*)\\.mp4$"}}
    content = {**videos, "extract": {"fileProperty": "content"}}
    facts = f"The clips of {view.name}; classes in the order {view.order.name}: {view.order.origin}."
    return [
        _record_set(view.name, facts, columns),
        _record_set(
            name,
            f"The videos of {view.name}, by the key of the clip.",
            [
                _field(name, "key", "sc:Text", "Key of the clip.", of_file),
                _field(name, "video", "sc:VideoObject", "H.264 in MP4.", content),
            ],
        ),
    ]


def _record_set(name: str, about: str, fields: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": about,
        "key": {"@id": f"{name}/key"},
        "field": list(fields),
    }


def _field(view: str, name: str, kind: str, about: str, source: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{view}/{name}",
        "name": f"{view}/{name}",
        "description": about,
        "dataType": kind,
        "source": dict(source),
    }


CROISSANT = Format(
    summary="Write a Croissant description of the shards and of the clips of each view.",
    reads="shards",
    write=_write,
    order="{taxonomy}",
    unlabelled="single clips",
)
