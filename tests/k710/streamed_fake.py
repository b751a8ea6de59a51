"""A source that is read as a whole, and a build with it: archives that are lists of files, in the order given."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from k710.build import BuildConfig, build
from k710.clips.encodings import EncodeConfig
from k710.clips.media import encode_frames
from k710.clips.sources.candidates import Candidate, Wanted
from k710.clips.sources.chosen import Chosen
from k710.errors import K710Error

IDS = [f"video_{number:05d}" for number in range(6)]
PAGE = b"<!doctype html><p>Sign in</p>"


@dataclass(kw_only=True)
class Archives:
    """The source: for each clip the files that come by, one after the other."""

    members: list[tuple[str, Path]]
    """Id and file, in order."""
    out: Path
    """Of the build, to look at when it says that something is there."""
    held: dict[str, str] = field(default_factory=dict)
    """Ids that may come another time, and why."""
    error: K710Error | None = None
    """Raised when all has been offered."""
    on_offer: Callable[[int], None] = lambda number: None
    """Called before each offer with its number."""
    version: str = "1"
    asked: list[list[str]] = field(default_factory=list)
    """Ids that were wanted, for each reading."""
    waiting: list[int] = field(default_factory=list)
    """Files in the folder after each offer."""
    done: set[str] = field(default_factory=set)
    bad: list[str] = field(default_factory=list)
    names: tuple[str, ...] = ("fake:",)

    def identities(self, wanted: Sequence[Wanted]) -> list[str]:
        return [self.version for _ in wanted]

    def offers(self, wanted: Mapping[str, Wanted], folder: Path) -> Iterator[tuple[str, Candidate]]:
        self.asked.append(sorted(item.segment.id for item in wanted.values()))
        keys = {item.segment.id: key for key, item in wanted.items()}
        given: set[str] = set()
        for number, (video, path) in enumerate(self.members):
            if video not in keys or (video in given and keys[video] not in self.bad):
                continue
            given.add(video)
            self.on_offer(number)
            target = folder / f"{number}_{path.name}"
            shutil.copyfile(path, target)
            self.waiting.append(len(list(folder.iterdir())))
            yield (
                keys[video],
                Candidate(path=str(target), timed=True, may_be_trimmed=True, kind="cvdf", is_ours=True),
            )
        if self.error is not None:
            raise self.error

    def settled(self, keys: Collection[str]) -> None:
        lines = [line for path in self.out.glob("ledger*.jsonl") for line in path.read_text().splitlines()]
        assert set(keys) <= {json.loads(line)["key"] for line in lines}
        self.done.update(keys)

    def unusable(self, keys: Collection[str]) -> None:
        self.bad += keys

    def may_come(self, keys: Collection[str]) -> dict[str, str]:
        return {key: reason for key in keys for video, reason in self.held.items() if key.startswith(video)}

    def room(self, wanted: Sequence[Wanted]) -> str:
        return f"1.0 MB for {len(wanted)} clips"


def make_world(root: Path) -> None:
    """Lists of six clips, and a file of each: ``lists/``, ``all/``."""
    (root / "lists" / "k400").mkdir(parents=True)
    rows = "".join(f"abseiling,{video},0,1,train\n" for video in IDS)
    (root / "lists" / "k400" / "train.csv").write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    (root / "all").mkdir()
    for seed, video in enumerate(IDS):
        frames_THWC = np.random.default_rng(seed).integers(0, 255, (10, 32, 48, 3), dtype=np.uint8)
        encode_frames(frames_THWC, file_of(root, video), fps=10, config=EncodeConfig())


def file_of(root: Path, video: str) -> Path:
    """The good file of a video."""
    return root / "all" / f"{video}_000000_000001.mp4"


def use(archives: Archives) -> None:
    """Have `cvdf:` stand for these archives in this process."""
    Chosen._cvdf = lambda *_: archives  # type: ignore[method-assign, return-value, assignment]


def config_of(root: Path, out: Path, *videos: str, **more: Any) -> BuildConfig:
    """A build of the world in ``root``."""
    return BuildConfig(annotations=root / "lists", videos=videos, out=out, **{"workers": 1, **more})


def main() -> None:
    """Build a folder and an archive of all, and be killed before an offer: ``ROOT OUT FOLDER NUMBER``."""
    root, out, folder, number = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

    def kill(offer: int) -> None:
        if offer == number:
            os.kill(os.getpid(), signal.SIGKILL)

    use(Archives(members=[(video, file_of(root, video)) for video in IDS], out=out, on_offer=kill))
    build(config_of(root, out, folder, "cvdf:"))


if __name__ == "__main__":
    main()
