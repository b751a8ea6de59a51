"""Lists of files are read by the rules of the tools they are for, with the classes that the build gives each clip."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from readers import READERS, Export

from k710 import schema
from k710.audits.lists import audit_lists
from k710.class_names.checks import check_label_file
from k710.class_names.orders import class_order
from k710.errors import UsageError
from k710.exports.export import ExportConfig, export
from k710.exports.summary import ExportSummary
from k710.labels import load_labels
from k710.lists.dialects.foreign import read_foreign
from k710.lists.dialects.options import ReadOptions
from k710.shards.index import INDEX_FILE, ShardIndex
from k710.tables import read_table, write_table

LABELS = load_labels()
ORDERS = {
    "mmaction2": "mmaction2_",
    "slowfast": "uniformerv2_",
    "uniformerv2": "uniformerv2_",
    "videomaev2": "videomaev2_",
    "vjepa2": "",
}


@pytest.fixture(scope="module")
def extracted(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each tool's lists, and ``clips`` with the files."""
    root = tmp_path_factory.mktemp("extracted")
    for tool in READERS:
        export(ExportConfig(format=tool, build=str(built), out=root / tool, extract=root / "clips"))
    return root


def expected(built: Path, view: str, order: str) -> dict[str, int]:
    """Clip key -> number of its class, by the reader that training uses."""
    index = ShardIndex(built)
    found = index.view(view)
    places = class_order(order, LABELS).canonical
    return {found.keys[p]: places.index(int(found.classes[p])) for p in found.present}


def list_of(summary_folder: Path, tool: str, view: str) -> Path:
    release, split = view.rsplit("-", 1)
    names = {"mmaction2": f"{release}_{split}_list_videos.txt", "vjepa2": f"{view}.csv"}
    return summary_folder / names.get(tool, f"{release}/{split}.csv")


@pytest.mark.parametrize("view", ["k400-train", "k600-train", "k700-train", "k710-train", "k400-val", "k710-val"])
@pytest.mark.parametrize("tool", READERS)
def test_a_tool_reads_the_class_that_the_build_gives_each_clip(
    built: Path, extracted: Path, tool: str, view: str
) -> None:
    rows = READERS[tool](list_of(extracted / tool, tool, view), str(extracted / "clips"))
    wanted = expected(built, view, f"{ORDERS[tool]}{view.rsplit('-', 1)[0]}")
    assert {Path(path).stem: label for path, label in rows} == wanted
    assert len(rows) == len(wanted) > 0
    index = ShardIndex(built)
    found = index.view(view)
    for path, _ in rows:
        assert Path(path).read_bytes() == index.read_clip(found, found.keys.index(Path(path).stem))


@pytest.mark.parametrize("view", ["k400-train", "k710-train"])
@pytest.mark.parametrize("tool", READERS)
def test_the_labels_of_a_list_map_back_to_the_same_classes(built: Path, extracted: Path, tool: str, view: str) -> None:
    order = f"{ORDERS[tool]}{view.rsplit('-', 1)[0]}"
    path = list_of(extracted / tool, tool, view)
    (found,) = read_foreign(path, LABELS, ReadOptions(class_order=order))
    rows = found.rows.to_pylist()
    index = ShardIndex(built).view(view)
    wanted = {index.keys[p][:11]: int(index.classes[p]) for p in index.present}
    assert {row["id"]: row["canonical"] for row in rows} == wanted
    assert {(row["id"], row["start_s"], row["end_s"]) for row in rows} >= {("-cccccccccc", 0.5, 1.5)}


@pytest.mark.parametrize("tool", READERS)
def test_the_order_of_the_numbers_is_named_beside_the_lists(extracted: Path, tool: str) -> None:
    readme = (extracted / tool / "README.md").read_text()
    for taxonomy in ("k400", "k710"):
        order = f"{ORDERS[tool]}{taxonomy}"
        assert f"`{order}`: {class_order(order, LABELS).origin}" in readme
        report = check_label_file(extracted / tool / f"label_map_{taxonomy}.txt", LABELS)
        assert order in report.nearest
        assert report.agrees


def test_the_canonical_and_uniformers_numbers_differ_where_the_projects_do(extracted: Path) -> None:
    numbers = {}
    for tool in ("mmaction2", "uniformerv2"):
        rows = READERS[tool](list_of(extracted / tool, tool, "k400-val"), "")
        numbers[tool] = {Path(path).stem[:11]: label for path, label in rows}
    assert numbers["mmaction2"]["vvvvvvvvvvv"] == 267
    assert numbers["uniformerv2"]["vvvvvvvvvvv"] == 0  # riding a bike


