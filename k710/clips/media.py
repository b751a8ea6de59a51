"""The only module that runs ffmpeg: a static or named one, with argument lists only.

Byte identity was measured to need one ffmpeg build and one thread per encode; so the build is recorded in the lock
and every encode is single-threaded (parallelism is over clips).
"""

from __future__ import annotations

import errno
import functools
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import ffmpeg
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

from k710.clips.cuts import Cut
from k710.clips.encodings import EncodeConfig as EncodeConfig
from k710.clips.encodings import scaled_size, x264_options
from k710.clips.outcomes import CORRUPT, TIMEOUT, TOO_LARGE, Unusable
from k710.clips.probing import VideoFacts, one_line
from k710.clips.remuxing import remuxed
from k710.clips.verify import MAX_PIXELS
from k710.errors import SourceError

FFMPEG_VARIABLE = "K710_FFMPEG"
"""Environment variable that names another ffmpeg than the one that comes with imageio-ffmpeg."""
MAX_CLIP_BYTES = 1 << 30
"""Size at which ffmpeg stops writing a clip; 10 s without loss at 1080p stay below it."""
TIMEOUT_S = 300.0
"""Time for a clip, whatever its length: 8K sources are decoded at two frames a second."""
TIMEOUT_PER_SECOND = 30.0
"""Seconds more for each second of the clip."""

# Slack of what is read behind a cut's end; where the clip ends is settled by its number of frames.
_READ_ON_S = 1.0
# These have no index of keyframes: a seek ends between two of them, and what stands there cannot be decoded.
_NO_INDEX = ("mpeg", "mpegts", "flv", "h264", "hevc", "mpegvideo", "m4v")
_SEEK_EARLIER_S = 1.0
_OBJECT = re.compile(r"\[\S+ @ 0x[0-9a-f]+\] ")
# What the system or another program ends a process with.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU)
_TOLD_TO_STOP = 255
"""Exit code of an ffmpeg that was sent a signal to end, without a word; as an error it would come with one."""
# What ffmpeg says when it is refused the memory of a thread, x264 a buffer, or anything else.
_NO_MEMORY = (
    os.strerror(errno.ENOMEM),
    f"pthread_create() failed: {os.strerror(errno.EAGAIN)}",
    "x264 [error]: malloc of size",
)
_METADATA: dict[str, str | int | None] = {
    "map_metadata": -1,
    "map_chapters": -1,
    # Without these the muxer and the encoders write their version into the file.
    "fflags": "+bitexact",
    "flags:v": "+bitexact",
    "flags:a": "+bitexact",
    "movflags": "+faststart",
    "f": "mp4",
}


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


def transcode(source: Path, target: Path, facts: VideoFacts, cut: Cut, config: EncodeConfig) -> Unusable | None:
    """Encode the frames of ``cut`` to the mp4 ``target``; what went wrong, if anything did.

    The picture comes out upright, progressive, 8-bit 4:2:0, with square pixels, at a constant rate and of even size.

    Raises:
        SourceError: ffmpeg cannot be run.
        OSError: there is no room.
        MemoryError: there is too little memory.
    """
    return run_ffmpeg(transcode_command(source, target, facts, cut, config), time_limit_s(cut.duration_s), target)


def transcode_command(source: Path, target: Path, facts: VideoFacts, cut: Cut, config: EncodeConfig) -> list[str]:
    """What ``transcode`` runs."""
    seek_s = _seek_s(facts, cut)
    # How far into what is read the clip starts.
    late_s = max(0.0, cut.start_s - seek_s)
    reads_s = late_s + cut.duration_s + _READ_ON_S
    options: dict[str, Any] = {"ss": f"{seek_s:.6f}"} if seek_s > 0 else {}
    read = ffmpeg.input(
        f"file:{source}", f=_demuxer(facts), t=f"{reads_s:.6f}", threads=1, max_pixels=MAX_PIXELS, **options
    )
    streams = [_picture(read[str(facts.stream)], facts, cut, config, seek_s)]
    arguments = x264_options(config) | {"frames:v": cut.num_frames, "fs": MAX_CLIP_BYTES} | _METADATA
    if config.keep_audio and facts.sound is not None:
        sound = read[str(facts.sound)].filter("asetpts", f"PTS-{late_s:.6f}/TB")
        # Begins and ends with the picture: silence where the source has none, nothing from before.
        sound = sound.filter("aresample", **{"async": 1}, first_pts=0).filter("atrim", end=f"{cut.duration_s:.6f}")
        streams.append(sound)
        arguments |= {"acodec": "aac", "audio_bitrate": "128k"}
    return _command(ffmpeg.output(*streams, f"file:{target}", **arguments))


