"""Every layout in which people keep Kinetics: real folder trees, empty files where the name alone decides."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from k710.clips.encodings import EncodeConfig
from k710.clips.make import ClipJob, make_clip
from k710.clips.outcomes import AMBIGUOUS, OK, TOO_SHORT
from k710.clips.sources import local
from k710.clips.sources.candidates import VideosAre, Wanted
from k710.clips.sources.file_names import SUFFIXES
from k710.clips.sources.local import NO_ID, OTHER_TIMES, UNKNOWN_ID, LocalFolders
from k710.segments import Segment

A, B = "-bc_efghijk", "__0-9_-NaN_"


def want(start_s: float = 10, end_s: float = 20, *releases: str, video: str = A) -> Wanted:
    return Wanted(segment=Segment(id=video, start_s=start_s, end_s=end_s), releases=frozenset(releases or ("k400",)))


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def link(path: Path, target: Path | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def paths(folders: LocalFolders, *wanted: Wanted) -> list[list[str]]:
    """For each clip the candidates' paths."""
    rivals = {item.segment.id: [w for w in wanted if w.segment.id == item.segment.id] for item in wanted}
    return [[c.path for c in candidates] for candidates in folders.candidates(list(wanted), rivals)]


def found(root: Path, *wanted: Wanted) -> list[list[str]]:
    """For each clip the candidates' paths below ``root``."""
    return [[str(Path(p).relative_to(root)) for p in files] for files in paths(LocalFolders([root]), *wanted)]


def left_over(root: Path, *segments: Segment) -> list[tuple[str, str]]:
    return [(str(Path(u.path).relative_to(root)), u.reason) for u in LocalFolders([root]).unclaimed(segments)]


LAYOUTS = {
    "CVDF K400, flat": "k400/train/{id}_000010_000020.mp4",
    "CVDF K400, a replacement": "k400/replacement/replacement_for_corrupted_k400/{id}_000010_000020.mp4",
    "CVDF K600, a tar of a class": "k600/train/mountain climber (exercise)/{id}_000010_000020.mp4",
    "CVDF K600, a part of the test set": "k600/test/{id}_000010_000020.mp4",
    "CVDF K700-2020": "k700-2020/val/arresting/{id}_000010_000020.mp4",
    "crawler, spaces": "videos_train/baking cookies/{id}_000010_000020.mp4",
    "crawler, underscores": "videos_val/baking_cookies/{id}_000010_000020.mkv",
    "OpenDataLab K400": "kinetics400/videos_train/{id}.mp4",
    "OpenDataLab K600": "kinetics600/videos/vol_00/{id}_000010_000020.mp4",
    "OpenDataLab K700": "kinetics700/videos/vol_63/{id}_000010_000020.mp4",
    "nonlocal copy": "train_256/riding_or_walking_with_horse/{id}.mp4",
    "VideoMAE V2 K400": "your_path/k400/{id}.mp4",
    "VideoMAE V2 K700": "your_path/k700/{id}_000010_000020.mp4",
    "ActivityNet": "v1-3/train_val/v_{id}.mp4",
    "ActivityNet, trimmed": "clips/v_{id}_000010_000020.webm",
    "DeepMind's split word": "kinetics700/validate/{id}_000010_000020.mp4",
}