def test_clips_without_bytes_are_left_out_and_counted_on_screen_and_beside(extracted: Path, built: Path) -> None:
    readme = (extracted / "slowfast" / "README.md").read_text()
    assert "| k600-train | k600/train.csv | 2 | 1 without bytes | uniformerv2_k600 |" in readme
    assert "missing6ids" not in (extracted / "slowfast/k600/train.csv").read_text()


def test_another_target_numbers_the_classes_it_has_and_counts_the_others(
    run: Export, built: Path, tmp_path: Path
) -> None:
    flags = {"views": ("k710-train",), "target": "k400", "extract": tmp_path / "clips"}
    summary: ExportSummary = run("mmaction2", built, **flags)
    view = summary.views["k710-train"]
    assert view.left_out == {"of a class that k400 lacks": 1, "without bytes": 1}
    assert view.order == "mmaction2_k400"
    rows = READERS["mmaction2"](tmp_path / "out/k710_train_list_videos.txt", "")
    names = LABELS.taxonomy_names("k400")
    assert "1e2dddddddd" not in {Path(path).stem[:11] for path, _ in rows}
    assert {names[label] for path, label in rows if "_bbbbbbbbbb" in path} == {"massaging person's head"}


def test_a_named_order_is_used_and_must_be_of_the_target(run: Export, built: Path, tmp_path: Path) -> None:
    flags = {"views": ("k400-val",), "extract": tmp_path / "clips"}
    assert run("slowfast", built, order="k400", **flags).views["k400-val"].order == "k400"
    assert READERS["slowfast"](tmp_path / "out/k400/val.csv", "")[0][1] in (1, 267)
    with pytest.raises(UsageError, match="--order uniformerv2_k600 numbers k600, not --target k400"):
        run("slowfast", built, order="uniformerv2_k600", target="k400", **flags)
    with pytest.raises(UsageError, match="unknown class order 'x'"):
        run("slowfast", built, order="x", **flags)


def test_a_view_without_classes_is_refused_by_name_where_every_line_needs_one(
    run: Export,
    built: Path,
    tmp_path: Path,
) -> None:
    for tool in ("slowfast", "uniformerv2", "videomaev2", "vjepa2"):
        with pytest.raises(UsageError, match="view k600-holdout has no classes"):
            run(tool, built, out=tmp_path / tool, views=("k600-holdout",), extract=tmp_path / "clips")
        assert not (tmp_path / tool).exists()
    assert not (tmp_path / "clips").exists()


def test_mmaction2_takes_a_view_without_classes_as_paths_alone(run: Export, built: Path, tmp_path: Path) -> None:
    run("mmaction2", built, views=("k600-holdout", "k710-test"), extract=tmp_path / "clips")
    rows = READERS["mmaction2"](tmp_path / "out/k600_holdout_list_videos.txt", "")
    assert [(Path(path).stem, label) for path, label in rows] == [("hhhhhhhhhhh_000000_000001", -1)]
    # Among clips with classes, one without would be trained on as class -1.
    rows = READERS["mmaction2"](tmp_path / "out/k710_test_list_videos.txt", "")
    assert [Path(path).stem[:11] for path, _ in rows] == ["ttttttttttt"]


def test_views_that_are_named_by_nobody_are_those_with_classes(extracted: Path) -> None:
    files = {str(p.relative_to(extracted / "vjepa2")) for p in (extracted / "vjepa2").glob("*.csv")}
    views = {"k400-train", "k400-val", "k600-test", "k600-train", "k700-train", "k710-test", "k710-train", "k710-val"}
    assert files == {f"{view}.csv" for view in views}


def test_an_audit_takes_the_numbers_of_exported_lists_in_the_orders_that_their_exports_name(
    extracted: Path, tmp_path: Path
) -> None:
    train, held_out = extracted / "mmaction2/k700_train_list_videos.txt", extracted / "slowfast/k400/val.csv"
    # A clip of which the two releases say different classes.
    said = audit_lists([train], [held_out])
    assert said.leaks["class_differs"].to_pylist() == [True]
    read = "class numbers were read in the order"
    assert said.document["notes"] == [
        f"mmaction2/k700_train_list_videos.txt: {read} mmaction2_k700, which export.json of its export names",
        f"k400/val.csv: {read} uniformerv2_k400, which export.json of its export names",
    ]
    copies = [shutil.copy(path, tmp_path) for path in (train, held_out)]
    assert audit_lists(copies[:1], copies[1:]).document["notes"] == []
    # The same list under the numbers of two projects.
    train, held_out = extracted / "mmaction2/k400_train_list_videos.txt", extracted / "slowfast/k400/train.csv"
    said = audit_lists([train], [held_out])
    assert set(said.leaks["class_differs"].to_pylist()) == {False}
    named = audit_lists([train], [held_out], options=ReadOptions(class_order="mmaction2_k400"))
    assert named.document["notes"] == []
    assert True in named.leaks["class_differs"].to_pylist()


