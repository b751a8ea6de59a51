"""What the first bytes of a file say: that it is a web page, a media file, and how long its container should be."""

from __future__ import annotations

from typing import BinaryIO

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpeg,mpegts,mpegvideo,m4v,h264,hevc,obu,av1,ivf,asf,ogg,rm,mxf,"
    "mxf_opatom,nut,dv,wtv,gxf,swf,amv,mp3,wav,w64,aac,flac,ac3,eac3,amr,caf,aiff,ape"
)
"""What may be opened, as ffmpeg has it. Playlists, which name other files, are not among them, nor single pictures."""

# fmt: off
SUFFIXES = frozenset({
    ".mp4", ".m4v", ".f4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".mk3d", ".webm", ".avi", ".divx", ".wmv", ".asf",
    ".wtv", ".flv", ".mpg", ".mpeg", ".mpe", ".m2p", ".vob", ".ts", ".mts", ".m2ts", ".m2t", ".ogv", ".ogm", ".rm",
    ".rmvb", ".mxf", ".dv", ".nut", ".ivf", ".amv", ".nsv",
})
# fmt: on
"""Endings of video files, lower case: the containers that PyAV reads."""

_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
_MEDIA = (b"RIFF", b"\x1aE\xdf\xa3", b"FLV\x01", b"OggS", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"0&\xb2u", b".RMF")
"""First bytes of AVI, Matroska, FLV, Ogg, MPEG program and video streams, ASF and RealMedia."""
# Only these are believed: behind the last box of some files stand bytes that are none.
_BOXES = frozenset(b"ftyp moov mdat free skip wide uuid moof mfra sidx styp emsg ssix prft pdin pnot udta meta".split())
_SEGMENT = b"\x18\x53\x80\x67"


def is_page(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is HTML or XML, as downloads that failed leave behind."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES)


def looks_like_media(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is, or once was, one of the usual containers."""
    return head[4:8] in _BOXES or head.startswith(_MEDIA) or (head[:1] == b"G" and head[188:189] == b"G")


def declared_bytes(source: BinaryIO, size_bytes: int) -> int:
    """How long the file should be by its own account; 0 where it does not say. More than it is: it was cut off."""
    source.seek(0)
    head = source.read(64)
    if head[:4] == b"RIFF":
        size = int.from_bytes(head[4:8], "little")
        return 0 if size in (0, 0xFFFFFFFF) else 8 + size
    if head[:4] == b"\x1aE\xdf\xa3":
        return _matroska_bytes(head)
    return max((end for _, end in mp4_boxes(source, size_bytes)), default=0)


def mp4_boxes(source: BinaryIO, size_bytes: int) -> list[tuple[str, int]]:
    """Name and end of each box of an mp4's outermost level, as far as they are boxes; none of another file."""
    boxes: list[tuple[str, int]] = []
    position = 0
    while position + 8 <= size_bytes:
        source.seek(position)
        head = source.read(16)
        size, name = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1 and len(head) == 16:
            size = int.from_bytes(head[8:], "big")
        elif size == 0:  # up to the end
            size = size_bytes - position
        if name not in _BOXES or size < 8:
            break
        position += size
        boxes.append((name.decode(), position))
    return boxes


def _matroska_bytes(head: bytes) -> int:
    """End of the segment, which is the file; 0 where it was written without knowing."""
    header_bytes, start = _vint(head, 4)
    start += header_bytes
    if head[start : start + 4] != _SEGMENT:
        return 0
    size, start = _vint(head, start + 4)
    return start + size if size >= 0 else 0


def _vint(data: bytes, position: int) -> tuple[int, int]:
    """The number at ``position`` in Matroska's notation, -1 for unknown, and where it ends."""
    first = data[position] if position < len(data) else 0
    width = 9 - first.bit_length()
    raw = data[position : position + width]
    if not first or len(raw) < width:
        return -1, position
    value = int.from_bytes(raw, "big") & ((1 << 7 * width) - 1)
    return (-1 if value == (1 << 7 * width) - 1 else value), position + width
