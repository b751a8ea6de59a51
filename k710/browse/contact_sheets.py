"""A clip as one small picture: a few of its frames beside each other, as a JPEG."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from PIL import Image

from k710.clips.containers import CONTAINERS
from k710.clips.verify import MAX_PIXELS

FORM = 1
"""Version of what is drawn; another one makes every sheet anew."""
TIMEOUT_S = 60.0
"""For one clip; one of 10 s takes a tenth of a second."""
_GAP_PX = 2
_GAP_GREY = 128
_WIDEST = 4.0
"""Most width of a frame over its height: what claims more is squeezed."""
_QUALITY = 80
_LONG = 16
"""Frames for each one that is shown from which on a clip is long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SheetSettings:
    """What a sheet shows."""

    frames: int = 4
    """Frames of each clip, from the middles of as many equal parts; all of a clip that has fewer."""
    height_px: int = 96
    """Their height."""

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= 32:
            raise ValueError(f"frames must be between 1 and 32, got {self.frames}")
        if not 16 <= self.height_px <= 1024:
            raise ValueError(f"height_px must be between 16 and 1024, got {self.height_px}")


class Undrawable(Exception):  # noqa: N818 - an outcome of a clip, not an error
    """A clip cannot be drawn; the text is the reason, one line."""

    def __init__(self, reason: str, *, is_passing: bool = False) -> None:
        super().__init__(reason)
        self.is_passing = is_passing
        """Whether it may go well another time."""


def draw_sheet(video: bytes, settings: SheetSettings, *, timeout_s: float = TIMEOUT_S) -> bytes:
    """The contact sheet of an encoded clip as JPEG; equal bytes give equal bytes.

    Of a long clip, frames that nothing refers to are passed over: what is shown comes at or right after its time.

    Raises:
        Undrawable: it cannot be decoded, or takes longer than ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    try:
        with av.open(io.BytesIO(video), mode="r", metadata_errors="ignore", options=options) as container:
            times, num_frames = _wanted_times(container, settings.frames, deadline)
        with av.open(io.BytesIO(video), mode="r", metadata_errors="ignore", options=options) as container:
            # What nothing refers to costs most of the work; in a long clip its neighbours look the same at this size.
            skips = num_frames >= _LONG * settings.frames
            pictures = _pictures(container, times, settings.height_px, deadline, skips=skips)
    except av.error.FFmpegError as error:
        raise Undrawable(" ".join(str(error.strerror or error).split())) from error
    return _jpeg(pictures)


def _wanted_times(container: InputContainer, frames: int, deadline: float) -> tuple[list[int], int]:
    """When the frames to draw are shown, in ticks, ascending; and how many frames there are."""
    shown = []
    for packet in container.demux(_video_stream(container)):
        _refuse_late(deadline)
        if packet.size and packet.pts is not None:
            shown.append(packet.pts)
    if not shown:
        raise Undrawable("no frame in it")
    shown.sort()
    taken = min(frames, len(shown))
    return [shown[(2 * i + 1) * len(shown) // (2 * taken)] for i in range(taken)], len(shown)


def _pictures(
    container: InputContainer, times: list[int], height_px: int, deadline: float, *, skips: bool
) -> list[npt.NDArray[np.uint8]]:
    """The pictures at ``times``, RGB; the last one again for times that no frame came for."""
    stream = _video_stream(container)
    stream.codec_context.skip_frame = "NONREF" if skips else "DEFAULT"
    reformatter = VideoReformatter()
    found: list[npt.NDArray[np.uint8]] = []
    last: av.VideoFrame | None = None
    for frame in container.decode(stream):
        _refuse_late(deadline)
        if frame.is_corrupt:
            raise Undrawable(f"frame {len(found) + 1} of the sheet stands among damaged ones")
        last = frame
        while len(found) < len(times) and (frame.pts is None or frame.pts >= times[len(found)]):
            found.append(_small(frame, stream.sample_aspect_ratio, height_px, reformatter))
        if len(found) == len(times):
            return found
    if last is None:
        raise Undrawable("no frame can be decoded")
    missing = len(times) - len(found)
    return found + [_small(last, stream.sample_aspect_ratio, height_px, reformatter)] * missing


def _video_stream(container: InputContainer) -> Any:
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams or streams[0].codec_context is None:
        raise Undrawable("no video stream")
    context = streams[0].codec_context
    if not 0 < context.width * context.height <= MAX_PIXELS:
        raise Undrawable(f"{context.width}x{context.height} pixels")
    # A process for each worker: threads inside would fight for the same cores.
    context.thread_type, context.thread_count = "NONE", 1
    return streams[0]


def _small(
    frame: av.VideoFrame, pixel_aspect: Fraction | None, height_px: int, reformatter: VideoReformatter
) -> npt.NDArray[np.uint8]:
    """A frame as it is shown, upright and with square pixels, ``height_px`` high."""
    aspect = frame.width * float(pixel_aspect or 1) / frame.height
    turns = round(frame.rotation / 90) % 4
    shown = min(max(1 / aspect if turns % 2 else aspect, 1 / _WIDEST), _WIDEST)
    width, height = max(1, round(shown * height_px)), height_px
    stored = (height, width) if turns % 2 else (width, height)
    small = reformatter.reformat(frame, *stored, format="rgb24", interpolation="AREA", threads=1)
    return np.ascontiguousarray(np.rot90(small.to_ndarray(), turns))


def _jpeg(pictures: list[npt.NDArray[np.uint8]]) -> bytes:
    gap = np.full((pictures[0].shape[0], _GAP_PX, 3), _GAP_GREY, dtype=np.uint8)
    columns = [part for picture in pictures for part in (gap, picture)][1:]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(columns, axis=1)).save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()


def _refuse_late(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise Undrawable("decoding takes too long", is_passing=True)
