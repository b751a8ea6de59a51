"""Indexes and descriptions of shards, read by the tools they are for, or held against the tars themselves."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from readers import Export

from k710 import schema
from k710.errors import FeedError, UsageError
from k710.exports.export import ExportConfig, export
from k710.shards.index import INDEX_FILE, ShardIndex
from k710.tables import read_table, write_table

_ENERGON = os.environ.get("K710_ENERGON") or shutil.which("energon")
VIEWS = ("k400-train", "k400-val", "k600-holdout", "k710-train", "k710-test")
HIDDEN = "__aaaaaaaaa_000000_000001"


@pytest.fixture(scope="module")
def exported(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each export of shards: do not write to it."""
    root = tmp_path_factory.mktemp("exported")
    for name in ("wids", "energon", "hf", "croissant"):
        export(ExportConfig(format=name, build=str(built), out=root / name, views=VIEWS))
    return root


def clips_of(build: Path, view: str) -> list[list[object]]:
    """Key, bytes and class of the samples of a view, in order of key; -1: none, or its views differ."""
    index = ShardIndex(build)
    found = index.view(view)
    digests = {p: hashlib.sha256(index.read_clip(found, p)).hexdigest() for p in found.present}
    table = read_table(build / INDEX_FILE, schema.SHARDS, ["key", "class"]).to_pydict()
    classes = dict(zip(table["key"], table["class"], strict=True))
    return sorted(
        [found.keys[p], digests[p], -1 if (c := classes[found.keys[p]]) is None else c] for p in found.present
    )


def said_by(script: str, folder: Path, *words: str, python: str = sys.executable) -> dict[str, Any]:
    """What ``script`` prints as JSON, run with caches of its own and no network."""
    caches = {"HF_HUB_OFFLINE": "1", "HF_HOME": f"{folder}/hf_cache", "CROISSANT_CACHE": f"{folder}/croissant_cache"}
    command = [python, "-c", script, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | caches, timeout=240, cwd=folder)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def need(package: str) -> None:
    """Skip where a package of the extra ``dev`` is not installed, or fail where nothing may be missing."""
    if importlib.util.find_spec(package) is None:
        required = os.environ.get("K710_REQUIRE_SHARED", "") not in ("", "0")
        (pytest.fail if required else pytest.skip)(f"{package} is not installed; the extra `dev` has it")


WIDS = """
import hashlib, json, sys
import wids
found = {}
for view in sys.argv[2:]:
    data = wids.ShardListDataset(f"{sys.argv[1]}/{view}.json", localname=str, transformations=[])
    samples = [data[number] for number in range(len(data))]
    found[view] = sorted(
        [s["__key__"], hashlib.sha256(s[".mp4"].read()).hexdigest(), json.load(s[".json"])["labels"].get("k710", -1)]
        for s in samples
    )
print(json.dumps(found))
"""


def test_wids_reads_every_clip_of_each_view_by_number(exported: Path, built: Path, tmp_path: Path) -> None:
    need("wids")
    before = set(built.glob("shards/**/*"))
    said = said_by(WIDS, tmp_path, str(exported / "wids"), *VIEWS)
    assert said == {view: clips_of(built, view) for view in VIEWS}
    assert set(built.glob("shards/**/*")) == before  # its lock files stand beside the links


def test_a_wids_index_counts_the_samples_bytes_and_checksums_of_each_shard(exported: Path) -> None:
    index = json.loads((exported / "wids/k710-train.json").read_text())
    assert (index["__kind__"], index["wids_version"], index["name"]) == ("wids-shard-index-v1", 1, "k710-train")
    for shard in index["shardlist"]:
        path = exported / "wids" / shard["url"]
        assert not shard["url"].startswith("/")
        assert shard["filesize"] == path.stat().st_size
        assert shard["md5sum"] == hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        with tarfile.open(path) as tar:
            assert shard["nsamples"] == sum(name.endswith(".mp4") for name in tar.getnames())


HUGGING_FACE = """
import hashlib, json, sys
from datasets import load_dataset
found = {}
for word in sys.argv[3:]:
    release, split = word.rsplit("-", 1)
    split = {"val": "validation"}.get(split, split)
    data = load_dataset(sys.argv[1], release, split=split, streaming=sys.argv[2] == "1")
    found[word] = sorted(
        [s["__key__"], hashlib.sha256(s["mp4"]["bytes"]).hexdigest(), -1 if s["cls"] is None else s["cls"]]
        for s in data
    )
    assert all("segment" in s["json"] for s in data)
print(json.dumps(found))
"""


