"""Archives of small real videos as CVDF lays them out, and somebody who takes clips out of them."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from tars import put, tar
from web_site import HURRIED, Site

from k710.clips.media import EncodeConfig, encode_frames
from k710.clips.sources.candidates import Candidate, Wanted
from k710.clips.sources.cvdf.source import CvdfArchives, CvdfConfig
from k710.segments import Segment

IDS = [f"{n}_-abcdefg" for n in range(10, 30)]
S3 = "https://s3.amazonaws.com/kinetics"


def wanted(number: int, *releases: str, start_s: float = 10) -> Wanted:
    """A clip of 10 s."""
    segment = Segment(id=IDS[number], start_s=start_s, end_s=start_s + 10)
    return Wanted(segment=segment, releases=frozenset(releases or ("k400",)))


def by_key(*items: Wanted) -> dict[str, Wanted]:
    return {item.segment.key: item for item in items}


def key(number: int) -> str:
    return wanted(number).segment.key


def name(number: int) -> str:
    return f"{key(number)}.mp4"


def make_videos(folder: Path, count: int = 4) -> list[bytes]:
    """Videos of one second, each of another grey."""
    found = []
    for number in range(count):
        path = folder / f"{number}.mp4"
        frames_THWC = np.full((10, 48, 64, 3), 40 * number + 20, dtype=np.uint8)
        encode_frames(frames_THWC, path, fps=10, config=EncodeConfig(crf=30))
        found.append(path.read_bytes())
    return found


class World:
    """Videos by number, and archives of them."""

    def __init__(self, videos: list[bytes], tmp_path: Path) -> None:
        self.videos, self.tmp_path = videos, tmp_path
        self.own, self.work = tmp_path / "own", tmp_path / "work"
        self.said: list[str] = []
        self.own.mkdir()

    def video(self, number: int) -> bytes:
        """A video; those of higher numbers differ by a box at their end that players pass over."""
        return self.videos[number % len(self.videos)] + b"\0\0\0\x0cfree%04d" % number

    def tar(self, *numbers: int, before: str = "./", more: tuple[object, ...] = ()) -> bytes:
        return tar(*((f"{before}{name(n)}", self.video(n)) for n in numbers), *more)  # type: ignore[arg-type]

    def put(self, path: str, *numbers: int, packed: bool = True, more: tuple[object, ...] = ()) -> Path:
        """An archive in the user's folder."""
        target = self.own / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return put(target, self.tar(*numbers, more=more), packed=packed)

    def source(self, rivals: Mapping[str, list[Wanted]] | None = None, rows: object = None, **more: object):  # type: ignore[no-untyped-def]
        """The archives of the user's folder, unless ``base_url`` is given."""
        folder = None if "base_url" in more else self.own
        config = CvdfConfig(**{"work": self.work, "folder": folder, "patience": HURRIED} | more)  # type: ignore[arg-type]
        return CvdfArchives(config, rivals=rivals or {}, rows=rows, say=self.said.append)  # type: ignore[arg-type]

    def scratch(self) -> Path:
        folder = self.tmp_path / "scratch"
        folder.mkdir(exist_ok=True)
        return folder

    def take(
        self,
        source: CvdfArchives,
        clips: Mapping[str, Wanted],
        *,
        settle: bool = True,
        on_clip: Callable[[str, Candidate], None] = lambda _, __: None,
        most: int = 10**6,
    ) -> dict[str, bytes]:
        """Take up to ``most`` clips, one after the other, and return their bytes."""
        found: dict[str, bytes] = {}
        with contextlib.closing(source.offers(clips, self.scratch())) as offers:  # type: ignore[type-var]
            for clip, candidate in offers:
                assert clip not in found
                found[clip] = Path(candidate.path).read_bytes()
                on_clip(clip, candidate)
                Path(candidate.path).unlink()
                if settle:
                    source.settled([clip])
                if len(found) == most:
                    break
        return found

    def bytes_of(self, *numbers: int) -> dict[str, bytes]:
        return {key(n): self.video(n) for n in numbers}


def publish(site: Site, world: World, archives: Mapping[str, Iterable[int]]) -> None:
    """Put archives, by path below ``kinetics/``, and the path lists that name them on a server."""
    lists: dict[str, list[str]] = {}
    names = {"400": "k400", "600": "k600", "700_2020": "k700_2020"}
    for path, numbers in archives.items():
        site.put(f"/kinetics/{path.replace(' ', '%20')}", gzip.compress(world.tar(*numbers), mtime=0))
        release, split, *more = path.split("/")
        if more:
            where = f"/kinetics/{release}/{split}/{names[release]}_{split}_path.txt"
            lists.setdefault(where, []).append(f"{S3}/{path}\n")
    for where, lines in lists.items():
        site.put(where, "".join(lines).encode())
