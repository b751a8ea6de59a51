"""Builds in an object store: the bytes of one in a folder, whoever dies when."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from broken_builds import ROOT, contents, kill_build
from object_server import Server, folder_of

import k710.objects.claims as object_claims
import k710.store
from k710.build import BuildConfig, build
from k710.claims import CLAIMS_FOLDER, TakenError
from k710.clips.encodings import EncodeConfig
from k710.clips.media import encode_frames
from k710.errors import FeedError, SourceError, UsageError
from k710.objects.claims import ObjectClaims
from k710.objects.objects import Objects
from k710.objects.s3 import S3Objects
from k710.shards.index import INDEX_FILE, ShardIndex

NUM_CLIPS = 8

pytestmark = pytest.mark.xdist_group("build_in_store")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips of half a second, of which the last is missing and the one before a web page."""
    root = tmp_path_factory.mktemp("source")
    (root / "annotations" / "k400").mkdir(parents=True)
    (root / "videos").mkdir()
    videos = [f"video_{number:05d}" for number in range(NUM_CLIPS)]
    rows = "".join(f"abseiling,{video},0,1,train\n" for video in videos)
    (root / "annotations" / "k400" / "train.csv").write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    first = root / "videos" / f"{videos[0]}_000000_000001.mp4"
    frames_THWC = np.random.default_rng(0).integers(0, 255, (5, 32, 48, 3), dtype=np.uint8)
    encode_frames(frames_THWC, first, fps=10, config=EncodeConfig(preset="ultrafast"))
    for video in videos[1:-2]:
        os.link(first, first.with_name(f"{video}_000000_000001.mp4"))
    first.with_name(f"{videos[-2]}_000000_000001.mp4").write_text("<!doctype html><p>Sign in</p>")
    return root


def in_folder(source: Path, out: Path) -> BuildConfig:
    return BuildConfig(
        annotations=source / "annotations",
        videos=(str(source / "videos"),),
        out=out,
        workers=1,
        clips_per_shard=2,
        encode=EncodeConfig(encode="copy"),
    )


def in_store(source: Path, server: Server, work: Path) -> BuildConfig:
    return dataclasses.replace(in_folder(source, Path("unused")), store=server.url, work=work)


@pytest.fixture
def config(source: Path, server: Server, tmp_path: Path) -> BuildConfig:
    return in_store(source, server, tmp_path / "work")


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same build in a folder."""
    out = tmp_path_factory.mktemp("whole") / "out"
    build(in_folder(source, out))
    return out


@pytest.fixture(scope="module")
def built(source: Path, one_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A finished build, which no test changes; with the requests that it took."""
    server = one_server.anew()
    build(in_store(source, server, tmp_path_factory.mktemp("built")))
    server.requests = list(server.requests)
    return server