def remux(source: Path, target: Path, facts: VideoFacts, *, keep_audio: bool, length_s: float) -> Unusable | None:
    """Put the packets of a trimmed video into the mp4 ``target`` as they are; raises as ``transcode`` does."""
    until_s = length_s + _READ_ON_S
    taken = [facts.stream] + ([facts.sound] if keep_audio and facts.sound is not None else [])
    if remuxed(source, target, facts, taken, length_s=until_s, most=MAX_CLIP_BYTES // 2):
        return None
    read = ffmpeg.input(f"file:{source}", f=_demuxer(facts), t=f"{until_s:.6f}")
    arguments = {"c": "copy", "fs": MAX_CLIP_BYTES} | _METADATA
    command = _command(ffmpeg.output(*(read[str(number)] for number in taken), f"file:{target}", **arguments))
    return run_ffmpeg(command, time_limit_s(length_s), target)


def time_limit_s(clip_s: float) -> float:
    """How long ffmpeg may take for a clip of this length."""
    return TIMEOUT_S + TIMEOUT_PER_SECOND * clip_s


def encode_frames(
    frames_THWC: npt.NDArray[np.uint8],
    target: Path,
    *,
    fps: float,
    config: EncodeConfig,
    gop: int | None = None,
    tone_hz: float | None = None,
    timeout_s: float = 120,
) -> None:
    """Write RGB frames as an H.264 mp4, with a sine tone of ``tone_hz`` as its sound when one is given.

    Args:
        frames_THWC: the frames, of even height and width.
        target: where to.
        fps: frames a second.
        config: quality and order of pictures; nothing is scaled.
        gop: distance of keyframes, instead of the one of ``config``.
        tone_hz: pitch of the sound.
        timeout_s: when to give up.

    Raises:
        SourceError: ffmpeg failed.
    """
    num, height, width, _ = frames_THWC.shape
    video = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=fps)
    arguments = x264_options(config, gop=gop) | {k: v for k, v in _METADATA.items() if k != "flags:a"}
    streams = [video.video]
    if tone_hz is not None:
        streams.append(ffmpeg.input(f"sine=frequency={tone_hz}:duration={num / fps:.3f}", format="lavfi").audio)
        arguments |= {"acodec": "aac", "audio_bitrate": "32k"}
    else:
        arguments["an"] = None
    command = _command(ffmpeg.output(*streams, f"file:{target}", **arguments), reads_stdin=True)
    failure = run_ffmpeg(command, timeout_s, target, np.ascontiguousarray(frames_THWC).tobytes())
    if failure is not None:
        raise SourceError(f"ffmpeg could not write {target.name}: {failure.detail}")


