"""What a toy Kinetics holds: every clip, the lists it stands in and the file it has. Pure: nothing is written here.

One global seed, and names instead of a running random state: a clip's id and frames do not depend on other clips.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from k710.errors import UsageError
from k710.segments import Segment
from k710.synth.casting import MAX_CLASSES, MIN_CLASSES, RELEASES, Role, cast
from k710.synth.forms import Form, unusual_form, usual_form
from k710.synth.planted import PLANTS, Plant
from k710.synth.scenes import Scene

MIN_CLIPS_PER_CLASS = 7
"""Fewer ordinary clips of a class would leave its train, val or test list of some release without any."""


_NUM_PLANTED = sum(len(p.segments) for p in PLANTS)


def min_clips(num_classes: int) -> int:
    """Smallest number of clips that holds every planted case and every list of ``num_classes`` classes."""
    return _NUM_PLANTED + MIN_CLIPS_PER_CLASS * num_classes


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthConfig:
    """What decides every byte of a toy Kinetics."""

    num_clips: int = 720
    """Distinct segments in all lists together, planted ones and those without a usable file included."""
    num_classes: int = 12
    """Classes; at least half of them can be told apart by the order of frames only."""
    seed: int = 0
    """Seed of ids, frames and segments; not negative."""

    def __post_init__(self) -> None:
        if not MIN_CLASSES <= self.num_classes <= MAX_CLASSES:
            raise UsageError(f"classes must be between {MIN_CLASSES} and {MAX_CLASSES}, got {self.num_classes}")
        if self.num_clips < min_clips(self.num_classes):
            raise UsageError(
                f"clips must be at least {min_clips(self.num_classes)} for {self.num_classes} classes,"
                f" got {self.num_clips}",
                hint="fewer cannot hold every planted case and every list",
            )
        if self.seed < 0:
            raise UsageError(f"seed must not be negative, got {self.seed}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One row of one list."""

    release: str
    """``k400``, ``k600`` or ``k700``."""
    split: str
    """``train``, ``val`` or ``test``."""
    role: Role
    """Class that this list gives the clip; the release has it."""

    @property
    def list_name(self) -> str:
        """Such as ``k600:val``."""
        return f"{self.release}:{self.split}"

    @property
    def label(self) -> str | None:
        """The release's own name of the class; None in K700's test list, which has no label column."""
        return None if self.list_name == "k700:test" else self.role.names[self.release]


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One segment of one video and everything the data set says of it."""

    segment: Segment
    """Video id and time range, whole seconds."""
    role: Role
    """Class whose scene is drawn."""
    base: Scene
    """The frames inside the segment."""
    form: Form
    """Rate, picture size, sound."""
    places: tuple[Place, ...]
    """Rows of the lists, at least one."""
    path: str
    """File in ``videos/``, with forward slashes; clips cut from one whole video share it."""
    layout: str
    """``timed``, ``folder``, ``untimed`` or ``original``."""
    plant: str = ""
    """Planted case that the clip belongs to; empty for an ordinary one."""
    file: str = "ok"
    """What becomes of the file: ``ok``, ``missing``, ``truncated``, ``unreadable``, ``empty_file`` or ``html``."""

    @property
    def status(self) -> str:
        """What a build must make of the file: an outcome's status."""
        return {"unreadable": "truncated", "empty_file": "not_a_video", "html": "not_a_video"}.get(self.file, self.file)


def make_plan(config: SynthConfig) -> tuple[Clip, ...]:
    """Every clip of the data set, ordinary ones first; equal configs give equal plans."""
    roles = cast(config.num_classes)
    clips = [*_ordinary(config, roles), *_planted(config, roles)]
    assert len({c.segment.key for c in clips}) == len(clips) == config.num_clips
    return tuple(clips)


# A video's releases, by its number in its class; what its class lacks is left out. Each release has videos of its own.
_RELEASE_CYCLE = (
    RELEASES,
    RELEASES,
    ("k400",),
    RELEASES,
    ("k600", "k700"),
    ("k700",),
    RELEASES,
    ("k400", "k600"),
    ("k600",),
    RELEASES,
    ("k400", "k700"),
    RELEASES,
)
_LAYOUT_CYCLE = ("timed", "folder", "untimed", "folder", "original", *("timed", "folder", "timed", "untimed") * 5)
# Heads of the first id of the first classes: what a shell, a spreadsheet or pandas would take for something else.
_ODD_IDS = ("-", "_", "1e234567890", "00123456789")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Class:
    role: Role
    position: int
    family: int
    num_families: int
    num_clips: int