def test_an_order_of_another_class_table_is_not_taken(extracted: Path, tmp_path: Path) -> None:
    shutil.copytree(extracted / "vjepa2", tmp_path / "vjepa2")
    file = tmp_path / "vjepa2/export.json"
    facts = json.loads(file.read_text())
    for digest, notes in ((facts["class_table"], 2), ("0" * 64, 0)):
        file.write_text(json.dumps(facts | {"class_table": digest}))
        said = audit_lists([tmp_path / "vjepa2/k400-train.csv"], [tmp_path / "vjepa2/k400-val.csv"])
        assert len(said.document["notes"]) == notes
    for damaged in ("{", "[]", '{"views": [1]}', '{"views": {"a": 1}}'):
        file.write_text(damaged)
        said = audit_lists([tmp_path / "vjepa2/k400-train.csv"], [tmp_path / "vjepa2/k400-val.csv"])
        assert said.document["notes"] == []


def test_clips_in_shards_without_extract_are_refused_with_what_to_do(run: Export, built: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="slowfast reads files, and 8 clips are in shards") as error:
        run("slowfast", built)
    assert error.value.hint == "--extract DIR writes them to DIR"
    assert not (tmp_path / "out").exists()


def test_clips_in_place_are_listed_where_they_are(run: Export, in_place: Path, source: Path, tmp_path: Path) -> None:
    for tool, reader in READERS.items():
        run(tool, in_place, out=tmp_path / tool)
        rows = reader(list_of(tmp_path / tool, tool, "k400-val"), "/somewhere")
        assert {Path(path) for path, _ in rows} == {
            source / "videos" / f"{video}_000000_000001.mp4" for video in ("leak4leak4l", "vvvvvvvvvvv")
        }


@pytest.fixture(scope="module")
def spaced(in_place: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build whose clips lie in a folder with a space and a comma in its name."""
    root = tmp_path_factory.mktemp("spaced")
    folder = shutil.copytree(source / "videos", root / "air drumming, twice", copy_function=os.link)
    out = Path(shutil.copytree(in_place, root / "data"))
    table = read_table(out / INDEX_FILE, schema.SHARDS)
    paths = [path and str(folder / Path(path).name) for path in table["path"].to_pylist()]
    place = table.schema.get_field_index("path")
    write_table(out / INDEX_FILE, table.set_column(place, "path", pa.array(paths)), schema.SHARDS)
    return out


@pytest.mark.parametrize("tool", READERS)
def test_a_path_that_the_reader_would_break_at_is_refused_and_extraction_mends_it(
    run: Export,
    spaced: Path,
    tmp_path: Path,
    tool: str,
) -> None:
    what = "a comma" if tool == "uniformerv2" else "a space"
    with pytest.raises(UsageError, match=rf"air drumming, twice/.*reads a path up to {what}") as error:
        run(tool, spaced)
    assert "--extract DIR" in error.value.hint
    run(tool, spaced, extract=tmp_path / "clips")
    rows = READERS[tool](list_of(tmp_path / "out", tool, "k710-train"), str(tmp_path / "clips"))
    assert all(Path(path).is_symlink() and Path(path).stat().st_size for path, _ in rows)
    assert len(rows) == 7


def test_a_folder_whose_name_is_no_unicode_is_fine_where_paths_are_below_a_prefix(
    run: Export, built: Path, tmp_path: Path
) -> None:
    clips = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n"))
    run("mmaction2", built, extract=clips, views=("k400-val",))
    rows = READERS["mmaction2"](tmp_path / "out/k400_val_list_videos.txt", str(clips))
    assert all(Path(path).is_file() for path, _ in rows)
    with pytest.raises(UsageError, match="V-JEPA 2 reads a path up to the character"):
        run("vjepa2", built, out=tmp_path / "vjepa2", extract=clips, views=("k400-val",))


def test_a_folder_with_a_space_is_fine_where_paths_are_below_a_prefix(run: Export, built: Path, tmp_path: Path) -> None:
    clips = tmp_path / "my clips"
    for tool in ("mmaction2", "slowfast", "uniformerv2", "videomaev2"):
        run(tool, built, out=tmp_path / tool, extract=clips, views=("k400-val",))
        rows = READERS[tool](list_of(tmp_path / tool, tool, "k400-val"), str(clips))
        assert all(Path(path).is_file() for path, _ in rows)
    with pytest.raises(UsageError, match="V-JEPA 2 reads a path up to a space") as error:
        run("vjepa2", built, out=tmp_path / "vjepa2", extract=clips, views=("k400-val",))
    assert "without one" in error.value.hint
