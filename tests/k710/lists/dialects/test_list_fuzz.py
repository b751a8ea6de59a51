"""Any bytes at all give rows or an error of ours: never another exception, never a hang."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k710.config import load_releases
from k710.errors import K710Error
from k710.labels import load_labels
from k710.lists import annotations
from k710.lists.annotations import ListFile, ReadOptions, read_list
from k710.lists.dialects import delimited, foreign
from k710.lists.dialects.foreign import read_foreign
from k710.lists.rows import BAD_ROWS, LIST_ROWS

FILE = ListFile(release=load_releases()["k400"], split="train", path=Path("fuzz/train.csv"))
LABELS = load_labels()
OPTIONS = (
    ReadOptions(),
    ReadOptions(on_bad_row="report"),
    ReadOptions(class_order="uniformerv2_k400", on_bad_row="report"),
    ReadOptions(columns={"id": "1", "start": "2", "end": "3", "label": "4"}, on_bad_row="report"),
    ReadOptions(columns={"path": "path"}),
)
OFFICIAL = (
    b"label,youtube_id,time_start,time_end,split,is_cc\n"
    b'abseiling,-_aaaaaaaaa,1,11,train,0\n"air drumming",bbbb_bbbbbb,20.5,30,train,1\r\n'
    b"zumba,ccccccccccc,333,343,train,0\n"
)
ENTRY = {"annotations": {"label": "abseiling", "segment": [1.0, 11]}, "subset": "train", "duration": 9.5}


def _parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": ["aaaaaaaaaaa"], "start_s": [1], "end_s": [2.5], "label": ["abseiling"]}), sink)
    return sink.getvalue()


def _tar() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("kinetics400/train.csv", "é" * 60 + "/val.csv", "test.csv.gz"):
            info = tarfile.TarInfo(name)
            data = OFFICIAL if name.endswith("csv") else gzip.compress(OFFICIAL, mtime=0)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


SEEDS: dict[str, bytes] = {
    "official": OFFICIAL,
    "deepmind": json.dumps({"aaaaaaaaaaa": ENTRY, "bbbbbbbbbbb": ENTRY}).encode(),
    "activitynet": json.dumps({"database": {"v_aaaaaaaaaaa": ENTRY, "bbbbbbbbbbb": {"annotations": []}}}).encode(),
    "table": b"aaaaaaaaaaa\t1\t11\tabseiling\ttrain\nbbbbbbbbbbb\t2\t12\tzumba\ttrain\n",
    "paths": b"k400/aaaaaaaaaaa_000001_000011.mp4 5\nk400/bbbbbbbbbbb_000001_000011.mp4 6\n",
    "folders": b"abseiling/aaaaaaaaaaa_000001_000011.mp4,5\nzumba/bbbbbbbbbbb_000001_000011.mp4,6\n",
    "frames": b"k400/aaaaaaaaaaa_000001_000011 300 5\nk400/bbbbbbbbbbb_000001_000011 300 6\n",
    "parquet": _parquet(),
    "tar": _tar(),
    "gzip": gzip.compress(OFFICIAL, mtime=0),
}  # fmt: skip
TOKENS = [
    *(b"", b",", b'"', b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"{", b"[", b"nan", b"1e999"),
    *(b"-", b"9" * 40, b"\xf0\x9f\x98\x80", b"\xe2\x80\xa8", b"/", b".mp4 ", b"\x1f\x8b", b"PAR1", b"youtube_id"),
]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """``data`` with a few bytes flipped, cut, repeated or put in."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(len(out) + 1), rng.randrange(5)
        end = min(len(out), at + rng.randint(1, 12))
        if kind == 0:
            out[at:end] = b""
        elif kind == 1:
            out[at:at] = rng.choice(TOKENS)
        elif kind == 2:
            out[at:end] = rng.choice(TOKENS)
        elif kind == 3 and at < len(out):
            out[at] = rng.randrange(256)
        else:
            out[at:at] = out[at:end] * rng.randint(1, 3)
    return bytes(out)


