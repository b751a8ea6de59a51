"""How a build in an object store treats what is not as it left it, without a whole build."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from object_server import Server

import k710.store
from k710.claims import CLAIMS_FOLDER
from k710.errors import FeedError, UsageError
from k710.objects.claims import ObjectClaims
from k710.objects.home import object_home
from k710.objects.objects import Listed
from k710.objects.parts import LedgerParts, pull_ledgers
from k710.objects.protocols import objects_at
from k710.objects.s3 import S3Objects
from k710.objects.shelf import ObjectShelf
from k710.shards.packing import Packing
from k710.shards.write import Extent
from k710.verify import VerifyConfig, verify

pytestmark = pytest.mark.xdist_group("build_in_store")


def shelf_of(server: Server, work: Path) -> ObjectShelf:
    objects = S3Objects(server.url)
    shelf = ObjectShelf(objects, work, LedgerParts(objects, "alone"))
    shelf.require = lambda: None
    return shelf


def test_only_what_a_build_names_is_pulled_listed_and_swept(server: Server, tmp_path: Path) -> None:
    theirs = ["shards/backup/k400-train/t-root.tar", "shards/backup/k400-train/t-root.json", "cache/readme.txt"]
    theirs += ["cache/de/readme.mp4", "cache/deep/de/deep.mp4", "report/2026/notes.md", "views/old/mine.json"]
    ours = ["cache/vi/video_00000.mp4", "shards/k400-train/t-root.tar", "shards/k400-train/t-root.json"]
    objects = S3Objects(server.url)
    for path in (*theirs, *ours, "k710.lock.json"):
        objects.put(path, path.encode())
    with object_home(server.url, tmp_path, who="alone") as home, home.claims.held("alone", {}) as held:
        home.pull(held)
        pulled = {str(p.relative_to(home.out)) for p in home.out.rglob("*") if not p.name.startswith(".")}
        assert pulled & {*theirs} == set()
        assert home.shelf.shards() == ["shards/k400-train/t-root.tar"]
        home.shelf.sweep(keep_clips=False)
        home.publish()
    assert server.objects().keys() == {*theirs, *ours[1:], "k710.lock.json"}


def test_a_shard_that_another_task_has_written_anew_since_has_no_clips(server: Server, tmp_path: Path) -> None:
    shard = "shards/k400-train/t-root.tar"
    shelf = shelf_of(server, tmp_path)
    S3Objects(server.url).put(shard, bytes(1024))
    shelf.there[shard] = Listed(size_bytes=20480, etag="")
    assert shelf.contents(shard) == {}
    S3Objects(server.url).delete([shard])
    assert shelf.contents(shard) == {}
    with pytest.raises(FeedError):
        shelf.read(shard, Extent(offset=512, size_bytes=512))


def test_a_clip_is_looked_for_in_no_shard_as_planned_and_at_last_in_the_cache(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = shelf_of(server, tmp_path)
    own, planned, old = (f"shards/{name}/t-root.tar" for name in ("a", "b", "c"))
    shelf.there = dict.fromkeys((planned, old), Listed(size_bytes=1024, etag=""))
    manifest = pa.table({"key": ["clip_1", "clip_2"], "leaf": [own, planned], "rows": [1, 1]})
    labels: Any = SimpleNamespace(taxonomy_names=lambda _: [])
    outcomes: Any = {"clip_1": SimpleNamespace(path="", size_bytes=3)}
    packing = Packing(tmp_path, manifest, labels, outcomes, shelf=shelf)
    walked: list[str] = []
    monkeypatch.setattr(packing, "is_done", lambda leaf: leaf == planned)

    def walk(shard: str) -> dict[str, Extent]:
        walked.append(shard)
        return {}

    monkeypatch.setattr(shelf, "contents", walk)
    assert not packing.has_bytes("clip_1")
    assert walked == [own, old]
    # Another task has put it there since this one listed what is there.
    S3Objects(server.url).put("cache/cl/clip_1.mp4", b"mp4")
    assert packing.has_bytes("clip_1")


def test_a_url_with_an_empty_name_is_refused() -> None:
    with pytest.raises(UsageError, match="has an empty name in its path"):
        objects_at("s3://bucket//k710")
    objects_at("s3://bucket/k710/")


def test_what_a_kill_left_in_the_work_folder_is_no_harm(server: Server, tmp_path: Path) -> None:
    objects = S3Objects(server.url)
    parts = LedgerParts(objects, "alone")
    parts.note(b"{}\n")
    parts.flush()
    (tmp_path / ".parts").mkdir()
    (tmp_path / ".parts" / "ledger-alone-0-000007.jsonl").write_bytes(b"half")
    pull_ledgers(objects, parts.names, tmp_path)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"{}\n"]
    work = tmp_path / "work"
    with object_home(server.url, work, who="alone") as home:
        (home.out / ".work-id").rename(home.out / "..work-id.x7.partial")
    with object_home(server.url, work, who="alone") as home:
        assert (home.out / ".work-id").exists()


def test_broken_uploads_of_ledger_and_index_are_given_up(server: Server, tmp_path: Path) -> None:
    for name in ("ledger.jsonl", "shards.parquet", "shards/g/t-root.tar", "theirs"):
        server.files.call_s3("create_multipart_upload", Bucket=server.bucket, Key=f"k710/{name}")
    shelf_of(server, tmp_path).sweep(keep_clips=False)
    left = server.files.call_s3("list_multipart_uploads", Bucket=server.bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["k710/theirs"]


def test_verify_names_the_url_of_a_build_that_has_no_tables(server: Server) -> None:
    S3Objects(server.url).put("k710.lock.json", b"{}")
    with pytest.raises(FeedError) as refused:
        verify(VerifyConfig(path=server.url, workers=1))
    assert server.url in refused.value.message
    assert "k710-verify-" not in refused.value.message


def test_a_bucket_that_is_not_there_and_missing_keys_are_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FeedError, match="no such bucket"):
        S3Objects("s3://no-such-bucket/k710").listed()
    missing = type("NoCredentialsError", (Exception,), {})
    tries: list[str] = []

    def without_keys(_: object) -> None:
        tries.append("")
        raise missing

    monkeypatch.setattr(k710.store, "WAITS_S", (0.0, 0.0))
    with pytest.raises(UsageError, match="no keys") as refused:
        S3Objects(server.url)._ask(without_keys)
    assert "AWS_ACCESS_KEY_ID" in refused.value.hint
    assert len(tries) == 1


def test_a_claim_is_let_go_where_there_is_no_conditional_delete(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: S3Objects, path: str, etag: str) -> None:
        raise UsageError("this store has no conditional writes")

    monkeypatch.setattr(S3Objects, "delete_as_seen", refused)
    with ObjectClaims(S3Objects(server.url), CLAIMS_FOLDER, tmp_path).held("alone", {}):
        assert f"{CLAIMS_FOLDER}/alone" in server.objects()
    assert f"{CLAIMS_FOLDER}/alone" not in server.objects()
