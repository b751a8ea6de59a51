"""Tiny real encodes of many kinds, for the tests of the decoder."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import av
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

VideoPacket: TypeAlias = "av.Packet[av.VideoStream]"

NUM_FRAMES = 44
_SOURCE = f"testsrc2=size=64x48:rate=25,trim=end_frame={NUM_FRAMES}"
_X264 = ("-c:v", "libx264", "-preset", "veryfast", "-g", "12", "-sc_threshold", "0", "-refs", "4")
_X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-g", "12")
_VP9 = ("-c:v", "libvpx-vp9", "-deadline", "good", "-cpu-used", "8", "-g", "12", "-b:v", "60k")
_SVT = ("-c:v", "libsvtav1", "-preset", "12", "-g", "12")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """How to make a video, and what selection does with it."""

    options: tuple[str, ...]
    """What ffmpeg is told between the source and the target."""

    container: str = "mp4"
    """Suffix of the file."""

    selects: bool = True
    """Packets can be left out."""


def _h264(parameters: str, *options: str, container: str = "mp4", selects: bool = True) -> Kind:
    given = ("-x264-params", parameters) if parameters else ()
    return Kind(options=(*_X264, *options, *given), container=container, selects=selects)


def _hevc(parameters: str, *options: str, container: str = "mp4", selects: bool = True) -> Kind:
    given = ("-x265-params", "log-level=none:" + parameters)
    return Kind(options=(*_X265, *options, *given), container=container, selects=selects)


KINDS: Mapping[str, Kind] = {
    "h264 without B": _h264("", "-bf", "0"),
    "h264 sparse8": _h264("b-adapt=0:b-pyramid=none", "-bf", "3"),
    "h264 pyramid": _h264("b-adapt=0:b-pyramid=normal", "-bf", "3"),
    "h264 strict pyramid": _h264("b-adapt=0:b-pyramid=strict", "-bf", "3"),
    "h264 seven B": _h264("b-adapt=0:b-pyramid=normal", "-bf", "7"),
    "h264 seven B without pyramid": _h264("b-adapt=0:b-pyramid=none", "-bf", "7"),
    "h264 open groups": _h264("b-adapt=0:open-gop=1", "-bf", "3"),
    "h264 intra refresh": _h264("intra-refresh=1"),
    "h264 one group": _h264("b-adapt=0", "-bf", "3", "-g", "250"),
    "h264 all intra": _h264("", "-g", "1"),
    "h264 interlaced": _h264("tff=1", "-flags", "+ildct+ilme", selects=False),
    "h264 interlaced without B": _h264("tff=1", "-flags", "+ildct+ilme", "-bf", "0", selects=False),
    "h264 that could be interlaced": _h264("fake-interlaced=1", selects=False),
    "h264 pulldown": _h264("pic-struct=1", selects=False),
    "h264 slices": _h264("slices=3:b-adapt=0", "-bf", "3"),
    "h264 without arithmetic coding": _h264("b-adapt=0", "-coder", "0", "-bf", "2"),
    "h264 baseline": _h264("", "-profile:v", "baseline"),
    "h264 ten bits": _h264("b-adapt=0", "-pix_fmt", "yuv420p10le", "-bf", "3"),
    "h264 4:2:2": _h264("b-adapt=0", "-pix_fmt", "yuv422p", "-bf", "3"),
    "h264 4:4:4": _h264("b-adapt=0", "-pix_fmt", "yuv444p", "-bf", "3", selects=False),
    "h264 scaling lists": _h264("cqm=jvt:b-adapt=0", "-bf", "3"),
    "h264 buffer model": _h264("nal-hrd=vbr:b-adapt=0:aud=1", "-bf", "3", "-maxrate", "200k", "-bufsize", "200k"),
    "h264 colours": _h264(
        "b-adapt=0:colorprim=bt709:transfer=bt709:colormatrix=bt709:chromaloc=1:sar=3/2:overscan=show"
    ),
    "h264 repeated headers": _h264("repeat-headers=1:b-adapt=0", "-bf", "3"),
    "h264 odd size": _h264("b-adapt=0", "-bf", "3", "-vf", "scale=58:46"),
    "h264 in mkv": _h264("b-adapt=0", "-bf", "3", container="mkv"),
    "h264 in mkv as it comes": _h264("b-adapt=0", "-bf", "3", "-live", "1", container="mkv"),
    "h264 in ts": _h264("b-adapt=0", "-bf", "3", container="ts"),
    "h264 in avi": _h264("b-adapt=0", "-bf", "3", container="avi", selects=False),
    "h264 in flv": _h264("b-adapt=0", "-bf", "3", container="flv"),
    "h264 fragmented": _h264("b-adapt=0", "-bf", "3", "-movflags", "frag_keyframe+empty_moov+default_base_moof"),
    "h264 uneven times": _h264("b-adapt=0", "-bf", "3", "-vf", "select='not(mod(n*n,3))'", "-fps_mode", "vfr"),
    "h264 of another encoder": Kind(options=("-c:v", "libopenh264", "-g", "12", "-b:v", "100k")),
    "hevc": _hevc("open-gop=0:b-adapt=0"),
    "hevc open groups": _hevc("open-gop=1:b-adapt=0", "-bf", "3"),
    "hevc without pyramid": _hevc("open-gop=0:b-adapt=0:b-pyramid=0", "-bf", "3"),
    "hevc pyramid": _hevc("open-gop=0:b-adapt=0:b-pyramid=1:rc-lookahead=12", "-bf", "7"),
    "hevc leading pictures": _hevc("open-gop=0:radl=2:b-adapt=0", "-bf", "3"),
    "hevc layers": _hevc("temporal-layers=3:b-adapt=0:open-gop=0", "-bf", "3"),
    "hevc slices": _hevc("slices=2:open-gop=0", "-vf", "scale=64:128"),
    "hevc in mkv": _hevc("open-gop=0:b-adapt=0", "-bf", "3", container="mkv"),
    "hevc in ts": _hevc("open-gop=0:b-adapt=0", "-bf", "3", container="ts"),
    "hevc buffer model": _hevc("hrd=1:vbv-maxrate=200:vbv-bufsize=200", selects=False),
    "vp9": Kind(options=(*_VP9, "-auto-alt-ref", "0"), container="webm"),
    "vp9 hidden frames": Kind(options=(*_VP9, "-auto-alt-ref", "1", "-lag-in-frames", "10"), container="webm"),
    "vp9 in mp4": Kind(options=(*_VP9, "-auto-alt-ref", "1", "-lag-in-frames", "10")),
    "av1": Kind(options=_SVT),
    "av1 in webm": Kind(options=_SVT, container="webm"),
    "av1 of another encoder": Kind(
        options=("-c:v", "libaom-av1", "-usage", "realtime", "-cpu-used", "8", "-g", "12"), container="mkv"
    ),
    "mpeg4": Kind(options=("-c:v", "mpeg4", "-bf", "2", "-g", "12"), selects=False),
    "mpeg4 in avi": Kind(options=("-c:v", "mpeg4", "-bf", "2", "-g", "12"), container="avi", selects=False),
    "mpeg2 in ts": Kind(options=("-c:v", "mpeg2video", "-bf", "2", "-g", "12"), container="ts", selects=False),
    "mjpeg in avi": Kind(options=("-c:v", "mjpeg"), container="avi", selects=False),
}
"""By name: what a video is made of."""


def make(kind: Kind, folder: Path) -> bytes:
    """A video of ``NUM_FRAMES`` frames or fewer."""
    path = folder / f"video.{kind.container}"
    run_ffmpeg("-f", "lavfi", "-i", _SOURCE, "-pix_fmt", "yuv420p", *kind.options, "-threads", "1", str(path))
    return path.read_bytes()


def run_ffmpeg(*arguments: str) -> None:
    """Run the ffmpeg that comes with the package."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *arguments]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def remux(
    data: bytes,
    path: Path,
    change: Callable[[int, VideoPacket], VideoPacket | None],
    change_extradata: Callable[[bytes], bytes] = lambda extradata: extradata,
) -> bytes:
    """The video with its packets as ``change`` makes them of position and packet; None leaves one out."""
    with av.open(io.BytesIO(data), "r") as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.codec_context.extradata = change_extradata(source.streams.video[0].codec_context.extradata or b"")
        for position, packet in enumerate(source.demux(video=0)):
            changed = change(position, packet) if packet.size else None
            if changed is not None:
                changed.stream = stream
                target.mux(changed)
    return path.read_bytes()


def whole(data: bytes) -> list[npt.NDArray[np.uint8]]:
    """All frames, by nothing but the library."""
    reformatter = VideoReformatter()
    with av.open(io.BytesIO(data), "r") as container:
        container.streams.video[0].thread_type = "NONE"
        frames = (reformatter.reformat(f, format="rgb24", threads=1) for f in container.decode(video=0))
        return [frame.to_ndarray().astype(np.uint8) for frame in frames]