def run_ffmpeg(command: list[str], timeout_s: float, target: Path, stdin: bytes | None = None) -> Unusable | None:
    """Run ffmpeg in a session of its own; whatever ends this call ends all of that session's processes."""
    feed = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    try:
        child = subprocess.Popen(
            command, stdin=feed, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise SourceError(f"ffmpeg at {command[0]} cannot be run: {error}") from error
    try:
        said = child.communicate(stdin, timeout_s)[1].decode(errors="replace")
    except subprocess.TimeoutExpired:
        return Unusable(status=TIMEOUT, detail=f"ffmpeg took more than {timeout_s:.0f} s")
    finally:
        _end(child)
    if child.returncode == 0:
        large = target.exists() and target.stat().st_size > MAX_CLIP_BYTES * 0.99
        return Unusable(status=TOO_LARGE, detail=f"the clip has more than {MAX_CLIP_BYTES:,} bytes") if large else None
    _raise_if_not_the_clips_fault(child.returncode, said)
    return Unusable(status=CORRUPT, detail=_reason(said) or f"ffmpeg ended with {child.returncode}")


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def _reason(said: str) -> str:
    """The first thing that ffmpeg complained about, without the addresses of its objects, which no two runs share."""
    return one_line(_OBJECT.sub("", next(iter(said.strip().splitlines()), "")))


def _raise_if_not_the_clips_fault(code: int, said: str) -> None:
    """Raise what would pass: recorded as the clip's failure, it would not be tried again."""
    if code == -signal.SIGXFSZ:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    for reason in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if os.strerror(reason) in said:
            raise OSError(reason, os.strerror(reason))
    told_to_stop = code == _TOLD_TO_STOP and not said.strip()
    if told_to_stop or -code in _FROM_OUTSIDE or any(words in said for words in _NO_MEMORY):
        raise MemoryError("ffmpeg ran out of memory, or was killed")


def _seek_s(facts: VideoFacts, cut: Cut) -> float:
    """Where in the file to start reading: at the first frame, or safely before the keyframe that it needs."""
    if cut.first_s <= facts.times_s[0] or facts.guessed_times:
        return 0.0
    # A hair before the frame, so that rounding does not lose it.
    exact_s = max(0.0, cut.first_s - min(5e-4, facts.tick_s / 2))
    if facts.container not in _NO_INDEX:
        return exact_s
    keys_s = facts.keys_s[facts.keys_s <= cut.first_s]
    return max(0.0, min(exact_s, float(keys_s[-1]) if len(keys_s) else 0.0) - _SEEK_EARLIER_S)


def _picture(stream: Any, facts: VideoFacts, cut: Cut, config: EncodeConfig, seek_s: float) -> Any:
    """The filters from what is decoded to what is encoded."""
    before_s = cut.first_s - seek_s - 5e-4
    if facts.guessed_times:
        stream = stream.filter("trim", start_frame=int(np.searchsorted(facts.times_s, cut.first_s)))
    elif before_s > 0:
        stream = stream.filter("trim", start=f"{before_s:.6f}")
    if facts.interlaced:
        stream = stream.filter("yadif")
    stream = stream.filter("settb", "AVTB")
    rate = cut.rate
    if cut.variable:
        stream = stream.filter("setpts", f"PTS-{cut.start_s - seek_s:.6f}/TB")
        stream = stream.filter("fps", fps=str(rate), start_time=0)
    else:
        # By number and not by time: what rounds the times of a file must not drop or repeat a frame.
        stream = stream.filter("setpts", f"N*{rate.denominator}/{rate.numerator}/TB").filter("fps", fps=str(rate))
    width, height = scaled_size(facts.width_px, facts.height_px, config.short_side_px)
    return stream.filter("scale", width, height, flags="bicubic").filter("setsar", 1)


def _demuxer(facts: VideoFacts) -> str:
    # The one that was found to read it: what ffmpeg guesses by itself may be a playlist.
    return facts.container.split(",")[0]


def _command(graph: object, *, reads_stdin: bool = False) -> list[str]:
    command: list[str] = ffmpeg.compile(graph, cmd=ffmpeg_path(), overwrite_output=True)
    # With -xerror a damaged frame ends the run; without, ffmpeg paints it over and goes on.
    quiet = ["-hide_banner", "-loglevel", "error", "-xerror", "-filter_threads", "1"]
    whitelist = ["-protocol_whitelist", "file,pipe,lavfi"]
    command[1:1] = [*quiet, *whitelist] if reads_stdin else ["-nostdin", *quiet, *whitelist]
    return command
