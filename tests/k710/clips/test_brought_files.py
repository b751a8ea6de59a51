"""Videos that are brought for one clip: a part of one is cut to the frame as the whole would be."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from numbered import read_numbers, write_numbered

from k710.clips.encodings import EncodeConfig
from k710.clips.make import ClipJob, fingerprint, make_clip
from k710.clips.outcomes import ClipOutcome, Unusable
from k710.clips.sources.candidates import Brought, Candidate, VideosAre
from k710.segments import Segment

Ffmpeg = Callable[..., Path]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """Brings a copy of a file."""

    source: Path
    begins_s: float = 0.0
    kind: str = "url"
    identity: str = "1"

    def bring(self, folder: Path) -> Brought | Unusable:
        assert not list(folder.iterdir())
        target = folder / "brought.mp4"
        shutil.copyfile(self.source, target)
        return Brought(path=target, begins_s=self.begins_s)


def clip(
    origin: Copied, path: Path, folder: Path, *, start_s: float, end_s: float, videos_are: VideosAre = "auto"
) -> ClipOutcome:
    folder.mkdir()
    candidate = Candidate(path=path.name, timed=False, may_be_trimmed=True, origin=origin, videos_are=videos_are)
    return make_clip(
        ClipJob(
            segment=Segment(id="abcdefghijk", start_s=start_s, end_s=end_s),
            candidates=(candidate,),
            target=folder / "clip.mp4",
            encode=EncodeConfig(),
        )
    )


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 s whose frames show their numbers."""
    return write_numbered(tmp_path_factory.mktemp("numbered") / "whole.mp4", 200, "10")


@pytest.mark.parametrize("begins_s", [0, 4, 7])
def test_a_part_of_a_video_gives_the_frames_that_the_whole_gives(
    begins_s: int, video: Path, ffmpeg: Ffmpeg, tmp_path: Path
) -> None:
    part = ffmpeg("-i", video, "-ss", begins_s, "-to", 16, "-c:v", "libx264", "-crf", 12, "part.mp4")
    origin = Copied(source=part, begins_s=begins_s)
    made = clip(origin, part, tmp_path / "made", start_s=8, end_s=12, videos_are="originals")
    assert (made.status, made.notes, made.kind) == ("ok", ("cut from the whole video",), "local")
    assert read_numbers(tmp_path / "made" / "clip.mp4") == list(range(80, 120))
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["clip.mp4"]


def test_a_part_is_never_taken_as_trimmed(video: Path, ffmpeg: Ffmpeg, tmp_path: Path) -> None:
    part = ffmpeg("-i", video, "-ss", 4, "-to", 14, "-c:v", "libx264", "-crf", 12, "part.mp4")
    clip(Copied(source=part, begins_s=4.0), part, tmp_path / "a", start_s=5, end_s=14)
    assert read_numbers(tmp_path / "a" / "clip.mp4") == list(range(50, 140))
    late = clip(Copied(source=part, begins_s=4.0), part, tmp_path / "b", start_s=14, end_s=20)
    assert (late.status, late.detail) == ("too_short", "the video ends at 14.0 s, before the segment starts")


def test_files_of_this_run_do_not_count_in_what_was_tried_but_their_archives_do(tmp_path: Path) -> None:
    own = Candidate(path=str(tmp_path / "a.mp4"), timed=True, may_be_trimmed=True, is_ours=True)
    assert fingerprint((own,)) == ""
    assert fingerprint((own,), ("archive 1",)) == fingerprint((), ("archive 1",)) != fingerprint((), ("archive 2",))


def test_what_local_files_were_tried_is_told_as_ever(tmp_path: Path) -> None:
    # Ledgers on people's disks hold it: another digest would try every failed clip again.
    candidate = Candidate(path="/nowhere/video.mp4", timed=False, may_be_trimmed=True)
    assert fingerprint((candidate,)) == "bec8582128eded2a"
