"""The class table, against the published one, and what a damaged one is refused for."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k710.config import manifests_folder
from k710.errors import InputError, UsageError
from k710.labels import CANONICAL, TAXONOMIES, LabelMap, load_labels, published_order, read_labels, require_k710


def published(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_the_table_has_710_classes_and_725_names() -> None:
    labels = load_labels()
    assert len(labels.rows) == len(set(labels.names)) == 710
    assert len({name for row in labels.rows for name in row.names.values()}) == 725


@pytest.mark.parametrize(("taxonomy", "size"), [("k400", 400), ("k600", 600), ("k700", 700), ("k710", 710)])
def test_every_class_of_a_taxonomy_has_a_row_of_its_own(taxonomy: str, size: int) -> None:
    rows = load_labels().rows_for(taxonomy)
    assert len(rows) == len(set(rows)) == size


def test_the_table_is_the_published_one(shared: Path) -> None:
    lines = published(shared / "kinetics" / "labels.csv")
    rows = load_labels().rows
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        own = {t: (row.names.get(t, ""), str(row.indices.get(t, ""))) for t in TAXONOMIES}
        values = list(line.values())
        assert values[:2] == [str(row.index), row.name]
        assert own == {t: (line[f"{t}_name"], line[f"{t}_id"]) for t in TAXONOMIES}


def test_the_first_400_are_the_k400_classes_in_alphabetical_order() -> None:
    assert load_labels().rows_for("k400") == list(range(400))
    names = load_labels().taxonomy_names("k400")
    assert names == sorted(names)


@pytest.mark.parametrize("taxonomy", ["k600", "k700"])
def test_indices_of_a_taxonomy_follow_its_names(taxonomy: str) -> None:
    names = load_labels().taxonomy_names(taxonomy)
    assert names == sorted(names)


def test_membership_of_classes_is_the_known_one() -> None:
    owners = [frozenset(row.names) for row in load_labels().rows]
    assert {
        "+".join(sorted(o)): owners.count(o) for o in set(owners)
    } == {"k400+k600+k700": 382, "k600+k700": 216, "k700": 92, "k400+k700": 10, "k400": 8, "k600": 2}  # fmt: skip


@pytest.mark.parametrize(
    ("taxonomy", "name", "canonical"),
    [
        ("k400", "dying hair", "dyeing hair"),
        ("k600", "passing american football (not in game)", "passing American football (not in game)"),
    ],
)
def test_merged_names_lead_to_one_class(taxonomy: str, name: str, canonical: str) -> None:
    labels = load_labels()
    index = labels.canonical(taxonomy, name)
    assert index is not None
    assert labels.names[index] == canonical


def test_similar_names_that_are_two_classes_stay_two() -> None:
    labels = load_labels()
    assert labels.canonical("k700", "baby waking up") != labels.canonical("k700", "waking up")


def test_a_name_means_something_only_in_its_taxonomy() -> None:
    assert load_labels().canonical("k700", "dying hair") is None


def test_an_index_goes_to_its_taxonomy_and_back() -> None:
    labels = load_labels()
    for taxonomy in TAXONOMIES:
        for own, canonical in enumerate(labels.rows_for(taxonomy)):
            assert labels.index_in(taxonomy, canonical) == own


def test_the_published_head_order_is_the_known_one(shared: Path) -> None:
    lines = published(shared / "kinetics" / "labels_uniformerv2_order.csv")
    by_row = sorted(lines, key=lambda line: int(line["uniformerv2_id"]))
    assert published_order("uniformerv2_k710") == [int(line["canonical_id"]) for line in by_row]


@pytest.mark.parametrize("taxonomy", ["k400", "k600", "k700"])
def test_the_published_order_of_each_head_is_the_known_one(shared: Path, taxonomy: str) -> None:
    lines = published(shared / "kinetics" / "labels_uniformerv2_order.csv")
    rows = {
        int(line[f"{taxonomy}_head_row"]): int(line["canonical_id"]) for line in lines if line[f"{taxonomy}_head_row"]
    }
    assert published_order(f"uniformerv2_{taxonomy}") == [rows[i] for i in range(len(rows))]


@pytest.mark.parametrize("taxonomy", ["k400", "k600", "k700"])
def test_a_published_head_order_is_a_permutation_of_its_classes(taxonomy: str) -> None:
    order = published_order(f"uniformerv2_{taxonomy}")
    assert sorted(order) == sorted(load_labels().rows_for(taxonomy))


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown class order 'timesformer'"):
        published_order("timesformer")


def test_an_unknown_taxonomy_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown taxonomy 'k500'"):
        load_labels().rows_for("k500")


def test_nearest_names_are_those_of_the_taxonomy() -> None:
    assert load_labels().nearest("k600", "Dying Hair")[0] == "dyeing hair"
    assert load_labels().nearest("k400", "qqqqqqqq") == []


TABLE = """index,name,k400_index,k400_name,k600_index,k600_name,merged_because
0,archery,1,archery,,,
1,dyeing hair,0,dying hair,1,dyeing hair,one spelling
2,yoga,,,0,yoga,
"""


def table(tmp_path: Path, text: str = TABLE) -> LabelMap:
    path = tmp_path / "own.csv"
    path.write_bytes(text.encode())
    return read_labels(path)


def test_a_table_of_other_sizes_is_a_label_map(tmp_path: Path) -> None:
    labels = table(tmp_path)
    assert (labels.num_classes, labels.taxonomies, labels.name) == (3, ("k400", "k600"), CANONICAL)
    assert labels.taxonomy_names("k400") == ["dying hair", "archery"]
    assert labels.rows_for("k600") == [2, 1]
    assert labels.rows_for("k710") == [0, 1, 2]
    assert labels.index_in("k600", 0) is None
    assert [row.name for row in labels.merges] == ["dyeing hair"]
    with pytest.raises(UsageError, match="unknown taxonomy 'k700'"):
        labels.rows_for("k700")


def test_a_table_may_have_taxonomies_of_its_own(tmp_path: Path) -> None:
    labels = table(tmp_path, TABLE.replace("k400", "haa500").replace("k600", "k700-2020"))
    assert labels.taxonomies == ("haa500", "k700-2020")
    assert labels.canonical("haa500", "dying hair") == 1


@pytest.mark.parametrize("form", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n"), lambda t: t + "\n\n"])
def test_what_spreadsheets_do_to_a_table_changes_nothing(tmp_path: Path, form: Callable[[str], str]) -> None:
    assert table(tmp_path, form(TABLE)).digest == table(tmp_path).digest


def test_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    lines = [line.split(",")[::-1] for line in TABLE.splitlines()]
    assert table(tmp_path, "\n".join(map(",".join, lines))).digest == table(tmp_path).digest


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1,dyeing", "2,dyeing", r"own\.csv row 3, column index: expected 1, got 2"),
        ("2,yoga", "2,archery", r"row 4, column name: 'archery' is that of row 2 too"),
        ("archery,1,", "archery,0,", r"row 3, column k400_index: 0 is that of row 2 too"),
        ("archery,1,", "archery,7,", r"row 2, column k400_index: got 7, but no class is 1"),
        ("0,yoga,", "0,dyeing hair,", r"row 4, column k600_name: 'dyeing hair' is that of row 3 too"),
        ("one spelling", "", r"row 3, column merged_because: empty, but the names differ: 'dying hair' \(k400\)"),
        ("0,yoga,", "0,yoga,why", r"row 4, column merged_because: a reason, but one name"),
        ("0,archery,1", "zero,archery,1", r"row 2, column index: expected an index such as 12, got 'zero'"),
        ("archery,1,", "archery,1.0,", r"row 2, column k400_index: expected an index such as 12, got '1\.0'"),
        ("archery,1,", "archery,-1,", r"row 2, column k400_index: expected an index such as 12, got '-1'"),
        ("archery,1,", "archery,٣,", r"row 2, column k400_index: expected an index"),
        ("archery,1,", "archery,,", r"row 2, column k400_index: empty, although k400_name is not"),
        ("1,archery,,", "1,,,", r"row 2, column k400_name: empty, although k400_index is not"),
        ("2,yoga", "2,", r"row 4, column name: empty"),
        ("2,yoga", "2, yoga", r"row 4, column name: blanks around ' yoga'"),
        ("0,archery,1,archery,,,", "0,archery,,,,,", r"row 2, column name: no taxonomy has the class 'archery'"),
        ("0,archery,1,archery,,,", "0,archery,1", r"row 2: 3 columns, the header has 7"),
        ("0,archery,1,archery,,,", '0,"archery,1', r"not a readable CSV"),
        ("k400_name", "k400_title", r"row 1: unknown column 'k400_title'"),
        ("k400_name,", "k400_index,", r"row 1: column 'k400_index' stands twice"),
        ("k400_name,", "k500_name,", r"row 1: no column 'k400_name'"),
        ("merged_because", "k700_index", r"row 1: no column 'merged_because'"),
        ("k400", "k710", r"row 1, column k710_index: 'k710' is the name of the merged classes"),
    ],
)
def test_a_table_that_breaks_a_rule_is_refused_with_the_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TABLE
    with pytest.raises(InputError, match=message) as caught:
        table(tmp_path, TABLE.replace(old, new))
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "\n\n", TABLE.splitlines()[0]])
def test_a_table_without_rows_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="not a class table: no rows"):
        table(tmp_path, text)


def test_a_table_without_taxonomies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'T_index'"):
        table(tmp_path, "index,name,merged_because\n0,archery,\n")


def test_a_table_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"own\.csv: not UTF-8"):
        read_labels(tmp_path / "own.csv")


@pytest.mark.parametrize("name", ["", "absent.csv"])
def test_a_table_that_is_not_there_is_a_wrong_flag(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"not a file|cannot be read"):
        read_labels(tmp_path / name)


def packaged_lines() -> list[dict[str, str]]:
    return published(manifests_folder() / "classes.csv")


def written(path: Path, lines: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


def test_merges_by_meaning_can_be_left_out(tmp_path: Path) -> None:
    """``drinking``, ``sniffing`` and ``skiing (not slalom or crosscountry)`` as classes of their own: 713."""
    lines, apart = packaged_lines(), []
    for line in lines:
        if line["merged_because"] == "by meaning only: no shared videos":
            apart.append(dict.fromkeys(line, "") | {k: line[k] for k in ("k400_index", "k400_name")})
            line |= {"k400_index": "", "k400_name": "", "merged_because": ""}
    lines += [line | {"index": str(710 + i), "name": line["k400_name"]} for i, line in enumerate(apart)]
    labels = read_labels(written(tmp_path / "713.csv", lines))
    assert (labels.num_classes, len(labels.all_names), len(labels.merges)) == (713, 725, 12)
    assert labels.taxonomy_names("k400") == load_labels().taxonomy_names("k400")
    assert labels.canonical("k400", "drinking") != labels.canonical("k700", "sipping cup")
    with pytest.raises(InputError, match=r"713\.csv: expected 710 classes, 725 names, .*found 713 classes"):
        require_k710(labels)


def test_a_copy_of_the_packaged_table_is_known_as_such(tmp_path: Path) -> None:
    labels = read_labels(written(tmp_path / "copy.csv", packaged_lines()))
    assert (labels.name, labels.digest) == ("k710", load_labels().digest)
    require_k710(labels)


def test_the_digest_in_published_checkpoints_stays() -> None:
    assert load_labels().digest == "54ce6606a55d94088bbdf56e5583327be73d69b2fa8df2f54bcdd73be24d3b9a"


@given(st.integers(0, 709), st.sampled_from(["k400", "k600", "k700", "k710"]))
def test_a_class_goes_to_its_name_and_back(canonical: int, taxonomy: str) -> None:
    labels = load_labels()
    own = labels.index_in(taxonomy, canonical)
    if own is not None:
        name = labels.taxonomy_names(taxonomy)[own]
        assert labels.canonical(taxonomy, name) == canonical
        assert labels.rows_for(taxonomy)[own] == canonical
