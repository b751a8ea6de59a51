"""Label files of every form: the order they are in is named, or the rows that contradict it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k710.class_names.checks import CheckReport, check_label_file, diff_labels
from k710.class_names.files import FORMATS, export_labels, read_label_file
from k710.class_names.orders import all_orders, class_order
from k710.errors import InputError, UsageError
from k710.labels import load_labels, read_labels

LABELS = load_labels()
ORDERS = sorted(order.name for order in all_orders())
MMACTION2 = ("k710", "mmaction2_k710")
OPENGVLAB = ("uniformerv2_k710", "videomaev2_k710")
LONG_NAME = "throwing ball (not baseball or American football)"
Names = Sequence[str]


def check(tmp_path: Path, text: str, name: str = "labels.txt") -> CheckReport:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return check_label_file(path, LABELS)


def lines(names: Names) -> str:
    return "".join(f"{name}\n" for name in names)


def k400() -> list[str]:
    return LABELS.taxonomy_names("k400")


def test_mmaction2s_list_of_710_names_is_named(shared: Path, tmp_path: Path) -> None:
    with (shared / "kinetics" / "labels.csv").open(newline="", encoding="utf-8") as handle:
        names = [line["k710_name"] for line in csv.DictReader(handle)]
    report = check(tmp_path, lines(names))
    assert report.agrees
    assert report.orders == MMACTION2
    assert (report.contradictions, report.missing, report.spellings) == ((), (), ())


def test_the_list_of_710_names_of_opengvlabs_heads_is_named(shared: Path, tmp_path: Path) -> None:
    with (shared / "kinetics" / "labels_uniformerv2_order.csv").open(newline="", encoding="utf-8") as handle:
        rows = {int(line["uniformerv2_id"]): line["name"] for line in csv.DictReader(handle)}
    report = check(tmp_path, lines([rows[i] for i in range(710)]))
    assert report.orders == OPENGVLAB
    assert report.contradictions == ()


@pytest.mark.parametrize(("name", "orders"), [("labels.csv", MMACTION2), ("labels_uniformerv2_order.csv", OPENGVLAB)])
def test_both_published_710_lists_are_named_from_their_tables(shared: Path, name: str, orders: tuple[str, ...]) -> None:
    report = check_label_file(shared / "kinetics" / name, LABELS)
    assert report.orders == orders
    assert report.notes[0].startswith("columns not looked at: ")


def test_the_published_faults_are_named_row_by_row(tmp_path: Path) -> None:
    """VideoMAE V2's text has both names of one class, no `chopping vegetables`, and two that its own merges deny."""
    names = class_order("videomaev2_k710").names(LABELS)
    ball, digging, chopping = map(names.index, ("throwing ball", "archaeological excavation", "chopping vegetables"))
    names[ball] = LONG_NAME
    names[digging] = "throwing ball"
    names[chopping] = "archaeological excavation"
    names[222], names[271] = "hugging baby", "opening wine bottle"
    report = check(tmp_path, lines(names))
    assert not report.agrees
    assert report.nearest == OPENGVLAB
    assert {(c.row, c.found, c.expected) for c in report.contradictions} == {
        (222, "hugging baby", "hugging (not baby)"),
        (271, "opening wine bottle", "opening bottle (not wine)"),
        (digging, "throwing ball", "archaeological excavation"),
        (chopping, "archaeological excavation", "chopping vegetables"),
    }
    twice = {r.name: r.written for r in report.repeated}
    assert set(twice) == {"throwing ball", "hugging baby", "opening wine bottle"}
    assert set(twice["throwing ball"]) == {"throwing ball", LONG_NAME}
    assert set(report.missing) == {"chopping vegetables", "hugging (not baby)", "opening bottle (not wine)"}
    assert report.unknown == ()


def test_the_name_of_another_release_is_a_note(tmp_path: Path) -> None:
    names = [LONG_NAME if name == "throwing ball" else name for name in LABELS.names]
    report = check(tmp_path, lines(names))
    assert report.orders == MMACTION2
    ((note),) = report.spellings
    assert (note.row, note.meant, note.why) == (357, "throwing ball", "other name")