@pytest.mark.parametrize("streaming", ["1", pytest.param("0", marks=pytest.mark.slow)])
def test_load_dataset_reads_the_views_of_the_folder_but_for_what_it_takes_for_hidden_files(
    exported: Path, built: Path, tmp_path: Path, streaming: str
) -> None:
    need("datasets")
    views = VIEWS if streaming == "0" else ("k400-val", "k710-train")
    said = said_by(HUGGING_FACE, tmp_path, str(exported / "hf"), streaming, *views)
    assert said == {view: [clip for clip in clips_of(built, view) if clip[0] != HIDDEN] for view in views}


def test_the_card_says_what_is_there_what_leaks_and_what_was_not_checked(exported: Path, built: Path) -> None:
    card = (exported / "hf/README.md").read_text()
    lock = json.loads((built / "k710.lock.json").read_text())
    assert "NOT leak-free" in card
    assert "2 with k400:val" in card
    assert all(name in card for name in lock["not_checked"])
    assert all(value in card for value in lock["digests"].values())
    assert all(facts["sha256"] in card for facts in lock["inputs"].values())
    assert f"| k710 | train | 7 | 8 | `{lock['views']['k710-train']['digest'][:16]}` |" in card
    assert "CC BY 4.0" in card
    assert "\nlicense:" not in card
    assert "1 clip whose id begins with `__` is left out" in card


