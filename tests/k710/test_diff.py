"""Two builds, views or lists compared: rows as sets per video, shards by what they hold."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k710 import schema
from k710.build import BuildConfig, build
from k710.clips.media import EncodeConfig
from k710.config import manifests_folder
from k710.diff import Diff, DiffConfig, check_out, diff, diff_document, write_differences
from k710.errors import FeedError, InputError, UsageError
from k710.labels import load_labels
from k710.lists.annotations import ReadOptions
from k710.lists.compare import DIFFERENCES, ListDiff, compare_rows, examples, shard_changes
from k710.lists.policy import Policy
from k710.tables import read_table, write_table

HEADER = "label,youtube_id,time_start,time_end,split\n"
CLASSES = load_labels().canonical_of("k400") | load_labels().canonical_of("k600")
MIRRORED = {"only_a": "only_b", "only_b": "only_a", "more_a": "more_b", "more_b": "more_a"}

Row = tuple[str, float | None, str | None]
"""Id, start (the end is 10 s later), class."""
Build = Callable[..., Path]


def table(*rows: Row) -> pa.Table:
    """Rows as the readers of lists give them."""
    return pa.table(
        {
            "id": pa.array([r[0] for r in rows], pa.string()),
            "start_s": pa.array([r[1] for r in rows], pa.float64()),
            "end_s": pa.array([None if r[1] is None else r[1] + 10 for r in rows], pa.float64()),
            "label": pa.array([r[2] for r in rows], pa.string()),
            "canonical": pa.array([CLASSES.get(r[2] or "", -1) for r in rows], pa.int16()),
        }
    )


def said(found: ListDiff) -> list[tuple[Any, ...]]:
    """Kind, id, start and class on either side of each difference."""
    names = ("kind", "id", "a_start_s", "a_label", "b_start_s", "b_label")
    return [tuple(row[n] for n in names) for row in found.rows.to_pylist()]


def compared(a: Sequence[Row], b: Sequence[Row]) -> list[tuple[Any, ...]]:
    return said(compare_rows(table(*a), table(*b)))


def test_videos_of_one_side_are_named_in_order_of_id() -> None:
    found = compared([("b", 0, "abseiling"), ("a", 1, "archery"), ("c", 0, "yoga")], [("c", 0, "yoga"), ("d", 2, None)])
    assert found == [
        ("only_a", "a", 1, "archery", None, None),
        ("only_a", "b", 0, "abseiling", None, None),
        ("only_b", "d", None, None, 2, None),
    ]


def test_names_of_one_class_are_no_difference() -> None:
    assert compared([("a", 0, "dying hair")], [("a", 0, "dyeing hair")]) == []


def test_another_class_of_the_same_segment_is_one_difference() -> None:
    assert compared([("a", 0, "yoga")], [("a", 0, "archery")]) == [("class_changed", "a", 0, "yoga", 0, "archery")]


def test_names_that_no_table_knows_are_compared_as_text() -> None:
    assert compared([("a", 0, "17"), ("b", 0, "18")], [("a", 0, "17"), ("b", 0, "19")]) == [
        ("class_changed", "b", 0, "18", 0, "19")
    ]


@pytest.mark.parametrize("label", [None, "17"])
def test_a_class_that_says_nothing_to_the_other_is_counted_and_not_a_difference(label: str | None) -> None:
    found = compare_rows(table(("a", 0, "yoga")), table(("a", 0, label)))
    assert (said(found), found.classes_not_compared, found.ids_equal) == ([], 1, 1)


@pytest.mark.parametrize(("start_s", "overlap_s", "disjoint"), [(4, 6, 0), (10, 0, 1), (500, 0, 1)])
def test_another_segment_comes_with_the_seconds_in_common(start_s: float, overlap_s: float, disjoint: int) -> None:
    found = compare_rows(table(("a", 0, "yoga")), table(("a", start_s, "yoga")))
    assert said(found) == [("segment_changed", "a", 0, "yoga", start_s, "yoga")]
    assert found.rows["overlap_s"].to_pylist() == [overlap_s]
    assert found.segments_disjoint == disjoint


def test_times_are_compared_to_the_millisecond() -> None:
    assert compared([("a", 0.1004, "yoga")], [("a", 0.1, "yoga")]) == []
    assert compared([("a", 0.101, "yoga")], [("a", 0.1, "yoga")]) != []


def test_a_row_with_another_class_and_segment_stands_under_both() -> None:
    found = compare_rows(table(("a", 0, "yoga")), table(("a", 3, "archery")))
    assert [row[0] for row in said(found)] == ["class_changed", "segment_changed"]
    assert (found.ids["class_changed"], found.ids["segment_changed"], found.ids_equal) == (1, 1, 0)


def test_a_list_without_times_differs_in_no_segment() -> None:
    found = compare_rows(table(("a", 0, "yoga")), table(("a", None, "yoga")))
    assert (said(found), found.segments_not_compared) == ([], 1)


def test_rows_of_a_video_are_a_set() -> None:
    a = [("a", 0, "yoga"), ("a", 50, "archery"), ("a", 50, "archery")]
    assert compared(a, [("a", 50, "archery"), ("a", 0, "yoga")]) == []


def test_of_several_rows_only_those_that_differ_are_named() -> None:
    a = [("a", 0, "yoga"), ("a", 50, "archery"), ("a", 90, "yoga")]
    b = [("a", 0, "yoga"), ("a", 50, "abseiling"), ("a", 92, "yoga")]
    assert compared(a, b) == [
        ("class_changed", "a", 50, "archery", 50, "abseiling"),
        ("segment_changed", "a", 90, "yoga", 92, "yoga"),
    ]


def test_a_further_row_of_a_video_that_both_have_is_not_a_video_of_one_side() -> None:
    found = compared([("a", 0, "yoga"), ("a", 50, "archery")], [("a", 50, "archery")])
    assert found == [("more_a", "a", 0, "yoga", None, None)]


def test_rows_without_times_find_their_partner_by_class() -> None:
    a = [("a", 0, "yoga"), ("a", 50, "archery")]
    assert compared(a, [("a", None, "archery"), ("a", None, "yoga")]) == []


def test_empty_lists_can_be_compared() -> None:
    assert compared([], []) == []
    assert compared([], [("a", 0, None)]) == [("only_b", "a", None, None, 0, None)]


def test_examples_are_the_first_videos_of_each_kind_once() -> None:
    rows = [(f"{n:02d}", start, "yoga") for n in range(12) for start in (0, 40)]
    shown = examples(compare_rows(table(*rows), table()), 5)
    assert list(shown) == ["only_a"]
    assert [row["id"] for row in shown["only_a"]] == ["00", "01", "02", "03", "04"]


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "-1e5"]),
        st.one_of(st.none(), st.sampled_from([0.0, 5.0, 10.5, 4000.0])),
        st.sampled_from([None, "yoga", "dying hair", "dyeing hair", "17", "nobody's class"]),
    ),
    max_size=12,
)


@given(rows=ROWS, order=st.randoms())
def test_a_list_does_not_differ_from_itself_in_any_order(rows: list[Row], order: Any) -> None:
    other = list(rows)
    order.shuffle(other)
    found = compare_rows(table(*rows), table(*other))
    assert found.is_empty
    assert (found.ids_equal, found.classes_not_compared, found.segments_not_compared) == (found.ids_a, 0, 0)


@given(a=ROWS, b=ROWS)
def test_the_other_way_round_the_sides_change_places(a: list[Row], b: list[Row]) -> None:
    forth, back = compare_rows(table(*a), table(*b)), compare_rows(table(*b), table(*a))
    mirrored = [
        (MIRRORED.get(kind, kind), i, b_start, b_label, a_start, a_label)
        for kind, i, a_start, a_label, b_start, b_label in said(back)
    ]
    assert sorted(mirrored, key=str) == sorted(said(forth), key=str)
    assert (forth.ids_a, forth.ids_b, forth.ids_equal) == (back.ids_b, back.ids_a, back.ids_equal)
    assert forth.segments_disjoint == back.segments_disjoint


@given(a=ROWS, b=ROWS)
def test_every_video_is_equal_differs_or_is_of_one_side(a: list[Row], b: list[Row]) -> None:
    found = compare_rows(table(*a), table(*b))
    ids_a, ids_b = {r[0] for r in a}, {r[0] for r in b}
    named = {kind: {row[1] for row in said(found) if row[0] == kind} for kind in found.ids}
    assert named["only_a"] == ids_a - ids_b
    assert named["only_b"] == ids_b - ids_a
    differing = set().union(*(ids for kind, ids in named.items() if not kind.startswith("only")))
    assert differing <= ids_a & ids_b
    assert found.ids_equal == len(ids_a & ids_b) - len(differing)
    assert found.ids == {kind: len(ids) for kind, ids in named.items()}
    assert found.rows.schema == DIFFERENCES


# Builds


def youtube(number: int) -> str:
    return f"video{number:06d}"


@pytest.fixture
def lists(tmp_path: Path) -> Callable[..., Path]:
    """Writes lists of ``(id number, start, class)`` as official CSVs and gives the annotations folder."""

    def write(name: str = "lists", **rows: Sequence[tuple[int, int, str]]) -> Path:
        for place, members in rows.items():
            release, split = place.split("_")
            path = tmp_path / name / release / f"{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = (f"{label},{youtube(n)},{start},{start + 10},{split}\n" for n, start, label in members)
            path.write_text(HEADER + "".join(lines))
        return tmp_path / name

    return write


@pytest.fixture
def built(tmp_path: Path) -> Build:
    """Builds the lists of a folder, without clips, and gives the build."""

    def run(annotations: Path, name: str, **settings: Any) -> Path:
        out = tmp_path / name
        build(BuildConfig(annotations=annotations, out=out, manifest_only=True, **{"clips_per_shard": 4, **settings}))
        return out

    return run


TRAIN = [(n, 10, "yoga" if n % 2 else "archery") for n in range(20)]
VAL = [(n, 10, "yoga") for n in range(18, 24)]


def between(a: Path | str, b: Path | str, **settings: Any) -> Diff:
    return diff(DiffConfig(a=str(a), b=str(b), **settings))


def test_a_build_does_not_differ_from_itself(lists: Any, built: Build) -> None:
    out = built(lists(k400_train=TRAIN, k400_val=VAL), "one")
    found = between(out, out)
    assert found.is_empty
    assert [v.view for v in found.views] == ["k400-train", "k400-val", "k710-train", "k710-val"]
    assert found.shards is not None
    assert found.shards.same > 4


def test_builds_of_two_policies_differ_in_views_lock_and_shards(lists: Any, built: Build) -> None:
    folder = lists(k400_train=TRAIN, k400_val=VAL, k600_val=[(3, 10, "yoga")])
    a, b = built(folder, "one"), built(folder, "two", policy=Policy(protect=()))
    found = between(a, b)
    by_view = {v.view: v.found for v in found.views}
    assert [row[1] for row in said(by_view["k710-train"])] == [youtube(n) for n in (3, 18, 19)]
    assert by_view["k400-train"].is_empty
    assert "config.protect: ['val', 'test'] -> []" in found.lock
    assert not found.is_empty
    assert found.rows()["view"].unique().to_pylist() == ["k710-train"]


def test_a_view_of_one_build_only_is_named(lists: Any, built: Build) -> None:
    folder = lists(k400_train=TRAIN, k400_val=VAL)
    found = between(built(folder, "one"), built(folder, "two", views=("k710-train", "k710-val")))
    assert (found.only_a, found.only_b) == (("k400-train", "k400-val"), ())
    assert not found.is_empty


def test_one_view_of_a_build_is_compared_with_one_of_another(lists: Any, built: Build) -> None:
    out = built(lists(k400_train=TRAIN, k400_val=VAL), "one")
    found = between(f"{out}:k400-train", f"{out}:k710-train")
    assert [(v.a, v.b, v.found.ids["only_a"]) for v in found.views] == [("k400-train", "k710-train", 0)]
    assert (found.lock, found.shards) == ((), None)
    one = between(out, f"{out}:k400-val")
    assert [(v.a, v.b) for v in one.views] == [("k400-val", "k400-val")]


def test_a_view_is_compared_with_the_list_it_was_made_of(lists: Any, built: Build) -> None:
    folder = lists(k400_train=TRAIN, k400_val=VAL)
    out = built(folder, "one")
    found = between(f"{out}:k400-train", folder / "k400" / "train.csv")
    assert [row[:2] for row in said(found.views[0].found)] == [("only_b", youtube(18)), ("only_b", youtube(19))]
    assert found.views[0].view == "k400-train"
    assert between(folder / "k400" / "train.csv", f"{out}:k400-train").views[0].view == "k400-train"


def test_a_whole_build_is_compared_by_its_merged_view_of_the_lists_split(lists: Any, built: Build) -> None:
    folder = lists(k400_train=TRAIN, k400_val=VAL)
    found = between(built(folder, "one"), folder / "k400" / "val.csv")
    assert [(v.a, v.b) for v in found.views] == [("k710-val", "val.csv")]
    assert found.is_empty


def test_a_list_of_unknown_split_asks_which_view_is_meant(lists: Any, built: Build, tmp_path: Path) -> None:
    out = built(lists(k400_train=TRAIN, k400_val=VAL), "one")
    (tmp_path / "mine.csv").write_text(f"label,youtube_id,time_start,time_end\nyoga,{youtube(1)},10,20\n")
    with pytest.raises(UsageError, match="which of its views") as error:
        between(out, tmp_path / "mine.csv")
    assert f"{out}:VIEW, one of k400-train, k400-val" in error.value.hint
    assert between(f"{out}:k710-train", tmp_path / "mine.csv").views[0].found.ids["only_a"] == 17


def test_lists_of_two_files_are_compared_split_by_split(tmp_path: Path) -> None:
    for name, extra in (("a.csv", 0), ("b.csv", 1)):
        rows = "".join(f"yoga,{youtube(n)},0,10,{s}\n" for s in ("train", "validate") for n in range(3 + extra))
        (tmp_path / name).write_text(HEADER + rows)
    found = between(tmp_path / "a.csv", tmp_path / "b.csv")
    assert [(v.a, v.b, v.found.ids["only_b"]) for v in found.views] == [
        ("a.csv:train", "b.csv:train", 1),
        ("a.csv:val", "b.csv:val", 1),
    ]


def test_merged_names_in_a_list_of_several_releases_are_the_same_classes(tmp_path: Path) -> None:
    for name, label in (("a.csv", "dying hair"), ("b.csv", "dyeing hair")):
        # The second class makes it a list of no one release.
        (tmp_path / name).write_text(
            f"{HEADER}{label},{youtube(1)},0,10,train\n{label},{youtube(2)},0,10,train\n"
            f"vault,{youtube(3)},0,10,train\nbull fighting,{youtube(4)},0,10,train\n"
        )
    assert between(tmp_path / "a.csv", tmp_path / "b.csv").is_empty


def test_labels_that_are_numbers_are_compared_when_their_order_is_given(
    lists: Any, built: Build, tmp_path: Path
) -> None:
    out = built(lists(k400_train=TRAIN), "one")
    names = load_labels().taxonomy_names("k400")
    index = {label: names.index(label) for label in ("yoga", "archery")}
    lines = [f"{index[label]},{youtube(n)},{start},{start + 10},train\n" for n, start, label in TRAIN]
    (tmp_path / "train.csv").write_text(HEADER + "".join(lines))
    told = between(f"{out}:k400-train", tmp_path / "train.csv", options=ReadOptions(class_order="k400"))
    assert told.is_empty
    untold = between(f"{out}:k400-train", tmp_path / "train.csv")
    assert untold.is_empty
    assert "classes of 20 rows are not compared" in untold.notes[0]


def test_bad_rows_that_are_left_out_are_told(lists: Any, tmp_path: Path) -> None:
    folder = lists(k400_train=TRAIN)
    (tmp_path / "train.csv").write_text((folder / "k400" / "train.csv").read_text() + "yoga,short,0,10,train\n")
    found = between(folder / "k400" / "train.csv", tmp_path / "train.csv", options=ReadOptions(on_bad_row="report"))
    assert found.notes == (f"{tmp_path / 'train.csv'}: 1 bad row is left out",)
    with pytest.raises(InputError, match="short"):
        between(folder / "k400" / "train.csv", tmp_path / "train.csv")


def test_classes_of_another_class_table_are_not_compared(lists: Any, built: Build, tmp_path: Path) -> None:
    folder = lists(k400_train=TRAIN)
    a = built(folder, "one")
    b = built(folder, "two")
    lock = json.loads((b / "k710.lock.json").read_text())
    (b / "k710.lock.json").write_text(json.dumps(lock | {"class_table": "another"}))
    assert "different class tables" in between(a, b).notes[0]
    with pytest.raises(UsageError, match="another class table") as error:
        between(f"{b}:k400-train", folder / "k400" / "train.csv")
    assert "--class-table" in error.value.hint


def test_builds_of_two_class_tables_are_compared_by_the_names_of_classes(
    lists: Any, built: Build, tmp_path: Path
) -> None:
    packaged = (manifests_folder() / "classes.csv").read_text()
    (tmp_path / "own.csv").write_text(packaged.replace("709,bull fighting,", "709,bullfight,"))
    folder = lists(k400_train=TRAIN, k600_train=[(77, 10, "bull fighting")])
    a, b = built(folder, "one"), built(folder, "two", class_table=tmp_path / "own.csv")
    found = between(a, b)
    assert found.notes[0].endswith("classes are compared by name")
    assert found.notes[1] == "classes whose rows moved: bull fighting -> bullfight (2 rows)"
    assert "view k400-train: " not in " ".join(line for line in found.lock if "class numbers" not in line)


def test_a_list_is_read_with_the_class_table_of_the_build(lists: Any, built: Build, tmp_path: Path) -> None:
    packaged = (manifests_folder() / "classes.csv").read_text()
    (tmp_path / "own.csv").write_text(packaged.replace("709,bull fighting,", "709,bullfight,"))
    folder = lists(k600_train=[(1, 10, "bull fighting"), (2, 10, "yoga")])
    out = built(folder, "one", class_table=tmp_path / "own.csv")
    assert between(f"{out}:k600-train", folder / "k600" / "train.csv").is_empty
    (folder / "k600" / "train.csv").write_text(
        f"{HEADER}yoga,{youtube(1)},10,20,train\nyoga,{youtube(2)},10,20,train\n"
    )
    found = between(f"{out}:k600-train", folder / "k600" / "train.csv")
    assert said(found.views[0].found) == [("class_changed", youtube(1), 10, "bullfight", 10, "yoga")]


def test_options_for_lists_are_refused_where_there_is_none(lists: Any, built: Build) -> None:
    out = built(lists(k400_train=TRAIN), "one")
    with pytest.raises(UsageError, match="both sides are builds"):
        between(out, out, options=ReadOptions(class_order="k400"))


@pytest.mark.parametrize("name", ["nothing", "one:k900-train", "empty", "nothing:k400-train"])
def test_a_side_that_is_nothing_is_refused_by_name(lists: Any, built: Build, tmp_path: Path, name: str) -> None:
    out = built(lists(k400_train=TRAIN), "one")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=name) as error:
        between(out, tmp_path / name)
    assert error.value.hint


def test_a_damaged_build_is_refused_by_file(lists: Any, built: Build) -> None:
    out = built(lists(k400_train=TRAIN), "one")
    (out / "manifest.parquet").write_bytes(b"PAR1")
    with pytest.raises(FeedError, match="manifest"):
        between(out, out)
    (out / "k710.lock.json").write_text("{}")
    with pytest.raises(FeedError, match="lock"):
        between(out, out)


def test_all_differences_are_written_as_csv_or_parquet(lists: Any, built: Build, tmp_path: Path) -> None:
    folder = lists(k400_train=TRAIN, k400_val=VAL)
    rows = between(f"{built(folder, 'one')}:k400-train", folder / "k400" / "train.csv").rows()
    write_differences(tmp_path / "new" / "d.parquet", rows)
    assert read_table(tmp_path / "new" / "d.parquet", DIFFERENCES).to_pylist() == rows.to_pylist()
    write_differences(tmp_path / "d.csv", rows)
    kinds = dict(zip(DIFFERENCES.names, DIFFERENCES.types, strict=True))
    options = pa.csv.ConvertOptions(column_types=kinds, strings_can_be_null=True, quoted_strings_can_be_null=False)
    assert pa.csv.read_csv(tmp_path / "d.csv", convert_options=options).to_pylist() == rows.to_pylist()
    with pytest.raises(UsageError, match=r"d\.txt"):
        write_differences(tmp_path / "d.txt", rows)


def test_what_is_compared_is_never_replaced(lists: Any, built: Build) -> None:
    folder = lists(k400_train=TRAIN)
    listed = folder / "k400" / "train.csv"
    for path in (listed, built(folder, "one") / "manifest.parquet"):
        with pytest.raises(UsageError, match="would replace"):
            check_out(path, [str(listed)])


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_differences_replace_differences_and_nothing_else(lists: Any, built: Build, tmp_path: Path, name: str) -> None:
    folder = lists(k400_train=TRAIN, k400_val=VAL)
    one = built(folder, "one")
    rows = between(f"{one}:k400-train", folder / "k400" / "train.csv").rows()
    source = folder / "k400" / "val.csv" if name.endswith("csv") else one / "manifest.parquet"
    path = Path(shutil.copy(source, tmp_path / name))
    with pytest.raises(UsageError, match="exists and is not a table of differences"):
        write_differences(path, rows)
    assert path.read_bytes() == source.read_bytes()
    path.unlink()
    write_differences(path, rows)
    write_differences(path, rows)


def test_the_document_is_json_with_examples(lists: Any, built: Build) -> None:
    folder = lists(k400_train=TRAIN, k400_val=VAL)
    document = json.loads(json.dumps(diff_document(between(built(folder, "one"), folder / "k400" / "train.csv"))))
    assert document["differs"] is True
    view = document["views"][0]
    assert (view["view"], view["ids"]["only_b"]) == ("k710-train", 2)
    assert [row["id"] for row in view["examples"]["only_b"]] == [youtube(18), youtube(19)]


# Shards


def manifest(folder: Path) -> pa.Table:
    return read_table(folder / "manifest.parquet", schema.MANIFEST)


def test_a_plan_keeps_all_its_shards_against_itself(lists: Any, built: Build) -> None:
    plan = manifest(built(lists(k400_train=TRAIN), "one"))
    found = shard_changes(plan, plan.drop_columns(["rows"]))
    assert found.is_empty
    assert found.same == len(plan["leaf"].unique())
    assert found.lines() == [f"shards: {found.same} unchanged, 0 changed, 0 new, 0 gone", "clips: 0 new, 0 gone"]


def test_a_clip_more_and_a_label_less_change_only_their_shards(lists: Any, built: Build) -> None:
    old = manifest(built(lists("a", k400_train=TRAIN), "one", clips_per_shard=8))
    changed = [(n, s, "abseiling" if n == 3 else label) for n, s, label in TRAIN]
    new = manifest(built(lists("b", k400_train=[*changed, (77, 10, "yoga")]), "two", clips_per_shard=8))
    found = shard_changes(old, new)
    leaves = {row["id"]: row["leaf"] for row in new.to_pylist()}
    touched = {leaves[youtube(3)], leaves[youtube(77)]}
    assert set(found.examples["changed"]) == touched
    assert (found.changed, found.added, found.removed) == (len(touched), 0, 0)
    assert (found.clips_added, found.clips_removed) == (1, 0)
    back = shard_changes(new, old)
    assert back == dataclasses.replace(found, clips_added=0, clips_removed=1)


def test_shards_that_come_and_go_are_named(lists: Any, built: Build) -> None:
    folder = lists(k400_train=TRAIN, k400_val=VAL)
    old, new = (
        manifest(built(folder, name, views=views)) for name, views in (("a", ("k400-train",)), ("b", ("k400-val",)))
    )
    found = shard_changes(old, new)
    assert (found.same, found.changed, found.clips_added, found.clips_removed) == (0, 0, 6, 18)
    assert found.lines()[2].startswith("  new: shards/k400-val/")
    assert "more" in found.lines()[3]


def with_shards(folder: Path) -> None:
    """An index in which every clip of a build has 100 bytes."""
    plan = manifest(folder)
    made: dict[str, Any] = {n: plan[n] for n in plan.column_names if n in schema.SHARDS.names}
    made |= {"status": ["ok"] * plan.num_rows, "shard": plan["leaf"], "mp4_size_bytes": [100] * plan.num_rows}
    made["notes"] = [[] for _ in range(plan.num_rows)]
    columns = [made.get(f.name, pa.nulls(plan.num_rows, f.type)) for f in schema.SHARDS]
    write_table(folder / "shards.parquet", pa.table(columns, names=schema.SHARDS.names), schema.SHARDS)


def test_bytes_stay_in_unchanged_shards_and_are_copied_from_changed_ones(lists: Any, built: Build) -> None:
    a = built(lists("a", k400_train=TRAIN), "one", clips_per_shard=8)
    b = built(lists("b", k400_train=[*TRAIN[1:], (77, 10, "yoga")]), "two", clips_per_shard=8)
    assert between(a, b).staying is None
    with_shards(a)
    staying = between(a, b).staying
    assert staying is not None
    assert (staying.total, staying.untouched + staying.copied) == (2000, 1900)
    assert 0 < staying.untouched < 1900


def test_no_bytes_stay_under_another_encode(lists: Any, built: Build) -> None:
    folder = lists(k400_train=TRAIN)
    a, b = built(folder, "one"), built(folder, "two", encode=EncodeConfig(crf=30))
    with_shards(a)
    staying = between(a, b).staying
    assert staying is not None
    assert (staying.total, staying.untouched, staying.copied) == (2000, 0, 0)