FORMS: dict[str, Callable[[Names], str]] = {
    "names.txt": lines,
    "index first.txt": lambda names: lines([f"{i} {n}" for i, n in enumerate(names)]),
    "comma.txt": lambda names: lines([f"{i},{n}" for i, n in enumerate(names)]),
    "tab.txt": lambda names: lines([f"{i}\t{n}" for i, n in enumerate(names)]),
    "index last.txt": lambda names: lines([f"{n} {i}" for i, n in enumerate(names)]),
    "any order.txt": lambda names: lines([f"{n},{i}" for i, n in enumerate(names)][::-1]),
    "list.json": lambda names: json.dumps(list(names)),
    "to index.json": lambda names: json.dumps({n: i for i, n in enumerate(names)}),
    "to text.json": lambda names: json.dumps({n: str(i) for i, n in enumerate(names)}),
    "to name.json": lambda names: json.dumps({str(i): n for i, n in enumerate(names)}),
    "json in text.txt": lambda names: json.dumps(list(names)),
    "name.csv": lambda names: lines(["name", *names]),
    "indexed.csv": lambda names: lines(["id,name", *[f"{i},{n}" for i, n in enumerate(names)][::-1]]),
    "label.csv": lambda names: lines(["class,label", *(f'"{n}",{i}' for i, n in enumerate(names))]),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", ["mmaction2_k400", "uniformerv2_k600"])
def test_every_form_is_read(tmp_path: Path, form: str, order: str) -> None:
    report = check(tmp_path, FORMS[form](class_order(order).names(LABELS)), form)
    assert order in report.orders
    assert (report.spellings, report.problems) == ((), ())


@pytest.mark.parametrize(
    "write",
    [
        lambda n: n.upper(),
        lambda n: n.replace(" ", "_"),
        lambda n: f"{n}  ",
        lambda n: f'"{n}"',
        lambda n: f"'{n}'",
        lambda n: n.title().replace(" ", "_") + "\t",
    ],
)
def test_spelling_is_a_note_and_no_contradiction(tmp_path: Path, write: Callable[[str], str]) -> None:
    report = check(tmp_path, lines([write(name) for name in k400()]))
    assert "k400" in report.orders
    assert {s.why for s in report.spellings} == {"spelling"}
    assert len(report.spellings) > 300


@pytest.mark.parametrize("change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n"), lambda t: t + "\n \n"])
def test_marks_line_ends_and_blank_ends_are_nothing(tmp_path: Path, change: Callable[[str], str]) -> None:
    report = check(tmp_path, change(lines(k400())))
    assert "k400" in report.orders
    assert report.spellings == ()


def test_a_name_may_hold_figures_and_separators(tmp_path: Path) -> None:
    for text in ("0 9-ball\n1 run, jump\n", "9-ball 0\nrun, jump 1\n", "0: 9-ball\n1: run, jump\n"):
        (tmp_path / "a.txt").write_text(text)
        assert [(r.index, r.name) for r in read_label_file(tmp_path / "a.txt").rows] == [
            (0, "9-ball"),
            (1, "run, jump"),
        ]


