"""Archives from a server on loopback: a few on the disk at a time, gone on with after any end, only ours removed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from cvdf_world import IDS, World, by_key, key, make_videos, publish, wanted
from web_site import HURRIED, Site

from k710.clips.sources.cvdf.source import DAMAGED, NOT_HAD, READ
from k710.errors import SourceError, UsageError
from k710.fetch.partial import SPARE_BYTES
from k710.fetch.record import held
from k710.fetch.videos import FetchVideosConfig, fetch_videos

ALL = by_key(*(wanted(n) for n in range(8)))
TRAIN = "/kinetics/400/train"
K400 = {
    "400/train/part_0.tar.gz": (0, 1),
    "400/train/part_1.tar.gz": (2, 3),
    "400/train/part_2.tar.gz": (4, 5),
    "400/val/part_0.tar.gz": (6,),
    "400/replacement_for_corrupted_k400.tgz": (),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return make_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    # Where the network is behind a proxy, this machine is not.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = Site()
    yield served
    served.close()


@pytest.fixture
def world(videos: list[bytes], tmp_path: Path, site: Site) -> World:
    made = World(videos, tmp_path)
    publish(site, made, K400)
    return made


def archives(world: World) -> list[str]:
    return sorted(
        p.relative_to(world.work).as_posix() for p in world.work.rglob("*") if p.name.endswith(("gz", "gz.partial"))
    )


def wait_for(what: object, limit_s: float = 10.0) -> None:
    end = time.monotonic() + limit_s
    while not what():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


def train_rows() -> dict[str, tuple[tuple[str, str, str], ...]]:
    return {key(n): (("k400", "train", "abseiling"),) for n in range(6)} | {key(6): (("k400", "val", "abseiling"),)}


def test_clips_come_from_every_archive_and_none_stays(site: Site, world: World) -> None:
    source = world.source(base_url=site.url)
    assert world.take(source, ALL) == world.bytes_of(*range(7))
    assert archives(world) == []
    assert {r.status for r in source.reports()} == {READ}


def test_only_archives_of_the_wanted_release_and_split_are_asked_for(site: Site, world: World) -> None:
    source = world.source(base_url=site.url, rows=train_rows())
    items = by_key(wanted(6))
    assert source.identities([*items.values(), wanted(7, "else")])[1] == ""
    world.take(source, items)
    asked = {path for _, path, _ in site.requests}
    assert asked == {"/kinetics/400/val/k400_val_path.txt", "/kinetics/400/val/part_0.tar.gz"}


def test_replacements_are_read_first_and_win(site: Site, world: World) -> None:
    whole = world.tar(before="replacement_for_corrupted_k400/", more=((f"x/{key(2)}.mp4", world.video(9)),))
    site.put("/kinetics/400/replacement_for_corrupted_k400.tgz", whole)
    found = world.take(world.source(base_url=site.url, rows=train_rows()), ALL)
    assert next(iter(found)) == key(2)
    assert found == {**world.bytes_of(*range(7)), key(2): world.video(9)}


def test_of_releases_with_an_archive_a_class_only_wanted_classes_come(site: Site, world: World) -> None:
    publish(
        site,
        world,
        {
            "600/train/mountain climber (exercise).tar.gz": (0,),
            "600/train/abseiling.tar.gz": (1,),
            "700_2020/train/abseiling.tar.gz": (2,),
        },
    )
    rows = {key(0): (("k600", "train", "mountain climber (exercise)"),), key(2): (("k700", "train", "abseiling"),)}
    clips = by_key(wanted(0, "k600"), wanted(2, "k700"))
    assert world.take(world.source(base_url=site.url, rows=rows), clips) == world.bytes_of(0, 2)
    assert not site.gets("/kinetics/600/train/abseiling.tar.gz")


@pytest.mark.parametrize("free", [0, SPARE_BYTES + 300])
def test_a_full_disk_ends_it(site: Site, world: World, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, free))
    with pytest.raises(SourceError, match=f"bytes to come, {free:,} free") as error:
        world.take(world.source(base_url=site.url, rows=train_rows()), by_key(wanted(6)))
    assert "make room" in error.value.hint


@pytest.mark.parametrize("in_flight", [2, 3])
def test_no_more_archives_lie_on_the_disk_than_asked(site: Site, world: World, in_flight: int) -> None:
    publish(site, world, {f"400/train/part_{n}.tar.gz": (n,) for n in range(8)})
    most = 0

    def count(*_: object) -> None:
        nonlocal most
        time.sleep(0.05)  # time for downloads that should not be
        most = max(most, len({p.replace("/.part", "/part").removesuffix(".partial") for p in archives(world)}))

    world.take(world.source(base_url=site.url, rows=train_rows(), in_flight=in_flight), ALL, on_clip=count)
    assert most == in_flight


def test_the_next_archive_is_downloaded_while_one_is_read(site: Site, world: World) -> None:
    offers = world.source(base_url=site.url, rows=train_rows()).offers(ALL, world.scratch())
    assert next(offers)[0] == key(0)
    wait_for(lambda: "k400/train/part_1.tar.gz" in archives(world))
    offers.close()


def test_an_archive_stays_until_its_last_clip_is_settled(site: Site, world: World) -> None:
    source = world.source(base_url=site.url, rows=train_rows())
    offers = source.offers(by_key(wanted(0), wanted(1), wanted(2)), world.scratch())
    taken = [next(offers)[0] for _ in range(3)]
    source.settled(taken[:1])
    assert "k400/train/part_0.tar.gz" in archives(world)
    source.settled(taken[1:2])
    assert "k400/train/part_0.tar.gz" not in archives(world)
    assert list(offers) == []
    assert archives(world) == ["k400/train/part_1.tar.gz"]
    source.settled(taken)
    assert archives(world) == []


def test_clips_come_although_none_is_settled_before_the_end(site: Site, world: World) -> None:
    source = world.source(base_url=site.url, in_flight=1)
    assert world.take(source, ALL, settle=False) == world.bytes_of(*range(7))
    source.settled(ALL)
    assert archives(world) == []


def test_a_later_run_downloads_no_archive_that_was_read(site: Site, world: World) -> None:
    world.take(world.source(base_url=site.url, rows=train_rows()), ALL)
    site.requests.clear()
    world.take(world.source(base_url=site.url, rows=train_rows()), by_key(wanted(7)))
    again = world.source(base_url=site.url, rows=train_rows())
    assert world.take(again, by_key(wanted(3))) == world.bytes_of(3)
    asked = [path for method, path, _ in site.requests if method == "GET" and path.endswith("gz")]
    assert asked == [f"{TRAIN}/part_1.tar.gz"]


def test_archives_stay_on_request_and_no_later_run_removes_them(site: Site, world: World) -> None:
    world.take(world.source(base_url=site.url, rows=train_rows(), keep_archives=True), ALL)
    kept = archives(world)
    assert len(kept) == len(K400)
    site.requests.clear()
    found = world.take(world.source(base_url=site.url, rows=train_rows()), ALL)
    assert found == world.bytes_of(*range(7))
    assert archives(world) == kept
    assert not [path for method, path, _ in site.requests if method == "GET" and path.endswith("gz")]


def test_archives_that_fetch_left_there_are_used_and_stay(site: Site, world: World) -> None:
    fetch_videos(
        FetchVideosConfig(releases=("k400",), splits=("val",), out=world.work, base_url=site.url, patience=HURRIED)
    )
    world.take(world.source(base_url=site.url, rows=train_rows()), ALL)
    assert archives(world) == ["k400/val/part_0.tar.gz"]


def test_an_archive_that_the_user_put_there_is_used_and_stays(site: Site, world: World) -> None:
    own = world.work / "k400" / "val" / "part_0.tar.gz"
    own.parent.mkdir(parents=True)
    own.write_bytes(site.pages["/kinetics/400/val/part_0.tar.gz"].data)
    assert key(6) in world.take(world.source(base_url=site.url, rows=train_rows()), ALL)
    assert archives(world) == ["k400/val/part_0.tar.gz"]
    assert not site.gets("/kinetics/400/val/part_0.tar.gz")


def test_an_archive_that_a_run_was_told_to_keep_stays_whichever_run_downloaded_it(site: Site, world: World) -> None:
    world.take(world.source(base_url=site.url, rows=train_rows()), ALL, most=1, settle=False)
    world.take(world.source(base_url=site.url, rows=train_rows(), keep_archives=True), ALL)
    world.take(world.source(base_url=site.url, rows=train_rows()), ALL)
    assert "k400/train/part_0.tar.gz" in archives(world)


def test_an_archive_that_another_build_downloaded_is_used_and_stays(site: Site, world: World) -> None:
    world.take(world.source(base_url=site.url, rows=train_rows()), ALL, most=1, settle=False)
    (world.work / "downloads.json").unlink()
    left = archives(world)
    found = world.take(world.source(base_url=site.url, rows=train_rows()), ALL)
    assert found == world.bytes_of(*range(7))
    assert [name for name in left if not name.endswith(".partial")] == archives(world)


def test_an_archive_that_is_not_found_leaves_its_clips_open(site: Site, world: World) -> None:
    del site.pages[f"{TRAIN}/part_1.tar.gz"]
    source = world.source(base_url=site.url, rows=train_rows())
    assert world.take(source, ALL) == world.bytes_of(0, 1, 4, 5, 6)
    may_come = source.may_come([*train_rows(), "no_such_clip"])
    assert may_come.keys() == {key(2), key(3)}
    assert [r.name for r in source.reports() if r.status == NOT_HAD] == ["k400/train/part_1.tar.gz"]
    assert "k400/train/part_1.tar.gz: not_found (404" in may_come[key(2)]
    assert any("part_1.tar.gz: not_found" in line for line in world.said)


def test_without_a_path_list_the_clips_of_its_split_stay_open(site: Site, world: World) -> None:
    gone = site.pages.pop("/kinetics/400/val/k400_val_path.txt")
    rows = train_rows()
    source = world.source(base_url=site.url, rows=rows)
    items = [ALL[key(n)] for n in range(7)]
    before = source.identities(items)
    assert world.take(source, ALL) == world.bytes_of(*range(6))
    assert source.may_come(rows).keys() == {key(6)}
    site.pages["/kinetics/400/val/k400_val_path.txt"] = gone
    again = world.source(base_url=site.url, rows=rows)
    after = again.identities(items)
    assert before[:6] == after[:6]
    assert before[6] != after[6]
    assert world.take(again, by_key(wanted(6))) == world.bytes_of(6)


def test_a_damaged_archive_is_downloaded_once_more(site: Site, world: World) -> None:
    page = site.pages[f"{TRAIN}/part_0.tar.gz"]
    whole = page.data
    page.data = whole[:-20]

    def mend(_: object) -> None:
        if len(site.gets(f"{TRAIN}/part_0.tar.gz")) > 1:
            page.data = whole

    page.on_get = mend
    source = world.source(base_url=site.url, rows=train_rows())
    assert world.take(source, ALL) == world.bytes_of(*range(7))
    assert [r.status for r in source.reports() if "train/part_0" in r.name] == [READ]
    assert len(site.gets(f"{TRAIN}/part_0.tar.gz")) == 2
    assert any("downloaded once more" in line for line in world.said)
    assert archives(world) == []


def test_an_archive_that_stays_damaged_is_named_and_its_clips_stay_open(site: Site, world: World) -> None:
    page = site.pages[f"{TRAIN}/part_0.tar.gz"]
    page.data = page.data[: len(page.data) // 3]
    source = world.source(base_url=site.url, rows=train_rows())
    assert world.take(source, ALL) == world.bytes_of(*range(2, 7))
    assert len(site.gets(f"{TRAIN}/part_0.tar.gz")) == 2
    assert [r.status for r in source.reports() if "train/part_0" in r.name] == [DAMAGED]
    assert source.may_come(train_rows()).keys() == {key(0), key(1)}
    assert archives(world) == []
    assert not [p for p in world.work.rglob("read/*.json") if "train/part_0" in p.read_text()]


def test_the_room_that_archives_take_is_that_of_the_largest(site: Site, world: World) -> None:
    sizes = sorted(len(site.pages[f"/kinetics/{path}"].data) for path in K400 if "part" in path)
    items = list(by_key(*(wanted(n) for n in range(7))).values())
    del site.pages["/kinetics/400/replacement_for_corrupted_k400.tgz"]
    source = world.source(base_url=site.url, rows=train_rows(), in_flight=2)
    peak = source.peak(items)
    assert (peak.archives, peak.size_bytes, peak.unknown) == (5, sum(sizes[-2:]), 1)
    everything = world.source(base_url=site.url, rows=train_rows(), keep_archives=True).peak(items)
    assert everything.size_bytes == sum(sizes)
    assert source.room(items).startswith("cvdf: 5 archives to read, downloads take at most 0.00 GB at a time")
    world.put("part_0.tar.gz", 0)
    assert world.source().peak(items).size_bytes == 0


def test_a_second_process_is_kept_out(site: Site, world: World) -> None:
    with held(world.work), pytest.raises(UsageError, match="another `k710 fetch` or `k710 build` writes there"):
        world.take(world.source(base_url=site.url), ALL)


def test_whoever_stops_taking_clips_waits_for_no_download(site: Site, world: World) -> None:
    for part in (1, 2):
        page = site.pages[f"{TRAIN}/part_{part}.tar.gz"]
        page.data, page.drip_s = bytes(100_000), 0.02
    began = time.monotonic()
    world.take(world.source(base_url=site.url, rows=train_rows()), ALL, most=1)
    assert time.monotonic() - began < 3
    wait_for(lambda: not [t for t in threading.enumerate() if t.name.startswith("cvdf")])


def test_what_was_downloaded_and_is_no_longer_asked_for_goes(site: Site, world: World) -> None:
    world.take(world.source(base_url=site.url, rows=train_rows()), ALL, most=1, settle=False)
    assert "k400/train/part_0.tar.gz" in archives(world)
    assert world.take(world.source(base_url=site.url, rows=train_rows()), by_key(wanted(6))) == world.bytes_of(6)
    assert archives(world) == []


SCRIPT = """
import sys, time
from pathlib import Path
from k710.clips.sources.candidates import Wanted
from k710.clips.sources.cvdf.source import CvdfArchives, CvdfConfig
from k710.fetch.client import Patience
from k710.segments import Segment
work, scratch, base, most, *ids = sys.argv[1:]
wanted = [Wanted(segment=Segment(id=i, start_s=10, end_s=20), releases=frozenset({"k400"})) for i in ids]
rows = {w.segment.key: (("k400", "train", ""),) for w in wanted}
source = CvdfArchives(
    CvdfConfig(work=Path(work), base_url=base, patience=Patience(window_s=60), in_flight=2), rivals={}, rows=rows
)
for number, (key, candidate) in enumerate(source.offers({w.segment.key: w for w in wanted}, Path(scratch)), 1):
    source.settled([key])
    print(key, flush=True)
    if number == int(most):
        time.sleep(60)
