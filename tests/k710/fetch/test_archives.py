"""Archives of videos as they are published, as they are torn, and as somebody could make them to do harm."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tars import info, put, tar

from k710.errors import SourceError
from k710.fetch import archives
from k710.fetch.archives import Limits, Skipped, check_archive, read_members
from k710.fetch.extract import TAKEN, extract

A, B, C = (f"{video}_000010_000020.mp4" for video in ("-bc_efghijk", "__0-9_-NaN_", "abcdefghijk"))
CLIP = bytes(range(256)) * 40


def read(path: Path, **limits: int) -> tuple[list[tuple[str, bytes]], list[tuple[str, str]]]:
    """Videos with their bytes, and what is passed over."""
    skipped: list[Skipped] = []
    found = [
        (member.name, member.stream.read())
        for member in read_members(path, limits=Limits(**limits), on_skip=skipped.append)  # type: ignore[arg-type]
    ]
    return found, [(item.path, item.reason) for item in skipped]


@pytest.mark.parametrize("name", ["part_0.tar.gz", "part_0.tgz", "part_0.tar", "part_0.bin"])
@pytest.mark.parametrize("packed", [True, False])
def test_an_archive_is_known_by_its_content(tmp_path: Path, name: str, packed: bool) -> None:
    path = put(tmp_path / name, tar((A, CLIP), (B, CLIP[::-1])), packed=packed)
    assert read(path) == ([(A, CLIP), (B, CLIP[::-1])], [])


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_clips_lie_at_any_depth(tmp_path: Path, form: int) -> None:
    deep = "/".join(["mountain climber (exercise)"] * 3)
    data = tar(
        info("./", kind=tarfile.DIRTYPE),
        info("./x", kind=tarfile.DIRTYPE),
        (f"./{A}", CLIP),
        (f"{deep}/{B}", CLIP),
        form=form,
    )
    assert read(put(tmp_path / "a.tar", data)) == ([(A, CLIP), (B, CLIP)], [])


def test_a_long_path_in_gnu_and_pax_headers_is_read(tmp_path: Path) -> None:
    deep = "/".join(["a class with a rather long name"] * 12)
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert read(put(tmp_path / "a.tar", tar((f"{deep}/{A}", CLIP), form=form)))[0] == [(A, CLIP)]


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ((f"abseiling/._{A}", b"x"), archives.APPLE_DOUBLE),
        (("abseiling/list.txt", b"x"), archives.NOT_A_VIDEO),
        (("abseiling/.mp4", b"x"), archives.NOT_A_VIDEO),
        ((f"../{B}", b"x"), archives.OUTSIDE),
        ((f"a/../../{B}", b"x"), archives.OUTSIDE),
        ((f"..\\{B}", b"x"), archives.OUTSIDE),
        ((f"/etc/{B}", b"x"), archives.OUTSIDE),
        ((f"C:{B}", b"x"), archives.BAD_NAME),
        (("a\nb.mp4", b"x"), archives.BAD_NAME),
        (("a\udcffb.mp4", b"x"), archives.BAD_NAME),
        (("a" * 250 + ".mp4", b"x"), archives.BAD_NAME),
        ((A, b"x"), archives.TWICE),
        ((f"again/{A}", b"x"), archives.TWICE),
        ((B, b""), archives.EMPTY),
        (info(B, kind=tarfile.SYMTYPE, target="/etc/passwd"), archives.LINK),
        (info(B, kind=tarfile.LNKTYPE, target=A), archives.LINK),
        (info(B, kind=tarfile.CHRTYPE), archives.DEVICE),
        (info(B, kind=tarfile.BLKTYPE), archives.DEVICE),
        (info(B, kind=tarfile.FIFOTYPE), archives.DEVICE),
    ],
)
def test_a_member_that_is_no_clip_is_passed_over_by_name(
    tmp_path: Path, member: tuple[str, bytes] | tarfile.TarInfo, reason: str
) -> None:
    path = put(tmp_path / "a.tar", tar((A, CLIP), member, (C, CLIP)))
    found, skipped = read(path)
    assert found == [(A, CLIP), (C, CLIP)]
    assert [why for _, why in skipped] == [reason]
    assert skipped[0][0].isprintable()


def test_a_clip_larger_than_any_is_passed_over(tmp_path: Path) -> None:
    found, skipped = read(put(tmp_path / "a.tar", tar((A, CLIP * 2), (B, CLIP))), max_member_bytes=len(CLIP))
    assert (found, skipped) == ([(B, CLIP)], [(A, archives.TOO_LARGE)])


def test_a_file_with_holes_is_passed_over(tmp_path: Path) -> None:
    # As GNU tar writes it: a terabyte of which a block is there.
    header = bytearray(info(A, 512, tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[386:398], header[398:410] = b"00000000000\0", b"00000001000\0"
    header[483:495] = b"\x80\0\0\0\0\0\0\x01\0\0\0\0"
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    path = put(tmp_path / "a.tar", bytes(header) + b"x" * 512 + tar((B, CLIP)))
    found, skipped = read(path, max_member_bytes=1 << 20)
    assert (found, skipped) == ([(B, CLIP)], [(A, archives.SPARSE)])


def test_an_empty_archive_has_no_clips(tmp_path: Path) -> None:
    assert read(put(tmp_path / "a.tar.gz", tar(), packed=True)) == ([], [])


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>not found</html>" * 90, b"PK\x03\x04" + bytes(5000), gzip.compress(b"text" * 500, mtime=0), CLIP],
)
def test_what_is_no_archive_is_named(tmp_path: Path, data: bytes) -> None:
    path = put(tmp_path / "part_0.tar.gz", data)
    with pytest.raises(SourceError, match=r"part_0\.tar\.gz: not a tar archive"):
        read(path)


def test_an_archive_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        read(tmp_path / "a.tar")


WHOLE = tar((A, CLIP), ("x/list.txt", CLIP), (B, CLIP))


@pytest.mark.parametrize(
    "end", [700, 512 + len(CLIP), 512 + len(CLIP) + 512, 512 * 45, len(tar((A, CLIP))) // 2, 512 * 63]
)
def test_a_torn_tar_is_named_after_its_whole_clips(tmp_path: Path, end: int) -> None:
    path = put(tmp_path / "a.tar", WHOLE[:end])
    whole: list[tuple[str, bytes]] = []

    def read_all() -> None:
        for member in read_members(path):
            whole.append((member.name, member.stream.read()))

    with pytest.raises(SourceError, match=r"a\.tar: torn or damaged archive"):
        read_all()
    assert whole == [(A, CLIP), (B, CLIP)][: sum(end >= at for at in (512 + len(CLIP), 3 * (512 + len(CLIP))))]
    assert check_archive(path)


@pytest.mark.parametrize("missing", [1, 8, 100])
def test_a_torn_gzip_is_named_even_if_the_tar_in_it_is_whole(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(WHOLE, mtime=0)[:-missing])
    with pytest.raises(SourceError, match="torn or damaged archive"):
        read(path)


def test_a_gzip_with_a_wrong_checksum_is_named(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(WHOLE, mtime=0))
    data[-6] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(data)
    assert "CRC" in check_archive(tmp_path / "a.tar.gz")


def test_a_damaged_header_in_the_middle_is_named(tmp_path: Path) -> None:
    data = bytearray(tar((A, CLIP), (B, CLIP)))
    data[512 + len(CLIP) + 5] ^= 1
    assert check_archive(put(tmp_path / "a.tar", bytes(data))).startswith("torn or damaged archive")


def test_more_members_than_any_archive_has_are_stopped(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tar", tar(*[info(f"{n}.txt") for n in range(30)]))
    assert read(path, max_members=30)[0] == []
    with pytest.raises(SourceError, match="more than 29 members"):
        read(path, max_members=29)


@pytest.mark.parametrize("name", [A, "zeros.txt"])
def test_a_bomb_is_stopped_by_its_size(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / "a.tar.gz", tar((name, bytes(1 << 22))), packed=True)
    with pytest.raises(SourceError, match="unpacks to more than"):
        read(path, free_bytes=1 << 20)
    assert len(read(path)[0]) == (name == A)


def test_a_bomb_behind_the_end_of_the_tar_is_stopped(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tar.gz", tar((A, CLIP)) + bytes(1 << 22), packed=True)
    with pytest.raises(SourceError, match="unpacks to more than"):
        read(path, free_bytes=1 << 20)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
@pytest.mark.parametrize("first", [True, False])
def test_a_header_that_would_fill_the_memory_is_stopped(tmp_path: Path, kind: bytes, first: bool) -> None:
    before = b"" if first else tar((A, CLIP))[: 512 + len(CLIP)]
    header = info("x", 1 << 40, kind).tobuf(tarfile.GNU_FORMAT)
    path = tmp_path / "a.tar.gz"
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = b"".join(packer.compress(bytes(1 << 20)) for _ in range(8))
    path.write_bytes(gzip.compress(before + header) + zeros + packer.flush())
    with pytest.raises(SourceError, match="bytes of headers"):
        read(path)


def test_a_stream_that_is_read_in_pieces_or_not_at_all_changes_nothing(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tar.gz", tar((A, CLIP), (B, CLIP), (C, CLIP)), packed=True)
    found = []
    for member in read_members(path):
        found.append(b"" if member.name == B else member.stream.read(100) + member.stream.read())
    assert found == [CLIP, b"", CLIP]


def test_clips_go_into_the_folder_each_once(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tar.gz", tar((f"x/{A}", CLIP), (f"../{B}", CLIP), (C, CLIP)), packed=True)
    for _ in range(2):
        done = extract(path, tmp_path / "clips", "0" * 64)
        assert (done.clips, done.skipped) == (2, {archives.OUTSIDE: 1})
    assert {p.name: p.read_bytes() for p in (tmp_path / "clips").iterdir()} == {A: CLIP, C: CLIP}


def test_a_file_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / A).write_bytes(b"mine")
    (tmp_path / "elsewhere").write_bytes(b"mine too")
    (folder / B).symlink_to(tmp_path / "elsewhere")
    done = extract(put(tmp_path / "a.tar", tar((A, CLIP), (B, CLIP), (C, CLIP))), folder)
    assert (done.clips, done.skipped) == (1, {TAKEN: 2})
    assert (folder / A).read_bytes() == b"mine"
    assert (tmp_path / "elsewhere").read_bytes() == b"mine too"


def test_of_a_torn_archive_the_whole_clips_come_out_and_no_half_one(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tar", tar((A, CLIP), (B, CLIP))[: 512 + len(CLIP) + 512 + 2000])
    with pytest.raises(SourceError, match="torn or damaged"):
        extract(path, tmp_path / "clips")
    assert [p.name for p in (tmp_path / "clips").iterdir()] == [A]


NAMES = st.one_of(
    st.sampled_from(
        [A, B, f"../{A}", f"/{A}", f"/tmp/{A}", f"x/../../../{C}", "..", ".", "", "a.mp4/..", "../..", "a/b.mp4"]
    ),
    st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20),
    st.text("./\\ab", max_size=12).map(lambda text: f"{text}.mp4"),
)
KINDS = st.sampled_from(
    [
        tarfile.REGTYPE,
        tarfile.REGTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.DIRTYPE,
        tarfile.FIFOTYPE,
        tarfile.CONTTYPE,
    ]
)


@st.composite
def hostile(draw: Callable[..., object]) -> bytes:
    """Bytes of an archive with any names, kinds and targets, perhaps damaged and packed."""
    data = io.BytesIO()
    form = draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    with tarfile.open(fileobj=data, mode="w", format=form) as archive:  # type: ignore[arg-type]
        for _ in range(draw(st.integers(0, 5))):  # type: ignore[call-overload]
            content: bytes = draw(st.binary(max_size=600))  # type: ignore[assignment]
            member = info(str(draw(NAMES)), kind=draw(KINDS), target=str(draw(NAMES)))  # type: ignore[arg-type]
            if member.isreg():
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    made = bytearray(data.getvalue())
    packed = draw(st.booleans())
    damage = st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6)
    for place, value in draw(damage):  # type: ignore[attr-defined]
        made[place % len(made)] = value
    whole = gzip.compress(bytes(made)) if packed else bytes(made)
    return whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole  # type: ignore[misc]


@settings(max_examples=100, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=hostile())
def test_nothing_is_ever_written_outside_the_folder(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    around = tmp_path_factory.mktemp("around")
    (around / "mine.mp4").write_bytes(b"mine")
    target = around / "deep" / "down" / "clips"
    target.mkdir(parents=True)
    path = put(around / "a.tar", data)
    try:
        done = extract(path, target, limits=Limits(free_bytes=1 << 20))
    except SourceError:
        done = None
    outside = {str(p.relative_to(around)) for p in around.rglob("*")} - {"deep", "deep/down", "deep/down/clips"}
    inside = [p for p in around.rglob("*") if p.parent == target]
    assert outside - {str(p.relative_to(around)) for p in inside} == {"mine.mp4", "a.tar"}
    assert all(p.is_file() and not p.is_symlink() and p.name.endswith(".mp4") for p in inside)
    assert (around / "mine.mp4").read_bytes() == b"mine"
    assert done is None or done.clips == len(inside)
