"""Archives that the user has: read in place, each once, its members straight to clips."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

import av
import pytest
from cvdf_world import IDS, World, by_key, key, make_videos, name, wanted
from full_disk import full_disk
from tars import info, put, tar

from k710.clips.encodings import EncodeConfig
from k710.clips.make import ClipJob, make_clip
from k710.clips.sources.candidates import Candidate, Wanted
from k710.clips.sources.cvdf.source import DAMAGED, READ
from k710.errors import InputError, UsageError
from k710.fetch.archives import APPLE_DOUBLE, LINK, NOT_A_VIDEO, OUTSIDE, TWICE, Limits
from k710.segments import Segment

ALL = by_key(*(wanted(n) for n in range(6)))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return make_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture
def world(videos: list[bytes], tmp_path: Path) -> World:
    return World(videos, tmp_path)


def test_clips_come_out_of_archives_in_any_depth_by_any_name_packed_or_not(world: World) -> None:
    world.put("part_0.tar.gz", 0)
    world.put("a/b/c/anything", 1)
    world.put("a/really_a_tar.tar.gz", 2, packed=False)
    (world.own / "notes.txt").write_text("not an archive")
    assert world.take(world.source(), ALL) == world.bytes_of(0, 1, 2)


def test_a_clip_out_of_an_archive_can_be_encoded(world: World) -> None:
    world.put("part_0.tar.gz", 1)
    outcomes = []

    def encode(clip: str, candidate: Candidate) -> None:
        job = ClipJob(
            segment=ALL[clip].segment,
            candidates=(candidate,),
            target=world.tmp_path / "made.mp4",
            encode=EncodeConfig(preset="ultrafast"),
        )
        outcomes.append(make_clip(job))

    world.take(world.source(), ALL, on_clip=encode)
    assert [(o.status, o.source, o.kind, o.frames) for o in outcomes] == [("ok", name(1), "cvdf", 10)]
    with av.open(str(world.tmp_path / "made.mp4")) as made:
        assert made.streams.video[0].frames == 10


def test_no_more_is_written_than_was_taken(world: World) -> None:
    world.put("part_0.tar.gz", 0, 1, 2, 3)
    offers = world.source().offers(ALL, world.scratch())
    for taken in range(1, 5):
        next(offers)
        assert len(list(world.scratch().rglob("*.mp4"))) == taken


def test_members_that_no_clip_asks_for_are_not_written(world: World) -> None:
    world.put("part_0.tar.gz", 0, 9, 1)
    source = world.source()
    assert world.take(source, ALL) == world.bytes_of(0, 1)
    assert [(r.status, r.offered, r.unwanted) for r in source.reports()] == [(READ, 2, 1)]


def test_members_that_are_no_clips_are_counted_by_reason_and_told(world: World) -> None:
    more = (
        (f"deep/er/._{name(1)}", b"x"),
        (f"../{name(2)}", b"x"),
        (f"/{name(3)}", b"x"),
        info(name(4), kind=tarfile.SYMTYPE, target="/etc/passwd"),
        ("readme.txt", b"x"),
        (name(0), b"another"),
    )
    world.put("part_0.tar.gz", 0, more=more)
    source = world.source()
    assert world.take(source, ALL) == world.bytes_of(0)
    assert source.reports()[0].skipped == {APPLE_DOUBLE: 1, OUTSIDE: 2, LINK: 1, NOT_A_VIDEO: 1, TWICE: 1}
    assert any(f"2 x {OUTSIDE}" in line for line in world.said)


def test_the_users_archives_are_as_they_were(world: World) -> None:
    world.put("k400/train/part_0.tar.gz", 0, 1)
    world.put("k400/train/part_1.tar.gz", 2).write_bytes(b"torn")
    before = {p: (p.stat(), p.read_bytes()) for p in world.own.rglob("*.gz")}
    world.take(world.source(), ALL)
    after = {p: (p.stat(), p.read_bytes()) for p in world.own.rglob("*.gz")}
    assert [(s.st_mtime_ns, s.st_ino, data) for s, data in before.values()] == [
        (s.st_mtime_ns, s.st_ino, data) for s, data in after.values()
    ]
    assert sorted(p.name for p in world.own.rglob("*") if p.is_file()) == ["part_0.tar.gz", "part_1.tar.gz"]


def test_archives_are_read_in_the_order_of_their_numbers(world: World) -> None:
    for number, part in enumerate((10, 2, 1)):
        world.put(f"part_{part}.tar.gz", number)
    assert list(world.take(world.source(), ALL)) == [key(2), key(1), key(0)]


def test_a_replacement_wins_over_the_video_that_it_replaces(world: World) -> None:
    world.put("k400/train/part_0.tar.gz", 0, 1)
    whole = tar((f"replacement_for_corrupted_k400/{name(1)}", world.video(9)))
    put(world.own / "replacement_for_corrupted_k400.tgz", whole, packed=True)
    assert world.take(world.source(), ALL) == {key(0): world.video(0), key(1): world.video(9)}


def test_an_archive_counts_as_read_only_when_its_clips_are_settled(world: World) -> None:
    world.put("part_0.tar.gz", 0, 1)
    source = world.source()
    world.take(source, ALL, settle=False)
    source.settled([key(0)])
    assert not list(world.work.rglob("*.json"))
    source.settled([key(1)])
    assert len(list(world.work.rglob("*.json"))) == 1


def spoil(path: Path) -> None:
    """Garbage that looks untouched: who opens it will notice."""
    facts = path.stat()
    path.write_bytes(b"x" * facts.st_size)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def test_a_later_run_opens_no_archive_that_was_read(world: World) -> None:
    path = world.put("part_0.tar.gz", 0, 1, 8)
    world.take(world.source(), ALL)
    spoil(path)
    again = world.source()
    assert world.take(again, by_key(wanted(2), wanted(3))) == {}
    assert again.reports() == ()


def test_a_clip_that_is_open_again_has_its_archive_read_again(world: World) -> None:
    world.put("part_0.tar.gz", 0, 1)
    world.put("part_1.tar.gz", 2)
    world.take(world.source(), ALL)
    again = world.source()
    assert world.take(again, by_key(wanted(1))) == world.bytes_of(1)
    assert [Path(r.name).name for r in again.reports()] == ["part_0.tar.gz"]


def test_an_archive_that_was_changed_is_read_again(world: World) -> None:
    path = world.put("part_0.tar.gz", 0)
    world.take(world.source(), ALL)
    world.put("part_0.tar.gz", 1)
    os.utime(path, ns=(0, 0))
    assert world.take(world.source(), by_key(wanted(1))) == world.bytes_of(1)


def test_a_torn_archive_gives_what_can_be_read_and_the_rest_when_it_is_whole(world: World) -> None:
    path = world.put("part_0.tar", 0, 1, 2, packed=False)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(world.video(1)) + 100])
    source = world.source()
    assert world.take(source, ALL) == world.bytes_of(0)
    assert [r.status for r in source.reports()] == [DAMAGED]
    assert f"{path}: torn or damaged archive" in world.said[0]
    assert "put a whole copy in its place" in world.said[0]
    assert source.may_come([key(0), key(1), key(2)]).keys() == {key(1), key(2)}
    assert not list(world.scratch().rglob("*.mp4"))
    path.write_bytes(whole)
    rest = by_key(wanted(1), wanted(2))
    again = world.source()
    assert world.take(again, rest) == world.bytes_of(1, 2)
    assert again.may_come(rest) == {}


def test_garbage_in_the_middle_of_a_packed_archive_is_noticed(world: World) -> None:
    path = world.put("part_0.tar.gz", 0, 1, 2, 3)
    data = bytearray(path.read_bytes())
    data[-200:-100] = b"\xff" * 100
    path.write_bytes(bytes(data))
    source = world.source()
    found = world.take(source, ALL)
    assert found.items() <= world.bytes_of(0, 1, 2, 3).items()
    assert source.reports()[0].status == DAMAGED
    assert set(source.may_come(ALL)) == set(ALL) - set(found)


def test_a_web_page_in_place_of_an_archive_does_not_keep_the_others(world: World) -> None:
    (world.own / "part_0.tar.gz").write_bytes(b"<html>log in</html>")
    world.put("part_1.tar.gz", 1)
    source = world.source()
    assert world.take(source, ALL) == world.bytes_of(1)
    assert [r.status for r in source.reports()] == [DAMAGED, READ]


@pytest.mark.parametrize(
    ("limits", "message"),
    [(Limits(max_members=2), "more than 2 members"), (Limits(max_ratio=1, free_bytes=0), "unpacks")],
)
def test_bombs_are_stopped(world: World, limits: Limits, message: str) -> None:
    put(world.own / "part_0.tar.gz", tar((name(5), bytes(10**6)), *((f"{n}.mp4", b"x") for n in range(9))), packed=True)
    source = world.source(limits=limits)
    world.take(source, ALL)
    assert message in source.reports()[0].reason


@pytest.mark.parametrize("names", [(), ("notes.txt",), (".part_0.tar.gz.partial",)])
def test_a_folder_without_archives_is_refused(world: World, names: tuple[str, ...]) -> None:
    for text in names:
        (world.own / text).write_bytes(b"x")
    with pytest.raises(UsageError, match="no tar archive in it"):
        world.source()


def test_a_folder_that_is_not_there_is_refused(world: World) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        world.source(folder=world.own / "gone")


def test_a_build_beside_the_archives_is_not_one_of_them(world: World) -> None:
    world.put("part_0.tar.gz", 0)
    world.put("k710-data/shards/t-root.tar", 1, packed=False)
    (world.own / "k710-data" / "k710.lock.json").write_text("{}")
    assert world.take(world.source(), ALL) == world.bytes_of(0)


def test_an_archive_under_two_names_is_read_once(world: World) -> None:
    path = world.put("part_0.tar.gz", 0)
    (world.own / "also.tar.gz").symlink_to(path)
    source = world.source()
    world.take(source, by_key(wanted(0), wanted(1)))
    assert len(source.reports()) == 1


def test_a_full_disk_ends_it_and_leaves_no_half_file(world: World) -> None:
    world.put("part_0.tar.gz", 0)
    with full_disk(500), pytest.raises(UsageError, match="cannot be written"):
        world.take(world.source(), ALL)
    assert not list(world.scratch().rglob("*.mp4"))


def test_a_record_that_cannot_be_written_is_an_error_for_people(world: World) -> None:
    world.put("part_0.tar.gz", 0)
    world.work.write_bytes(b"a file where the folder should be")
    with pytest.raises(UsageError, match="cannot be written"):
        world.take(world.source(), ALL)


def test_clips_are_looked_for_in_archives_of_their_release_split_and_class(world: World) -> None:
    world.put("k400/train/part_0.tar.gz", 0)
    world.put("k400/val/part_0.tar.gz", 1)
    world.put("k700_2020_targz/train/abseiling.tar.gz", 2)
    rows = {
        key(0): (("k400", "train", "abseiling"),),
        key(1): (("k400", "train", "abseiling"),),
        key(2): (("k700-2020", "train", "Abseiling"), ("k400", "test", "")),
        key(3): (("k700-2020", "train", "air drumming"),),
        key(4): (("k700", "train", "abseiling"),),
        key(5): (("k600", "train", "abseiling"),),
    }
    source = world.source(rows=rows)
    identities = source.identities([ALL[key(n)] for n in range(6)])
    assert identities[0] == identities[1]
    assert identities[2] == identities[4]
    assert identities[3] == identities[5] == ""
    assert len({*identities}) == 3
    # Clip 1 lies in the archive of another split.
    assert world.take(source, ALL) == world.bytes_of(0, 2)
    assert len(source.reports()) == 2


def test_an_archive_of_an_unknown_release_may_hold_any_clip(world: World) -> None:
    world.put("part_0.tar.gz", 0)
    source = world.source(rows={key(0): (("k600", "holdout", "abseiling"),)})
    assert world.take(source, ALL) == world.bytes_of(0)


def test_a_new_archive_changes_what_clips_can_come_from(world: World) -> None:
    world.put("k400/part_0.tar.gz", 0)
    items = [wanted(0), wanted(1, "k600")]
    before = world.source().identities(items)
    assert world.source().identities(items) == before
    world.put("k400/part_1.tar.gz", 1)
    after = world.source().identities(items)
    assert (after[0] == before[0], before[1], after[1]) == (False, "", "")


def test_an_untimed_video_of_two_segments_goes_to_each_and_is_trimmed_for_the_one_of_its_release(world: World) -> None:
    both = [wanted(0, "k400"), wanted(0, "k600", start_s=50)]
    put(world.own / "any.tar", tar((f"v_{IDS[0]}.mp4", world.video(0))))
    seen = []
    with_claim = world.source(rivals={IDS[0]: both})
    found = world.take(with_claim, by_key(*both), on_clip=lambda c, f: seen.append((c, f.timed, f.may_be_trimmed)))
    assert set(found.values()) == {world.video(0)}
    assert sorted(seen) == sorted((item.segment.key, False, False) for item in both)
    (world.own / "any.tar").rename(world.own / "k600.tar")
    (world.own / "k600").mkdir()
    (world.own / "k600.tar").rename(world.own / "k600" / "any.tar")
    seen.clear()
    world.take(
        world.source(rivals={IDS[0]: both}), by_key(*both), on_clip=lambda c, f: seen.append((c, f.may_be_trimmed))
    )
    assert seen == [(both[1].segment.key, True)]


def test_a_member_of_other_times_is_another_clip(world: World) -> None:
    put(world.own / "any.tar", tar((f"{IDS[0]}_000011_000020.mp4", b"x"), (name(0), world.video(0))))
    assert world.take(world.source(), ALL) == world.bytes_of(0)


@pytest.mark.parametrize(
    ("own_id", "names"),
    [
        ("a b/c", ("a_b_c_000000_000011.mp4", "a_b_c_000000_000010.mp4")),
        # What looks like times is a part of the id.
        ("cam_000001_000002", ("cam_000001_000003.mp4", "cam.mp4", "cam_000001_000002.mp4")),
    ],
)
def test_an_opaque_id_is_known_by_its_safe_name(world: World, own_id: str, names: tuple[str, ...]) -> None:
    segment = Segment(id=own_id, start_s=0, end_s=10)
    *others, own = names
    put(world.own / "any.tar", tar(*((other, b"x") for other in others), (own, world.video(0))))
    clips = by_key(Wanted(segment=segment, releases=frozenset({"x"})))
    assert world.take(world.source(), clips) == {segment.key: world.video(0)}


def test_a_file_that_was_of_no_use_is_followed_by_another(world: World) -> None:
    world.put("part_0.tar.gz", 0)
    world.put("part_1.tar.gz", 0, 1)
    source = world.source()
    taken = []
    for clip, candidate in source.offers(ALL, world.scratch()):
        taken.append(clip)
        Path(candidate.path).unlink()
        if len(taken) == 1:
            source.unusable([clip])
        source.settled([clip])
    assert taken == [key(0), key(0), key(1)]


def test_a_clip_that_came_otherwise_is_not_written(world: World) -> None:
    world.put("part_0.tar.gz", 0, 1)
    clips = dict(ALL)
    assert world.take(world.source(), clips, on_clip=lambda *_: clips.pop(key(1), None)) == world.bytes_of(0)


def test_a_record_that_cannot_be_read_names_its_file(world: World) -> None:
    world.put("part_0.tar.gz", 0)
    world.take(world.source(), ALL)
    record = next(world.work.rglob("*.json"))
    record.write_bytes(gzip.compress(b"{}"))
    with pytest.raises(InputError, match=record.name):
        world.source()


def test_settings_that_cannot_be_are_refused(world: World) -> None:
    for more, message in (({"in_flight": 0}, "at least 1"), ({"keep_archives": True}, "always stay")):
        with pytest.raises(UsageError, match=message):
            world.source(**more)