def _ordinary(config: SynthConfig, roles: Sequence[Role]) -> Iterator[Clip]:
    each, more = divmod(config.num_clips - _NUM_PLANTED, len(roles))
    num_order = sum(r.kind == "order" for r in roles)
    families = list(dict.fromkeys(r.family for r in roles))
    for position, role in enumerate(roles):
        # What does not divide goes to appearance classes, so that each order clip has its counterpart.
        extra = _share(more, position - num_order, len(roles) - num_order) if role.kind == "appearance" else 0
        one = _Class(
            role=role,
            position=position,
            family=families.index(role.family),
            num_families=len(families),
            num_clips=each + extra,
        )
        yield from (_ordinary_clip(config, one, number) for number in range(one.num_clips))


def _share(total: int, position: int, parts: int) -> int:
    return total // parts + (position < total % parts)


def _ordinary_clip(config: SynthConfig, one: _Class, number: int) -> Clip:
    role, split = one.role, _split(number, one.num_clips)
    # Both classes of a pair take the same form and layout, so that only the order of frames tells them apart.
    unusual = unusual_form(one.family, one.num_families, number, config.num_clips)
    layout = _LAYOUT_CYCLE[(number * 7 + one.family) % len(_LAYOUT_CYCLE)]
    layout = "timed" if unusual and layout == "original" else layout
    form = unusual or usual_form(f"{config.seed}/{role.family}/{number}", whole=layout == "original")
    head = _ODD_IDS[one.position] if number == 0 and one.position < len(_ODD_IDS) else ""
    video_id = head + _video_id(config.seed, f"{role.name}/{number}")[len(head) :]
    cycle = _RELEASE_CYCLE[(number + 5 * one.position) % len(_RELEASE_CYCLE)]
    releases = [r for r in cycle if r in role.names] or list(role.names)
    places = tuple(Place(release=r, split=split, role=role) for r in releases)
    start = _start(video_id, layout)
    segment = Segment(id=video_id, start_s=start, end_s=start + form.segment_s)
    return Clip(
        segment=segment,
        role=role,
        base=_scene(config, role, form, number),
        form=form,
        places=places,
        path=_path(segment, layout, places[0]),
        layout=layout,
    )


def _split(number: int, num_of_class: int) -> str:
    num_val, num_test = max(2, round(0.3 * num_of_class)), max(1, round(0.035 * num_of_class))
    if number < num_of_class - num_val - num_test:
        return "train"
    return "val" if number < num_of_class - num_test else "test"


def _scene(config: SynthConfig, role: Role, form: Form, number: int) -> Scene:
    return Scene(
        family=role.family,
        seed=config.seed,
        number=number,
        num_frames=form.num_frames,
        width_px=form.width_px,
        height_px=form.height_px,
        backward=role.backward,
    )


def _video_id(seed: int, name: str) -> str:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=12).digest()
    return base64.urlsafe_b64encode(digest).decode()[:11]


def _start(video_id: str, layout: str) -> int:
    chance = int.from_bytes(hashlib.blake2b(video_id.encode(), digest_size=4).digest(), "big")
    return 1 + chance % 3 if layout == "original" else chance % 300


def _path(segment: Segment, layout: str, place: Place) -> str:
    if layout in ("untimed", "original"):
        return f"{segment.id}.mp4"
    if layout == "timed":
        return f"{segment.key}.mp4"
    folder = f"kinetics{place.release[1:]}/{place.split}"
    # Test folders are flat wherever Kinetics is handed out: their classes were once secret.
    name = f"/{place.role.names[place.release]}" if place.split != "test" else ""
    return f"{folder}{name}/{segment.key}.mp4"


def _planted(config: SynthConfig, roles: Sequence[Role]) -> Iterator[Clip]:
    shared = [r for r in roles if r.in_all_releases]
    for number, plant in enumerate(PLANTS):
        role, other = shared[number % len(shared)], shared[(number + 1) % len(shared)]
        yield from _plant_clips(config, plant, number, role, other)


def _plant_clips(config: SynthConfig, plant: Plant, number: int, role: Role, other: Role) -> Iterator[Clip]:
    video_id = _video_id(config.seed, f"planted/{plant.kind}/{number}")
    start = _start(video_id, plant.layout)
    for turn, lists in enumerate(plant.segments):
        # Far beyond the numbers of ordinary clips: no base clip is drawn twice.
        base_number = 1_000_000 + 10 * number + turn
        form = usual_form(f"{config.seed}/{role.family}/{base_number}", whole=True)
        segment = Segment(id=video_id, start_s=start, end_s=start + form.segment_s)
        places = tuple(_place(name, role, other) for name in lists)
        yield Clip(
            segment=segment,
            role=role,
            base=_scene(config, role, form, base_number),
            form=form,
            places=places,
            path=_path(segment, plant.layout, places[0]),
            layout=plant.layout,
            plant=plant.kind,
            file=plant.file,
        )
        start = start + form.segment_s + 1


def _place(name: str, role: Role, other: Role) -> Place:
    release, split = name.rstrip("!").split(":")
    return Place(release=release, split=split, role=other if name.endswith("!") else role)
