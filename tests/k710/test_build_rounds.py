"""A build with several sources: which clip is from where, what is asked for what, and what a stop leaves."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import streamed_fake
from streamed_fake import IDS, PAGE, Archives, config_of, file_of, make_world

from cli.build import describe
from k710.build import BuildConfig, build
from k710.clips.sources.chosen import Chosen
from k710.errors import SourceError, UsageError
from k710.retry import RetryConfig, retry


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rounds")
    make_world(root)
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def archives(world: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Archives:
    """Archives with all six clips."""
    fake = Archives(members=[(video, file_of(world, video)) for video in IDS], out=out)
    monkeypatch.setattr(Chosen, "_cvdf", lambda *_: fake)
    return fake


@pytest.fixture
def folder(world: Path, tmp_path: Path) -> Path:
    """A user's folder: two good files, a third that is a web page."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for video in IDS[:2]:
        shutil.copyfile(file_of(world, video), videos / file_of(world, video).name)
    (videos / file_of(world, IDS[2]).name).write_bytes(PAGE)
    return videos


@pytest.fixture
def config(world: Path, folder: Path, out: Path) -> BuildConfig:
    return config_of(world, out, str(folder), "cvdf:")


def kinds(out: Path) -> dict[str, str]:
    """Kind of source of each clip, as its sample says it."""
    found = {}
    for shard in out.glob("shards/*/*.tar"):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    facts = json.load(tar.extractfile(member) or io.BytesIO())
                    found[facts["id"]] = facts["source"]["kind"]
    return found


def ledger(out: Path) -> dict[str, dict[str, Any]]:
    """The last line of each clip, by id."""
    return {json.loads(line)["key"][:11]: json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()}


