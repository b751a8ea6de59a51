"""Which file of a folder may serve which clip, by name alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k710.clips.sources.candidates import Candidate, VideosAre, Wanted
from k710.clips.sources.file_names import FileNames, Folder, split_times, times_of
from k710.clips.sources.local import LocalFolders
from k710.errors import UsageError
from k710.segments import Segment, safe_id

ID = "-bc_efghijk"


def want(start_s: float = 10, end_s: float = 20, *releases: str, video: str = ID) -> Wanted:
    return Wanted(segment=Segment(id=video, start_s=start_s, end_s=end_s), releases=frozenset(releases or ("k400",)))


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def rivals_of(wanted: Sequence[Wanted]) -> dict[str, list[Wanted]]:
    return {item.segment.id: [w for w in wanted if w.segment.id == item.segment.id] for item in wanted}


def found(root: Path, *wanted: Wanted) -> list[list[str]]:
    """For each clip the candidates' paths below ``root``."""
    return [
        [str(Path(c.path).relative_to(root)) for c in candidates]
        for candidates in LocalFolders([root]).candidates(list(wanted), rivals_of(wanted))
    ]


def claims(root: Path, *wanted: Wanted) -> list[list[bool]]:
    return [
        [c.may_be_trimmed for c in candidates]
        for candidates in LocalFolders([root]).candidates(list(wanted), rivals_of(wanted))
    ]


def test_a_name_with_the_times_of_the_row_is_trimmed(tmp_path: Path) -> None:
    put(tmp_path, f"{ID}_000010_000020.mp4")
    (candidates,) = LocalFolders([tmp_path]).candidates([want()], {})
    assert candidates == (Candidate(path=f"{tmp_path}/{ID}_000010_000020.mp4", timed=True, may_be_trimmed=True),)


def test_a_name_with_other_times_is_no_match(tmp_path: Path) -> None:
    assert found(put(tmp_path, f"{ID}_000011_000020.mp4"), want()) == [[]]


def test_times_in_milliseconds_match(tmp_path: Path) -> None:
    name = f"{ID}_000010500_000020250.mp4"
    assert found(put(tmp_path, name), want(10.5, 20.25)) == [[name]]


@pytest.mark.parametrize(("start_s", "end_s"), [(10, 20), (10.0004, 19.9996)])
def test_times_match_to_the_millisecond(tmp_path: Path, start_s: float, end_s: float) -> None:
    names = [f"{ID}_000010000_000020000.mp4", f"{ID}_000010_000020.mp4"]
    assert found(put(tmp_path, *names), want(start_s, end_s)) == [names]


def test_an_untimed_name_is_left_to_the_duration(tmp_path: Path) -> None:
    put(tmp_path, f"{ID}.mkv")
    (candidates,) = LocalFolders([tmp_path]).candidates([want()], {})
    assert candidates == (Candidate(path=f"{tmp_path}/{ID}.mkv", timed=False, may_be_trimmed=True),)


def test_ids_are_case_sensitive(tmp_path: Path) -> None:
    assert found(put(tmp_path, f"{ID.upper()}.mp4"), want()) == [[]]


def test_apple_double_files_and_other_suffixes_are_skipped(tmp_path: Path) -> None:
    put(tmp_path, f"._{ID}.mp4", f"{ID}.mp4.part", f"{ID}.json", f"{ID}.txt", f"{ID}mp4", ".mp4")
    assert LocalFolders([tmp_path]).num_files == 0


@pytest.mark.parametrize(
    "name",
    [
        f"{ID}_000010_000020_x",
        f"x{ID}",
        f"{ID}x",
        f"{ID}_10_20",
        f"{ID}_000010",
        f"{ID}_000010_00002O",
        f"{ID}_00001٠_00002٠",
        f"{ID}_000010-000020",
        f"{ID}_000010000_000020",
        f"v{ID}",
    ],
)
def test_a_name_that_is_not_just_an_id_and_times_serves_nothing(tmp_path: Path, name: str) -> None:
    assert found(put(tmp_path, f"{name}.mp4"), want()) == [[]]


@pytest.mark.parametrize("folder", ["flat", "train/riding a bike", "train/riding_a_bike", "videos/vol_00", "ü/☕"])
def test_files_are_found_in_any_folder(tmp_path: Path, folder: str) -> None:
    name = f"{folder}/{ID}_000010_000020.MP4"
    assert found(put(tmp_path, name), want()) == [[name]]


def test_a_trimmed_file_is_preferred_to_an_untimed_one(tmp_path: Path) -> None:
    put(tmp_path, f"a/{ID}.mp4", f"b/{ID}_000010_000020.mp4")
    assert found(tmp_path, want()) == [[f"b/{ID}_000010_000020.mp4", f"a/{ID}.mp4"]]


def test_the_first_folder_given_is_preferred(tmp_path: Path) -> None:
    put(tmp_path, f"a/{ID}_000010_000020.mp4", f"z/{ID}.mp4")
    (candidates,) = LocalFolders([tmp_path / "z", tmp_path / "a"]).candidates([want()], {})
    assert [c.name for c in candidates] == [f"{ID}.mp4", f"{ID}_000010_000020.mp4"]