def _check_message(error: K710Error) -> None:
    assert "train.csv" in error.message
    assert len(error.message) + len(error.hint) < 4000


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, ReadOptions], None]:
    """Reads bytes as a list of a build and as anyone's, and checks what comes back."""
    content = [b""]
    for module in (annotations, foreign):
        monkeypatch.setattr(module, "read_file", lambda *_: content[0])

    def read(data: bytes, options: ReadOptions) -> None:
        content[0] = data
        try:
            found = read_list(FILE, LABELS, options)
            assert found.rows.schema.equals(LIST_ROWS)
            assert found.bad_rows.schema.equals(BAD_ROWS)
            assert found.rows.num_rows > 0
            found.rows.validate(full=True)
            found.bad_rows.validate(full=True)
        except K710Error as error:
            _check_message(error)
        try:
            for one in read_foreign(FILE.path, LABELS, options):
                assert one.rows.schema.equals(LIST_ROWS)
                one.rows.validate(full=True)
        except K710Error as error:
            _check_message(error)

    return read


@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300) | st.text(max_size=200).map(str.encode), which=st.sampled_from(range(len(OPTIONS))))
def test_arbitrary_bytes_give_rows_or_our_error(
    read_bytes: Callable[[bytes, ReadOptions], None], data: bytes, which: int
) -> None:
    read_bytes(data, OPTIONS[which])


@pytest.mark.parametrize("wrap", ["plain", "gzip", "gzip, damaged"])
@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_lists_give_rows_or_our_error(
    read_bytes: Callable[[bytes, ReadOptions], None], seed: str, wrap: str
) -> None:
    rng = random.Random(f"{seed} {wrap}")
    for _ in range(200):
        data = mutated(SEEDS[seed], rng)
        if wrap != "plain":
            data = gzip.compress(data, 1, mtime=0)
        read_bytes(mutated(data, rng) if wrap == "gzip, damaged" else data, rng.choice(OPTIONS))


def test_damaged_large_lists_give_rows_or_our_error(
    read_bytes: Callable[[bytes, ReadOptions], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "_FAST_BYTES", 0)  # arrow's reader for files of any size
    rng = random.Random("large")
    for _ in range(1000):
        read_bytes(mutated(rng.choice([OFFICIAL, SEEDS["table"]]), rng), rng.choice(OPTIONS[:2]))


@pytest.mark.parametrize(
    "data",
    [
        b"/ " * 500_000,
        b"a/b" + b" " * 1_000_000 + b"x",
        b'"' * 1_000_000,
        b"," * 1_000_000,
        b"x.mp4" * 200_000,
        b"\n" * 1_000_000 + b"x",
        b"1 " * 500_000,
        b"a/b " + b"1," * 500_000,
        b"label,youtube_id,time_start,time_end\n" + b"," * 1_000_000,
        b"label,youtube_id,time_start,time_end\n" + b"x,x," + b"1" * 1_000_000 + b",2",
        b'{"a":' * 500_000,
        b"[" + b"{}," * 300_000 + b"{}]",
        gzip.compress(b"\0" * 30_000_000, mtime=0),
        gzip.compress(b"", mtime=0) * 20_000,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_long_nonsense_ends_soon(read_bytes: Callable[[bytes, ReadOptions], None], data: bytes) -> None:
    started = time.monotonic()
    for options in OPTIONS:
        read_bytes(data, options)
    assert time.monotonic() - started < 60


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_million_damaged_official_lists_give_rows_or_our_error(monkeypatch: pytest.MonkeyPatch) -> None:
    content = [b""]
    monkeypatch.setattr(annotations, "read_file", lambda *_: content[0])
    rng, good = random.Random(710), 0
    for number in range(1_000_000):
        content[0] = mutated(OFFICIAL, rng) if number % 8 else rng.randbytes(rng.randrange(120))
        try:
            good += read_list(FILE, LABELS, OPTIONS[number % 2]).rows.num_rows > 0
        except K710Error as error:
            _check_message(error)
    assert 50_000 < good < 950_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_damaged_lists_of_every_form_give_rows_or_our_error(
    read_bytes: Callable[[bytes, ReadOptions], None],
) -> None:
    rng, seeds = random.Random(600), list(SEEDS.values())
    for _ in range(100_000):
        read_bytes(mutated(rng.choice(seeds), rng), rng.choice(OPTIONS))
