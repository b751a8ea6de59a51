"""Clips as files: whole or absent, each once, gone on with after any end, and never in anybody else's folder."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
from full_disk import full_disk
from readers import Export

from k710 import atomic
from k710.errors import FeedError, UsageError
from k710.exports import extract as library
from k710.shards.index import ShardIndex

ROOT = Path(__file__).resolve().parents[3]


def videos(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in folder.glob("??/*.mp4")}


def stored(build: Path, *views: str) -> dict[str, bytes]:
    index = ShardIndex(build)
    found = [(index.view(name), index) for name in views]
    return {view.keys[p]: index.read_clip(view, p) for view, index in found for p in view.present}


def test_every_clip_of_the_views_is_there_once_with_the_bytes_it_has_in_shards(
    run: Export, built: Path, tmp_path: Path
) -> None:
    summary = run("mmaction2", built, views=("k400-train", "k710-train"), extract=tmp_path / "clips")
    wanted = stored(built, "k400-train", "k710-train")
    assert videos(tmp_path / "clips") == wanted
    assert (summary.files_written, summary.files_kept) == (len(wanted), 0)
    assert summary.num_clips > len(wanted)


def test_files_with_the_right_bytes_are_kept_and_others_written_again(run: Export, built: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    run("mmaction2", built, views=("k710-train",), extract=clips)
    good, short, changed, gone = sorted(clips.glob("??/*.mp4"))[:4]
    short.write_bytes(short.read_bytes()[:100])
    changed.write_bytes(changed.read_bytes()[:-1] + b"!")  # of the same size
    gone.unlink()
    inode = good.stat().st_ino
    summary = run("vjepa2", built, out=tmp_path / "other", views=("k710-train",), extract=clips)
    assert (summary.files_written, summary.files_kept) == (3, 4)
    assert good.stat().st_ino == inode
    assert videos(clips) == stored(built, "k710-train")


def test_files_that_no_view_names_are_left_and_counted(run: Export, built: Path, tmp_path: Path) -> None:
    run("mmaction2", built, views=("k710-train",), extract=tmp_path / "clips")
    summary = run("mmaction2", built, views=("k400-val",), extract=tmp_path / "clips")
    assert "holds 5 files that this export does not name; export.json lists them" in summary.notes[0]
    listed = json.loads((tmp_path / "out/export.json").read_text())["not_named"]
    assert sorted(listed) == listed
    assert {Path(name).stem for name in listed} == set(videos(tmp_path / "clips")) - set(stored(built, "k400-val"))
    assert len(videos(tmp_path / "clips")) == 7
    assert not (tmp_path / "out/k710_train_list_videos.txt").exists()


def test_a_folder_of_somebodys_videos_is_refused_and_stays_as_it_was(run: Export, built: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.mp4").write_bytes(b"mine")
    with pytest.raises(UsageError, match="not empty, and not made by"):
        run("mmaction2", built, extract=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["a.mp4"]
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder_and_stays_as_it_was(run: Export, built: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"/file: is a file$"):
        run("csv", built, out=tmp_path / "file")
    with pytest.raises(UsageError, match=r"--extract .*/file: is a file$"):
        run("mmaction2", built, extract=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_folders_of_any_build_are_refused_and_stay_as_they_were(
    run: Export, built: Path, copy: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(copy / "shards")
    before = sorted(copy.rglob("*"))
    mine, others = (built, built / "shards/new", built / "cache"), (copy / "shards/new", copy / "exports/csv")
    for folder in (*mine, *others, tmp_path / "link/new"):
        with pytest.raises(UsageError, match=r"--extract .*belongs to the build"):
            run("mmaction2", built, extract=folder)
        with pytest.raises(UsageError, match=r"--out .*belongs to the build"):
            run("csv", built, out=folder)
    assert sorted(copy.rglob("*")) == before
    assert run("csv", copy, out=copy / "exports/mine").num_clips > 0


def test_too_little_room_is_said_before_anything_is_written(
    run: Export,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(library.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UsageError, match=r"needed for 8 clips, 1\.0 kB free") as error:
        run("mmaction2", built, extract=tmp_path / "clips")
    whole = [-(-len(data) // 4096) * 4096 for data in stored(built, "k710-train", "k400-val", "k600-test").values()]
    assert f" {sum(whole) / 1000:,.1f} kB needed" in error.value.message
    assert videos(tmp_path / "clips") == {}
    monkeypatch.undo()
    assert run("mmaction2", built, extract=tmp_path / "clips").files_written == 8


def test_a_disk_that_fills_up_leaves_no_half_file_and_the_next_run_goes_on(
    run: Export, built: Path, tmp_path: Path
) -> None:
    sizes = sorted(len(data) for data in stored(built, "k710-train", "k400-val", "k600-test").values())
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with full_disk(sizes[-1] - 1), pytest.raises(UsageError, match="clips: cannot be written"):
        run("mmaction2", built, extract=tmp_path / "clips")
    wanted = stored(built, "k710-train", "k400-val", "k600-test")
    assert videos(tmp_path / "clips").items() <= wanted.items()
    assert run("mmaction2", built, extract=tmp_path / "clips").files_written >= 1
    assert videos(tmp_path / "clips").items() <= wanted.items()


def test_damaged_bytes_of_a_shard_are_an_error_that_names_it(run: Export, copy: Path, tmp_path: Path) -> None:
    view = ShardIndex(copy).view("k400-val")
    shard = copy / str(view.shards[0])
    data = bytearray(shard.read_bytes())
    data[int(view.offsets[0]) + 40] ^= 0xFF
    shard.unlink()  # the copy shares its files with the build
    shard.write_bytes(data)
    with pytest.raises(FeedError, match=rf"{shard.name}: the bytes of {view.keys[0]} are not those of the index"):
        run("mmaction2", copy, views=("k400-val",), extract=tmp_path / "clips")
    assert view.keys[0] not in videos(tmp_path / "clips")


def test_a_build_at_an_address_is_read_through_it(run: Export, built: Path, tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.put(str(built), f"/{tmp_path.name}/build", recursive=True)
    address = f"memory://{tmp_path.name}/build"
    run("slowfast", address, views=("k710-train",), extract=tmp_path / "clips")
    assert videos(tmp_path / "clips") == stored(built, "k710-train")
    with pytest.raises(UsageError, match="exports are written to a disk"):
        run("slowfast", address, out=None)


SLOW_WRITER = """
import sys, time
from pathlib import Path
from k710 import atomic
from k710.exports import extract
from k710.exports.export import ExportConfig, export
write, extract._BATCH = atomic.write_bytes, 1
def slowly(path, data):
    if path.suffix == ".mp4":
        path.parent.mkdir(exist_ok=True)
        (path.parent / f".{path.name}.killed.partial").write_bytes(data[:9])
    write(path, data)
    time.sleep(0.2)