def test_a_line_of_a_million_blanks_is_no_trouble(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of its 1 names"):
        check(tmp_path, "a" + " " * 10**6 + "b")


def test_two_rows_that_changed_places_are_both_named(tmp_path: Path) -> None:
    names = k400()
    names[3], names[9] = names[9], names[3]
    report = check(tmp_path, lines(names))
    assert (report.orders, report.same_classes) == ((), True)
    assert [(c.row, c.found, c.expected) for c in report.contradictions] == [
        (3, names[3], names[9]),
        (9, names[9], names[3]),
    ]


def test_a_name_that_nothing_knows_comes_with_the_nearest(tmp_path: Path) -> None:
    names = ["absailing", *k400()[1:]]
    report = check(tmp_path, lines(names))
    ((unknown),) = report.unknown
    assert (unknown.row, unknown.name, unknown.nearest[0]) == (0, "absailing", "abseiling")
    assert report.missing == ("abseiling",)


def test_a_short_list_lacks_its_last_rows(tmp_path: Path) -> None:
    report = check(tmp_path, lines(k400()[:-1]))
    assert [(c.row, c.found, c.expected) for c in report.contradictions] == [(399, "", k400()[-1])]
    longer = check(tmp_path, lines([*k400(), "abseiling"]))
    assert [(c.row, c.found, c.expected) for c in longer.contradictions] == [(400, "abseiling", "")]
    assert [r.rows for r in longer.repeated] == [(0, 400)]


def test_indices_from_1_are_a_fault_and_the_order_is_still_seen(tmp_path: Path) -> None:
    report = check(tmp_path, lines([f"{i} {n}" for i, n in enumerate(k400(), 1)]))
    assert not report.agrees
    assert report.nearest[0] == "k400"
    assert report.problems == ("indices are 1 to 400: orders begin at 0; compared from 0",)


def test_an_index_that_stands_twice_is_named(tmp_path: Path) -> None:
    text = [f"{i} {n}" for i, n in enumerate(k400())]
    text[6] = text[6].replace("6 ", "5 ", 1)
    report = check(tmp_path, lines(text))
    assert report.problems[0].startswith("index 5 stands on line 6 ")
    assert [c.row for c in report.contradictions] == [6]


def test_a_key_that_stands_twice_in_json_is_seen(tmp_path: Path) -> None:
    pairs = [f'"{i}": "{n}"' for i, n in enumerate(k400())]
    report = check(tmp_path, "{" + ",".join([*pairs, '"0": "archery"']) + "}", "labels.json")
    assert not report.agrees
    assert "index 0 stands on line 1 ('abseiling') and 401 ('archery')" in report.problems


def test_classes_of_k710_in_an_order_of_ones_own_are_told(tmp_path: Path) -> None:
    report = check(tmp_path, lines(sorted(LABELS.names, reverse=True)))
    assert report.same_classes
    assert report.nearest == MMACTION2
    assert report.num_classes == 710


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "empty"),
        ("a.txt", " \n\n", "empty"),
        ("a.txt", "a\0b", "not a text file"),
        ("a.txt", "abseiling\n\nair drumming\n", "row 2: empty"),
        ("a.txt", "0 abseiling\n1 air drumming\nanswering questions\n", "row 3: 'answering questions' has no index"),
        ("a.txt", "one\ntwo\n", "none of its 2 names is a class of k400, k600, k700, k710"),
        ("a.txt", "1\n2\n3\n", "3 indices, and no order has so many classes"),
        ("a.txt", f"{'9' * 5000} abseiling\n", "row 1: expected an index"),
        ("a.csv", "name,id\nabseiling\n", "row 2: not as many columns"),
        ("a.csv", "name,id\nabseiling,x\n", "row 2: expected an index, got 'x'"),
        ("a.csv", "name,id\n", "a header and no classes"),
        ("a.csv", 'name,id\n"abseiling,0\n', "not a readable CSV"),
        ("a.csv", "label,youtube_id,time_start,time_end,split\nx,y,0,10,train\n", "an annotation list"),
        ("a.json", "[", "not readable JSON"),
        ("a.json", "[" * 100_000, "not readable JSON"),
        ("a.json", "[]", "expected a JSON list"),
        ("a.json", "{}", "an empty JSON object"),
        ("a.json", "3", "expected a JSON list"),
        ("a.json", "null", "expected a JSON list"),
        ("a.json", '["abseiling", 3]', "entry 1: 3 is not what the other entries are"),
        ("a.json", "[0, 1.5]", "entry 1: 1.5 is not"),
        ("a.json", "[0, true]", "entry 1: True is not"),
        ("a.json", "[0, -7]", "row 2: expected an index, got '-7'"),
        ("a.json", f"[{'1' * 4000}]", "row 1: expected an index"),
        ("a.json", f"[{'1' * 5000}]", "not readable JSON"),
        ("a.json", '{"abseiling": 0.5}', "entry 'abseiling': neither name -> index nor index -> name"),
        ("a.json", '{"abseiling": {"id": 0}}', "entry 'abseiling': neither"),
        ("a.json", '{"0": "1", "2": "0"}', "its keys are not 0 to 1"),
    ],
)
def test_what_is_no_label_file_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check(tmp_path, text, name)
    assert caught.value.hint


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\x89PNG\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        check_label_file(tmp_path / "a.txt", LABELS)
    with (tmp_path / "a.txt").open("wb") as handle:
        handle.truncate(2**30)
    with pytest.raises(InputError, match="larger than 16 MiB"):
        check_label_file(tmp_path / "a.txt", LABELS)


def test_a_file_that_is_not_there_is_a_wrong_argument(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError, match=r"not a file|cannot be read"):
            check_label_file(path, LABELS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.sampled_from(ORDERS), st.sampled_from(FORMATS))
def test_what_is_exported_is_recognised(tmp_path: Path, order: str, form: str) -> None:
    path = tmp_path / f"{order}.{form}"
    assert export_labels(LABELS, order=order, out=path).form == form
    report = check_label_file(path, LABELS)
    assert order in report.orders
    assert report.spellings == ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.sampled_from(ORDERS), st.sampled_from(ORDERS), st.sampled_from(["txt", "json"]))
def test_an_exported_index_list_is_recognised(tmp_path: Path, a: str, b: str, form: str) -> None:
    path = tmp_path / f"{a} {b}.{form}"
    export_labels(LABELS, pair=f"{a}:{b}", out=path)
    report = check_label_file(path, LABELS)
    source, target = class_order(a), class_order(b)
    if (source.canonical, source.taxonomy) == (target.canonical, target.taxonomy):
        return  # 0, 1, 2, ... is the index list of many pairs
    named = [pair.split(":") for pair in report.orders]
    assert [source.canonical, target.canonical] in [[class_order(o).canonical for o in pair] for pair in named]


def test_an_index_list_that_two_projects_share_is_named_for_both(tmp_path: Path) -> None:
    report = check(tmp_path, json.dumps(list(range(400))), "map_k400.json")
    assert report.orders == ("k710:k400", "uniformerv2_k710:uniformerv2_k400")
    assert "do not say which" in report.notes[0]


