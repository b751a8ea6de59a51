"""A build of files of every broken and strange kind: a status for the broken, the right frames for the strange."""

from __future__ import annotations

import http.server
import os
import socket
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import fault_corpus as corpus
import numpy as np
import pytest

from k710 import schema
from k710.clips.verify import MODES, Decoded, Mode, decode
from k710.shards.index import ShardIndex
from k710.tables import read_table

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 120
"""A build of the corpus takes a tenth of this."""
FLIP_SEEDS = range(12)

pytestmark = pytest.mark.xdist_group("fault_corpus")


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A build of the corpus, and what could be seen of it from outside."""

    out: Path
    """The build."""
    said: bytes
    """stdout and stderr."""
    rows: dict[str, dict[str, Any]]
    """Rows of the index by video."""
    written_outside: list[str]
    """Files outside ``out`` that are new, gone or changed."""
    requests: list[str] = field(default_factory=list)
    """What came over the network."""


@contextmanager
def listening(requests: list[str]) -> Iterator[tuple[int, int]]:
    """Ports of this machine at which a web server and a datagram socket write down who comes."""

    class Recorder(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("127.0.0.1", 0))
        datagrams.settimeout(0)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], datagrams.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()
        with suppress(BlockingIOError):
            requests.append(f"a datagram: {datagrams.recv(100)!r}")


def doubtful() -> list[corpus.Item]:
    """Files with one changed byte: whether that can be seen is a matter of luck."""
    statuses = frozenset({"ok", "corrupt", "truncated"})

    def item(seed: int) -> corpus.Item:
        data = corpus.flipped(seed, 1)
        return corpus.Unusable(name=f"one byte, {seed}", statuses=statuses, make=lambda path: path.write_bytes(data))

    return [item(seed) for seed in FLIP_SEEDS]


def seen(folder: Path, *, without: Path) -> dict[str, tuple[int, ...]]:
    """Kind of all that lies in a folder, and size and time of change of its files."""
    found = {}
    for root, folders, names in os.walk(folder):
        if Path(root) == without.parent:
            folders[:] = [name for name in folders if Path(root, name) != without]
        for name in (*folders, *names):
            facts = os.lstat(f"{root}/{name}")
            changes = () if stat.S_ISDIR(facts.st_mode) else (facts.st_size, facts.st_mtime_ns)
            found[f"{root}/{name}"] = (facts.st_mode, *changes)
    return found


def run_build(root: Path, requests: list[str], *more: str) -> Built:
    """Build the corpus in ``root`` in a process of its own, with temporary files and a home of its own."""
    out = root / "somewhere" / "out"
    out.parent.mkdir()
    for name in ("t", "home", "here"):
        (root / name).mkdir()
    environment = {
        **os.environ,
        "TMPDIR": str(root / "t"),
        "HOME": str(root / "home"),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    places = ["--annotations", "../annotations", "--videos", "../videos", "--out", "../somewhere/out"]
    command = [sys.executable, "-m", "cli", "build", *places, "--workers", "2", *more]
    before = seen(root, without=out)
    done = subprocess.run(command, cwd=root / "here", env=environment, capture_output=True, timeout=LIMIT_S)
    after = seen(root, without=out)
    assert done.returncode == 0, done.stderr.decode()
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    rows = {row["id"]: row for row in read_table(out / "shards.parquet", schema.SHARDS).to_pylist()}
    return Built(out=out, said=done.stdout + done.stderr, rows=rows, written_outside=changed, requests=requests)


def write_all(root: Path, ports: tuple[int, int]) -> list[corpus.Item]:
    """Write the corpus into ``root``, with loops of links, names of no video, and files that playlists point at."""
    broken = root / "videos" / "broken"
    canary = broken / "canary.txt"
    items = [*corpus.unusable(canary, *ports), *doubtful(), *corpus.unusual()]
    corpus.write_corpus(root, items)
    # As a list of files itself it would be quoted in a message about its second line.
    canary.write_text(f"ffconcat version 1.0\n{corpus.CANARY}\n")
    (broken / "sibling.mp4").write_bytes(corpus.base())
    (broken / "stray\nname -rf.mp4").write_bytes(corpus.base())
    for link, target in (("loop", "."), ("broken/up", "../.."), ("there", "back"), ("back", "there")):
        (root / "videos" / link).symlink_to(target, target_is_directory=True)
    return items


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Built, list[corpus.Item]]:
    """The corpus as the program builds it when it is told no more than it must be."""
    root = tmp_path_factory.mktemp("corpus")
    requests: list[str] = []
    with listening(requests) as ports:
        items = write_all(root, ports)
        return run_build(root, requests), items


@pytest.fixture(scope="module")
def built(whole: tuple[Built, list[corpus.Item]]) -> Built:
    return whole[0]


@pytest.fixture(scope="module")
def items(whole: tuple[Built, list[corpus.Item]]) -> list[corpus.Item]:
    return whole[1]


def unusable(items: list[corpus.Item]) -> list[corpus.Unusable]:
    return [item for item in items if isinstance(item, corpus.Unusable)]


def unusual(items: list[corpus.Item]) -> list[corpus.Unusual]:
    return [item for item in items if isinstance(item, corpus.Unusual)]


def wrongly_named(built: Built, items: list[corpus.Item]) -> dict[str, str]:
    """The broken files whose status is none of those that they may have."""
    found = {item.name: built.rows[corpus.video_id(item)]["status"] for item in unusable(items)}
    return {item.name: found[item.name] for item in unusable(items) if found[item.name] not in item.statuses}


def members(out: Path) -> list[str]:
    """Every name in every shard."""
    names = []
    for path in out.glob("shards/*/*.tar"):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    return names


def pictures(built: Built) -> dict[str, np.ndarray[Any, Any]]:
    """Frames_THWC of each clip of the view, by video."""
    index = ShardIndex(built.out)
    view = index.view("k400-train")
    found = {}
    for position in view.present.tolist():
        path = built.out.parent / "clip.mp4"
        path.write_bytes(index.read_clip(view, position))
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
        assert {frame.rotation for frame in frames} == {0}
        assert {frame.interlaced_frame for frame in frames} == {False}
        found[view.keys[position][:11]] = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
        path.unlink()
    return found


@pytest.fixture(scope="module")
def clips(built: Built) -> dict[str, np.ndarray[Any, Any]]:
    return pictures(built)


def test_every_broken_file_has_its_status(built: Built, items: list[corpus.Item]) -> None:
    assert wrongly_named(built, items) == {}


def test_no_broken_file_is_in_a_shard(built: Built, items: list[corpus.Item]) -> None:
    broken = {corpus.video_id(item): item.name for item in unusable(items) if "ok" not in item.statuses}
    assert [broken[name[:11]] for name in members(built.out) if name[:11] in broken] == []
    assert [broken[i] for i, row in built.rows.items() if i in broken and row["shard"] is not None] == []


def test_a_changed_byte_costs_the_clip_or_no_frame_of_it(built: Built, clips: dict[str, Any]) -> None:
    kept = [clips[i] for i in map(corpus.video_id, doubtful()) if built.rows[i]["status"] == "ok"]
    assert {frames_THWC.shape for frames_THWC in kept} <= {(20, 64, 96, 3)}


def test_every_strange_file_is_a_clip(built: Built, items: list[corpus.Item]) -> None:
    found = {item.name: built.rows[corpus.video_id(item)]["status"] for item in unusual(items)}
    assert {name: status for name, status in found.items() if status != "ok"} == {}


def test_strange_files_keep_their_frames_and_their_shape(clips: dict[str, Any], items: list[corpus.Item]) -> None:
    expected = {item.name: (item.frames, *reversed(item.size_px), 3) for item in unusual(items)}
    found = {item.name: clips[corpus.video_id(item)].shape for item in unusual(items)}
    assert found == expected


def test_strange_files_come_out_upright(clips: dict[str, Any], items: list[corpus.Item]) -> None:
    ways_up = {item.name: corpus.corner_colours(clips[corpus.video_id(item)][-1]) for item in unusual(items)}
    assert {name: way for name, way in ways_up.items() if way != ["red", "green", "blue", "white"]} == {}


def test_strange_files_keep_the_order_of_their_frames(clips: dict[str, Any], items: list[corpus.Item]) -> None:
    falling = {}
    for item in unusual(items):
        frames_THWC = clips[corpus.video_id(item)]
        inner = slice(corpus.CORNER_PX, -corpus.CORNER_PX)
        levels = frames_THWC[:, inner, inner].mean(axis=(1, 2, 3))
        # At the average rate a frame comes twice where the source was slow.
        least = -1 if item.note == "variable frame rate" else 2
        if levels[0] > 60 or (np.diff(levels) < least).any():
            falling[item.name] = levels.round().tolist()
    assert falling == {}


def test_strange_files_have_a_note_and_plain_ones_in_strange_folders_none(
    built: Built, items: list[corpus.Item]
) -> None:
    notes = {item.name: built.rows[corpus.video_id(item)]["notes"] for item in unusual(items)}
    without = [i.name for i in unusual(items) if i.note and not any(i.note in note for note in notes[i.name])]
    assert without == []
    assert {i.name: notes[i.name] for i in unusual(items) if i.name.startswith("in the folder") and notes[i.name]} == {}


@pytest.mark.parametrize("mode", MODES)
def test_decoding_alone_tells_broken_files_from_strange_ones(
    built: Built, items: list[corpus.Item], mode: Mode
) -> None:
    root = built.out.parents[1]
    found = {item.name: decode(corpus.path_of(root, item), mode) for item in items}
    statuses = {name: "ok" if isinstance(answer, Decoded) else answer.status for name, answer in found.items()}
    # Whole pictures that are shown at absurd times are for those to judge who know the segment.
    certain = [item for item in unusable(items) if "ok" not in item.statuses and item.name not in corpus.LATE]
    assert {i.name: statuses[i.name] for i in certain if statuses[i.name] not in i.statuses} == {}
    assert {i.name: statuses[i.name] for i in unusual(items) if statuses[i.name] != "ok"} == {}


def test_no_playlist_reaches_the_network(built: Built) -> None:
    assert built.requests == []


def test_what_playlists_point_at_is_nowhere_in_the_build(built: Built) -> None:
    secrets = (corpus.CANARY.encode(), b"root:x:0:0")
    assert [secret for secret in secrets if secret in built.said] == []
    files = [path for path in built.out.rglob("*") if path.is_file()]
    assert [path for path in files if any(secret in path.read_bytes() for secret in secrets)] == []


def test_nothing_is_written_outside_the_folder_of_the_build(built: Built) -> None:
    assert built.written_outside == []


def test_nothing_unfinished_is_left_in_the_folder_of_the_build(built: Built) -> None:
    assert not (built.out / "cache").exists()
    assert [p for p in built.out.rglob("*") if p.name.endswith(".partial") or p.name.startswith("tmp")] == []


@pytest.mark.slow
@pytest.mark.parametrize("encode", ["copy", "none"])
def test_unencoded(tmp_path: Path, encode: str) -> None:
    # Broken files are named also where nothing is encoded. A longer name of the test would be one of its folder, and so
    # too long a path for the sockets of workers.
    requests: list[str] = []
    with listening(requests) as ports:
        items = write_all(tmp_path, ports)
        built = run_build(tmp_path, requests, "--encode", encode)
    # Without a full decode, damage in the middle of a file is not looked for.
    wrong = {n: status for n, status in wrongly_named(built, items).items() if not n.startswith("flipped bytes")}
    assert (wrong, requests, built.written_outside) == ({}, [], [])


@pytest.mark.slow
def test_the_corpus_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        corpus.base.cache_clear()
        write_all(tmp_path / name, (1, 2))
        files = [p for p in (tmp_path / name).rglob("*") if p.is_file() and not p.is_symlink()]
        files = [p for p in files if p.stat().st_size < corpus.SEA_BYTES]
        written.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in files})
    # The path of the canary stands in some of the files.
    texts = {name for name, data in written[0].items() if bytes(tmp_path / "a") in data}
    assert {n: d for n, d in written[0].items() if n not in texts} == {
        n: d for n, d in written[1].items() if n not in texts
    }
    assert len(texts) == 3