"""


def start(world: World, site: Site, most: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(world.work), str(world.scratch()), site.url, str(most), *IDS[:6]]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_download_of_a_killed_run_is_gone_on_with(site: Site, world: World) -> None:
    page = site.pages[f"{TRAIN}/part_0.tar.gz"]
    page.drip_s = 0.01
    process = start(world, site, 0)
    wait_for(lambda: site.sent[f"{TRAIN}/part_0.tar.gz"] >= 1000, 30)
    kill(process)
    assert "k400/train/.part_0.tar.gz.partial" in archives(world)
    page.drip_s = 0
    train = by_key(*(wanted(n) for n in range(6)))
    assert world.take(world.source(base_url=site.url, rows=train_rows()), train) == world.bytes_of(*range(6))
    assert site.gets(f"{TRAIN}/part_0.tar.gz")[-1]["Range"].startswith("bytes=")
    assert archives(world) == []


def test_a_run_killed_in_the_middle_of_an_archive_reads_it_again_and_no_other(site: Site, world: World) -> None:
    process = start(world, site, 3)
    assert process.stdout is not None
    assert [process.stdout.readline().strip() for _ in range(3)] == [key(0), key(1), key(2)]
    wait_for(lambda: "k400/train/part_2.tar.gz" in archives(world))
    kill(process)
    site.requests.clear()
    left = by_key(*(wanted(n) for n in range(3, 6)))
    source = world.source(base_url=site.url, rows=train_rows())
    assert world.take(source, left) == world.bytes_of(3, 4, 5)
    assert [r.name for r in source.reports() if r.status == READ] == [f"k400/train/part_{n}.tar.gz" for n in (1, 2)]
    # Both were on the disk.
    assert not [path for method, path, _ in site.requests if method == "GET" and "part_" in path]
    assert archives(world) == []
    assert json.loads((world.work / "downloads.json").read_bytes())["names"] == []
