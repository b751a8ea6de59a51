"""Which operations RandAugment draws, and how strong: numbers only, no pictures.

Cubuk et al., RandAugment, section 3; operations, ranges and noise on the magnitude as in the published training.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MAX_MAGNITUDE = 10
FILL = 128
"""Value of pixels that come from outside the picture."""

_EXAMPLE = "rand-m7-n4-mstd0.5-inc1"
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_SPEC = re.compile(rf"rand-m(?P<magnitude>{_NUMBER})-n(?P<num>[1-9][0-9]*)-mstd(?P<deviation>{_NUMBER})-inc1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How operations are drawn."""

    num: int
    """Operations drawn for a clip, with replacement; each is then applied with probability one half."""
    magnitude: float
    """Mean strength, 0 to 10."""
    deviation: float
    """Standard deviation of the strength from one operation to the next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One thing that is done to all frames of a clip."""

    name: str
    """One of ``OPERATIONS``."""
    amount: float = 0.0
    """In the operation's own unit, with its sign; see ``OPERATIONS``."""


OPERATIONS: Mapping[str, Callable[[float, int], float]] = {
    "auto_contrast": lambda *_: 0.0,
    "equalize": lambda *_: 0.0,
    "invert": lambda *_: 0.0,
    "rotate": lambda m, sign: sign * 30 * m / MAX_MAGNITUDE,  # degrees, positive counter-clockwise
    "posterize": lambda m, _: 4 - int(0.4 * m),  # bits that are kept
    "solarize": lambda m, _: 256 - int(25.6 * m),  # values from this one on are inverted
    "solarize_add": lambda m, _: int(11 * m),  # added to values below 128
    "color": lambda m, sign: 1 + sign * 0.09 * m,  # 0 is grey, 1 leaves the picture, as with the next three
    "contrast": lambda m, sign: 1 + sign * 0.09 * m,
    "brightness": lambda m, sign: 1 + sign * 0.09 * m,
    "sharpness": lambda m, sign: 1 + sign * 0.09 * m,
    "shear_x": lambda m, sign: sign * 0.03 * m,  # pixels to the left for each row
    "shear_y": lambda m, sign: sign * 0.03 * m,  # pixels upwards for each column
    "translate_x": lambda m, sign: sign * 0.045 * m,  # to the left, share of the width
    "translate_y": lambda m, sign: sign * 0.045 * m,  # upwards, share of the height
}
"""The amount that belongs to a magnitude and a sign, of each operation; a greater magnitude never does less."""


def parse_policy(text: str) -> Policy:
    """The policy that a text like ``rand-m7-n4-mstd0.5-inc1`` names.

    Raises:
        ValueError: another form; parts that are left out or are not known are never guessed.
    """
    found = _SPEC.fullmatch(text)
    if found is None:
        raise ValueError(f"randaugment must look like {_EXAMPLE}, got {text!r}")
    policy = Policy(num=int(found["num"]), magnitude=float(found["magnitude"]), deviation=float(found["deviation"]))
    if policy.magnitude > MAX_MAGNITUDE:
        raise ValueError(f"randaugment has magnitudes m0 to m{MAX_MAGNITUDE}, got {text!r}")
    return policy


def draw(policy: Policy, rng: random.Random) -> list[Operation]:
    """The operations for one clip in their order; half of those drawn are left out, so it may be empty."""
    drawn = []
    for name in rng.choices(tuple(OPERATIONS), k=policy.num):
        applied = rng.random() < 0.5
        magnitude = min(max(rng.gauss(policy.magnitude, policy.deviation), 0.0), float(MAX_MAGNITUDE))
        sign = 1 if rng.random() < 0.5 else -1
        if applied:
            drawn.append(Operation(name=name, amount=float(OPERATIONS[name](magnitude, sign))))
    return drawn
