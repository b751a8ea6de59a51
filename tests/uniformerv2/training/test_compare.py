"""Two evaluations against each other: what is counted, how sure a difference is, what cannot be compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k710 import atomic
from k710.errors import InputError, UsageError
from uniformerv2.compare import bootstrap_interval, compare, compare_files
from uniformerv2.report import SCHEMA_VERSION, EvaluationReport, Prediction, class_scores, top_confusions

NAMES = ("abseiling", "zumba", "yoga")


def report(ranks: dict[str, tuple[int, int]], **changes: object) -> EvaluationReport:
    """A report of clips by key, each with its class and the rank that its class has."""
    predictions = tuple(
        Prediction(key=key, label=label, predicted=label if rank == 1 else (label + 1) % 3, rank=rank, any_of=False)
        for key, (label, rank) in ranks.items()
    )
    num = max(len(predictions), 1)
    made = EvaluationReport(
        schema_version=SCHEMA_VERSION,
        view="k400-val",
        taxonomy="k400",
        top1=sum(p.rank == 1 for p in predictions) / num,
        top5=sum(p.rank <= 5 for p in predictions) / num,
        any_of_top1=None,
        chance=1 / 3,
        mean_class_top1=0.5,
        clips_scored=len(predictions),
        clips_listed=len(predictions),
        clips_without_bytes=0,
        clips_without_class=0,
        failed=(),
        lineage="seen: k400-train (8 videos)",
        seen_videos=0,
        seen_at_least=0,
        classes=class_scores(predictions, NAMES),
        confusions=top_confusions(predictions, NAMES, 20),
        predictions=predictions,
        test_clips=4,
        test_crops=3,
        test_views_from="the recipe of the weights",
        frame_sampling="sparse",
        settings={"frame_order": "source", "precision": "fp32", "workers": 2},
        model={},
        checkpoint="model.safetensors",
        checkpoint_sha256="a" * 64,
        trained_on="",
        view_digest="v",
        data_digest="d",
        versions={},
        seconds=1.0,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def other(ranks: dict[str, tuple[int, int]], **changes: object) -> EvaluationReport:
    """A report of other weights."""
    return report(ranks, **({"checkpoint_sha256": "b" * 64} | changes))


def test_the_numbers_are_of_the_clips_that_both_have_scored() -> None:
    a = report({"p": (0, 1), "q": (0, 1), "r": (1, 3), "s": (2, 9), "t": (2, 1)})
    b = other({"q": (0, 4), "r": (1, 1), "s": (2, 1), "t": (2, 1), "u": (0, 1)})
    found = compare(a, b)
    assert (found.clips, found.only_a, found.only_b) == (4, ("p",), ("u",))
    assert (found.top1.a, found.top1.b, found.top1.difference) == (0.5, 0.75, 0.25)
    assert (found.top5.a, found.top5.b, found.top5.difference) == (0.75, 1.0, 0.25)
    counts = found.agreement
    assert (counts.both, counts.only_a, counts.only_b, counts.neither) == (1, 1, 2, 0)
    assert [(c.name, c.clips, c.a, c.b) for c in found.classes] == [
        ("abseiling", 1, 1, 0),
        ("zumba", 1, 0, 1),
        ("yoga", 2, 1, 2),
    ]
    assert found.warnings == ()


RANKS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=40)


def two_reports(clips: list[tuple[int, int, int]]) -> tuple[EvaluationReport, EvaluationReport]:
    a = {f"clip{i}": (label, rank) for i, (label, rank, _) in enumerate(clips)}
    b = {f"clip{i}": (label, rank) for i, (label, _, rank) in enumerate(clips)}
    return report(a), other(b)


@given(clips=RANKS)
@settings(max_examples=30, deadline=None)
def test_an_evaluation_does_not_differ_from_itself(clips: list[tuple[int, int, int]]) -> None:
    a, _ = two_reports(clips)
    found = compare(a, a)
    for change in (found.top1, found.top5):
        assert (change.difference, change.low, change.high) == (0, 0, 0)
    assert (found.agreement.only_a, found.agreement.only_b, found.classes) == (0, 0, ())


@given(clips=RANKS)
@settings(max_examples=30, deadline=None)
def test_the_other_way_round_everything_is_mirrored(clips: list[tuple[int, int, int]]) -> None:
    a, b = two_reports(clips)
    there, back = compare(a, b), compare(b, a)
    for one, two in ((there.top1, back.top1), (there.top5, back.top5)):
        assert (one.a, one.b, one.difference) == (two.b, two.a, -two.difference)
        assert (one.low, one.high) == (-two.high, -two.low)
    assert (there.agreement.only_a, there.agreement.only_b) == (back.agreement.only_b, back.agreement.only_a)
    assert [(c.name, c.a, c.b) for c in there.classes] == [(c.name, c.b, c.a) for c in back.classes]


@given(clips=RANKS)
@settings(max_examples=30, deadline=None)
def test_the_interval_holds_the_difference(clips: list[tuple[int, int, int]]) -> None:
    found = compare(*two_reports(clips))
    for change in (found.top1, found.top5):
        assert -1 <= change.low <= change.difference <= change.high <= 1
    assert found.agreement.both + found.agreement.only_a == round(found.top1.a * found.clips)


def test_an_interval_is_the_same_every_time() -> None:
    assert bootstrap_interval(30, 50, 1000) == bootstrap_interval(30, 50, 1000)


@given(only=st.integers(1, 200), rest=st.integers(0, 500))
@settings(max_examples=30, deadline=None)
def test_when_each_is_right_as_often_the_interval_is_even(only: int, rest: int) -> None:
    low, high = bootstrap_interval(only, only, 2 * only + rest)
    assert low == -high < 0


def test_the_interval_is_that_of_resampling_the_clips_themselves() -> None:
    only_a, only_b, num = 30, 50, 400
    gains = np.repeat([-1, 1, 0], [only_a, only_b, num - only_a - only_b])
    drawn = np.random.default_rng(1).choice(gains, size=(4000, num)).mean(axis=1)
    low, high = bootstrap_interval(only_a, only_b, num)
    assert (low, high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.004)


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    rng, num, shares = np.random.default_rng(0), 500, [0.06, 0.10, 0.84]
    covered = 0
    for _ in range(300):
        only_a, only_b, _ = rng.multinomial(num, shares)
        low, high = bootstrap_interval(int(only_a), int(only_b), num)
        covered += low <= 0.04 <= high
    assert 0.92 <= covered / 300 <= 0.98


def test_other_taxonomies_are_refused() -> None:
    a = report({"p": (0, 1)})
    with pytest.raises(InputError, match="A is scored in the classes of k400, B in those of k710"):
        compare(a, replace(a, taxonomy="k710"))


def test_a_clip_of_another_class_is_refused_by_name() -> None:
    a = report({"p": (0, 1), "q": (1, 1)})
    with pytest.raises(InputError, match=r"clip q is 'zumba' \(1\) in A and 'yoga' \(2\) in B"):
        compare(a, other({"p": (0, 1), "q": (2, 1)}))
    renamed = tuple(replace(c, name="dance" if c.name == "zumba" else c.name) for c in a.classes)
    with pytest.raises(InputError, match=r"clip q is 'zumba' \(1\) in A and 'dance' \(1\) in B"):
        compare(a, replace(a, classes=renamed))


def test_reports_without_a_common_clip_are_refused() -> None:
    with pytest.raises(InputError, match="have no scored clip in common"):
        compare(report({"p": (0, 1)}), other({"q": (0, 1)}))


def warnings_of(**changes: object) -> tuple[str, ...]:
    ranks = {"p": (0, 1)}
    return compare(report(ranks), other(ranks, **changes)).warnings


def test_what_makes_two_evaluations_less_comparable_is_said() -> None:
    assert warnings_of(view="k710-val") == ("the views differ: k400-val and k710-val",)
    assert warnings_of(view_digest="w") == ("view k400-val has other clips or classes in one build than in the other",)
    assert warnings_of(data_digest="e") == ("the clips were encoded in different ways",)
    assert warnings_of(test_crops=1) == ("the test views differ: 4 x 3 and 4 x 1 (clips x crops)",)
    assert warnings_of(frame_sampling="dense, stride 4") == (
        "the frames are chosen in different ways: sparse and dense, stride 4",
    )
    assert warnings_of(settings={"frame_order": "reversed", "precision": "fp32", "workers": 0}) == (
        "the settings differ: frame_order: 'source' -> 'reversed'",
    )
    assert warnings_of(seen_videos=3) == ("B: the weights have seen 3 videos of k400-val",)
    (unknown,) = warnings_of(seen_videos=None)
    assert unknown.startswith("B: lineage unknown")
    assert warnings_of(checkpoint_sha256="a" * 64) == ("both are of the same weights",)
    assert warnings_of(failed=(("q", "no video"),)) == ("B: 1 clips could not be read",)


def written(path: Path, report: EvaluationReport) -> Path:
    atomic.write_json(path, report.to_json())
    return path


def test_reports_are_compared_as_files(tmp_path: Path) -> None:
    a, b = two_reports([(0, 1, 2), (1, 3, 1), (2, 1, 1)])
    found = compare_files(written(tmp_path / "a.json", a), written(tmp_path / "b.json", b))
    assert found == replace(
        compare(a, b), a=replace(found.a, name=str(tmp_path / "a.json")), b=replace(found.b, name=found.b.name)
    )
    document = json.loads(json.dumps(found.to_json()))
    assert document["top1"]["difference"] == found.top1.difference
    assert (document["resamples"], document["seed"], document["confidence"]) == (10_000, 0, 0.95)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "not a report"),
        ('{"view": 1}', "not a report"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=said):
        compare_files(tmp_path / "a.json", tmp_path / "a.json")
    with pytest.raises(UsageError, match=r"none\.json: cannot be read"):
        compare_files(tmp_path / "none.json", tmp_path / "a.json")


def test_a_report_of_another_version_or_with_a_damaged_field_is_refused(tmp_path: Path) -> None:
    plain = report({"p": (0, 1)}).to_json()
    path = tmp_path / "a.json"
    atomic.write_json(path, plain | {"schema_version": 1})
    with pytest.raises(InputError, match="report version 1, this version reads 2"):
        compare_files(path, path)
    for damage in (
        {"predictions": [{"key": "p", "label": "0", "predicted": 0, "rank": 1, "any_of": False}]},
        {"predictions": [{"key": "p", "label": 0, "predicted": 0, "rank": 1}]},
        {"predictions": {}},
        {"top1": "high"},
    ):
        atomic.write_json(path, plain | damage)
        with pytest.raises(InputError, match=next(iter(damage))):
            compare_files(path, path)
