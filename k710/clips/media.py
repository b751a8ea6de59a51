"""The only module that runs ffmpeg: probing with PyAV, encoding with a static or named ffmpeg, argument lists only.

Byte identity was measured to need one ffmpeg build and one thread per encode; so the build is recorded in the lock
and every encode is single-threaded (parallelism is over clips).
"""

from __future__ import annotations

import errno
import functools
import os
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import ffmpeg
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

from k710.errors import SourceError

FFMPEG_VARIABLE = "K710_FFMPEG"
"""Environment variable that names another ffmpeg than the one that comes with imageio-ffmpeg."""

# ffmpeg's AV_FIELD_PROGRESSIVE; the larger values are the orders of fields.
_PROGRESSIVE = 1
_DECLARES_LENGTH = frozenset({"avi", "matroska,webm", "flv"})


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeConfig:
    """How a source video becomes a clip; the defaults are quick to read 8 frames from, for 1.2 times the bytes."""

    short_side_px: int = 256
    """Short side after scaling; a smaller source is never enlarged."""
    crf: int = 23
    """x264 quality: 0 is lossless, 51 is worst."""
    preset: str = "veryfast"
    """x264 speed preset."""
    gop: int = 16
    """Largest distance of two keyframes, frames."""
    bframes: int = 3
    """Consecutive B-frames; none of them is a reference, so a reader may drop those it does not want."""

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be between 0 and 51, got {self.crf}")
        if self.short_side_px < 16:
            raise ValueError(f"short_side_px must be at least 16, got {self.short_side_px}")


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFacts:
    """What a usable video file holds, without decoding it."""

    duration_s: float
    """From the first packet's start to the last one's end."""
    fps: float
    """Average frame rate."""
    frames: int
    """Video packets that can be read."""
    width_px: int
    """Displayed width, after rotation."""
    height_px: int
    """Displayed height, after rotation."""
    codec: str
    """Name as ffmpeg has it, such as ``h264``."""
    rotation: int
    """Degrees by which a player turns the picture: 0, 90, 180 or 270."""
    variable_rate: bool
    """Whether the distance between frames varies."""
    interlaced: bool
    """Whether the stream is marked as made of fields."""
    pixel_format: str
    """Such as ``yuv420p``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unusable:
    """Why a file, or what came of it, is no clip: an outcome, not an exception."""

    status: str
    """``empty_file``, ``html``, ``unreadable``, ``truncated``, ``no_video``, ``too_large``,
    ``encode_failed`` or ``timeout``."""
    detail: str = ""
    """What the decoder or ffmpeg said, one line."""


@functools.cache
def ffmpeg_path() -> str:
    """The ffmpeg to run: the one the environment names, else the static build of imageio-ffmpeg."""
    named = os.environ.get(FFMPEG_VARIABLE)
    return named if named else str(imageio_ffmpeg.get_ffmpeg_exe())


@functools.cache
def ffmpeg_build() -> str:
    """First line of ``ffmpeg -version``, which goes into the lock.

    Raises:
        SourceError: it cannot be run, or is something else.
    """
    hint = f"set {FFMPEG_VARIABLE} to an ffmpeg with libx264"
    command = [ffmpeg_path(), "-version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise SourceError(f"ffmpeg at {ffmpeg_path()} cannot be run: {error}", hint=hint) from error
    lines = done.stdout.splitlines()
    if not lines:
        raise SourceError(f"{ffmpeg_path()} is no ffmpeg: it tells no version", hint=hint)
    return lines[0].split(" Copyright")[0]


def probe(path: Path, *, max_bytes: int = 20 << 30) -> VideoFacts | Unusable:
    """What the video at ``path`` holds, or why it is unusable. Reads packets, decodes nothing."""
    size = path.stat().st_size
    if size == 0:
        return Unusable(status="empty_file")
    if size > max_bytes:
        return Unusable(status="too_large", detail=f"{size} bytes")
    with path.open("rb") as handle:
        head = handle.read(512).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return Unusable(status="html")
    try:
        # The protocol in front keeps a colon in a folder's name from being taken for one.
        with av.open(f"file:{path}", metadata_errors="ignore") as container:
            return _video_facts(container)
    except av.error.FFmpegError as error:
        return Unusable(status="unreadable", detail=_one_line(str(error)))


def transcode(
    source: Path,
    target: Path,
    facts: VideoFacts,
    config: EncodeConfig,
    *,
    cut: tuple[float, float] | None = None,
    timeout_s: float = 600,
) -> Unusable | None:
    """Encode ``source``, or the range ``cut`` (start, end in seconds) of it, to the mp4 ``target``.

    The picture comes out upright, progressive, 8-bit 4:2:0, at a constant rate and of even size.
    """
    width, height = scaled_size(facts.width_px, facts.height_px, config.short_side_px)
    options = {} if cut is None else {"ss": f"{cut[0]:.3f}", "t": f"{cut[1] - cut[0]:.3f}"}
    stream = ffmpeg.input(f"file:{source}", threads=1, **options).video
    if facts.interlaced:
        stream = stream.filter("yadif")
    if facts.variable_rate:
        stream = stream.filter("fps", fps=str(Fraction(facts.fps).limit_denominator(1001)))
    stream = stream.filter("scale", width, height, flags="bicubic").filter("setsar", 1)
    return _run(ffmpeg.output(stream, f"file:{target}", **_x264(config)), timeout_s)


def encode_frames(
    frames_THWC: npt.NDArray[np.uint8],
    target: Path,
    *,
    fps: float,
    config: EncodeConfig,
    tone_hz: float | None = None,
    timeout_s: float = 120,
) -> None:
    """Write RGB frames as an H.264 mp4, with a sine tone of ``tone_hz`` as its sound when one is given.

    Raises:
        SourceError: ffmpeg failed.
    """
    num, height, width, _ = frames_THWC.shape
    video = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=fps)
    arguments = _x264(config)
    streams = [video.video]
    if tone_hz is not None:
        streams.append(ffmpeg.input(f"sine=frequency={tone_hz}:duration={num / fps:.3f}", format="lavfi").audio)
        arguments = {k: v for k, v in arguments.items() if k != "an"} | {"acodec": "aac", "audio_bitrate": "32k"}
    graph = ffmpeg.output(*streams, f"file:{target}", **arguments)
    failure = _run(graph, timeout_s, np.ascontiguousarray(frames_THWC).tobytes())
    if failure is not None:
        raise SourceError(f"ffmpeg could not write {target.name}: {failure.detail}")


def scaled_size(width_px: int, height_px: int, short_side_px: int) -> tuple[int, int]:
    """Even width and height with the short side at ``short_side_px``, or as it is when that is smaller."""
    scale = min(1.0, short_side_px / min(width_px, height_px))
    # An odd side loses a pixel: rounding it up would enlarge it.
    return tuple(max(2, min(2 * round(side * scale / 2), side - side % 2)) for side in (width_px, height_px))  # type: ignore[return-value]


def _video_facts(container: av.container.InputContainer) -> VideoFacts | Unusable:
    if not container.streams.video:
        return Unusable(status="no_video")
    stream = container.streams.video[0]
    times: list[int] = []
    last_duration = num_packets = 0
    end_s = 0.0
    for packet in container.demux():
        if packet.pts is None or not packet.size:
            continue
        end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream is stream:
            num_packets += 1
            # What stands before the cut in a file that was cut without encoding is decoded, but never shown.
            if not packet.is_discard:
                times.append(packet.pts)
                last_duration = packet.duration or last_duration
    if not times or not stream.time_base:
        return Unusable(status="no_video", detail="no readable video packets")
    lost = _lost_tail(container, stream, num_packets, end_s)
    if lost:
        return Unusable(status="truncated", detail=lost)
    times.sort()
    steps = np.diff(np.array(times, dtype=np.int64))
    span = times[-1] - times[0] + (int(np.median(steps)) if len(steps) else last_duration)
    duration_s = float(span * stream.time_base)
    context = stream.codec_context
    if not context.width or not context.height or duration_s <= 0:
        return Unusable(status="no_video", detail="no picture size")
    rotation = _rotation(container, stream)
    width, height = (context.height, context.width) if rotation in (90, 270) else (context.width, context.height)
    return VideoFacts(
        duration_s=duration_s,
        fps=len(times) / duration_s,
        frames=len(times),
        width_px=width,
        height_px=height,
        codec=context.name,
        rotation=rotation,
        # One tick of rounding either way is how constant rates look in coarse time bases.
        variable_rate=bool(len(steps) and steps.max() - steps.min() > 2 and steps.max() > 1.5 * steps.min()),
        interlaced=int(getattr(context, "field_order", 0)) > _PROGRESSIVE,
        pixel_format=context.pix_fmt or "",
    )


def _lost_tail(container: av.container.InputContainer, stream: av.VideoStream, num_packets: int, end_s: float) -> str:
    """How a file that was cut off in the middle falls short of what its header declares; empty when it does not."""
    # An mp4 whose index stands in front opens well after its tail was lost; the packets are then fewer than declared.
    if "mp4" in container.format.name and num_packets < stream.frames:
        return f"{num_packets} of {stream.frames} frames"
    # In these the header has the length: of the longest stream, or (avi, empty frames included) in frames.
    if container.format.name not in _DECLARES_LENGTH:
        return ""
    declared_s = max((container.duration or 0) / av.time_base, float(stream.frames / (stream.average_rate or 1)))
    return f"{end_s:.1f} of {declared_s:.1f} s" if end_s < declared_s - 1 else ""


def _rotation(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    # PyAV tells rotation only on decoded frames.
    container.seek(0)
    for frame in container.decode(stream):
        return int(getattr(frame, "rotation", 0)) % 360
    return 0


def _x264(config: EncodeConfig) -> dict[str, str | int | None]:
    return {
        "vcodec": "libx264",
        "preset": config.preset,
        "crf": config.crf,
        "g": config.gop,
        "bf": config.bframes,
        "x264-params": "b-adapt=0:b-pyramid=none",
        "pix_fmt": "yuv420p",
        "threads": 1,
        "an": None,
        "map_metadata": -1,
        # Without these the muxer writes its version into the file.
        "fflags": "+bitexact",
        "flags:v": "+bitexact",
        "movflags": "+faststart",
        "f": "mp4",
    }


def _run(graph: object, timeout_s: float, stdin: bytes | None = None) -> Unusable | None:
    command = ffmpeg.compile(graph, cmd=ffmpeg_path(), overwrite_output=True)
    quiet = ["-hide_banner", "-loglevel", "error", "-protocol_whitelist", "file,pipe,lavfi", "-filter_threads", "1"]
    command[1:1] = quiet if stdin is not None else ["-nostdin", *quiet]
    feed: dict[str, Any] = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, start_new_session=True, **feed)
    except subprocess.TimeoutExpired:
        return Unusable(status="timeout", detail=f"ffmpeg took more than {timeout_s:.0f} s")
    except OSError as error:
        raise SourceError(f"ffmpeg at {ffmpeg_path()} cannot be run: {error}") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace")
        for reason in (errno.ENOSPC, errno.EDQUOT):
            # Not the clip's failure: recorded as one, it would not be tried again when there is room.
            if os.strerror(reason) in said:
                raise OSError(reason, os.strerror(reason))
        return Unusable(status="encode_failed", detail=_one_line(said))
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
