"""Laws of the lists: every row is accounted for, and the order of rows and files decides nothing."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from list_cases import catalog_of, framed

from k710 import schema
from k710.config import load_releases
from k710.labels import load_labels
from k710.lists.clips import plan_clips, view_digest
from k710.lists.leakage import leak_table
from k710.lists.manifest import digest, excluded_table, held_out_table, lock_document, view_documents
from k710.lists.policy import Policy, Selection
from k710.lists.rows import BAD_ROWS
from k710.lists.views import build_views, choose_views
from k710.report.audit import audit_document
from k710.tables import table_bytes

LISTS = (
    "k400:train",
    "k400:val",
    "k600:train",
    "k600:val",
    "k600:test",
    "k600:holdout",
    "k700:train",
    "k700:test",
    "k700-2020:train",
)
NAMES = ("abseiling", "zumba", "yoga")


@st.composite
def catalogs(draw: Any) -> list[tuple[Any, ...]]:
    """Rows on few videos, segments and names, so that every kind of clash is frequent."""
    row = st.tuples(
        st.sampled_from(LISTS),
        st.sampled_from(["aaaaaaaaaaa", "AAAAAAAAAAA", "-aaaaaaaaaa", "_aaaaaaaaaa"]),
        st.sampled_from([0, 3, 5.5]),
        st.sampled_from(NAMES),
    )
    rows = draw(st.lists(row, min_size=1, max_size=25))
    # The real holdout list has no labels.
    return [(r[0], r[1], r[2], None) if r[0] in ("k600:holdout", "k700:test") else r for r in rows]


protections: dict[str, Any] = {
    "protect": st.sampled_from([(), ("val",), ("test",), ("val", "test")]),
    "leaks": st.sampled_from(["drop-train", "drop-eval", "report"]),
}
policies = st.builds(
    Policy,
    **protections,
    unit=st.sampled_from(["video", "segment"]),
    prefer=st.sampled_from([("newest",), ("oldest",)]),
    conflicts=st.sampled_from(["keep", "drop"]),
    selection=st.builds(
        Selection,
        classes=st.sampled_from([(), (0,), (0, 399)]),
        exclude_classes=st.sampled_from([(), (0,)]),
        exclude_ids=st.sampled_from([(), ("aaaaaaaaaaa",)]),
        near_duplicates=st.sampled_from([(), ("bbbbbbbbbbb",)]),
        near_duplicates_held_out=st.sampled_from([(), ("bbbbbbbbbbb",)]),
        per_class=st.sampled_from([None, 1, 2]),
        seed=st.integers(0, 2),
    ),
)
"""Every kind of policy."""
whole = st.builds(Policy, **protections)
"""Policies that take every row, in units of videos."""


def possible_views(rows: list[tuple[Any, ...]]) -> list[str]:
    names = {r[0] for r in rows}
    merged = {f"k710-{n.split(':')[1].replace('holdout', 'test')}" for n in names}
    return sorted({n.replace(":", "-") for n in names} | merged)


def named_row(row: Any) -> tuple[Any, ...]:
    return (row.release, row.split, row.id, row.start_s, row.end_s, row.label if isinstance(row.label, str) else None)


def source_of(view: str, rows: list[tuple[Any, ...]]) -> Counter[tuple[Any, ...]]:
    release, split = view.rsplit("-", 1)
    splits = ("test", "holdout") if view == "k710-test" else (split,)
    found: Counter[tuple[Any, ...]] = Counter()
    for name, video, start_s, label in rows:
        own, of = name.split(":")
        if of in splits and release in ("k710", own):
            found[own, of, video, float(start_s), float(start_s + 10), label] += 1
    return found


@given(rows=catalogs(), policy=policies)
@settings(max_examples=25, deadline=None)
def test_every_row_of_every_view_is_in_it_or_excluded_once(plan: Any, rows: Any, policy: Policy) -> None:
    planned = plan(rows, *possible_views(rows), policy=policy)
    for name, view in planned.views.items():
        accounted = Counter(map(named_row, view.members.itertuples())) + Counter(
            map(named_row, view.excluded.itertuples())
        )
        assert accounted == source_of(name, rows)
        assert not view.members["key"].duplicated().any()
        if name.startswith("k710-") and policy.unit == "video":
            assert not view.members["id"].duplicated().any()


@given(rows=catalogs(), policy=policies)
@settings(max_examples=15, deadline=None)
def test_no_protected_video_reaches_training_whatever_else_is_asked_for(plan: Any, rows: Any, policy: Policy) -> None:
    planned = plan(rows, *possible_views(rows), policy=policy)
    splits = policy.protected_splits if policy.leaks == "drop-train" else ()
    for name, view in planned.views.items():
        release = name.removesuffix("-train")
        if name.endswith("-train"):
            held = {
                r[1]
                for r in rows
                if (r[0].split(":")[1] in splits and release == "k710")
                or (r[0].split(":")[0] == release and not r[0].endswith(":train"))
            }
            assert held.isdisjoint(view.members["id"])


@given(rows=catalogs(), policy=policies)
@settings(max_examples=15, deadline=None)
def test_what_was_deduplicated_stays_as_it_is_when_it_is_deduplicated_again(
    plan: Any, rows: Any, policy: Policy
) -> None:
    if "k710-train" not in (planned := plan(rows, *possible_views(rows), policy=policy)).views:
        return
    members = planned.views["k710-train"].members
    again = [
        (f"{m.release}:{m.split}", m.id, m.start_s, m.label) for m in members.itertuples() if isinstance(m.label, str)
    ]
    if len(again) == len(members) > 0:
        # Releases that are gone cannot be preferred by name; the words newest and oldest still mean something.
        assert plan(again, "k710-train", policy=policy).keys("k710-train") == sorted(members["key"])


@given(rows=catalogs(), policy=whole)
@settings(max_examples=15, deadline=None)
def test_protected_videos_are_in_no_training_view_and_no_others_are_lost(plan: Any, rows: Any, policy: Policy) -> None:
    planned = plan(rows, *possible_views(rows), policy=policy)
    if "k710-train" not in planned.views:
        return
    splits = policy.protected_splits if policy.leaks == "drop-train" else ()
    away = {r[1] for r in rows if r[0].split(":")[1] in splits}
    expected = {r[1] for r in rows if r[0].endswith(":train")} - away
    assert set(planned.views["k710-train"].members["id"]) == expected


def documents(lists: list[Any], words: list[str], policy: Policy) -> dict[str, Any]:
    """All that a build writes about its lists."""
    labels = load_labels()
    catalog = catalog_of(lists)
    named = [(i.file.release.name, i.file.split) for i in lists]
    releases = [r for r in load_releases().values() if r.name in {name for name, _ in named}]
    views = build_views(catalog, choose_views(words, releases, named), policy)
    manifest = plan_clips(catalog, views, labels, 2)
    described = view_documents(catalog, views, manifest, labels.digest, {})
    left_out = excluded_table(catalog, views, BAD_ROWS.empty_table())
    lock = lock_document(
        config={"clips_per_shard": 2, "encode": {}},
        releases=releases,
        lists=sorted(lists, key=lambda i: i.file.name),
        policy=policy,
        views=described,
        manifest=manifest,
        manifest_digest=digest(table_bytes(manifest, schema.MANIFEST)),
        left_out_digest=digest(table_bytes(left_out, schema.EXCLUDED)),
        class_table=labels.digest,
    )
    return {
        "lock": lock,
        "views": described,
        "excluded": left_out,
        "held_out": held_out_table(catalog),
        "leaks": leak_table(catalog),
        "audit": audit_document(catalog, views, policy, []),
    }


@given(rows=catalogs(), policy=policies, seed=st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_the_order_of_rows_and_files_changes_nothing(lists_of: Any, rows: Any, policy: Policy, seed: int) -> None:
    shuffled = random.Random(seed).sample(rows, len(rows))
    words = possible_views(rows)
    assert documents(lists_of(shuffled), words, policy) == documents(lists_of(rows), words, policy)


@given(rows=catalogs())
@settings(max_examples=15, deadline=None)
def test_every_clip_of_every_view_is_planned_once_with_its_class_in_that_view(lists_of: Any, rows: Any) -> None:
    catalog = catalog_of(lists_of(rows))
    named = sorted({tuple(r[0].split(":")) for r in rows})
    releases = [r for r in load_releases().values() if r.name in {name for name, _ in named}]
    views = build_views(catalog, choose_views(possible_views(rows), releases, named), Policy())
    clips = plan_clips(catalog, views, load_labels(), 3).to_pylist()
    assert len({c["key"] for c in clips}) == len(clips)
    planned = {(v, c["key"], k) for c in clips for v, k in zip(c["views"], c["view_classes"], strict=True)}
    assert planned == {
        (v.spec.name, m.key, m.canonical) for v in views for m in framed(catalog, v).members.itertuples()
    }
    for clip in clips:
        merged = {
            k for v, k in zip(clip["views"], clip["view_classes"], strict=True) if v.startswith("k710-") and k >= 0
        }
        candidates = merged or set(clip["classes"])
        assert clip["class"] == (candidates.pop() if len(candidates) == 1 else None)


def test_the_digest_of_a_view_is_over_its_sorted_keys_and_classes(plan: Any) -> None:
    planned = plan([("k400:train", "bbbbbbbbbbb", 3, "zumba"), ("k400:train", "aaaaaaaaaaa", 3, "abseiling")])
    lines = "aaaaaaaaaaa_000003_000013\t0\nbbbbbbbbbbb_000003_000013\t399\n"
    assert load_labels().canonical("k400", "zumba") == 399
    assert view_digest(planned.catalog, planned.views["k710-train"].built) == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("k400:train", "aaaaaaaaaaa", 3, "abseiling")], 0),
        ([("k600:holdout", "aaaaaaaaaaa", 3, None)], None),
        ([("k400:val", "aaaaaaaaaaa", 3, "baby waking up"), ("k600:val", "aaaaaaaaaaa", 3, "waking up")], "waking up"),
    ],
)
def test_the_class_of_a_clip(lists_of: Any, rows: Any, expected: Any) -> None:
    labels = load_labels()
    catalog = catalog_of(lists_of(rows))
    named = sorted({tuple(r[0].split(":")) for r in rows})
    releases = [r for r in load_releases().values() if r.name in {name for name, _ in named}]
    views = build_views(catalog, choose_views(possible_views(rows), releases, named), Policy())
    (clip,) = plan_clips(catalog, views, labels, 3).to_pylist()
    assert clip["class"] == (labels.canonical("k600", expected) if isinstance(expected, str) else expected)


def test_a_clip_that_two_merged_views_class_differently_has_no_single_class(lists_of: Any) -> None:
    rows = [("k400:train", "aaaaaaaaaaa", 3, "abseiling"), ("k600:val", "aaaaaaaaaaa", 3, "waking up")]
    catalog = catalog_of(lists_of(rows))
    releases = [load_releases()["k400"], load_releases()["k600"]]
    specs = choose_views(["default"], releases, [("k400", "train"), ("k600", "val")])
    views = build_views(catalog, specs, Policy(leaks="report"))
    (clip,) = plan_clips(catalog, views, load_labels(), 3).to_pylist()
    assert clip["class"] is None
    assert len(clip["classes"]) == 2


def test_the_keys_of_a_catalog_are_in_the_order_of_its_rows(lists_of: Any) -> None:
    catalog = catalog_of(lists_of([("k400:train", "aaaaaaaaaaa", 0), ("k400:train", "aaaaaaaaaaa", 1.5)]))
    assert catalog.keys.to_pylist() == ["aaaaaaaaaaa_000000_000010", "aaaaaaaaaaa_000001500_000011500"]


def leaves_of(lists: list[Any], policy: Policy) -> dict[frozenset[str], str]:
    """The planned shard of each set of clips that has one to itself."""
    catalog = catalog_of(lists)
    named = sorted({(i.file.release.name, i.file.split) for i in lists})
    releases = [r for r in load_releases().values() if r.name in {name for name, _ in named}]
    views = build_views(catalog, choose_views(["default"], releases, named), policy)
    by_leaf: dict[str, set[str]] = {}
    for clip in plan_clips(catalog, views, load_labels(), 2).select(["key", "leaf"]).to_pylist():
        by_leaf.setdefault(clip["leaf"], set()).add(clip["key"])
    return {frozenset(keys): leaf for leaf, keys in by_leaf.items()}


@given(rows=catalogs(), more=catalogs(), policy=policies)
@settings(max_examples=25, deadline=None)
def test_a_shard_whose_clips_stay_keeps_its_name_whatever_else_changes(
    lists_of: Any, rows: Any, more: Any, policy: Policy
) -> None:
    rows = [row for row in rows if not row[0].endswith((":test", ":holdout"))] or [("k400:train", "aaaaaaaaaaa", 0)]
    before, after = leaves_of(lists_of(rows), policy), leaves_of(lists_of(rows + more), policy)
    for clips in set(before) & set(after):
        (group, bits), (new_group, new_bits) = (leaf.rsplit("/t-", 1) for leaf in (before[clips], after[clips]))
        if group == new_group and bits != new_bits:
            # Only where the shard was split, or merged with its sibling, and all its clips stayed together.
            old, new = (b.removesuffix(".tar").replace("root", "") for b in (bits, new_bits))
            assert old.startswith(new) or new.startswith(old)


@given(rows=catalogs(), policy=whole)
@settings(max_examples=20, deadline=None)
def test_the_merged_views_partition_the_videos_as_stated(plan: Any, rows: Any, policy: Policy) -> None:
    planned = plan(rows, *possible_views(rows), policy=policy)
    seen = {
        s: set(planned.views[v].members["id"]) for s in ("train", "val", "test") if (v := f"k710-{s}") in planned.views
    }
    train, val, test = (seen.get(s, set()) for s in ("train", "val", "test"))
    listed = {s: {r[1] for r in rows if r[0].split(":")[1] in s} for s in (("train",), ("val",), ("test", "holdout"))}
    in_val, in_test = listed[("val",)], listed[("test", "holdout")]
    assert val == (in_val - train if policy.leaks == "drop-eval" else in_val)
    assert test == in_test - val
    assert not val & test
    protected = {"val": in_val, "test": in_test}
    away = set().union(*(protected[p] for p in policy.protect)) if policy.leaks == "drop-train" else set()
    assert train == listed[("train",)] - away