@pytest.mark.parametrize("name", ["hf", "croissant", "wids"])
def test_what_may_be_published_names_no_folder_of_this_machine(exported: Path, built: Path, name: str) -> None:
    files = [path for path in (exported / name).rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 1
    for path in files:
        if not path.name.endswith(".lock"):
            assert str(built.parent) not in path.read_text()
            assert str(exported) not in path.read_text()


def test_the_head_of_the_card_is_yaml(exported: Path) -> None:
    yaml = pytest.importorskip("yaml")
    head = yaml.safe_load((exported / "hf/README.md").read_text().split("---\n")[1])
    splits = {(c["config_name"], f["split"]) for c in head["configs"] for f in c["data_files"]}
    assert splits == {
        ("k400", "train"),
        ("k400", "validation"),
        ("k600", "holdout"),
        ("k710", "train"),
        ("k710", "test"),
    }
    assert [c["config_name"] for c in head["configs"] if c.get("default")] == ["k710"]


CROISSANT = """
import hashlib, json, logging, sys
import mlcroissant
data = mlcroissant.Dataset(sys.argv[1])
found = {"errors": sorted(data.metadata.issues.errors), "warnings": sorted(data.metadata.issues.warnings)}
for view in sys.argv[2:]:
    labels = {r[f"{view}/key"]: (r[f"{view}/label"], r[f"{view}/class_name"].decode()) for r in data.records(view)}
    clips = list(data.records(f"{view}-clips"))
    found[view] = sorted(
        [r[f"{view}-clips/key"].decode(), hashlib.sha256(r[f"{view}-clips/video"]).hexdigest(),
         *labels[r[f"{view}-clips/key"]]] for r in clips
    )
    assert len(labels) == len(clips)
print(json.dumps(found))
"""


def test_mlcroissant_finds_no_error_and_reads_every_clip_with_its_class(
    exported: Path, built: Path, tmp_path: Path
) -> None:
    need("mlcroissant")
    said = said_by(CROISSANT, tmp_path, str(exported / "croissant/croissant.json"), *VIEWS)
    assert said["errors"] == []
    # Left to whoever publishes it.
    assert [w for w in said["warnings"] if not any(n in w for n in ("license", "citeAs", "datePublished"))] == []
    for view in VIEWS:
        assert [clip[:2] for clip in said[view]] == [clip[:2] for clip in clips_of(built, view)]
    index = ShardIndex(built)
    view = index.view("k710-train")
    classes = dict(zip(view.keys, view.classes.tolist(), strict=True))
    assert {clip[0]: clip[2] for clip in said["k710-train"]} == {
        k: classes[k] for k in (clip[0] for clip in said["k710-train"])
    }
    assert all(clip[3] == index.labels.names[clip[2]] for clip in said["k710-train"])
    assert {(clip[2], clip[3]) for clip in said["k600-holdout"]} == {(-1, "none")}


def test_a_croissant_description_has_the_checksum_of_every_file(exported: Path) -> None:
    document = json.loads((exported / "croissant/croissant.json").read_text())
    files = [entry for entry in document["distribution"] if entry["@type"] == "cr:FileObject"]
    assert len(files) > len(VIEWS)
    for entry in files:
        path = exported / "croissant" / entry["contentUrl"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
        assert entry["contentSize"] == f"{path.stat().st_size} B"
    assert "NOT leak-free" in document["description"]


def test_energons_indexes_are_what_a_walk_through_the_tars_finds(exported: Path) -> None:
    root = exported / "energon"
    counts = json.loads((root / ".nv-meta/.info.json").read_text())["shard_counts"]
    with closing(sqlite3.connect(root / ".nv-meta/index.sqlite")) as database:
        samples = database.execute("SELECT * FROM samples ORDER BY 1, 3").fetchall()
        parts = database.execute("SELECT * FROM sample_parts ORDER BY 1, 2, 4").fetchall()
    walked: list[tuple[object, ...]] = []
    members: list[tuple[object, ...]] = []
    for number, name in enumerate(counts):
        starts: dict[str, int] = {}
        with tarfile.open(root / name) as tar:
            for info in tar:
                key, _, suffix = info.name.partition(".")
                starts.setdefault(key, info.offset)
                members.append((number, len(starts) - 1, suffix, info.offset_data, info.size))
            ends = [*list(starts.values())[1:], tar.offset]
        assert counts[name] == len(starts)
        assert struct.unpack(f"{len(ends) + 1}Q", (root / f"{name}.idx").read_bytes()) == (0, *ends)
        extents = zip(starts.items(), ends, strict=True)
        walked += [(number, key, i, start, end - start) for i, ((key, start), end) in enumerate(extents)]
    assert samples == walked
    assert parts == members


def test_an_energon_split_has_the_shards_of_each_view(exported: Path, built: Path) -> None:
    parts = json.loads((exported / "energon/.nv-meta/split.yaml").read_text())["split_parts"]
    index = ShardIndex(built)
    assert parts == {view: sorted({s for s in index.view(view).shards if s}) for view in VIEWS}


ENERGON = """
import hashlib, json, sys
from megatron.energon import (Cooker, CrudeSample, DefaultTaskEncoder, Sample, WorkerConfig, basic_sample_keys,
    edataclass, get_loader, get_val_dataset, stateless)

@edataclass
class Clip(Sample):
    mp4: bytes
    label: int

@stateless
def cook(sample: CrudeSample) -> Clip:
    label = json.loads(sample["json"])["labels"].get("k710", -1)
    return Clip(**basic_sample_keys(sample), mp4=sample["mp4"], label=label)

class Clips(DefaultTaskEncoder[Clip, Clip, Clip, Clip]):
    cookers = [Cooker(cook)]
    decoder = None

found = {}
for view in sys.argv[2:]:
    data = get_val_dataset(sys.argv[1], split_part=view, batch_size=None, task_encoder=Clips(),
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0))
    found[view] = sorted([c.__key__, hashlib.sha256(c.mp4).hexdigest(), c.label] for c in get_loader(data))
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    _ENERGON is None,
    reason="no energon on PATH or in K710_ENERGON; it needs older packages than constraints.txt, so no extra has it",
)
def test_energon_reads_every_clip_of_each_view(exported: Path, built: Path, tmp_path: Path) -> None:
    assert _ENERGON is not None
    python = str(Path(_ENERGON).with_name("python"))
    said = said_by(ENERGON, tmp_path, str(exported / "energon"), *VIEWS, python=python)
    assert said == {view: clips_of(built, view) for view in VIEWS}


@pytest.mark.parametrize("name", ["wids", "energon", "hf", "croissant"])
def test_a_build_without_shards_is_refused_with_what_to_do(run: Export, in_place: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"the build has no shards, which {name} reads") as error:
        run(name, in_place)
    assert "--encode" in error.value.hint


@pytest.mark.parametrize("name", ["wids", "hf", "croissant"])
def test_shards_at_an_address_are_named_by_it(run: Export, built: Path, tmp_path: Path, name: str) -> None:
    fsspec.filesystem("memory").put(str(built), f"/{tmp_path.name}/build", recursive=True)
    address = f"memory://{tmp_path.name}/build"
    run(name, address, views=("k400-val",))
    file = {"wids": "k400-val.json", "hf": "README.md", "croissant": "croissant.json"}[name]
    assert f"{address}/shards/k400-val." in (tmp_path / "out" / file).read_text()
    assert not (tmp_path / "out/shards").exists()


def test_energon_needs_the_shards_on_a_disk(run: Export, built: Path, tmp_path: Path) -> None:
    fsspec.filesystem("memory").put(str(built), f"/{tmp_path.name}/build", recursive=True)
    with pytest.raises(UsageError, match="energon reads indexes beside the shards"):
        run("energon", f"memory://{tmp_path.name}/build")


@pytest.mark.parametrize("name", ["wids", "hf", "energon", "croissant"])
def test_a_shard_that_is_missing_or_cut_off_is_named_with_what_to_do(run: Export, copy: Path, name: str) -> None:
    shard = next(copy.glob("shards/k400-val*/*.tar"))
    data = shard.read_bytes()
    shard.unlink()  # the copy shares its files with the build
    with pytest.raises(FeedError, match=rf"{shard.name}: no such file") as error:
        run(name, copy)
    assert "k710 build" in error.value.hint
    shard.write_bytes(data[:-512])
    with pytest.raises(FeedError, match=rf"{shard.name}: {len(data) - 512:,} bytes, its marker says") as error:
        run(name, copy)
    assert "k710 build" in error.value.hint
    shard.write_bytes(data)
    assert run(name, copy).num_clips > 0


def test_a_shard_at_an_address_is_looked_for_there(run: Export, built: Path, tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.put(str(built), f"/{tmp_path.name}/build", recursive=True)
    shard = next(built.glob("shards/k400-val*/*.tar")).relative_to(built)
    files.pipe_file(f"/{tmp_path.name}/build/{shard}", b"short")
    with pytest.raises(FeedError, match=rf"{shard.name}: 5 bytes, its marker says"):
        run("wids", f"memory://{tmp_path.name}/build")


def test_a_damaged_marker_is_named_and_the_export_goes_on_when_it_is_mended(
    run: Export, copy: Path, tmp_path: Path
) -> None:
    marker = next(copy.glob("shards/k400-val*/*.json"))
    facts = marker.read_text()
    marker.unlink()  # the copy shares its files with the build
    for text, said in (("{", "damaged"), (facts.replace('"clips": ', '"clips": 7'), "counts 7")):
        marker.write_text(text)
        with pytest.raises(FeedError, match=rf"{marker.name}: {said}"):
            run("wids", copy)
        assert json.loads((tmp_path / "out/export.json").read_text())["finished"] is False
    marker.write_text(facts)
    run("wids", copy)
    assert json.loads((tmp_path / "out/export.json").read_text())["finished"] is True


def test_a_view_that_is_no_union_of_whole_shards_is_refused(run: Export, copy: Path) -> None:
    table = read_table(copy / INDEX_FILE, schema.SHARDS)
    rows = table.to_pylist()
    shared = next(shard for shard in {row["shard"] for row in rows if row["shard"]} if _count(rows, shard) > 1)
    changed = next(row for row in rows if row["shard"] == shared)
    gone = changed["views"].index("k710-train")
    for name in ("views", "view_classes"):
        changed[name].pop(gone)
    (copy / INDEX_FILE).unlink()
    write_table(copy / INDEX_FILE, pa.Table.from_pylist(rows, schema=schema.SHARDS), schema.SHARDS)
    with pytest.raises(FeedError, match=f"{shared}: holds clips that are not in k710-train"):
        run("wids", copy, views=("k710-train",))


def _count(rows: list[dict[str, Any]], shard: str) -> int:
    return sum(row["shard"] == shard for row in rows)


@pytest.mark.parametrize("name", ["wids", "energon", "hf", "croissant"])
def test_written_again_for_fewer_views_nothing_of_the_others_is_left(
    run: Export, built: Path, tmp_path: Path, name: str
) -> None:
    run(name, built)
    run(name, built, views=("k400-val",))
    links = list((tmp_path / "out").rglob("*.tar"))
    assert links
    assert all("k400-val" in path.parent.name for path in links)
    assert {path.name for path in (tmp_path / "out/shards").iterdir()} == {path.parent.name for path in links}


def test_a_build_is_moved_with_its_exports(run: Export, copy: Path, tmp_path: Path) -> None:
    run("wids", copy, out=None)
    moved = copy.rename(tmp_path / "moved")
    links = list((moved / "exports/wids").rglob("*.tar"))
    assert links
    assert all(path.is_symlink() and path.stat().st_size for path in links)