def test_a_wrong_index_is_named_with_its_class(tmp_path: Path) -> None:
    path = tmp_path / "label_710to600.json"
    export_labels(LABELS, pair="uniformerv2_k710:uniformerv2_k600", out=path)
    indices = json.loads(path.read_text())
    right, indices[5] = indices[5], 0
    report = check(tmp_path, json.dumps(indices), path.name)
    assert report.nearest == ("uniformerv2_k710:uniformerv2_k600",)
    ((wrong),) = report.contradictions
    names = class_order("uniformerv2_k600").names(LABELS)
    assert (wrong.row, wrong.found) == (5, "0 ('riding a bike')")
    assert wrong.expected == f"{right} ({names[5]!r}) for {names[5]!r}"


def test_a_class_without_a_place_is_null_in_json_and_minus_1_in_text(tmp_path: Path) -> None:
    made = {f: export_labels(LABELS, pair="k400:k710", form=f, out=None) for f in FORMATS}
    assert json.loads(made["json"].text)[398:401] == [398, 399, None]
    assert made["txt"].text.splitlines()[398:401] == ["398", "399", "-1"]
    name = LABELS.names
    assert made["csv"].text.splitlines()[400:402] == [f"399,{name[399]},399", f"400,{name[400]},"]
    assert {m.num_without_place for m in made.values()} == {310}
    nulls = check(tmp_path, made["json"].text.replace("null", "-1"), "a.json")
    assert nulls.orders == check(tmp_path, made["txt"].text).orders


def test_an_export_never_replaces_another_file(tmp_path: Path) -> None:
    out = tmp_path / "labels.txt"
    export_labels(LABELS, order="k400", out=out)
    export_labels(LABELS, order="mmaction2_k400", out=out)  # the same bytes
    before = out.read_bytes()
    with pytest.raises(UsageError, match="exists and is not this label file"):
        export_labels(LABELS, order="k600", out=out)
    assert out.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["labels.txt"]


def test_an_export_is_of_one_thing_and_a_known_form() -> None:
    with pytest.raises(UsageError, match="one of them"):
        export_labels(LABELS, order="k400", pair="k710:k400", out=None)
    for asked in ({"order": "k400"}, {"pair": "k710:k400"}):
        with pytest.raises(UsageError, match="--format yaml: unknown"):
            export_labels(LABELS, form="yaml", out=None, **asked)


def test_the_difference_of_two_taxonomies_is_by_class() -> None:
    found = diff_labels("k400", "k600", LABELS)
    assert len(found.only_a) == 18
    assert len(found.only_b) == 218
    assert ("dying hair", "dyeing hair") in [(r.a, r.b) for r in found.renamed]
    assert ("air drumming", 1, 3) in [(m.name, m.a, m.b) for m in found.moved]
    back = diff_labels("k600", "k400", LABELS)
    assert (back.only_a, back.only_b) == (found.only_b, found.only_a)


def test_two_orders_of_one_taxonomy_differ_in_indices_only() -> None:
    found = diff_labels("mmaction2_k710", "uniformerv2_k710", LABELS)
    assert (found.only_a, found.only_b, found.renamed, found.repeated_a) == ((), (), (), ())
    assert 0 < len(found.moved) <= 400


def test_a_file_is_compared_with_an_order(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(lines(["my own class", *k400()[1:], "zumba"]))
    found = diff_labels(str(path), "k400", LABELS)
    assert (found.only_a, found.only_b) == (("my own class",), ("abseiling",))
    assert found.repeated_a == ("zumba",)
    assert diff_labels(str(path), str(path), LABELS).moved == ()


def test_a_difference_is_of_orders_or_files_of_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="k500: no such order and no such file") as caught:
        diff_labels("k400", "k500", LABELS)
    assert "uniformerv2_k400" in caught.value.hint
    path = tmp_path / "map.json"
    path.write_text(json.dumps(list(range(400))))
    with pytest.raises(InputError, match="an index list has no names"):
        diff_labels("k400", str(path), LABELS)


def test_a_users_table_is_what_files_are_checked_against(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(
        "index,name,mine_index,mine_name,merged_because\n0,jump,1,jump,\n1,run,0,run,\n2,9-ball,2,9-ball,\n"
    )
    labels = read_labels(tmp_path / "own.csv")
    (tmp_path / "a.txt").write_text("run\njump\n9-ball\n")
    assert check_label_file(tmp_path / "a.txt", labels).orders == ("mine",)
    (tmp_path / "a.txt").write_text("jump\nrun\n9-ball\n")
    assert check_label_file(tmp_path / "a.txt", labels).orders == ("canonical",)
    assert diff_labels("mine", "canonical", labels).only_a == ()


def test_the_form_of_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,name,note\n0,abseiling,x\n")
    file = read_label_file(tmp_path / "a.csv")
    assert (file.form, file.unread) == ("CSV, column name by column id", ("note",))
