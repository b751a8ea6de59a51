"""Video files of every kind that goes wrong, or looks as if it did: drawn, encoded and damaged on the spot.

Each item has an id made of its name and a row in ``k400/train``; all are 20 frames in 2 s of 96x64 unless the item is
about just that. A picture has a corner of each colour, so that one can tell which way up it is, and a grey
level that says which frame it is.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import os
import socket
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np

NUM_FRAMES, FPS, WIDTH_PX, HEIGHT_PX = 20, 10, 96, 64
CORNER_PX = 16
SEA_BYTES = 8 << 30
"""Size of a file whose end nobody should wait for; its zeros take no room on the disk."""
LATE = ("two million seconds", "a last frame a day later")
"""Names of the items that nothing but the time of their frames is wrong with."""
CANARY = "canary-9f2c61"
"""Stands in the file that playlists point at; nothing of a build may hold it."""

_CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
_BROKEN_VIDEO = frozenset({"corrupt", "truncated"})
_NO_VIDEO = frozenset({"not_a_video"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Unusable:
    """A file that is no clip."""

    name: str
    """What is wrong with it."""
    statuses: frozenset[str]
    """What a build may call it."""
    make: Callable[[Path], object]
    """Writes it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unusual:
    """A file that is a clip."""

    name: str
    """What is unusual about it."""
    make: Callable[[Path], object]
    """Writes it."""
    frames: int = NUM_FRAMES
    """Frames that the clip must have."""
    size_px: tuple[int, int] = (WIDTH_PX, HEIGHT_PX)
    """Width and height that the clip must have."""
    note: str = ""
    """What one of its notes must say; empty: it has none."""
    folder: str = "videos"
    """Folder that it lies in, below the one that is given to the build."""
    id: str = ""
    """Its video; empty: one made of its name."""


Item = Unusable | Unusual


def video_id(item: Item) -> str:
    """The 11 characters of an item."""
    own = item.id if isinstance(item, Unusual) else ""
    return own or base64.urlsafe_b64encode(hashlib.sha256(item.name.encode()).digest()).decode()[:11]


def write_corpus(root: Path, items: list[Item]) -> None:
    """Write ``annotations/`` and ``videos/`` with these items."""
    rows = "".join(f"abseiling,{video_id(item)},0,2,train\n" for item in items)
    lists = root / "annotations" / "k400"
    lists.mkdir(parents=True)
    (lists / "train.csv").write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    for item in items:
        path = path_of(root, item)
        path.parent.mkdir(parents=True, exist_ok=True)
        item.make(path)


def path_of(root: Path, item: Item) -> Path:
    """Where an item of the corpus in ``root`` is."""
    folder = item.folder if isinstance(item, Unusual) else "broken"
    return root / "videos" / folder / f"{video_id(item)}_000000_000002.mp4"


def drawn(num_frames: int, width_px: int, height_px: int) -> np.ndarray[Any, Any]:
    """Frames_THWC with coloured corners, a grey level that grows by 8 a frame, and noise to make bytes of."""
    levels = np.arange(num_frames)[:, None, None, None] * 8 + 40
    frames_THWC = np.broadcast_to(levels, (num_frames, height_px, width_px, 3)).astype(np.uint8)
    inner = (slice(None), slice(CORNER_PX, -CORNER_PX), slice(CORNER_PX, -CORNER_PX))
    noise = np.random.default_rng(7).integers(-30, 30, (*frames_THWC[inner].shape[:3], 1))
    frames_THWC[inner] = (frames_THWC[inner] + noise).astype(np.uint8)
    for colour, (rows, columns) in zip(_CORNERS, corner_slices(), strict=True):
        frames_THWC[:, rows, columns] = colour
    return frames_THWC


def corner_slices() -> list[tuple[slice, slice]]:
    """Rows and columns of the corners: red, green, blue, white, as one reads."""
    first, last = slice(0, CORNER_PX), slice(-CORNER_PX, None)
    return [(first, first), (first, last), (last, first), (last, last)]


def corner_colours(frame_HWC: np.ndarray[Any, Any]) -> list[str]:
    """Names of the colours that are in the corners of a picture."""
    names = {(True, False, False): "red", (False, True, False): "green", (False, False, True): "blue"}
    inner = slice(4, -4)
    means = [frame_HWC[r, c][inner, inner].reshape(-1, 3).mean(axis=0) > 128 for r, c in corner_slices()]
    return [names.get(tuple(map(bool, mean)), "white" if all(mean) else "?") for mean in means]  # type: ignore[arg-type]