def start(config: BuildConfig, *more: str) -> subprocess.Popen[bytes]:
    """The program, begun."""
    places = ["--annotations", str(config.annotations), "--videos", config.videos[0], "--out", config.store]
    size = ["--work", str(config.work), "--workers", "1", "--clips-per-shard", "2", "--encode", "copy"]
    return subprocess.Popen(
        [sys.executable, "-m", "cli", "build", *places, *size, *more],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def killed_at(server: Server, config: BuildConfig, num_requests: int, *more: str) -> bool:
    """Run the program, and kill it with all that it began once it has had so many answers; whether it lived so long."""
    seen: list[str] = []
    process = start(config, *more)

    def count(method: str, path: str) -> None:
        seen.append(path)
        if len(seen) == num_requests:
            kill_build(process)

    server.on_request.append(count)
    try:
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert process.wait(120) in (0, -9), said
    finally:
        process.stderr.close()  # type: ignore[union-attr]
        server.on_request.remove(count)
        kill_build(process)
    return len(seen) >= num_requests


def committed(server: Server) -> set[str]:
    """Clips that a ledger in the store calls good and whose bytes lie there."""
    objects = server.objects()
    lines = [line for path, data in objects.items() if path.startswith("ledger") for line in data.splitlines()]
    good = {record["key"] for record in map(json.loads, lines) if record["status"] == "ok"}
    stored = b"".join(data for path, data in objects.items() if path.endswith(".tar")) + "".join(objects).encode()
    return {key for key in good if f"{key}.mp4".encode() in stored}


def outcomes(data: bytes) -> dict[str, tuple[str, str]]:
    records = [json.loads(line) for line in data.splitlines()]
    return {record["key"]: (record["status"], record.get("sha256", "")) for record in records}


def assert_unbroken(server: Server, whole: Path) -> None:
    """A build in the store is as the one in the folder, to the last byte and object."""
    assert server.contents() == contents(whole)
    assert outcomes(server.objects()["ledger.jsonl"]) == outcomes((whole / "ledger.jsonl").read_bytes())


def test_a_build_in_a_store_has_the_bytes_of_one_in_a_folder(
    built: Server, whole: Path, source: Path, tmp_path: Path
) -> None:
    assert_unbroken(built, whole)
    assert b"secret-of-the-test" not in b"".join(built.objects().values())
    lines = built.objects()["ledger.jsonl"].splitlines()
    assert len(lines) == NUM_CLIPS
    # On a machine that knows nothing there is nothing to do, and no clip is read.
    asked: list[str] = []
    built.on_request.append(lambda method, path: asked.append(path))
    again = build(in_store(source, built, tmp_path / "elsewhere"))
    assert (again.out, again.tried, again.clips["ok"]) == (built.url, 0, NUM_CLIPS - 2)
    assert asked
    assert not [path for path in asked if path.endswith((".tar", ".mp4"))]
    assert_unbroken(built, whole)
    assert [p.name for p in folder_of(tmp_path / "elsewhere").rglob("*") if p.suffix in (".tar", ".mp4")] == []


def test_what_others_rely_on_is_written_after_it_is_true(built: Server) -> None:
    written = [path.partition("/k710/")[2] for method, path in built.requests if method == "PUT"]
    written = [path for path in written if not path.startswith(CLAIMS_FOLDER)]
    shards = [path for path in written if path.endswith(".tar")]
    assert len(shards) >= 3
    for shard in shards:
        assert written.index(shard) < written.index(shard.removesuffix(".tar") + ".json")
    clips = [place for place, path in enumerate(written) if path.startswith("cache/")]
    assert len(clips) == NUM_CLIPS - 2
    assert all(any(path.startswith("ledger-alone-") for path in written[place:]) for place in clips)
    assert written[0] == "k710.lock.json"
    assert written[-1] == INDEX_FILE


@pytest.mark.parametrize(
    "moments",
    [(42,), *(pytest.param(tuple(range(first, 84, 9)), marks=pytest.mark.slow) for first in range(9))],
)
@pytest.mark.timeout(600)
def test_a_build_killed_at_any_request_goes_on_elsewhere_and_makes_nothing_twice(
    config: BuildConfig, server: Server, whole: Path, tmp_path: Path, moments: tuple[int, ...]
) -> None:
    for number, moment in enumerate(moments):
        before = committed(server)
        # Every other time on a machine that has nothing of the run before.
        work = tmp_path / f"work{number // 2}"
        if not killed_at(server, dataclasses.replace(config, work=work), moment):
            break
        assert committed(server) >= before
    before = committed(server)
    last = build(dataclasses.replace(config, work=tmp_path / "last"))
    assert last.made == NUM_CLIPS - 2 - len(before)
    assert_unbroken(server, whole)


def test_two_builds_at_once_are_refused_wherever_they_work(config: BuildConfig, server: Server, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(config, work=tmp_path / "other")
    said: list[str] = []

    def second(so_far: object) -> None:
        for other in (config, elsewhere) if not said else ():
            with pytest.raises(TakenError, match="is writing to") as refused:
                build(other)
            said.append(refused.value.message)

    build(config, on_clips=second)
    assert len(said) == 2
    assert all(server.url in message for message in said)


@pytest.mark.slow
def test_a_claim_whose_owner_died_elsewhere_is_taken_over_when_it_expires(
    config: BuildConfig, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = {"who": "another k710 build", "machine": "another", "token": "t", "host": "far", "pid": 7}
    S3Objects(server.url).put(f"{CLAIMS_FOLDER}/alone", json.dumps(theirs).encode())
    with pytest.raises(TakenError, match=r"far \(process 7\)"):
        build(config)
    monkeypatch.setattr(object_claims, "EXPIRY_S", 2.0)
    time.sleep(3)
    assert build(config).made == NUM_CLIPS - 2
    assert not [path for path in server.objects() if path.startswith(CLAIMS_FOLDER)]


@pytest.mark.slow
def test_a_beating_claim_is_not_taken_over(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_claims, "EXPIRY_S", 2.5)
    monkeypatch.setattr(object_claims, "HEARTBEAT_S", 0.2)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = ObjectClaims(S3Objects(server.url), CLAIMS_FOLDER, tmp_path / "a")
    second = ObjectClaims(S3Objects(server.url), CLAIMS_FOLDER, tmp_path / "b")
    with first.held("alone", {}) as held:
        time.sleep(4)
        held.require()
        assert set(second.alive()) == {"alone"}
        with pytest.raises(TakenError), second.held("alone", {}):
            pass
    assert second.alive() == {}


@pytest.mark.parametrize("loss", ["taken over", pytest.param("gone", marks=pytest.mark.slow)])
def test_a_writer_whose_claim_is_lost_stops_before_it_commits(
    config: BuildConfig, server: Server, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    monkeypatch.setattr(object_claims, "HEARTBEAT_S", 0.05)
    objects = S3Objects(server.url)
    path = f"{CLAIMS_FOLDER}/alone"
    at_loss: dict[str, bytes] = {}

    def lose(so_far: object) -> None:
        if at_loss:
            return
        if loss == "gone":
            objects.delete([path])
        else:
            objects.put(path, json.dumps({"token": "another's"}).encode())
        time.sleep(0.5)
        at_loss.update(server.objects())

    with pytest.raises(SourceError, match="another may have taken its place"):
        build(config, on_clips=lose)
    after = server.objects()
    assert at_loss
    assert after == at_loss
    assert not [name for name in after if name.startswith(("cache/", "shards/"))]
    # What is another's is left to it.
    assert (path in after) == (loss == "taken over")


@pytest.mark.slow
def test_a_run_that_hears_nothing_from_the_store_stops(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    claims = ObjectClaims(S3Objects(server.url), CLAIMS_FOLDER, tmp_path / "a")
    with claims.held("alone", {}) as held:
        held.require()
        held._last_beat -= object_claims.EXPIRY_S + 1
        held._objects = S3Objects("s3://no-such-bucket/k710")  # its answers are errors
        with pytest.raises(SourceError, match="silent for over"):
            held.require()
        held._objects = S3Objects(server.url)


def test_a_foreign_place_and_one_of_other_things_are_refused(config: BuildConfig, server: Server) -> None:
    S3Objects(server.url).put("notes.txt", b"mine")
    with pytest.raises(UsageError, match=r"not empty and not a build \(it has notes.txt\)"):
        build(config)
    assert server.objects() == {"notes.txt": b"mine"}


@pytest.mark.slow
def test_objects_that_are_no_build_s_stay(config: BuildConfig, source: Path, server: Server, tmp_path: Path) -> None:
    build(config)
    own = {"runs/model.bin": b"1", "notes.txt": b"2", "shards/readme.txt": b"3", "data.json": b"{}"}
    beside = ["shards/backup/k400-train/t-root.tar", "shards/backup/k400-train/t-root.json", "cache/readme.txt"]
    own |= {path: path.encode() for path in (*beside, "report/2026/notes.md", "views/old/mine.json")}
    for path, data in own.items():
        S3Objects(server.url).put(path, data)
    build(dataclasses.replace(config, clips_per_shard=4, replan=True, work=tmp_path / "other"))
    assert own.items() <= server.objects().items()


@pytest.mark.slow
def test_a_replan_takes_clips_from_the_old_shards_by_range(
    config: BuildConfig, source: Path, server: Server, tmp_path: Path
) -> None:
    build(config)
    changed = dataclasses.replace(config, clips_per_shard=4, replan=True, work=tmp_path / "other")
    server.requests.clear()
    assert build(changed).made == 0
    read = [path for method, path in server.requests if method == "GET" and path.endswith(".tar")]
    assert len(read) >= NUM_CLIPS - 2
    local = dataclasses.replace(in_folder(source, tmp_path / "out"), clips_per_shard=4)
    build(local)
    assert_unbroken(server, tmp_path / "out")


def test_a_store_that_fails_at_every_kind_of_write_loses_nothing(
    config: BuildConfig, server: Server, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(k710.store, "WAITS_S", (0.0, 0.0, 0.0))
    draw = random.Random(3)
    ask = Objects._ask
    failed: list[str] = []

    def weak(self: Objects, wanted: object) -> object:
        def sometimes(files: object) -> object:
            answer = None
            before = draw.random()
            if before > 0.15:
                answer = wanted(files)  # type: ignore[operator]
            if before < 0.3:
                # Asked in vain, or heard and its answer lost.
                failed.append("lost" if before > 0.15 else "in vain")
                raise ConnectionError("reset by peer")
            return answer

        return ask(self, sometimes)

    monkeypatch.setattr(Objects, "_ask", weak)
    build(config)
    monkeypatch.undo()
    assert set(failed) == {"lost", "in vain"}
    assert_unbroken(server, whole)


@pytest.mark.slow
def test_tasks_of_an_array_share_a_store(config: BuildConfig, server: Server, whole: Path, tmp_path: Path) -> None:
    summaries = [
        build(dataclasses.replace(config, work=tmp_path / str(i), executor="array", task_index=i, num_tasks=2))
        for i in range(2)
    ]
    assert [summary.task for summary in summaries] == ["task 0 of 2", ""]
    assert sum(summary.made for summary in summaries) == NUM_CLIPS - 2
    assert_unbroken(server, whole)


@pytest.mark.slow
def test_tasks_at_the_same_time_and_one_that_dies_give_the_same_bytes(
    config: BuildConfig, server: Server, whole: Path, tmp_path: Path
) -> None:
    def task(index: int) -> list[str]:
        return ["--executor", "array", "--task-index", str(index), "--num-tasks", "3"]

    assert killed_at(server, dataclasses.replace(config, work=tmp_path / "dies"), 45, *task(1))
    made = len(committed(server))
    running = [start(dataclasses.replace(config, work=tmp_path / str(index)), *task(index)) for index in range(3)]
    try:
        for process in running:
            assert process.stderr is not None
            said = process.stderr.read().decode()
            process.stderr.close()
            assert process.wait(120) == 0, said
    finally:
        for process in running:
            kill_build(process)
    assert made
    assert_unbroken(server, whole)


@pytest.mark.slow
def test_a_clip_that_is_damaged_in_the_store_is_made_again(
    config: BuildConfig, server: Server, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no room for a shard")

    with monkeypatch.context() as patch:
        patch.setattr("k710.objects.shelf.write_shard", full)
        with pytest.raises(OSError, match="no room"):
            build(config)
    (cached, *_) = [path for path in server.objects() if path.startswith("cache/")]
    S3Objects(server.url).put(cached, bytes(len(server.objects()[cached])))
    with pytest.raises(FeedError, match="its bytes are not those that were encoded"):
        build(config)
    build(config)
    assert_unbroken(server, whole)


@pytest.mark.slow
def test_another_plan_is_refused_while_a_task_is_there(config: BuildConfig, server: Server, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    claims = ObjectClaims(S3Objects(server.url), CLAIMS_FOLDER, tmp_path / "a")
    with claims.held("task-1", {"who": "task 1 of 2", "plan": "another", "num_tasks": 2}):
        with pytest.raises(TakenError, match="task 1 of 2 on"):
            build(dataclasses.replace(config, executor="array", task_index=0, num_tasks=2))
        with pytest.raises(TakenError, match="task 1 of 2 on"):
            build(config)


def test_a_large_shard_goes_in_parts_and_broken_uploads_are_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server takes parts of this size and more, as S3 does.
    monkeypatch.setattr("k710.objects.s3.PART_BYTES", 5 << 20)
    objects = S3Objects(server.url)
    data = random.Random(1).randbytes((12 << 20) + 17)
    (tmp_path / "shard").write_bytes(data)
    place = {"Bucket": server.bucket, "Key": "k710/shards/g/t-root.tar"}
    left = server.files.call_s3("create_multipart_upload", **place)["UploadId"]
    server.files.call_s3("upload_part", **place, UploadId=left, PartNumber=1, Body=b"x")
    objects.abort_uploads("shards/g/t-root.tar")
    objects.upload(tmp_path / "shard", "shards/g/t-root.tar")
    assert not server.files.call_s3("list_multipart_uploads", Bucket=server.bucket).get("Uploads")
    assert objects.read("shards/g/t-root.tar") == data
    # One that fails for good leaves nothing to be paid for.
    monkeypatch.setattr(k710.store, "WAITS_S", (0.0,))
    sent = S3Objects._call

    def fails(self: S3Objects, method: str, path: str, **more: object) -> object:
        if method == "upload_part" and more["PartNumber"] == 2:
            raise PermissionError("no more")
        return sent(self, method, path, **more)

    monkeypatch.setattr(S3Objects, "_call", fails)
    with pytest.raises(FeedError, match="cannot be written"):
        objects.upload(tmp_path / "shard", "shards/g/t-0.tar")
    assert not server.files.call_s3("list_multipart_uploads", Bucket=server.bucket).get("Uploads")


@pytest.mark.slow
def test_a_marker_is_not_written_over_that_of_another(
    config: BuildConfig, server: Server, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = S3Objects.upload

    def meanwhile(self: S3Objects, file: Path, path: str) -> None:
        upload(self, file, path)
        if path.endswith(".tar"):
            self.put(path.removesuffix(".tar") + ".json", b"{}")

    monkeypatch.setattr(S3Objects, "upload", meanwhile)
    with pytest.raises(SourceError, match="written by somebody else meanwhile"):
        build(config)
    monkeypatch.undo()
    build(config)
    assert_unbroken(server, whole)


def test_secrets_in_a_url_and_stores_that_keep_nothing_apart_are_refused(config: BuildConfig) -> None:
    with pytest.raises(UsageError, match="names a user, a password or a query") as refused:
        build(dataclasses.replace(config, store="s3://key:hidden@bucket/k710"))
    assert "hidden" not in refused.value.message + refused.value.hint
    with pytest.raises(UsageError, match="no conditional writes are known for memory://"):
        build(dataclasses.replace(config, store="memory://bucket/k710"))
    with pytest.raises(UsageError, match="a whole bucket"):
        build(dataclasses.replace(config, store="s3://bucket/"))
    with pytest.raises(UsageError, match="no place in an object store"):
        build(dataclasses.replace(config, encode=EncodeConfig(encode="none")))


def test_a_store_that_ignores_conditions_is_found_out(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    put = S3Objects._put_if
    monkeypatch.setattr(S3Objects, "_put_if", lambda self, path, data, **_: put(self, path, data))
    with pytest.raises(UsageError, match="overwrites what should only be made where there is nothing"):
        build(config)


def test_another_store_can_be_built_to_if_told(config: BuildConfig, whole: Path, tmp_path: Path) -> None:
    import fsspec

    memory = dataclasses.replace(config, store=f"memory://{tmp_path.name}/k710", unguarded=True)
    assert build(memory).made == NUM_CLIPS - 2
    assert build(dataclasses.replace(memory, work=tmp_path / "other")).tried == 0
    files = fsspec.filesystem("memory")
    assert sorted(p.partition("/k710/")[2] for p in files.find(f"/{tmp_path.name}/k710")) == sorted(
        [*contents(whole), "ledger.jsonl", "build.json"]
    )


@pytest.mark.slow
def test_a_work_folder_of_other_things_is_refused(config: BuildConfig, tmp_path: Path) -> None:
    build(config)
    folder = folder_of(tmp_path / "work")
    (folder / ".work-id").unlink()
    with pytest.raises(UsageError, match="not a folder of k710"):
        build(config)


def test_it_asks_for_no_more_than_it_says(built: Server) -> None:
    asked = [f"{method} {path.partition('/k710/')[2] or path.partition('?')[2]}" for method, path in built.requests]
    clips, shards = NUM_CLIPS - 2, sum(line.startswith("PUT shards/") and line.endswith(".tar") for line in asked)
    assert sum(line.startswith("PUT cache/") for line in asked) == clips
    # Outcomes of clips that have no bytes go with those of others, or once for all.
    assert sum(line.startswith("PUT ledger-") for line in asked) <= clips + 2
    assert sum(line.startswith("PUT shards/") for line in asked) == 2 * shards
    assert sum(line.startswith("GET uploads") for line in asked) == shards + 3
    assert not [line for line in asked if line.startswith(("GET cache/", "GET shards/"))]
    assert len(asked) <= 2 * clips + 4 * shards + 45


def test_readers_find_the_build_by_its_url(built: Server, whole: Path) -> None:
    there, here = ShardIndex(built.url), ShardIndex(whole)
    view, same = there.view("k710-train"), here.view("k710-train")
    assert view.digest == same.digest
    for position in view.present:
        assert there.read_clip(view, int(position)) == here.read_clip(same, int(position))
