"""Which real classes a toy Kinetics has, and which scene stands for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from k710.labels import load_labels

MIN_CLASSES = 4
RELEASES = ("k400", "k600", "k700")

# Each pair is one scene, forward for the first class and backward for the second. The order of both tables matters:
# every size from MIN_CLASSES up has classes of all releases, renamed ones and one of a single release.
_PAIRS = (
    ("grow", "inflating balloons", "folding paper"),
    ("fill", "watering plants", "sipping cup"),
    ("open", "opening door", "closing door"),
    ("light", "lighting candle", "blowing out candles"),
    ("meet", "hugging (not baby)", "ripping paper"),
    ("build", "building lego", "popping balloons"),
)
_APPEARANCES = (
    ("checker", "cleaning floor"),
    ("upright_stripes", "dyeing hair"),
    ("green", "chopping vegetables"),
    ("red", "eating watermelon"),
    ("blue", "surfing water"),
    ("level_stripes", "making the bed"),
    ("yellow", "peeling banana"),
    ("rings", "archery"),
    ("dots", "playing dominoes"),
    ("slanted_stripes", "playing accordion"),
    ("cyan", "swimming backstroke"),
    ("magenta", "arranging flowers"),
)
MAX_CLASSES = 2 * len(_PAIRS) + len(_APPEARANCES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """One class and how its videos look."""

    index: int
    """Canonical index."""
    name: str
    """Canonical name."""
    names: Mapping[str, str]
    """Official name in each release that has the class."""
    family: str
    """Scene that is drawn; two order classes share one."""
    backward: bool = False
    """Whether the scene runs from its end to its start."""
    partner: str | None = None
    """Canonical name of the class with the same frames in the opposite order; None for an appearance class."""

    @property
    def kind(self) -> str:
        """``order`` when only the order of frames tells the class from its partner, else ``appearance``."""
        return "order" if self.partner else "appearance"

    @property
    def in_all_releases(self) -> bool:
        """Whether each of the three releases has the class."""
        return len(self.names) == len(RELEASES)


def cast(num_classes: int) -> tuple[Role, ...]:
    """The first ``num_classes`` roles: order pairs first, at least half of all, then appearance classes."""
    num_pairs = -(-num_classes // 4)
    roles: list[Role] = []
    for family, forward, backward in _PAIRS[:num_pairs]:
        roles.append(_role(forward, family, partner=backward))
        roles.append(_role(backward, family, partner=forward, backward=True))
    return (*roles, *(_role(name, family) for family, name in _APPEARANCES[: num_classes - len(roles)]))


def _role(name: str, family: str, *, partner: str | None = None, backward: bool = False) -> Role:
    labels = load_labels()
    row = labels.rows[labels.names.index(name)]
    return Role(index=row.index, name=name, names=row.names, family=family, partner=partner, backward=backward)
