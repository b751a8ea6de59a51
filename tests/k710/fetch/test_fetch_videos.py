"""Archives of videos as CVDF publishes them, from their path lists to clips that a build finds."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from full_disk import full_disk
from tars import tar
from web_site import HURRIED, Site

from k710.clips.sources.candidates import Wanted
from k710.clips.sources.local import LocalFolders
from k710.errors import InputError, SourceError, UsageError
from k710.fetch.outcomes import CHANGED, DAMAGED, FETCHED, FOUND, REPLACED, UNCHANGED
from k710.fetch.videos import FetchVideosConfig, VideosSummary, fetch_videos
from k710.segments import Segment

IDS = [f"{n}_-{'abcdefgh'}"[:11].ljust(11, "x") for n in range(10, 20)]
S3 = "https://s3.amazonaws.com/kinetics"


def clip(number: int) -> bytes:
    return b"\0\0\0\x18ftypmp42" + bytes([number]) * (3000 + number)


def name(number: int) -> str:
    return f"{IDS[number]}_000010_000020.mp4"


def archive(*numbers: int, before: str = "./", more: tuple[tuple[str, bytes], ...] = ()) -> bytes:
    return gzip.compress(tar(*((f"{before}{name(n)}", clip(n)) for n in numbers), *more), mtime=0)


@pytest.fixture
def cvdf(site: Site) -> Site:
    """K400 in parts, one of them a plain tar; K600 by class."""
    parts = {
        "400/train/part_0.tar.gz": archive(0, 1),
        "400/train/part_1.tar.gz": gzip.decompress(archive(2, before="")),
        "400/val/part_0.tar.gz": archive(3),
        "400/replacement_for_corrupted_k400.tgz": archive(1, before="replacement_for_corrupted_k400/"),
        "600/train/mountain climber (exercise).tar.gz": archive(
            4, 5, before="mountain climber (exercise)/", more=((f"._{name(4)}", b"x"), (f"../{name(6)}", b"x"))
        ),
    }
    for path, data in parts.items():
        site.put(f"/kinetics/{path.replace(' ', '%20')}", data)
    for number, release, split in (("400", "k400", "train"), ("400", "k400", "val"), ("600", "k600", "train")):
        named = [p for p in parts if p.startswith(f"{number}/{split}/")]
        site.put(
            f"/kinetics/{number}/{split}/{release}_{split}_path.txt",
            "".join(f"{S3}/{p}\n" for p in named).encode(),
        )
    return site


def fetch(
    site: Site, out: Path, release: str = "k400", splits: tuple[str, ...] = ("train",), **more: object
) -> VideosSummary:
    config = FetchVideosConfig(releases=(release,), splits=splits, out=out, base_url=site.url, patience=HURRIED, **more)
    return fetch_videos(config)


def files(folder: Path) -> list[str]:
    found = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(p for p in found if not p.startswith(".fetching"))


K400_TRAIN = [
    "k400/replacement/replacement_for_corrupted_k400.tgz",
    "k400/train/k400_train_path.txt",
    "k400/train/part_0.tar.gz",
    "k400/train/part_1.tar.gz",
]


def test_the_archives_of_a_path_list_come_and_replacements_with_them(cvdf: Site, out: Path) -> None:
    summary = fetch(cvdf, out)
    assert {o.status for o in summary.files} == {FETCHED}
    assert files(out) == [*K400_TRAIN, "sources.json"]
    assert (out / K400_TRAIN[2]).read_bytes() == cvdf.pages["/kinetics/400/train/part_0.tar.gz"].data


def test_a_second_run_downloads_nothing(cvdf: Site, out: Path) -> None:
    fetch(cvdf, out)
    before = cvdf.sent.total()
    assert {o.status for o in fetch(cvdf, out).files} == {UNCHANGED}
    assert cvdf.sent.total() == before


def test_a_dry_run_says_what_there_is_with_sizes_and_writes_nothing(cvdf: Site, out: Path) -> None:
    cvdf.pages["/kinetics/400/train/part_1.tar.gz"].head_code = 405
    del cvdf.pages["/kinetics/400/replacement_for_corrupted_k400.tgz"]
    summary = fetch(cvdf, out, dry_run=True)
    size = len(cvdf.pages["/kinetics/400/train/part_0.tar.gz"].data)
    start = f"{cvdf.url}/kinetics/400"
    assert summary.planned == (
        (f"{start}/train/part_0.tar.gz", "", size),
        (f"{start}/train/part_1.tar.gz", "", None),
        (f"{start}/replacement_for_corrupted_k400.tgz", "not_found", None),
    )
    assert files(out) == []


def test_only_so_many_archives_of_each_list_come(cvdf: Site, out: Path) -> None:
    summary = fetch(cvdf, out, splits=("train", "val"), max_archives=1)
    assert [o.name for o in summary.archives] == [K400_TRAIN[2], "k400/val/part_0.tar.gz", K400_TRAIN[0]]


def test_an_archive_that_is_missing_does_not_keep_the_others(cvdf: Site, out: Path) -> None:
    del cvdf.pages["/kinetics/400/train/part_0.tar.gz"]
    summary = fetch(cvdf, out)
    assert [o.status for o in summary.archives] == ["not_found", FETCHED, FETCHED]


def test_a_damaged_archive_is_not_kept(cvdf: Site, out: Path) -> None:
    page = cvdf.pages["/kinetics/400/train/part_0.tar.gz"]
    page.data = page.data[:-20]
    assert [o.status for o in fetch(cvdf, out).archives] == [DAMAGED, FETCHED, FETCHED]
    assert "k400/train/part_0.tar.gz" not in files(out)
    assert not [f for f in files(out) if "partial" in f]


def test_without_a_path_list_the_rest_comes(cvdf: Site, out: Path) -> None:
    del cvdf.pages["/kinetics/400/val/k400_val_path.txt"]
    summary = fetch(cvdf, out, splits=("train", "val"))
    assert [o.status for o in summary.lists] == [FETCHED, "not_found"]
    assert len(summary.archives) == 3


def test_a_path_list_that_is_a_page_is_not_read(cvdf: Site, out: Path) -> None:
    cvdf.put("/kinetics/400/val/k400_val_path.txt", b"<html>")
    assert [o.status for o in fetch(cvdf, out, splits=("val",)).files] == ["not_data"]
    with pytest.raises(InputError, match="a page, not a list of archives"):
        fetch(cvdf, out, splits=("val",), dry_run=True)


def test_clips_come_out_where_a_build_finds_them(cvdf: Site, out: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    summary = fetch(cvdf, out, extract=clips)
    assert files(clips) == [
        "extracted.json",
        f"k400/replacement/replacement_for_corrupted_k400/{name(1)}",
        f"k400/train/part_0/{name(0)}",
        f"k400/train/part_0/{name(1)}",
        f"k400/train/part_1/{name(2)}",
    ]
    assert files(out) == ["k400/train/k400_train_path.txt", "sources.json"]
    assert sum(e.clips for e in summary.extracted.values()) == 4
    wanted = Wanted(segment=Segment(id=IDS[1], start_s=10, end_s=20), releases=frozenset({"k400"}))
    found = LocalFolders([clips]).candidates([wanted], {})[0]
    assert [Path(c.path).parent.name for c in found] == ["replacement_for_corrupted_k400", "part_0"]


def test_what_is_passed_over_in_an_archive_is_counted(cvdf: Site, out: Path, tmp_path: Path) -> None:
    summary = fetch(cvdf, out, "k600", extract=tmp_path / "clips")
    found = summary.extracted["k600/train/mountain climber (exercise).tar.gz"]
    assert found.clips == 2
    assert found.skipped == {"a ._ file of macOS": 1, "its path leads out of the archive": 1}
    assert (tmp_path / "clips" / "k600" / "train" / "mountain climber (exercise)" / name(5)).read_bytes() == clip(5)


def test_unpacked_archives_are_not_fetched_again(cvdf: Site, out: Path, tmp_path: Path) -> None:
    fetch(cvdf, out, extract=tmp_path / "clips")
    before = cvdf.sent.total()
    summary = fetch(cvdf, out, extract=tmp_path / "clips")
    assert cvdf.sent.total() == before
    assert {(o.status, o.reason) for o in summary.archives} == {(UNCHANGED, "unpacked before")}
    # Another folder has no clips yet.
    assert {o.status for o in fetch(cvdf, out, extract=tmp_path / "other").archives} == {FETCHED}


def test_archives_are_kept_on_request(cvdf: Site, out: Path, tmp_path: Path) -> None:
    fetch(cvdf, out, extract=tmp_path / "clips", keep_archives=True)
    assert files(out) == [*K400_TRAIN, "sources.json"]
    fetch(cvdf, out, extract=tmp_path / "clips")
    assert files(out) == [*K400_TRAIN, "sources.json"]


def test_archives_of_an_earlier_run_that_kept_them_are_not_removed(cvdf: Site, out: Path, tmp_path: Path) -> None:
    fetch(cvdf, out)
    fetch(cvdf, out, extract=tmp_path / "clips")
    assert files(out) == [*K400_TRAIN, "sources.json"]


def test_clips_of_another_version_count_as_not_unpacked(cvdf: Site, out: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    fetch(cvdf, out, splits=("val",), extract=clips)
    cvdf.pages["/kinetics/400/val/part_0.tar.gz"].data = archive(3, 8)
    assert fetch(cvdf, out, splits=("val",)).archives[0].status == CHANGED
    assert fetch(cvdf, out, splits=("val",), accept_changed=True).archives[0].status == REPLACED
    (out / "k400" / "val" / "part_0.tar.gz").unlink()
    assert fetch(cvdf, out, splits=("val",), extract=clips).archives[0].status == FETCHED
    assert (clips / "k400" / "val" / "part_0" / name(8)).exists()


def test_an_archive_that_a_later_run_wants_to_keep_is_not_removed(
    cvdf: Site, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("k710.fetch.videos.extract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(cvdf, out, splits=("val",), extract=tmp_path / "clips")
    fetch(cvdf, out, splits=("val",))
    fetch(cvdf, out, splits=("val",), extract=tmp_path / "clips")
    assert (out / "k400" / "val" / "part_0.tar.gz").exists()
    assert (tmp_path / "clips" / "k400" / "val" / "part_0" / name(3)).exists()


@pytest.mark.parametrize("whole", [True, False])
def test_an_archive_of_the_users_is_never_removed(cvdf: Site, out: Path, tmp_path: Path, whole: bool) -> None:
    mine = out / "k400" / "train" / "part_0.tar.gz"
    mine.parent.mkdir(parents=True)
    page = cvdf.pages["/kinetics/400/train/part_0.tar.gz"]
    page.data = page.data if whole else page.data[:-9] + bytes(9)
    mine.write_bytes(page.data)
    outcome = fetch(cvdf, out, extract=tmp_path / "clips").archives[0]
    assert outcome.status == (FOUND if whole else DAMAGED)
    assert mine.read_bytes() == page.data


def test_a_damaged_archive_gives_its_whole_clips_and_is_fetched_again(cvdf: Site, out: Path, tmp_path: Path) -> None:
    page = cvdf.pages["/kinetics/400/train/part_1.tar.gz"]
    good = page.data
    whole = tar((name(2), clip(2)), (name(7), clip(7)))
    page.data = whole[: 512 + 3584 + 512 + 1000]
    clips = tmp_path / "clips"
    assert [o.status for o in fetch(cvdf, out, extract=clips).archives] == [FETCHED, DAMAGED, FETCHED]
    assert [f for f in files(clips) if "part_1" in f] == [f"k400/train/part_1/{name(2)}"]
    assert not (out / K400_TRAIN[3]).exists()
    page.data = good
    assert [o.status for o in fetch(cvdf, out, extract=clips).archives] == [UNCHANGED, FETCHED, UNCHANGED]


def test_room_for_clips_and_archives_is_asked_for_first(
    cvdf: Site, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k710.fetch.partial.SPARE_BYTES", 1 << 60)
    with pytest.raises(SourceError, match="free on the disk of"):
        fetch(cvdf, out, extract=tmp_path / "clips")


@pytest.mark.parametrize("unpack", [False, True])
def test_a_disk_that_fills_up_is_named_and_the_next_run_goes_on(
    cvdf: Site, out: Path, tmp_path: Path, unpack: bool
) -> None:
    clips = tmp_path / "clips"
    more = {"extract": clips} if unpack else {}
    # The first archive is smaller than its clips, the second one larger than what is left.
    with full_disk(2500 if unpack else 5000), pytest.raises(UsageError, match=r"cannot be written \(File too large"):
        fetch(cvdf, out, parallel=1, **more)
    assert not list(clips.rglob("*.mp4"))
    assert all(o.is_good for o in fetch(cvdf, out, **more).archives)
    assert len(list(clips.rglob("*.mp4"))) == (4 if unpack else 0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"parallel": 0}, "must be at least 1"),
        ({"max_archives": 0}, "must be at least 1"),
        ({"splits": ()}, "no split is named"),
        ({"splits": ("dev",)}, "no videos of k400:dev are published"),
        ({"release": "k700"}, "no videos of k700 are published"),
        ({"keep_archives": True}, "keep_archives is for extract"),
    ],
)
def test_settings_that_cannot_be_are_refused(cvdf: Site, out: Path, more: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fetch(cvdf, out, **more)


SCRIPT = """
import sys
from pathlib import Path
from k710.fetch.client import Patience
from k710.fetch.videos import FetchVideosConfig, fetch_videos
out, base, clips = sys.argv[1:]
fetch_videos(FetchVideosConfig(
    releases=("k400",), splits=("train",), out=Path(out), base_url=base, extract=Path(clips), parallel=2,
    patience=Patience(window_s=60),
))
"""


def test_a_run_killed_at_any_point_is_gone_on_with(cvdf: Site, out: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    for path in ("train/part_0.tar.gz", "train/part_1.tar.gz", "replacement_for_corrupted_k400.tgz"):
        cvdf.pages[f"/kinetics/400/{path}"].drip_s = 0.02
    command = [sys.executable, "-c", SCRIPT, str(out), cvdf.url, str(clips)]
    process = subprocess.Popen(command)
    while cvdf.sent["/kinetics/400/train/part_1.tar.gz"] < 1000 and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list(out.rglob("part_*.gz"))
    assert list(out.rglob(".part_1.tar.gz.partial"))
    for page in cvdf.pages.values():
        page.drip_s = 0
    assert fetch(cvdf, out, extract=clips).archives[1].status == FETCHED
    assert len([f for f in files(clips) if f.endswith(".mp4")]) == 4
    resumed = cvdf.gets("/kinetics/400/train/part_1.tar.gz")[-1]
    assert resumed["Range"].startswith("bytes=")
    assert files(out) == ["k400/train/k400_train_path.txt", "sources.json"]


def test_what_killed_runs_were_writing_is_swept_away(cvdf: Site, out: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    killed = [
        out / ".sources.json.k1ll3d_x.partial",
        out / "k400" / "val" / "..part_0.tar.gz.partial.json.k1ll3d_x.partial",
        clips / ".extracted.json.k1ll3d_x.partial",
        clips / "k400" / "val" / "part_0" / f".{name(3)}.k1ll3d_x.partial",
    ]
    for path in killed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    fetch(cvdf, out, splits=("val",), extract=clips)
    assert not [path for path in killed if path.exists()]
    assert files(clips) == ["extracted.json", f"k400/val/part_0/{name(3)}"]


def test_the_record_of_unpacked_archives_names_them_by_place(cvdf: Site, out: Path, tmp_path: Path) -> None:
    fetch(cvdf, out, extract=tmp_path / "clips")
    written = json.loads((tmp_path / "clips" / "extracted.json").read_text())
    assert set(written["archives"]) == {K400_TRAIN[0], *K400_TRAIN[2:]}
    (tmp_path / "clips" / "extracted.json").write_text("{}")
    with pytest.raises(InputError, match=r"extracted\.json: cannot be read"):
        fetch(cvdf, out, extract=tmp_path / "clips")