def ffmpeg(*arguments: str | Path, data: bytes | None = None) -> None:
    """Run ffmpeg with these arguments, and ``data`` on its standard input."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    feed: dict[str, Any] = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
    subprocess.run(command, check=True, **feed)


def encode(target: Path, *options: str, frames_THWC: np.ndarray[Any, Any] | None = None, fps: int = FPS) -> None:
    """Encode the drawing, or other frames; ``options`` stand before the name of the new file."""
    frames_THWC = drawn(NUM_FRAMES, WIDTH_PX, HEIGHT_PX) if frames_THWC is None else frames_THWC
    size = f"{frames_THWC.shape[2]}x{frames_THWC.shape[1]}"
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(fps), "-i", "pipe:")
    x264 = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "12", "-threads", "1", "-pix_fmt", "yuv420p")
    ffmpeg(*raw, *x264, "-f", "mp4", *options, target, data=frames_THWC.tobytes())


@functools.cache
def base(*options: str) -> bytes:
    """The bytes of the plain drawing, its index in front unless ``options`` say otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        encode(Path(folder, "video.mp4"), *(options or ("-movflags", "+faststart")))
        return Path(folder, "video.mp4").read_bytes()


def unusable(canary: Path, http_port: int, udp_port: int) -> list[Item]:
    """Every file that no clip may be made of."""
    return [*_not_videos(), *_damaged(), *_without_picture(), *_endless(), *_pointing(canary, http_port, udp_port)]


def flipped(seed: int, count: int) -> bytes:
    """The plain drawing with ``count`` bytes of its pictures changed."""
    data = bytearray(base())
    start = data.index(b"mdat") + 4
    rng = np.random.default_rng(seed)
    for place in rng.choice(np.arange(start, len(data)), size=count, replace=False).tolist():
        data[place] ^= int(rng.integers(1, 256))
    return bytes(data)


def _not_videos() -> list[Item]:
    texts = {
        "empty": b"",
        "a web page": b"<!DOCTYPE html>\n<html><body>429 Too Many Requests</body></html>",
        "a web page after a byte order mark": b"\xef\xbb\xbf\r\n <html><head></head></html>",
        "an error of an object store": b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
        "an error in JSON": b'{"error": {"code": 429, "message": "Too Many Requests"}}',
        "plain text": b"this is not a video\n" * 100,
        "subtitles": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n\n",
        "an archive": _zipped(),
    }
    items: list[Item] = [Unusable(name=n, statuses=_NO_VIDEO, make=_writes(data)) for n, data in texts.items()]
    for suffix in ("png", "jpg"):
        items.append(Unusable(name=f"a picture ({suffix})", statuses=_NO_VIDEO, make=_writes_picture(suffix)))
    return items


