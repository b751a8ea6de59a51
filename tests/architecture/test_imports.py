"""The floors: what may import what."""

from __future__ import annotations

import sys

import pytest
from source_tree import Module, imports, modules

FLOORS = {
    # k710, floor by floor; the longest matching name counts
    "k710": 0,
    "k710.errors": 0,
    "k710.atomic": 0,
    "k710.segments": 0,
    "k710.processes": 0,
    "k710.config": 0,
    "k710.labels": 0,
    "k710.tables": 1,
    "k710.schema": 1,
    "k710.lists": 1,
    "k710.shards.plan": 1,
    "k710.store": 2,
    "k710.clips": 2,
    "k710.shards": 2,
    "k710.report": 2,
    "k710.pages": 2,
    "k710.exports": 2,
    "k710.outside": 2,
    "k710.claims": 0,
    "k710.writers": 2,
    "k710.array_stage": 3,
    "k710.before_build": 2,
    "k710.fingerprints": 3,
    "k710.fetch": 2,
    "k710.fetch.annotations": 3,
    "k710.fetch.batch": 3,
    "k710.fetch.videos": 3,
    "k710.browse": 3,
    "k710.synth": 3,
    "k710.audits": 3,
    "k710.list_stage": 3,
    "k710.clip_stage": 3,
    "k710.clip_rounds": 3,
    "k710.build_summary": 3,
    "k710.home": 2,
    "k710.objects": 2,
    "k710.verify_store": 3,
    "k710.clip_figures": 3,
    "k710.build_files": 3,
    "k710.shard_stage": 3,
    "k710.retry": 3,
    "k710.verify": 3,
    "k710.verify_build": 3,
    "k710.diff": 3,
    "k710.policies": 3,
    "k710.takedown": 3,
    "k710.takedown.forgotten": 0,
    "k710.build": 3,
    # uniformerv2
    "uniformerv2": 1,
    "uniformerv2.config": 1,
    "uniformerv2.data": 2,
    "uniformerv2.data.augment": 1,
    "uniformerv2.data.randaugment": 1,
    "uniformerv2.data.erasing": 1,
    "uniformerv2.training": 2,
    "uniformerv2.report": 2,
    "uniformerv2.data.sampling": 0,
    "uniformerv2.data.order": 0,
    "uniformerv2.pretrain": 3,
    "uniformerv2.finetune": 3,
    "uniformerv2.evaluate": 3,
    "uniformerv2.scores": 2,
    "uniformerv2.exam": 3,
    "uniformerv2.partial_scores": 3,
    "uniformerv2.report_files": 3,
    "uniformerv2.compare": 3,
    "uniformerv2.lineage": 3,
    "uniformerv2.export": 3,
    "uniformerv2.formats": 3,
    "cli": 3,
}
ARRAYS = {"numpy", "pyarrow"}
ALLOWED_THIRD_PARTY = {
    0: {"numpy"},
    1: ARRAYS | {"torch", "safetensors"},
    2: ARRAYS
    | {"av", "ffmpeg", "imageio_ffmpeg", "fsspec", "jinja2", "plotly", "requests", "urllib3", "ray", "yt_dlp"},
}
"""On floors 0 to 2; floor 3 wires everything up. numpy on floor 0 is for integer arithmetic in sampling and order."""
OPEN_TO_TRAINING = {
    "k710",
    *(
        f"k710.{n}"
        for n in ("errors", "config", "tables", "schema", "labels", "segments", "atomic", "store", "processes")
    ),
    "k710.shards.index",
}
ALL = modules()


def floor(name: str) -> int:
    matches = [n for n in FLOORS if name == n or name.startswith(f"{n}.")]
    return FLOORS[max(matches, key=len)]


@pytest.mark.parametrize("module", ALL, ids=lambda m: m.name)
def test_imports_go_down_the_floors(module: Module) -> None:
    ours = [i for i in imports(module) if i.split(".")[0] in ("k710", "uniformerv2", "cli")]
    assert [i for i in ours if floor(i) > floor(module.name)] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = {m.name for m in ALL}
    edges = {m.name: {i for i in imports(m, lazy=False) if i in names and i != m.name} for m in ALL}
    while leaves := [n for n, targets in edges.items() if not targets & set(edges)]:
        for name in leaves:
            del edges[name]
    assert edges == {}


@pytest.mark.parametrize("module", [m for m in ALL if m.name.startswith("k710")], ids=lambda m: m.name)
def test_curation_never_imports_training_or_screens(module: Module) -> None:
    tops = {i.split(".")[0] for i in imports(module)}
    assert tops & {"torch", "webdataset", "typer", "rich", "uniformerv2", "cli"} == set()


@pytest.mark.parametrize("module", [m for m in ALL if m.name.startswith("uniformerv2")], ids=lambda m: m.name)
def test_training_sees_only_the_open_rooms_of_curation(module: Module) -> None:
    assert {i for i in imports(module) if i.split(".")[0] == "k710"} <= OPEN_TO_TRAINING


@pytest.mark.parametrize("module", [m for m in ALL if floor(m.name) in ALLOWED_THIRD_PARTY], ids=lambda m: m.name)
def test_each_floor_uses_only_its_libraries(module: Module) -> None:
    tops = {i.split(".")[0] for i in imports(module)}
    third_party = tops - set(sys.stdlib_module_names) - {"k710", "uniformerv2", "__future__"}
    training = {"torch", "safetensors", "av", "webdataset", "cv2", "PIL", "torchcodec"}
    allowed = ALLOWED_THIRD_PARTY[floor(module.name)] | (training if module.name.startswith("uniformerv2") else set())
    assert third_party <= allowed


def test_only_one_module_runs_ffmpeg() -> None:
    callers = [m.name for m in ALL if {"subprocess", "ffmpeg"} & {i.split(".")[0] for i in imports(m)}]
    assert callers == ["k710.clips.media"]