atomic.write_bytes = slowly
export(ExportConfig(format="mmaction2", build=sys.argv[1], out=Path(sys.argv[2]), extract=Path(sys.argv[3])))
"""


def test_a_killed_extraction_leaves_whole_files_and_goes_on_to_the_same(
    run: Export, built: Path, tmp_path: Path
) -> None:
    clips = tmp_path / "clips"
    command = [sys.executable, "-c", SLOW_WRITER, str(built), str(tmp_path / "out"), str(clips)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        while len(videos(clips)) < 2 and process.poll() is None:
            time.sleep(0.02)
        with pytest.raises(UsageError, match="another export is writing to") as error:
            run("mmaction2", built, out=tmp_path / "second", extract=clips)
        assert "--extract" in error.value.hint
        assert "--out" not in error.value.hint
        process.kill()
    before = videos(clips)
    assert 2 <= len(before) < 8
    assert before.items() <= stored(built, "k710-train", "k400-val", "k400-train", "k600-test").items()
    assert list(clips.glob("??/.*.partial"))
    summary = run("mmaction2", built, extract=clips)
    assert summary.files_kept == len(before)
    assert summary.files_kept + summary.files_written == 8
    assert not list(clips.glob("??/.*.partial"))


def test_an_interrupted_extraction_stops_at_once(
    run: Export,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = []
    real = atomic.write_bytes

    def counted(path: Path, data: bytes) -> None:
        if path.suffix == ".mp4":
            written.append(path)
            time.sleep(0.05)
        real(path, data)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "extracting clips":
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "write_bytes", counted)
    monkeypatch.setattr(library, "_BATCH", 1)
    with pytest.raises(KeyboardInterrupt):
        run("mmaction2", built, extract=tmp_path / "clips", progress=stop)
    assert len(written) == 1
