"""The plan of a toy Kinetics: sizes, classes and planted cases, without a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k710.errors import UsageError
from k710.labels import load_labels
from k710.segments import is_youtube_id
from k710.synth.casting import MAX_CLASSES, cast
from k710.synth.plan import SynthConfig, make_plan, min_clips
from k710.synth.scenes import APPEARANCE_FAMILIES, ORDER_FAMILIES, Scene, draw
from k710.synth.truth import rows_of, truth_of, views_of

DEFAULT = SynthConfig()
CASES = (
    "in_two_releases",
    "in_three_releases",
    "only_k400",
    "only_k600",
    "only_k700",
    "leak",
    "leak_into_own_release",
    "leak_by_other_segment",
    "two_segments",
    "two_classes",
    "val_and_test",
    "id_begins_with_dash",
    "id_begins_with_underscore",
    "id_looks_like_a_number",
    "missing_file",
    "truncated_file",
    "unreadable_file",
    "empty_file",
    "html_file",
    "whole_video",
    "untimed_clip",
    "timed_clip_in_class_folder",
)


@st.composite
def configs(draw_value: Any) -> SynthConfig:
    num_classes = draw_value(st.integers(4, MAX_CLASSES))
    num_clips = min_clips(num_classes) + draw_value(st.integers(0, 200))
    return SynthConfig(num_clips=num_clips, num_classes=num_classes, seed=draw_value(st.integers(0, 99)))


@given(config=configs())
@settings(max_examples=20, deadline=None)
def test_every_size_holds_every_planted_case_and_every_list(config: SynthConfig) -> None:
    truth = truth_of(config, make_plan(config))
    assert set(truth["planted"]) == set(CASES)
    assert all(truth["planted"].values())
    assert len(truth["lists"]) == 9
    assert len(truth["clips"]) == config.num_clips


@given(config=configs())
@settings(max_examples=20, deadline=None)
def test_train_and_held_out_clips_show_different_bases(config: SynthConfig) -> None:
    splits: dict[tuple[str, int], set[str]] = {}
    for clip in make_plan(config):
        if not clip.plant:
            splits.setdefault((clip.base.family, clip.base.number), set()).update(p.split for p in clip.places)
    assert all(len(found) == 1 for found in splits.values())


@given(config=configs())
@settings(max_examples=20, deadline=None)
def test_keys_ids_and_paths_keep_apart(config: SynthConfig) -> None:
    plan = make_plan(config)
    assert all(is_youtube_id(c.segment.id) for c in plan)
    assert len({c.segment.key for c in plan}) == len(plan)
    ids = {c.segment.id for c in plan}
    assert len({i.casefold() for i in ids}) == len(ids)
    for path in {c.path for c in plan}:
        assert len({c.segment.id for c in plan if c.path == path}) == 1


@given(config=configs())
@settings(max_examples=20, deadline=None)
def test_every_order_clip_has_its_counterpart_of_the_same_form(config: SynthConfig) -> None:
    plan = [c for c in make_plan(config) if c.role.kind == "order" and not c.plant]
    sides = [{(c.role.family, c.base.number, c.form, c.layout) for c in plan if c.base.backward is b} for b in (0, 1)]
    assert sides[0] == sides[1]


@pytest.mark.parametrize("num_classes", range(4, MAX_CLASSES + 1))
def test_half_of_the_classes_need_order_and_every_kind_of_class_is_there(num_classes: int) -> None:
    roles = cast(num_classes)
    assert len({r.index for r in roles}) == num_classes
    assert 2 * sum(r.kind == "order" for r in roles) >= num_classes
    assert any(r.kind == "appearance" for r in roles)
    assert any(len(set(r.names.values())) > 1 for r in roles)
    assert any(len(r.names) == 3 and len(set(r.names.values())) == 1 for r in roles)
    assert any(len(r.names) == 1 for r in roles)


def test_the_default_size_is_what_the_demo_needs() -> None:
    truth = truth_of(DEFAULT, make_plan(DEFAULT))
    assert 450 <= truth["views"]["k710-train"]["clips"] <= 500
    assert truth["views"]["k710-val"]["usable_clips"] >= 200
    assert truth["views"]["k400-val"]["clips"] >= 100
    in_k400 = [c for c in truth["classes"] if "k400" in c["names"]]
    assert len(in_k400) >= 8
    names = {c["name"] for c in in_k400}
    assert sum(c["partner"] in names for c in in_k400) >= 4
    assert sum(len(set(c["names"].values())) > 1 for c in truth["classes"]) >= 2


def test_every_class_of_kinetics_400_has_twenty_train_clips_in_it() -> None:
    members = views_of(rows_of(make_plan(DEFAULT)))["k400-train"]
    counts = Counter(r.label for r in members if r.status == "ok")
    assert len(counts) == sum("k400" in r.names for r in cast(DEFAULT.num_classes))
    assert min(counts.values()) >= 20


def test_lists_call_a_class_by_their_own_name() -> None:
    labels = load_labels()
    for row in rows_of(make_plan(DEFAULT)):
        assert row.label is None or labels.canonical(row.release, row.label) is not None
    names = {(r.release, r.label) for r in rows_of(make_plan(DEFAULT))}
    assert {("k400", "dying hair"), ("k600", "dyeing hair")} <= names


def test_no_leaked_video_is_in_the_k710_train_view() -> None:
    truth = truth_of(DEFAULT, make_plan(DEFAULT))
    assert not set(truth["leaks"]["ids"]) & set(truth["views"]["k710-train"]["ids"])
    own = {v["id"] for v in truth["planted"]["leak_into_own_release"]}
    assert set(truth["leaks"]["ids"]) - own <= {
        i for r in ("k400", "k600", "k700") for i in truth["views"][f"{r}-train"]["ids"]
    }


@pytest.mark.parametrize(
    ("settings_given", "message"),
    [
        ({"num_clips": 30}, f"clips must be at least {min_clips(12)} for 12 classes, got 30"),
        ({"num_classes": 3}, "classes must be between 4 and 24, got 3"),
        ({"num_classes": 25}, "classes must be between 4 and 24, got 25"),
        ({"seed": -1}, "seed must not be negative, got -1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(settings_given: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SynthConfig(**settings_given)


@given(seed=st.integers(0, 99), number=st.integers(0, 99), num_frames=st.integers(1, 30))
@settings(max_examples=10, deadline=None)
@pytest.mark.parametrize("family", ORDER_FAMILIES)
def test_backward_is_the_exact_reversal(family: str, seed: int, number: int, num_frames: int) -> None:
    scene = Scene(family=family, seed=seed, number=number, num_frames=num_frames, width_px=32, height_px=24)
    assert np.array_equal(draw(scene), draw(replace(scene, backward=True))[::-1])


@pytest.mark.parametrize("family", ORDER_FAMILIES)
def test_an_order_scene_gains_light_however_it_is_mirrored(family: str) -> None:
    # The sum over the picture is blind to mirroring, so the direction of time is not a mirror image.
    for number in range(20):
        frames_THWC = draw(Scene(family=family, seed=0, number=number, num_frames=9, width_px=64, height_px=48))
        spread = [_spread(f) for f in frames_THWC]
        rising = np.diff(spread) if family != "meet" else -np.diff(spread)
        assert (rising > 0).mean() > 0.8


def _spread(frame_HWC: Any) -> float:
    """Light of a frame, the sides counted more than the middle column; equal for a frame and its mirror image."""
    light_HW = frame_HWC.astype(np.float64).sum(axis=2)
    weight_W = 1 + 20 * np.abs(np.linspace(-1, 1, light_HW.shape[1]))
    return float((light_HW * weight_W).sum())


@pytest.mark.parametrize("family", APPEARANCE_FAMILIES)
def test_a_single_frame_of_an_appearance_scene_shows_its_family(family: str) -> None:
    frames_THWC = draw(Scene(family=family, seed=0, number=0, num_frames=3, width_px=128, height_px=96))
    others = set(APPEARANCE_FAMILIES) - {family}
    for other in others:
        other_THWC = draw(Scene(family=other, seed=0, number=0, num_frames=3, width_px=128, height_px=96))
        assert np.abs(frames_THWC[1].astype(int) - other_THWC[1]).mean() > 3
