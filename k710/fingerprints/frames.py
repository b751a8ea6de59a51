"""Hashes and brightness of the frames of one clip, taken at fixed times, so that two clips can be laid over each other.

Axes: T sample times, H height, W width, C colour (RGB), F fields of a picture, row by row.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from k710.clips.containers import CONTAINERS
from k710.clips.verify import MAX_PIXELS
from k710.errors import UsageError

FORM = 2
"""Version of how frames are picked and hashed; fingerprints of another one are made anew."""
RATE_HZ = 10
"""Samples for each second: two copies that begin at any times have samples at most 0.05 s from each other."""
HASH_BYTES = 32
LEAST_QUALITY = 20
"""Of PDQ's 0 to 100; below it a frame is dull: few bits of its hash are the same in a copy."""
FIELDS = 8
"""Fields of a picture whose brightness is kept, across and down."""
LIGHT_STEPS = 16
"""Steps of brightness for each of 8 bits: in a shot from a tripod what changes is less than one of those."""
LEAST_CONTRAST = 2.0
"""Standard deviation of the brightness of a picture's fields, of 255, under which a dull frame shows nothing."""
MOST_SAMPLES = 600
"""Of one clip; what follows the first minute is not looked at."""
TIMEOUT_S = 120.0
"""For one clip; one of 10 s takes a quarter of a second."""

_SIDE_PX = 128
_WIDE_PX = 135
"""Side of the picture whose middle 128 pixels are the picture with 5 % cropped away."""
_MARGIN_PX = (_WIDE_PX - _SIDE_PX) // 2

_LUMA = np.array([0.299, 0.587, 0.114])

Hashes = npt.NDArray[np.uint8]
Light = npt.NDArray[np.uint16]


class Unreadable(Exception):  # noqa: N818 - an outcome of a clip, not an error
    """A clip has no fingerprint; the text is the reason, one line."""

    def __init__(self, reason: str, *, is_passing: bool = False) -> None:
        super().__init__(reason)
        self.is_passing = is_passing
        """Whether it may go well another time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameHashes:
    """The frames of a clip that were hashed: sample ``k`` is what is shown ``k / RATE_HZ`` seconds after its start."""

    whole: Hashes
    """Hash of each whole frame, [T, 32]."""
    middle: Hashes
    """Hash of each frame without its outermost 5 %, [T, 32]: what a cropped copy looks like."""
    quality: npt.NDArray[np.uint8]
    """PDQ's quality of each whole frame, 0 to 100, [T]."""
    light: Light
    """Brightness of the fields of each whole frame, in sixteenths of 0 to 255, [T, F]."""
    middle_light: Light
    """The same of its middle, [T, F]."""

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def is_telling(self) -> npt.NDArray[np.bool_]:
        """Which samples have a hash that says something, [T]."""
        found: npt.NDArray[np.bool_] = self.quality >= LEAST_QUALITY
        return found

    @property
    def is_shown(self) -> npt.NDArray[np.bool_]:
        """Which samples show something at all, [T]: a plain wall does, a black frame does not."""
        found: npt.NDArray[np.bool_] = self.light.std(axis=1) >= LEAST_CONTRAST * LIGHT_STEPS
        return found | self.is_telling


_Sample = tuple[Hashes, Hashes, int, Light, Light]


def require_pdq() -> None:
    """Check that the hash library is there.

    Raises:
        UsageError: it is not.
    """
    try:
        import pdqhash  # noqa: F401 - an extra: imported where it is used
    except ImportError as error:
        raise UsageError("the package pdqhash is missing", hint="pip install 'k710[content]'") from error


