"""RandAugment: what is drawn, and each published operation against its definition."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from pictures import by_definition, noise, waves

from uniformerv2.data.randaugment.policy import OPERATIONS, Operation, Policy, draw, parse_policy
from uniformerv2.data.randaugment.published import apply_published

SPEC = "rand-m7-n4-mstd0.5-inc1"
EXACT = ("equalize", "invert", "posterize", "solarize", "solarize_add")
CASES = [(name, magnitude, sign) for name in OPERATIONS for magnitude in (3.4, 7.3) for sign in (1, -1)]


@pytest.mark.parametrize(("name", "magnitude", "sign"), CASES)
def test_a_published_operation_does_what_its_definition_says(name: str, magnitude: float, sign: int) -> None:
    picture = noise(31, 42)
    amount = float(OPERATIONS[name](magnitude, sign))
    found = apply_published(picture[None], [Operation(name=name, amount=amount)])[0]
    expected = by_definition(name, amount, picture)
    assert np.abs(found - expected).max() <= (0 if name in EXACT else 1)
    assert np.abs(found - picture.astype(int)).mean() > 2


def test_amounts_are_the_published_ones() -> None:
    amounts = {name: (OPERATIONS[name](7, 1), OPERATIONS[name](10, -1)) for name in OPERATIONS}
    assert amounts == {
        "auto_contrast": (0, 0),
        "equalize": (0, 0),
        "invert": (0, 0),
        "rotate": (21, -30),
        "posterize": (2, 0),
        "solarize": (256 - 179, 0),
        "solarize_add": (77, 110),
        "color": (1.63, pytest.approx(0.1)),
        "contrast": (1.63, pytest.approx(0.1)),
        "brightness": (1.63, pytest.approx(0.1)),
        "sharpness": (1.63, pytest.approx(0.1)),
        "shear_x": (pytest.approx(0.21), pytest.approx(-0.3)),
        "shear_y": (pytest.approx(0.21), pytest.approx(-0.3)),
        "translate_x": (pytest.approx(0.315), pytest.approx(-0.45)),
        "translate_y": (pytest.approx(0.315), pytest.approx(-0.45)),
    }


def test_a_turn_is_counter_clockwise_and_a_shift_is_to_the_left() -> None:
    picture = np.zeros((1, 21, 21, 3), np.uint8)
    picture[0, 10, 16] = 255
    turned = apply_published(picture, [Operation(name="rotate", amount=90)])[0]
    shifted = apply_published(picture, [Operation(name="translate_x", amount=1 / 3)])[0]
    assert np.argwhere(turned[..., 0] == 255).tolist() == [[4, 10]]
    assert np.argwhere(shifted[..., 0] == 255).tolist() == [[10, 9]]


def test_operations_follow_each_other() -> None:
    frames = waves(20, 30)[None]
    first, second = Operation(name="solarize", amount=100), Operation(name="brightness", amount=0.5)
    both = apply_published(frames, [first, second])
    assert np.array_equal(both, apply_published(apply_published(frames, [first]), [second]))
    assert not np.array_equal(both, apply_published(frames, [second, first]))


def test_a_policy_is_read_from_its_text() -> None:
    assert parse_policy(SPEC) == Policy(num=4, magnitude=7, deviation=0.5)
    assert parse_policy("rand-m9.5-n12-mstd0-inc1") == Policy(num=12, magnitude=9.5, deviation=0)


@pytest.mark.parametrize(
    "text",
    [
        "rand",
        "rand-m7-n4-mstd0.5",
        "rand-m7-n4-mstd0.5-inc0",
        "rand-n4-m7-mstd0.5-inc1",
        "rand-m7-n0-mstd0.5-inc1",
        "rand-m7-n4-mstd0.5-inc1-p0.3",
        "augmix-m7-n4-mstd0.5-inc1",
        " rand-m7-n4-mstd0.5-inc1",
        "rand-m7-n4-mstd0.5-inc1\n",
        "rand-m-7-n4-mstd0.5-inc1",
        "rand-m٧-n4-mstd0.5-inc1",
    ],
)
def test_any_other_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"must look like rand-m7-n4-mstd0\.5-inc1, got"):
        parse_policy(text)


def test_a_magnitude_above_ten_is_refused() -> None:
    with pytest.raises(ValueError, match=r"m0 to m10, got 'rand-m11-"):
        parse_policy("rand-m11-n4-mstd0.5-inc1")


def test_operations_are_a_function_of_the_generator() -> None:
    policy = parse_policy(SPEC)
    first, again, other = (draw(policy, random.Random(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_each_operation_is_as_likely_and_half_of_those_drawn_are_applied() -> None:
    rng, policy = random.Random(0), parse_policy(SPEC)
    drawn = [draw(policy, rng) for _ in range(6000)]
    counts = Counter(operation.name for of_one in drawn for operation in of_one)
    assert set(counts) == set(OPERATIONS)
    assert all(700 < count < 900 for count in counts.values())
    assert Counter(map(len, drawn))[4] == pytest.approx(6000 / 16, rel=0.2)
    assert any(len({o.name for o in of_one}) < len(of_one) for of_one in drawn)


def test_magnitudes_are_normal_and_both_signs_as_likely() -> None:
    rng, policy = random.Random(0), parse_policy(SPEC)
    turns = np.array([o.amount for _ in range(20000) for o in draw(policy, rng) if o.name == "rotate"]) / 3
    assert np.abs(turns).mean() == pytest.approx(7, abs=0.05)
    assert np.abs(turns).std() == pytest.approx(0.5, abs=0.03)
    assert (turns > 0).mean() == pytest.approx(0.5, abs=0.03)


def test_magnitudes_stay_between_0_and_10() -> None:
    rng = random.Random(0)
    for text, limit in (("rand-m10-n9-mstd3-inc1", 30), ("rand-m0-n9-mstd3-inc1", 30)):
        turns = [abs(o.amount) for _ in range(500) for o in draw(parse_policy(text), rng) if o.name == "rotate"]
        assert max(turns) <= limit
        assert 30.0 in turns or 0.0 in turns


def test_all_frames_get_the_same() -> None:
    frames = np.repeat(noise(20, 24)[None], 3, axis=0)
    for name in OPERATIONS:
        out = apply_published(frames, [Operation(name=name, amount=float(OPERATIONS[name](7, 1)))])
        assert out.shape == frames.shape
        assert np.array_equal(out[0], out[1])
        assert np.array_equal(out[0], out[2])