def _damaged() -> list[Item]:
    whole, late = base(), base("-movflags", "0")
    # The last place is one byte before the end: only the last picture lacks anything.
    places = [len(whole) * n // 20 for n in range(1, 20)] + [len(whole) - 1]
    items: list[Item] = []
    for number, place in enumerate(places):
        statuses = frozenset({"truncated"}) if place > whole.index(b"mdat") + 4 else _BROKEN_VIDEO
        items.append(Unusable(name=f"cut off, place {number}", statuses=statuses, make=_writes(whole[:place])))
    for seed in range(5):
        data = flipped(seed, len(whole) // 20)
        items.append(Unusable(name=f"flipped bytes, seed {seed}", statuses=_BROKEN_VIDEO, make=_writes(data)))
    return [
        *items,
        Unusable(name="index lost", statuses=_BROKEN_VIDEO, make=_writes(late[: late.index(b"moov") - 4])),
        Unusable(name="index garbled", statuses=_BROKEN_VIDEO, make=_writes(late.replace(b"moov", b"m00v"))),
        Unusable(name="zeros", statuses=_NO_VIDEO | _BROKEN_VIDEO, make=_writes(bytes(100_000))),
    ]


def _without_picture() -> list[Item]:
    none, large = frozenset({"no_video_stream"}), frozenset({"too_large"})
    return [
        Unusable(name="sound alone", statuses=none, make=_writes_sound),
        Unusable(name="sound with a cover", statuses=none, make=_writes_cover),
        # ffmpeg itself refuses to set up a decoder for it, so either answer is right.
        Unusable(name="a header of 16384x16384", statuses=large | {"corrupt"}, make=_writes(_declaring(16384))),
        Unusable(name="a header of 12288x12288", statuses=large, make=_writes(_declaring(12288))),
    ]


def _endless() -> list[Item]:
    statuses = frozenset({"corrupt", "truncated", "too_large", "ambiguous", "timeout", "not_a_video"})
    # What is no file counts as none, or as one of another kind.
    no_file = _NO_VIDEO | {"missing"}
    far = "setts=ts=if(eq(N\\,19)\\,86400/TB\\,TS)"
    return [
        Unusable(name=LATE[0], statuses=statuses, make=_writes_later("setts=ts=TS*1000000")),
        Unusable(name=LATE[1], statuses=statuses, make=_writes_later(far)),
        Unusable(
            name="a sea of zeros",
            statuses=statuses,
            make=lambda p: (encode(p, "-f", "mpegts"), os.truncate(p, SEA_BYTES)),
        ),
        Unusable(name="a pipe", statuses=no_file, make=os.mkfifo),
        Unusable(name="a socket", statuses=no_file, make=_binds),
        Unusable(name="a link to an endless device", statuses=no_file, make=lambda p: p.symlink_to("/dev/zero")),
        Unusable(name="a link to itself", statuses=_NO_VIDEO | _BROKEN_VIDEO, make=lambda p: p.symlink_to(p.name)),
        Unusable(name="a link to nothing", statuses=_NO_VIDEO | _BROKEN_VIDEO, make=lambda p: p.symlink_to("gone")),
    ]


def _pointing(canary: Path, http_port: int, udp_port: int) -> list[Item]:
    """Texts that media libraries take for lists of other files, and open."""
    http, sibling, listed = f"http://127.0.0.1:{http_port}", "sibling.mp4", "ffconcat version 1.0\nfile {}\n"
    extended = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n"
    udp = f"m=video {udp_port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    texts = {
        "a list of a sibling": listed.format(sibling),
        "a long list of a sibling": "ffconcat version 1.0\n" + f"file {sibling}\n" * 5000,
        "a list of the canary": listed.format(f"'{canary}'"),
        "a list of the canary below": listed.format(canary.name),
        "a list of accounts": listed.format("/etc/passwd"),
        "a list of an address": listed.format(f"{http}/concat.mp4"),
        "an unmarked list": f"file {sibling}\nfile '{canary}'\n",
        "a playlist of the canary": f"{extended}{canary}\n#EXT-X-ENDLIST\n",
        "a playlist of a sibling": f"{extended}{sibling}\n#EXT-X-ENDLIST\n",
        "a playlist without an end": f"{extended}{sibling}\n",
        "a playlist of an address": f"{extended}{http}/hls.ts\n#EXT-X-ENDLIST\n",
        "a session description": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n{udp}",
        "a manifest of a sibling": _dash(sibling),
        "a manifest of an address": _dash(f"{http}/dash.mp4"),
        "a reference to an address": f"[Reference]\nRef1={http}/asf.wmv\n",
    }
    items: list[Item] = [Unusable(name=n, statuses=_NO_VIDEO, make=_writes(t.encode())) for n, t in texts.items()]
    own = Unusable(name="a list of itself", statuses=_NO_VIDEO, make=lambda p: p.write_text(listed.format(p.name)))
    linked = Unusable(name="a link to the canary", statuses=_NO_VIDEO, make=lambda p: p.symlink_to(canary))
    return [*items, own, linked]


def unusual() -> list[Item]:
    """Every file that is strange, and a clip all the same."""
    odd = ("-vf", "pad=97:65", "-pix_fmt", "yuv444p")
    items: list[Item] = [
        Unusual(name="one frame", frames=1, note="shorter", make=_draws(1)),
        Unusual(name="variable rate", frames=12, note="variable frame rate", make=_writes_varying),
        Unusual(name="turned by 90", note="turned by", make=_turned(90, "transpose=clock")),
        Unusual(name="turned by 180", note="turned by 180", make=_turned(180, "hflip,vflip")),
        Unusual(name="turned by 270", note="turned by", make=_turned(270, "transpose=cclock")),
        Unusual(name="ten bits", note="yuv420p10le", make=lambda p: encode(p, "-pix_fmt", "yuv420p10le")),
        Unusual(name="odd sizes", note="yuv444p", make=lambda p: encode(p, *odd)),
        Unusual(name="interlaced", note="deinterlaced", make=_writes_interlaced),
        Unusual(name="six frames a second", frames=12, make=_draws(12, fps=6)),
        Unusual(name="portrait", size_px=(64, 96), make=_draws(width_px=64, height_px=96)),
        Unusual(name="pixels that are not square", make=lambda p: encode(p, "-vf", "scale=48:64,setsar=2")),
        Unusual(name="an id that looks like a flag", id="-rf_-----xy", make=_draws()),
        Unusual(name="an id that looks like a number", id="1e400000000", make=_draws()),
    ]
    folders = ["ünï ☕ コード", "line\nbreak", "http:", "a=b", "-rf", "100%03d", "it's", "[a-z]*?{x}", "a|b,c;d "]
    return items + [Unusual(name=f"in the folder {f!r}", folder=f, make=_writes(base())) for f in folders]


def _writes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _draws(num_frames: int = NUM_FRAMES, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX, fps: int = FPS) -> Any:
    return lambda path: encode(path, frames_THWC=drawn(num_frames, width_px, height_px), fps=fps)


def _zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("video.mp4"), base())
    return buffer.getvalue()