# fmt: off
CODECS = {
    **dict.fromkeys([".mp4", ".m4v", ".mov", ".mkv", ".avi", ".3gp", ".3g2", ".ts", ".mts", ".m2ts", ".nut"], "mpeg4"),
    ".flv": "flv", ".wmv": "wmv2", ".asf": "wmv2", ".mpg": "mpeg2video", ".vob": "mpeg2video", ".mxf": "mpeg2video",
    ".rm": "rv20", ".webm": "libvpx", ".ivf": "libvpx", ".ogv": "libtheora",
}
# fmt: on
"""A codec that ffmpeg can write for each container."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_serves_its_clip(tmp_path: Path, layout: str) -> None:
    names = [LAYOUTS[layout].format(id=video) for video in (A, B)]
    assert found(put(tmp_path, *names), want(video=A), want(video=B)) == [[names[0]], [names[1]]]


def test_all_layouts_are_read_in_one_scan(tmp_path: Path) -> None:
    videos = [f"layout{i:05d}" for i in range(len(LAYOUTS))]
    names = [layout.format(id=video) for layout, video in zip(LAYOUTS.values(), videos, strict=True)]
    put(tmp_path, *names)
    assert found(tmp_path, *(want(video=v) for v in videos)) == [[name] for name in names]
    assert LocalFolders([tmp_path]).num_files == len(names)


@pytest.mark.parametrize("suffix", sorted(SUFFIXES | {s.upper() for s in SUFFIXES} | {".Mp4", ".WebM"}))
def test_files_of_any_container_are_taken(tmp_path: Path, suffix: str) -> None:
    name = f"{A}_000010_000020{suffix}"
    assert found(put(tmp_path, name), want()) == [[name]]


@pytest.mark.parametrize("suffix", CODECS)
def test_the_containers_can_be_read(ffmpeg: Callable[..., Path], suffix: str) -> None:
    path = ffmpeg("-f", "lavfi", "-i", "testsrc=s=176x144:r=25:d=0.4", "-c:v", CODECS[suffix], f"{A}{suffix}")
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10


# replacements


def test_a_replacement_wins_whatever_the_order_of_names(tmp_path: Path) -> None:
    name = f"{A}_000010_000020.mp4"
    put(tmp_path, f"aaa/{name}", f"replacement/replacement_for_corrupted_k400/{name}", f"train/{name}")
    expected = [f"replacement/replacement_for_corrupted_k400/{name}", f"aaa/{name}", f"train/{name}"]
    assert found(tmp_path, want()) == [expected]


def test_an_untimed_replacement_wins_over_a_timed_original(tmp_path: Path) -> None:
    put(tmp_path, f"Replacements/{A}.mp4", f"a/{A}_000010_000020.mp4")
    assert found(tmp_path, want()) == [[f"Replacements/{A}.mp4", f"a/{A}_000010_000020.mp4"]]


def test_a_replacement_of_other_times_replaces_nothing(tmp_path: Path) -> None:
    put(tmp_path, f"replacement/{A}_000011_000021.mp4", f"train/{A}_000010_000020.mp4")
    assert found(tmp_path, want()) == [[f"train/{A}_000010_000020.mp4"]]


def test_a_replacement_does_not_leave_the_folder_given(tmp_path: Path) -> None:
    name = f"{A}_000010_000020.mp4"
    put(tmp_path, f"first/train/{name}", f"second/replacement/{name}")
    given = LocalFolders([tmp_path / "first", tmp_path / "second"])
    assert paths(given, want()) == [[f"{tmp_path}/first/train/{name}", f"{tmp_path}/second/replacement/{name}"]]


def test_what_leads_to_the_folder_given_makes_no_replacement(tmp_path: Path) -> None:
    root = put(tmp_path / "replacement_disk", f"a/{A}.mp4", f"b/{A}_000010_000020.mp4")
    assert found(root, want()) == [[f"b/{A}_000010_000020.mp4", f"a/{A}.mp4"]]


# symbolic links


def test_class_folders_of_links_beside_the_files_count_once(tmp_path: Path) -> None:
    names = [f"{A}_000010_000020.mp4", f"{B}_000010_000020.mp4"]
    put(tmp_path, *(f"train/{name}" for name in names))
    for name in names:
        link(tmp_path / "by_class" / "abseiling" / name, f"../../train/{name}")
    folders = LocalFolders([tmp_path])
    assert folders.num_files == 2
    assert found(tmp_path, want(video=A), want(video=B)) == [[f"by_class/abseiling/{name}"] for name in names]


def test_class_folders_of_links_alone_are_read(tmp_path: Path) -> None:
    name = f"{A}_000010_000020.mp4"
    put(tmp_path / "store", name)
    link(tmp_path / "videos" / "abseiling" / name, tmp_path / "store" / name)
    assert found(tmp_path / "videos", want()) == [[f"abseiling/{name}"]]


def test_links_to_a_store_with_names_of_its_own_are_read(tmp_path: Path) -> None:
    put(tmp_path / "blobs", "0f3a")
    link(tmp_path / "train" / f"{A}.mp4", "../blobs/0f3a")
    assert found(tmp_path, want()) == [[f"train/{A}.mp4"]]


def test_a_linked_folder_is_followed(tmp_path: Path) -> None:
    put(tmp_path / "disk2", f"part/{A}.mp4")
    put(tmp_path / "videos", f"{B}.mp4")
    link(tmp_path / "videos" / "more", tmp_path / "disk2")
    assert found(tmp_path / "videos", want(video=A), want(video=B)) == [[f"more/part/{A}.mp4"], [f"{B}.mp4"]]


def test_a_folder_goes_by_its_own_name_though_a_link_to_it_comes_first(tmp_path: Path) -> None:
    put(tmp_path, f"train/{A}.mp4")
    link(tmp_path / "a_link", "train")
    assert found(tmp_path, want()) == [[f"train/{A}.mp4"]]
    assert LocalFolders([tmp_path]).num_files == 1


def test_a_folder_that_two_links_lead_to_is_read_once(tmp_path: Path) -> None:
    put(tmp_path / "disk2", f"{A}.mp4")
    link(tmp_path / "videos" / "two", tmp_path / "disk2")
    link(tmp_path / "videos" / "one", tmp_path / "disk2")
    assert found(tmp_path / "videos", want()) == [[f"one/{A}.mp4"]]


def test_loops_of_links_end(tmp_path: Path) -> None:
    put(tmp_path / "videos", f"a/{A}.mp4", f"b/{B}.mp4")
    put(tmp_path, "beside/zzzzzzzzzzz.mp4")
    link(tmp_path / "videos" / "a" / "self", ".")
    link(tmp_path / "videos" / "a" / "to_b", "../b")
    link(tmp_path / "videos" / "b" / "to_a", "../a")
    link(tmp_path / "videos" / "b" / "up", "..")
    link(tmp_path / "videos" / "further_up", "../..")
    link(tmp_path / "videos" / "round", "round")
    link(tmp_path / "videos" / "round.mp4", "round.mp4")
    assert found(tmp_path / "videos", want(video=A), want(video=B)) == [[f"a/{A}.mp4"], [f"b/{B}.mp4"]]
    # What lies beside the folder is not the user's choice.
    assert paths(LocalFolders([tmp_path / "videos"]), want(video="zzzzzzzzzzz")) == [[]]


def test_a_loop_in_a_linked_folder_ends(tmp_path: Path) -> None:
    put(tmp_path / "disk2", f"in/{A}.mp4")
    link(tmp_path / "disk2" / "in" / "up", "..")
    (tmp_path / "videos").mkdir()
    link(tmp_path / "videos" / "more", tmp_path / "disk2" / "in")
    assert found(tmp_path / "videos", want()) == [[f"more/{A}.mp4"]]


def test_a_dead_link_is_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    link(tmp_path / f"{A}.mp4", "gone.mp4")
    link(tmp_path / "gone_folder", "nowhere")
    assert found(tmp_path, want()) == [[f"{A}.mp4"]]


def test_two_times_of_one_linked_file_are_two_names(tmp_path: Path) -> None:
    put(tmp_path / "store", "original")
    names = [f"{A}_000010_000020.mp4", f"{A}_000050_000060.mp4"]
    for name in names:
        link(tmp_path / "videos" / name, tmp_path / "store" / "original")
    assert found(tmp_path / "videos", want(10, 20), want(50, 60)) == [[names[0]], [names[1]]]


def test_a_link_in_the_first_folder_given_is_preferred_to_its_file_in_the_second(tmp_path: Path) -> None:
    put(tmp_path, f"original/{A}.mp4", f"other/{A}.mp4")
    link(tmp_path / "links" / f"{A}.mp4", tmp_path / "original" / f"{A}.mp4")
    given = LocalFolders([tmp_path / "links", tmp_path / "other", tmp_path / "original"])
    assert paths(given, want()) == [[f"{tmp_path}/links/{A}.mp4", f"{tmp_path}/other/{A}.mp4"]]


def test_a_folder_that_two_of_those_given_hold_counts_for_the_first(tmp_path: Path) -> None:
    put(tmp_path, f"all/part/{A}.mp4", f"all/{A}.mp4")
    given = LocalFolders([tmp_path / "all" / "part", tmp_path / "all"])
    assert paths(given, want()) == [[f"{tmp_path}/all/part/{A}.mp4", f"{tmp_path}/all/{A}.mp4"]]


def test_pipes_and_folders_with_a_videos_name_are_no_videos(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"{A}.mp4")
    link(tmp_path / "link" / f"{A}.mp4", f"../{A}.mp4")
    put(tmp_path, f"{B}.mp4/{B}_000010_000020.mp4")
    assert found(tmp_path, want(video=A), want(video=B)) == [[], [f"{B}.mp4/{B}_000010_000020.mp4"]]


# names


@pytest.mark.parametrize("folder", ["-rf", "new\nline", "café ☕", "日本語", " ", "a:b", "100%03d", "'\"$(x)"])
def test_any_folder_name_is_read(tmp_path: Path, folder: str) -> None:
    name = f"{folder}/{A}_000010_000020.mp4"
    assert found(put(tmp_path, name), want()) == [[name]]


def test_names_that_are_no_utf8_are_read(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    Path(os.fsdecode(folder)).mkdir()
    path = os.fsdecode(folder + b"/" + A.encode() + b".mp4")
    odd = os.fsdecode(folder + b"/\xff.mp4")
    for name in (path, odd):
        Path(name).touch()
    folders = LocalFolders([tmp_path])
    assert paths(folders, want()) == [[path]]
    assert [u.path for u in folders.unclaimed([want().segment])] == [odd]


# trimmed or whole


def made_of(video: Path, place: Path, *wanted: Wanted, videos_are: VideosAre = "auto") -> list[tuple[str, int]]:
    """Status and frames of the clips ``wanted``, which are all there are of a video that lies at ``place``."""
    place.parent.mkdir(parents=True)
    shutil.copy(video, place)
    files = LocalFolders([place.parent], videos_are).candidates(wanted, {wanted[0].segment.id: wanted})
    outcomes = [
        make_clip(
            ClipJob(
                segment=item.segment, candidates=candidates, target=place.parent / "made.mp4", encode=EncodeConfig()
            )
        )
        for item, candidates in zip(wanted, files, strict=True)
    ]
    return [(o.status, o.frames) for o in outcomes]


def test_a_real_untimed_clip_is_taken_as_trimmed(shared: Path, tmp_path: Path) -> None:
    clip = shared / "videos" / "h264_340x256_6fps.mp4"
    assert made_of(clip, tmp_path / "train_256" / "riding_a_bike" / f"{A}.mp4", want(100, 110)) == [(OK, 57)]


def test_a_real_untimed_clip_goes_to_the_release_that_its_folder_names(shared: Path, tmp_path: Path) -> None:
    clip = shared / "videos" / "h264_340x256_6fps.mp4"
    place = tmp_path / "kinetics400" / "videos_train" / f"{A}.mp4"
    assert made_of(clip, place, want(100, 110, "k400"), want(50, 60, "k600")) == [(OK, 57), (AMBIGUOUS, 0)]


def test_a_whole_video_serves_every_segment(counting: Path, tmp_path: Path) -> None:
    place = tmp_path / "kinetics400" / f"{B}.mp4"
    wanted = want(4, 7, video=B), want(12, 17, "k600", video=B), want(30, 40, video=B)
    assert made_of(counting, place, *wanted) == [(OK, 30), (OK, 50), (TOO_SHORT, 0)]


def test_files_that_are_said_to_be_clips_are_trimmed_whatever_their_length(counting: Path, tmp_path: Path) -> None:
    assert made_of(counting, tmp_path / "a" / f"{A}.mp4", want(5, 8), videos_are="clips") == [(OK, 200)]


def test_files_that_are_said_to_be_clips_are_not_shared_either(counting: Path, tmp_path: Path) -> None:
    wanted = want(5, 8, "k400"), want(12, 17, "k600")
    made = made_of(counting, tmp_path / "k400" / f"{A}.mp4", *wanted, videos_are="clips")
    assert made == [(OK, 200), (AMBIGUOUS, 0)]
    made = made_of(counting, tmp_path / "a" / f"{A}.mp4", *wanted, videos_are="clips")
    assert made == [(AMBIGUOUS, 0), (AMBIGUOUS, 0)]


def test_files_that_are_said_to_be_originals_are_cut_whatever_their_length(counting: Path, tmp_path: Path) -> None:
    wanted = want(1, 20), want(15, 25), want(30, 50)
    made = made_of(counting, tmp_path / "a" / f"{A}.mp4", *wanted, videos_are="originals")
    assert made == [(OK, 190), (OK, 50), (TOO_SHORT, 0)]


def test_a_name_with_times_is_trimmed_whatever_is_said(counting: Path, tmp_path: Path) -> None:
    place = tmp_path / "a" / f"{A}_000010_000020.mp4"
    assert made_of(counting, place, want(10, 20), videos_are="originals") == [(OK, 200)]


# what is left over


def test_files_that_no_annotation_names_are_listed_by_path_with_a_reason(tmp_path: Path) -> None:
    put(
        tmp_path,
        f"train/{A}_000010_000020.mp4",
        f"train/{A}_000011_000021.mp4",
        f"train/{A}.mkv",
        f"train/{B}.mp4",
        f"train/{B}_000010_000020.mp4",
        "train/v_tooshort.mp4",
        "train/notes.txt",
        "train/movie with a title.avi",
    )
    assert left_over(tmp_path, want().segment) == [
        (f"train/{A}_000011_000021.mp4", OTHER_TIMES),
        (f"train/{B}.mp4", UNKNOWN_ID),
        (f"train/{B}_000010_000020.mp4", UNKNOWN_ID),
        ("train/movie with a title.avi", NO_ID),
        ("train/v_tooshort.mp4", NO_ID),
    ]


def test_a_file_that_any_row_of_its_video_can_use_is_not_left_over(tmp_path: Path) -> None:
    put(tmp_path, f"{A}_000010_000020.mp4", f"{A}_000050_000060.mp4", f"copy/{A}_000050_000060.mp4")
    segments = [want(30, 40).segment, want(50, 60).segment, want(10, 20).segment, want(10, 20).segment]
    assert left_over(tmp_path, *segments) == []


def test_a_link_and_its_file_are_left_over_once(tmp_path: Path) -> None:
    put(tmp_path, f"train/{A}.mp4")
    link(tmp_path / "by_class" / f"{A}.mp4", f"../train/{A}.mp4")
    assert left_over(tmp_path) == [(f"by_class/{A}.mp4", UNKNOWN_ID)]


# opaque ids


@pytest.mark.parametrize("video", ["clip 17 (take 2)", "n01440764_17", "día/7", "x" * 90, "a_000001_000002", "0"])
def test_opaque_ids_match_by_their_safe_name_and_the_key(tmp_path: Path, video: str) -> None:
    wanted = [want(video=video), want(1.5, 2.5, video=video)]
    keys = [item.segment.key for item in wanted]
    names = [f"a/{key}.mp4" for key in keys] + [f"b/{keys[0].removesuffix('_000010_000020')}.mp4"]
    put(tmp_path, *names)
    assert found(tmp_path, *wanted) == [[names[0], names[2]], [names[1], names[2]]]
    assert left_over(tmp_path, *(item.segment for item in wanted)) == []


def test_opaque_ids_match_files_with_the_very_id(tmp_path: Path) -> None:
    names = ["clip 17 (take 2)_000010_000020.mp4", "clip 17 (take 2).mp4"]
    assert found(put(tmp_path, *names), want(video="clip 17 (take 2)")) == [names]


def test_beside_opaque_ids_no_name_is_without_an_id(tmp_path: Path) -> None:
    assert left_over(put(tmp_path, "other.mp4"), want(video="clip 17").segment) == [("other.mp4", UNKNOWN_ID)]


def test_the_folder_that_a_command_is_run_in_says_nothing_of_an_object_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "k400").mkdir()
    monkeypatch.chdir(tmp_path / "k400")
    local._releases_in.cache_clear()
    assert local._releases_in("s3://bucket/videos") == frozenset()
    assert local._releases_in("s3://bucket/k600") == {"k600"}
    assert local._releases_in("videos") == {"k400"}
    local._releases_in.cache_clear()