def test_two_segments_share_no_untimed_trimmed_file(tmp_path: Path) -> None:
    put(tmp_path, f"{ID}.mp4")
    assert claims(tmp_path, want(10, 20, "k400"), want(50, 60, "k600")) == [[False], [False]]


@pytest.mark.parametrize("folder", ["kinetics400", "K400", "kinetics-400/train/abseiling"])
def test_the_release_in_the_path_decides_between_two_segments(tmp_path: Path, folder: str) -> None:
    put(tmp_path, f"{folder}/{ID}.mp4")
    assert claims(tmp_path, want(10, 20, "k400"), want(50, 60, "k600", "k700")) == [[True], [False]]


def test_a_release_in_the_path_that_both_segments_have_decides_nothing(tmp_path: Path) -> None:
    put(tmp_path, f"kinetics600/{ID}.mp4")
    assert claims(tmp_path, want(10, 20, "k600"), want(50, 60, "k600")) == [[False], [False]]


def test_a_folder_is_a_release_only_by_its_whole_name(tmp_path: Path) -> None:
    put(tmp_path, f"my-kinetics400-copy/{ID}.mp4")
    assert claims(tmp_path, want(10, 20, "k400"), want(50, 60, "k600")) == [[False], [False]]


def test_timed_files_serve_two_segments_apart(tmp_path: Path) -> None:
    put(tmp_path, f"{ID}_000010_000020.mp4", f"{ID}_000050_000060.mp4")
    assert found(tmp_path, want(50, 60), want(10, 20)) == [[f"{ID}_000050_000060.mp4"], [f"{ID}_000010_000020.mp4"]]


def test_a_build_among_the_videos_is_not_a_source(tmp_path: Path) -> None:
    put(tmp_path, "k710-data/k710.lock.json", f"k710-data/cache/-b/{ID}_000010_000020.mp4")
    assert found(tmp_path, want()) == [[]]


def test_a_missing_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        LocalFolders([tmp_path / "nowhere"])


def test_a_segment_that_no_view_wants_has_a_claim_too(tmp_path: Path) -> None:
    planned, other = want(10, 20, "k600"), want(50, 60, "k400")
    root = put(tmp_path, f"kinetics400/{ID}.mp4")
    (candidates,) = LocalFolders([root]).candidates([planned], {ID: [planned, other]})
    assert [c.may_be_trimmed for c in candidates] == [False]


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, f"a/{ID}.mp4", f"b/{ID}.mp4")
    listed = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match=r"/b: cannot be listed \(Permission denied\)"):
        LocalFolders([tmp_path])


# what untimed files are


def test_what_untimed_files_are_can_be_said(tmp_path: Path) -> None:
    put(tmp_path, f"a/{ID}.mp4", f"b/{ID}_000010_000020.mp4")
    for videos_are in get_args(VideosAre):
        (candidates,) = LocalFolders([tmp_path], videos_are).candidates([want()], {})
        assert [(c.timed, c.videos_are) for c in candidates] == [(True, "auto"), (False, videos_are)]


# laws

MILLISECONDS = st.integers(0, 999_999_999)
YOUTUBE = st.text("abcXYZ019-_", min_size=11, max_size=11)
ENDINGS = ["", "_000010_000020", "_000010000_000020000", "_000010500_000020000", "_000050_000060"]


@given(video=YOUTUBE | st.text(min_size=1), start_ms=MILLISECONDS, end_ms=MILLISECONDS)
def test_the_key_of_a_clip_is_read_back(video: str, start_ms: int, end_ms: int) -> None:
    segment = Segment(id=video, start_s=start_ms / 1000, end_s=end_ms / 1000)
    assert split_times(segment.key) == (safe_id(video), (start_ms, end_ms)) == (safe_id(video), times_of(segment))


@given(
    data=st.data(),
    files=st.sets(
        st.tuples(
            st.sampled_from(["0/a", "0/replacement", "0/z", "1/replacement/z", "1/a"]),
            st.sampled_from([ID, f"v_{ID}", "elevenchars", "opaque 1", "opaque_1"]),
            st.sampled_from(ENDINGS),
            st.sampled_from([".mp4", ".MKV", ".m2ts"]),
        )
    ),
)
def test_files_are_ranked_by_folder_replacement_times_and_path_in_whatever_order_they_come(
    data: st.DataObject, files: set[tuple[str, str, str, str]]
) -> None:
    names = FileNames()
    for folder in data.draw(st.permutations(sorted({f[0] for f in files}))):
        inside = data.draw(st.permutations(sorted("".join(f[1:]) for f in files if f[0] == folder)))
        names.add(Folder(path=folder, order=int(folder[0]), is_replacement="replacement" in folder), inside)
    assert len(names) == len(files)
    assert sorted(f.path for f in names.all_files()) == sorted(f"{a}/{b}{c}{d}" for a, b, c, d in files)
    for video, spellings in {ID: {ID, f"v_{ID}"}, "opaque 1": {"opaque 1", "opaque_1"}, "other": set()}.items():
        expected = sorted(
            (folder[0], "replacement" not in folder, ending == "", f"{folder}/{name}{ending}{suffix}")
            for folder, name, ending, suffix in files
            if name in spellings
        )
        assert [f.path for f in names.of(want(video=video).segment)] == [path for *_, path in expected]