def contents(out: Path) -> dict[str, bytes]:
    files = [*out.glob("shards/*/*"), *out.glob("*.parquet"), out / "audit.json"]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def test_what_no_folder_has_comes_from_the_archives(config: BuildConfig, archives: Archives, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    summary = build(config)
    assert summary.clips == {"ok": 6}
    assert (summary.tried, summary.made) == (6, 6)
    assert kinds(config.out) == {video: "local" if video in IDS[:2] else "cvdf" for video in IDS}
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_archives_are_asked_only_for_what_more_preferred_sources_did_not_give(
    config: BuildConfig, archives: Archives
) -> None:
    build(config)
    assert archives.asked == [IDS[2:]]
    assert {key[:11] for key in archives.done} == set(IDS[2:])


def test_a_finished_build_asks_for_nothing(config: BuildConfig, archives: Archives) -> None:
    build(config)
    again = build(config)
    assert (again.tried, again.clips, len(archives.asked)) == (0, {"ok": 6}, 1)


def test_the_order_of_sources_is_that_of_preference(world: Path, folder: Path, out: Path, archives: Archives) -> None:
    build(config_of(world, out, "cvdf:", str(folder)))
    assert archives.asked == [IDS]
    assert set(kinds(out).values()) == {"cvdf"}


def test_files_of_archives_are_there_a_few_at_a_time_and_gone_at_the_end(
    config: BuildConfig, archives: Archives
) -> None:
    build(config)
    # One that is encoded, one that waits for it, and those whose outcome is just being written.
    assert max(archives.waiting) <= 3
    assert not list(config.out.rglob("offered*"))


def test_shards_that_are_complete_are_written_before_the_next_source_is_read(
    world: Path, folder: Path, out: Path, archives: Archives
) -> None:
    seen: list[int] = []
    archives.on_offer = lambda _: seen.append(len(list(out.glob("shards/*/*.tar"))))
    build(config_of(world, out, str(folder), "cvdf:", clips_per_shard=1))
    assert seen[0] == 2
    assert len(list(out.glob("shards/*/*.tar"))) == 6


def test_progress_counts_each_clip_once(config: BuildConfig, archives: Archives) -> None:
    seen: list[tuple[int, int]] = []
    build(config, on_clips=lambda so_far: seen.append((so_far.done, so_far.total)))
    assert seen[0] == (0, 6)
    assert seen[-1] == (6, 6)
    assert seen == sorted(seen)


def test_the_room_of_archives_is_said_first(config: BuildConfig, archives: Archives) -> None:
    said: list[str] = []
    build(config, say=said.append)
    # The page among the user's files may be a clip, as far as names tell.
    lines = [line for line in said if "disk: at most" in line]
    assert "archives: 1.0 MB for 3 clips" in lines[0]


def test_a_clip_that_nothing_gives_has_the_failure_of_its_first_file(config: BuildConfig, archives: Archives) -> None:
    archives.members = archives.members[3:]
    assert build(config).clips == {"ok": 5, "not_a_video": 1}
    line = ledger(config.out)[IDS[2]]
    assert (line["status"], line["source"]) == ("not_a_video", f"{IDS[2]}_000000_000001.mp4")


def test_what_was_tried_in_vain_is_not_tried_again_until_something_changes(
    config: BuildConfig, archives: Archives, world: Path, folder: Path
) -> None:
    archives.members = archives.members[3:5]
    assert build(config).clips == {"ok": 4, "not_a_video": 1, "missing": 1}
    again = build(config)
    assert (again.tried, len(archives.asked)) == (0, 1)
    archives.version, archives.members = "2", [(IDS[5], file_of(world, IDS[5]))]
    assert build(config).clips == {"ok": 5, "not_a_video": 1}
    assert archives.asked[1:] == [[IDS[2], IDS[5]]]
    shutil.copyfile(file_of(world, IDS[2]), folder / file_of(world, IDS[2]).name)
    last = build(config)
    assert (last.tried, last.clips, len(archives.asked)) == (1, {"ok": 6}, 2)
    assert kinds(config.out)[IDS[2]] == "local"


def test_a_source_that_is_added_is_asked_for_what_is_open(
    config: BuildConfig, archives: Archives, world: Path, folder: Path, out: Path
) -> None:
    assert build(config_of(world, out, str(folder))).clips == {"missing": 3, "ok": 2, "not_a_video": 1}
    summary = build(config)
    assert (summary.clips, summary.tried, archives.asked) == ({"ok": 6}, 4, [IDS[2:]])
    # The page in the folder was not looked at again.
    assert ledger(out)[IDS[2]]["attempts"] == 2


def test_a_clip_whose_archive_could_not_be_read_is_pending_and_asked_for_by_every_run(
    config: BuildConfig, archives: Archives
) -> None:
    members = archives.members
    archives.members, archives.held = members[:5], {IDS[5]: "part_2.tar.gz: 503"}
    assert build(config).clips == {"ok": 5, "pending": 1}
    assert ledger(config.out)[IDS[5]]["detail"] == "part_2.tar.gz: 503"
    assert build(config).clips == {"ok": 5, "pending": 1}
    archives.members, archives.held = members, {}
    assert build(config).clips == {"ok": 6}
    assert archives.asked[1:] == [[IDS[5]], [IDS[5]]]


def test_another_file_of_the_same_source_is_taken_when_the_first_is_unusable(
    config: BuildConfig, archives: Archives, tmp_path: Path
) -> None:
    page = tmp_path / "page.mp4"
    page.write_bytes(PAGE)
    archives.members.insert(0, (IDS[4], page))
    assert build(config).clips == {"ok": 6}
    assert kinds(config.out)[IDS[4]] == "cvdf"


def test_when_a_source_breaks_off_what_it_has_given_is_kept_and_nothing_is_missing(
    config: BuildConfig, archives: Archives
) -> None:
    members = archives.members
    archives.members, archives.error = members[:5], SourceError("the archive is gone")
    with pytest.raises(SourceError, match="the archive is gone"):
        build(config)
    assert {video for video, line in ledger(config.out).items() if line["status"] == "ok"} == set(IDS[:5])
    assert IDS[5] not in ledger(config.out)
    archives.members, archives.error = members, None
    summary = build(config)
    assert (summary.clips, summary.tried, archives.asked[1:]) == ({"ok": 6}, 1, [[IDS[5]]])


def test_retry_goes_through_all_sources_again(config: BuildConfig, archives: Archives) -> None:
    members = archives.members
    archives.members = members[:5]
    assert build(config).clips == {"ok": 5, "missing": 1}
    archives.members = members
    assert build(config).clips == {"ok": 5, "missing": 1}
    assert retry(RetryConfig(out=config.out, statuses=("missing",))).clips == {"ok": 6}


def test_nothing_anywhere_is_an_error_that_names_all_sources(
    world: Path, out: Path, archives: Archives, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    archives.version = ""
    with pytest.raises(SourceError, match=r"none of the 6 planned clips has a video in .*empty, fake:"):
        build(config_of(world, out, str(tmp_path / "empty"), "cvdf:"))


def test_a_folder_after_archives_is_a_source_of_its_own(
    world: Path, out: Path, folder: Path, archives: Archives, tmp_path: Path
) -> None:
    last = tmp_path / "last"
    last.mkdir()
    for video in IDS[2:4]:
        shutil.copyfile(file_of(world, video), last / file_of(world, video).name)
    (last / "zzzzzzzzzzz.mp4").touch()
    archives.members = archives.members[4:]
    summary = build(config_of(world, out, str(folder), "cvdf:", str(last)))
    assert (summary.clips, summary.unclaimed) == ({"ok": 6}, 1)
    assert kinds(out) == {video: "cvdf" if video in IDS[4:] else "local" for video in IDS}


@pytest.mark.parametrize("number", [2, pytest.param(3, marks=pytest.mark.slow), 5])
def test_killed_before_or_inside_a_source_a_build_goes_on_to_the_same_bytes(
    number: int, world: Path, folder: Path, out: Path, archives: Archives, tmp_path: Path
) -> None:
    command = [sys.executable, streamed_fake.__file__, str(world), str(out), str(folder), str(number)]
    killed = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    made = {video for video, line in ledger(out).items() if line["status"] == "ok"}
    assert set(IDS[:2]) <= made
    summary = build(config_of(world, out, str(folder), "cvdf:"))
    assert summary.clips == {"ok": 6}
    # What the user's folder has given in vain is not tried again, and nothing is made twice.
    assert ledger(out)[IDS[2]]["attempts"] == 2
    assert archives.asked == [sorted(set(IDS) - made)]
    assert summary.tried == 6 - len(made)
    archives.out = tmp_path / "whole"
    build(config_of(world, tmp_path / "whole", str(folder), "cvdf:"))
    assert contents(out) == contents(tmp_path / "whole")


def test_pending_clips_are_said_and_tried_by_the_next_task_but_not_twice_by_one(
    world: Path, folder: Path, out: Path, archives: Archives
) -> None:
    del archives.members[2]
    archives.held = {IDS[2]: "part_2.tar.gz: 503"}
    task = config_of(world, out, str(folder), "cvdf:", executor="array", task_index=0, num_tasks=1)
    summary = build(task)
    assert (summary.clips, len(archives.asked)) == ({"ok": 5, "pending": 1}, 1)
    assert (out / "shards.parquet").exists()
    assert "1 clips are pending: run the same command again" in describe(summary)
    archives.held = {}
    assert build(task).clips == {"ok": 5, "not_a_video": 1}
    assert archives.asked[1:] == [[IDS[2]]]


def test_archives_in_a_folder_are_a_source_and_stay(world: Path, folder: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "archives").mkdir()
    for number, videos in enumerate((IDS[:4], IDS[4:5])):
        with tarfile.open(tmp_path / "archives" / f"part_{number}.tar.gz", "w:gz") as tar:
            for video in videos:
                tar.add(file_of(world, video), arcname=f"./train/{file_of(world, video).name}")
    before = {path: path.read_bytes() for path in (tmp_path / "archives").iterdir()}
    config = config_of(world, out, str(folder), f"cvdf:{tmp_path / 'archives'}")
    summary = build(config)
    assert (summary.clips, summary.tried) == ({"ok": 5, "missing": 1}, 6)
    assert kinds(out) == {video: "local" if video in IDS[:2] else "cvdf" for video in IDS[:5]}
    assert {path: path.read_bytes() for path in (tmp_path / "archives").iterdir()} == before
    assert build(config).tried == 0


def test_archives_are_not_downloaded_by_several_tasks(world: Path, out: Path) -> None:
    with pytest.raises(UsageError, match="each of which would download every archive"):
        config_of(world, out, "cvdf:", executor="array", task_index=0, num_tasks=2)