def _writes_picture(suffix: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        picture = path.with_suffix(f".{suffix}")
        encode(picture, "-f", "image2", "-frames:v", "1", "-c:v", {"jpg": "mjpeg"}.get(suffix, suffix), "-update", "1")
        picture.replace(path)

    return write


def _writes_sound(path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=duration=2", "-c:a", "aac", "-f", "mp4", path)


def _writes_cover(path: Path) -> None:
    picture = path.with_suffix(".png")
    encode(picture, "-f", "image2", "-frames:v", "1", "-c:v", "png", "-update", "1")
    sound = ("-f", "lavfi", "-i", "sine=duration=2", "-i", picture, "-map", "0", "-map", "1")
    ffmpeg(*sound, "-c:a", "aac", "-c:v", "mjpeg", "-disposition:v", "attached_pic", "-f", "ipod", path)
    picture.unlink()


def _writes_later(timestamps: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        plain = path.with_suffix(".part")
        plain.write_bytes(base())
        ffmpeg("-i", plain, "-c", "copy", "-bsf:v", timestamps, "-f", "mp4", path)
        plain.unlink()

    return write


def _writes_varying(path: Path) -> None:
    encode(path, "-vf", "select=lt(n\\,8)+not(mod(n\\,3))", "-fps_mode", "vfr")


def _writes_interlaced(path: Path) -> None:
    frames_THWC = np.repeat(drawn(NUM_FRAMES, WIDTH_PX, HEIGHT_PX), 2, axis=0)
    fields = ("-vf", "interlace", "-preset", "veryfast", "-flags", "+ilme+ildct", "-x264-params", "tff=1")
    encode(path, *fields, frames_THWC=frames_THWC, fps=2 * FPS)


def _turned(degrees: int, stored_as: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        stored = path.with_suffix(".part")
        encode(stored, "-vf", stored_as)
        ffmpeg("-display_rotation", str(degrees), "-i", stored, "-c", "copy", "-f", "mp4", path)
        stored.unlink()

    return write


def _binds(path: Path) -> None:
    # Such names may be 108 bytes long at most, and those of temporary folders are longer.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


def _dash(url: str) -> str:
    head = '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" '
    body = f'<Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL></Representation>'
    tail = f'<Period><AdaptationSet mimeType="video/mp4">{body}</AdaptationSet></Period></MPD>'
    return f'{head}type="static" mediaPresentationDuration="PT2S">{tail}'


def _declaring(side_px: int) -> bytes:
    """The plain drawing, whose headers say that its pictures are squares of this size."""
    data = bytearray(base())
    side = side_px.to_bytes(2, "big")
    entry = data.index(b"avc1", data.index(b"stsd")) + 4
    data[entry + 24 : entry + 28] = side * 2
    track = data.index(b"tkhd") - 4
    end = track + int.from_bytes(data[track : track + 4], "big")
    data[end - 8 : end] = (side + b"\0\0") * 2
    settings = data.index(b"avcC") + 4
    length = int.from_bytes(data[settings + 6 : settings + 8], "big")
    data[settings + 8 : settings + 8 + length] = _parameter_set(side_px // 16).ljust(length, b"\0")
    return bytes(data)


def _parameter_set(blocks: int) -> bytes:
    """A sequence parameter set of H.264 (baseline, level 6.2) with this many macroblocks a side."""
    # id, frame number bits, order count type, reference frames, gaps; sides; frames only, direct, no cropping, no VUI
    bits = _golomb(0) + _golomb(0) + _golomb(2) + _golomb(1) + "0" + _golomb(blocks - 1) * 2 + "1100" + "1"
    bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
    plain = bytes([66, 0, 62]) + int(bits, 2).to_bytes(len(bits) // 8, "big")
    escaped = bytearray([0x67])
    for byte in plain:
        if escaped[-2:] == b"\0\0" and byte <= 3:
            escaped.append(3)
        escaped.append(byte)
    return bytes(escaped)


def _golomb(value: int) -> str:
    digits = f"{value + 1:b}"
    return "0" * (len(digits) - 1) + digits
