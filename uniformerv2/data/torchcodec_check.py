"""Whether the decoder that a run asks for is there and gives the frames that it should, before anything is trained."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from k710.errors import FeedError, UsageError
from uniformerv2.data.codecs.picture import UnsafeError
from uniformerv2.data.decode import Decoder, decode_by_torchcodec, decode_in_sequence
from uniformerv2.data.torchcodec_library import load

_NUM_FRAMES = 18
_X264 = "keyint=8:scenecut=0:bframes=3:b-adapt=0:threads=1:lookahead-threads=1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A clip on which decoders are compared."""

    width_px: int
    """Of each frame."""
    height_px: int
    """Of each frame."""
    told: str
    """To the encoder, of colours."""


PROBES: Mapping[str, Probe] = {
    "of limited range": Probe(width_px=340, height_px=256, told=""),
    "of BT.709": Probe(width_px=64, height_px=48, told=":colormatrix=bt709"),
    "of full range": Probe(width_px=58, height_px=46, told=":fullrange=on:colormatrix=smpte170m"),
}
"""By what is special about each."""


def require_decoder(decoder: Decoder, setting: str = "data.decoder") -> None:
    """Raise a ``UsageError`` unless ``decoder``, which ``setting`` asks for, works here and decodes as PyAV does.

    A run that goes on elsewhere must see the same pixels, so a decoder that gives others is refused.
    """
    if decoder == "pyav":
        return
    try:
        load()
        for what, probe in PROBES.items():
            _compare(what, clip_of(probe))
    except (UsageError, FeedError) as error:
        hint = f"{error.hint}; " if error.hint else ""
        raise UsageError(
            f"{setting}={decoder}: {error.message}", hint=f"{hint}--set {setting}=pyav decodes without it"
        ) from error


def clip_of(probe: Probe) -> bytes:
    """A short H.264 clip with B-frames whose pictures have all colours and move.

    Raises:
        UsageError: PyAV cannot encode it.
    """
    target, width, height = io.BytesIO(), probe.width_px, probe.height_px
    noise = np.random.default_rng(0).integers(0, 256, (height * 3 // 2, width), dtype=np.uint8)
    try:
        with av.open(target, "w", format="mp4") as container:
            options = {"preset": "ultrafast", "x264-params": _X264 + probe.told}
            stream = container.add_stream("libx264", rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for number in range(_NUM_FRAMES):
                frame = av.VideoFrame.from_ndarray(np.roll(noise, number, axis=1), format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except (av.error.FFmpegError, ValueError) as error:  # a PyAV that was built without the encoder
        raise UsageError(f"no clip to compare decoders with can be made: {error}") from error
    return target.getvalue()


def _compare(what: str, clip: bytes) -> None:
    numbers = range(_NUM_FRAMES)
    expected = decode_in_sequence(clip, numbers)
    try:
        seen = [decode_by_torchcodec(clip, chosen) for chosen in (numbers, [_NUM_FRAMES - 1, 3, 11])]
    except UnsafeError as error:
        raise UsageError(f"torchcodec cannot decode a clip {what}: {error}") from error
    for frames in seen:
        for number, pixels in frames.items():
            if not np.array_equal(pixels, expected[number]):
                ours = f"torchcodec {load().__version__} with FFmpeg {load().ffmpeg_major_version}"
                steps = int(np.abs(pixels.astype(np.int16) - expected[number]).max())
                raise UsageError(
                    f"{ours} gives other pixels than PyAV {av.__version__}: frame {number} of a clip {what}, by up to "
                    f"{steps} of 255"
                )