def hash_frames(video: bytes, *, timeout_s: float = TIMEOUT_S) -> FrameHashes:
    """The hashes of an encoded clip; equal bytes give equal hashes.

    Raises:
        Unreadable: it cannot be decoded, or takes longer than ``timeout_s``.
    """
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    deadline = time.monotonic() + timeout_s
    try:
        with av.open(io.BytesIO(video), mode="r", metadata_errors="ignore", options=options) as container:
            rows = list(_sampled(container, deadline))
    except av.error.FFmpegError as error:
        raise Unreadable(" ".join(str(error.strerror or error).split())) from error
    if not rows:
        raise Unreadable("no frame can be decoded")
    wholes, middles, qualities, lights, middle_lights = zip(*rows, strict=True)
    return FrameHashes(
        whole=np.stack(wholes),
        middle=np.stack(middles),
        quality=np.array(qualities, dtype=np.uint8),
        light=np.stack(lights),
        middle_light=np.stack(middle_lights),
    )


def _sampled(container: InputContainer, deadline: float) -> Iterator[_Sample]:
    """Hashes and brightness of what is shown at each sample time, in order."""
    stream = _video_stream(container)
    reformatter = VideoReformatter()
    shown: _Sample | None = None
    last: av.VideoFrame | None = None
    start, done = 0.0, 0
    for number, frame in enumerate(container.decode(stream)):
        if time.monotonic() > deadline:
            raise Unreadable("decoding takes too long", is_passing=True)
        at_s = _time_s(frame, stream.average_rate, number)
        start = at_s if last is None else start
        # The frame before this one was shown until now.
        upto = min(math.ceil((at_s - start) * RATE_HZ - 1e-6), MOST_SAMPLES)
        if last is not None and upto > done:
            shown = _hashed(last, reformatter)
            for _ in range(done, upto):
                yield shown
            done = upto
        if done >= MOST_SAMPLES:
            return
        last = frame
    if last is not None:
        yield _hashed(last, reformatter)


def _time_s(frame: av.VideoFrame, rate: Fraction | None, number: int) -> float:
    if frame.pts is not None and frame.time_base:
        return float(frame.pts * frame.time_base)
    return number / float(rate or 25)


def _hashed(frame: av.VideoFrame, reformatter: VideoReformatter) -> _Sample:
    """Hash of a frame, of its middle, PDQ's quality, and the light of both; the shape of the picture plays no part."""
    import pdqhash  # an extra: imported where it is used

    turns = round(frame.rotation / 90) % 4
    pictures = []
    for side in (_SIDE_PX, _WIDE_PX):
        small = reformatter.reformat(frame, side, side, format="rgb24", interpolation="AREA", threads=1)
        pictures.append(np.rot90(small.to_ndarray(), turns))
    inner = slice(_MARGIN_PX, _MARGIN_PX + _SIDE_PX)
    wide = np.ascontiguousarray(pictures[0], dtype=np.uint8)
    narrow = np.ascontiguousarray(pictures[1][inner, inner], dtype=np.uint8)
    (whole, quality), (middle, _) = pdqhash.compute(wide), pdqhash.compute(narrow)
    hashes = np.packbits(whole.astype(bool)), np.packbits(middle.astype(bool))
    return *hashes, int(quality), _light(wide), _light(narrow)


def _light(picture_HWC: npt.NDArray[np.uint8]) -> Light:
    """Mean brightness of each field, [F]."""
    side = _SIDE_PX // FIELDS
    # Down first, along whole rows: in one step over both axes it takes several times as long.
    rows = picture_HWC.reshape(FIELDS, side, -1).sum(axis=1, dtype=np.uint32)
    fields = rows.reshape(FIELDS, FIELDS, side, 3).sum(axis=2) / side**2 @ _LUMA
    found: Light = np.round(fields.reshape(-1) * LIGHT_STEPS).astype(np.uint16)
    return found


def _video_stream(container: InputContainer) -> Any:
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams or streams[0].codec_context is None:
        raise Unreadable("no video stream")
    context = streams[0].codec_context
    if not 0 < context.width * context.height <= MAX_PIXELS:
        raise Unreadable(f"{context.width}x{context.height} pixels")
    # A process for each worker: threads inside would fight for the same cores.
    context.thread_type, context.thread_count = "NONE", 1
    return streams[0]
