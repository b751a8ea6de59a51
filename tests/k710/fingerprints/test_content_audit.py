"""The content audit of a build: its pairs, what they mean for the views, and what stays of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from content_cases import ALONE, COPY, LEAKED, MIRRORED, TWICE

from k710.browse.pairs import near_duplicates
from k710.browse.pool import Pool
from k710.errors import FeedError, UsageError
from k710.fingerprints import stored
from k710.fingerprints.content import ContentConfig, audit_content, remove_content_audit, with_content
from k710.fingerprints.giving_way import giving_way, without_near_duplicates
from k710.fingerprints.leaks import is_protected
from k710.fingerprints.stored import FOLDER, ClipBytes, FingerprintFolder, fingerprint_clips
from k710.lists.policy import Policy
from k710.processes import GUARD_FILE, only_writer
from k710.report.near_duplicates import (
    DOCUMENT_FILE,
    NEAR_DUPLICATES,
    TABLE_FILE,
    ContentAudit,
    read_content_audit,
)
from k710.report.stored import read_audit
from k710.store import Store


def key(video: str, start_s: int = 0) -> str:
    return f"{video}_{start_s:06d}_{start_s + 3:06d}"


def pairs(table: pa.Table) -> dict[tuple[str, str], dict[str, object]]:
    return {(row["key_a"], row["key_b"]): row for row in table.to_pylist()}


def test_copies_are_found_across_and_inside_the_splits(audited: ContentAudit) -> None:
    rows = pairs(audited.table)
    assert list(rows) == [
        (key(LEAKED), key(COPY)),
        (key(MIRRORED), key(COPY)),
        (key(LEAKED), key(MIRRORED)),
        (key(TWICE), key(TWICE, 5)),
    ]
    leak = rows[key(LEAKED), key(COPY)]
    assert (leak["kind"], leak["views_a"], leak["views_b"]) == (
        "own_train_eval", "k400-train,k710-train", "k400-val,k710-val",
    )  # fmt: skip
    assert leak["offset_s"] == pytest.approx(1.0, abs=0.11)
    assert not leak["mirrored"]
    assert rows[key(MIRRORED), key(COPY)]["mirrored"]
    assert rows[key(LEAKED), key(MIRRORED)]["kind"] == "train_train"
    assert {row["group"] for row in rows.values()} == {key(LEAKED), ""}


def test_segments_of_one_video_that_share_no_second_are_told_and_do_not_count(audited: ContentAudit) -> None:
    assert [row["same_video"] for row in audited.table.to_pylist()] == [False, False, False, True]
    assert (audited.document["pairs"], audited.document["same_video_pairs"]) == (3, 1)
    assert not any(key(TWICE) in pair for pair in giving_way(audited.table, ("val",), inside=True).items())


def test_the_document_names_the_views_and_what_the_policy_forbids(audited: ContentAudit) -> None:
    document = audited.document
    between = {tuple(r["views"]): (r["pairs"], r["clips"], r["protected"]) for r in document["between"]}
    assert between["k710-train", "k710-val"] == (2, [2, 1], True)
    assert between["k400-train", "k400-val"] == (1, [1, 1], True)
    assert between["k600-train", "k400-val"] == (1, [1, 1], False)
    assert between["k710-train", "k710-train"] == (1, [1, 1], False)
    assert document["statement"].startswith("NOT free of near-duplicates: 2 pairs of k710-train and k710-val;")
    assert document["levels"]["near_duplicate"] == {"checked": True, "clips": 6, "pairs": 3}


def test_the_audit_of_the_build_takes_it_in(whole: Path, audited: ContentAudit) -> None:
    told = with_content(read_audit(whole), audited)
    levels = json.loads(told.json_text)["levels"]
    assert levels["near_duplicate"]["checked"]
    assert levels["same_bytes"] == {"checked": True, "clips": 6, "pairs": 0}
    assert "| near duplicate | yes |" in told.markdown
    assert "| k710-train | k710-val | 2 | 2 and 1 | yes |" in told.markdown
    assert json.loads((whole / "audit.json").read_text())["levels"]["near_duplicate"]["checked"] is False


def test_what_was_found_is_read_again_until_the_build_changes(built: Path) -> None:
    assert read_content_audit(built) is None
    found = audit_content(ContentConfig(folder=built))
    again = read_content_audit(built)
    assert again is not None
    assert again.document == found.document
    assert again.table.equals(found.table)
    shutil.copy(built / "manifest.parquet", built / "shards.parquet")
    assert read_content_audit(built) is None


def test_a_damaged_document_says_what_to_do(built: Path) -> None:
    (built / DOCUMENT_FILE).write_text("{")
    with pytest.raises(FeedError) as caught:
        read_content_audit(built)
    assert "--level content" in caught.value.hint


def test_a_gallery_can_show_the_pairs(whole: Path) -> None:
    shown = near_duplicates(Pool(str(whole)))
    assert shown is not None
    assert [[side.position >= 0 for side in pair.sides] for pair in shown] == [[True, True]] * 4
    assert shown[0].facts[0] == "kind: own_train_eval"


def test_a_second_run_decodes_nothing_and_writes_the_same_bytes(built: Path) -> None:
    assert audit_content(ContentConfig(folder=built)).made == 6
    files = [built / TABLE_FILE, built / DOCUMENT_FILE, *sorted((built / FOLDER).iterdir())]
    before = [path.read_bytes() for path in files]
    assert audit_content(ContentConfig(folder=built)).made == 0
    assert [path.read_bytes() for path in files] == before


def test_a_damaged_table_of_fingerprints_is_made_again(compared: Path, audited: ContentAudit) -> None:
    for path in (compared / FOLDER).iterdir():
        path.write_bytes(path.read_bytes()[:-20])
    again = audit_content(ContentConfig(folder=compared))
    assert (again.made, again.document) == (6, audited.document)


def test_fingerprints_of_shards_that_are_gone_and_of_killed_runs_are_removed(compared: Path) -> None:
    (compared / FOLDER / "shards-gone.parquet").write_bytes(b"old")
    (compared / FOLDER / ".shards-a.parquet.abc.partial").write_bytes(b"half")
    (compared / f".{TABLE_FILE}.abc.partial").write_bytes(b"half")
    audit_content(ContentConfig(folder=compared))
    assert not (compared / FOLDER / "shards-gone.parquet").exists()
    assert not list(compared.rglob("*.partial"))


def test_clips_that_cannot_be_compared_are_counted_by_reason(built: Path) -> None:
    shard = next((built / "shards").rglob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[:] = data.replace(b"moov", b"mooX", 1)
    shard.write_bytes(bytes(data))
    found = audit_content(ContentConfig(folder=built))
    assert found.document["not_compared"] == {"its bytes are not those that the index was written for (sha256)": 1}
    assert found.num_unread == 1
    assert found.document["statement"].endswith("not compared: 1 clips.")


def test_a_build_without_clips_says_how_to_make_them(built: Path) -> None:
    (built / "shards.parquet").unlink()
    with pytest.raises(FeedError, match="no clips yet"):
        audit_content(ContentConfig(folder=built))


def test_while_another_process_writes_the_build_nothing_is_written(built: Path) -> None:
    with only_writer(built / GUARD_FILE, "busy"), pytest.raises(UsageError, match="another k710"):
        audit_content(ContentConfig(folder=built))
    assert not (built / FOLDER).exists()


def test_who_gives_way_follows_the_policy(audited: ContentAudit) -> None:
    table = audited.table
    assert giving_way(table, ("val",)) == {key(LEAKED): key(COPY), key(MIRRORED): key(COPY)}
    assert giving_way(table, ("val",), leaks="drop-eval") == {key(COPY): key(LEAKED)}
    assert giving_way(table, ("val",), leaks="report", inside=True) == {key(MIRRORED): key(LEAKED)}
    assert giving_way(table.slice(0, 0), ("val",)) == {}


def left_out(path: Path, policy: Policy) -> tuple[tuple[str, ...], tuple[str, ...]]:
    selection = without_near_duplicates(policy, path).selection
    return selection.near_duplicates, selection.near_duplicates_held_out


def test_the_videos_that_give_way_are_left_out_by_the_policy(whole: Path) -> None:
    path = whole / TABLE_FILE
    assert left_out(path, Policy()) == ((LEAKED, MIRRORED), ())
    assert left_out(path, Policy(leaks="drop-eval")) == ((MIRRORED,), (COPY,))
    assert left_out(path, Policy(leaks="report")) == ((MIRRORED,), ())
    with pytest.raises(FeedError, match="no such file"):
        left_out(whole / "none.parquet", Policy())


def test_a_video_stays_when_both_clips_are_its_own(audited: ContentAudit, tmp_path: Path) -> None:
    rows = [{**row, "id_b": row["id_a"]} for row in audited.table.to_pylist()[:1]]
    pq.write_table(pa.Table.from_pylist(rows, schema=NEAR_DUPLICATES), tmp_path / "own.parquet")
    assert left_out(tmp_path / "own.parquet", Policy()) == ((), ())


def test_clips_that_no_training_view_has_together_do_not_give_way_to_each_other(audited: ContentAudit) -> None:
    rows = [{**row, "views_a": "k400-train", "views_b": "k600-train"} for row in audited.table.to_pylist()]
    table = pa.Table.from_pylist(rows, schema=NEAR_DUPLICATES)
    assert giving_way(table, (), leaks="report", inside=True) == {}


def test_all_that_it_left_in_a_build_can_be_removed(compared: Path, finished: Path) -> None:
    assert remove_content_audit(compared)
    names = [{p.relative_to(out) for p in out.rglob("*")} for out in (compared, finished)]
    assert names[0] - {Path(GUARD_FILE)} == names[1] - {Path(GUARD_FILE)}
    assert not remove_content_audit(compared)


def test_a_clip_stays_when_the_one_that_it_looks_like_gives_way(audited: ContentAudit) -> None:
    rows = audited.table.to_pylist()
    table = pa.Table.from_pylist([rows[0], rows[2]], schema=NEAR_DUPLICATES)
    assert giving_way(table, ("val",), inside=True) == {key(LEAKED): key(COPY)}


@pytest.mark.parametrize(
    ("train", "held_out", "protect", "answer"),
    [
        ("k400-train", "k400-val", (), True),
        ("k400-train", "k600-val", ("val",), False),
        ("k710-train", "k600-val", ("val",), True),
        ("k710-train", "k600-val", ("test",), False),
        ("k710-train", "k700-2020-holdout", ("test",), True),
        ("k710-train", "k400-train", ("val", "test"), False),
        ("k400-val", "k400-val", ("val",), False),
    ],
)
def test_pictures_are_protected_as_videos_are(
    train: str, held_out: str, protect: tuple[str, ...], answer: bool
) -> None:
    assert is_protected(train, held_out, protect) is answer


def as_files(videos: Path) -> list[ClipBytes]:
    return [
        ClipBytes(key=path.stem, file=str(path), offset=0, size_bytes=path.stat().st_size, sha256="")
        for path in sorted(videos.iterdir())
    ]


def test_files_are_fingerprinted_without_a_build_and_unreadable_ones_have_a_reason(
    sources: Path, tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(sources / "videos", videos)
    (videos / "broken.mp4").write_bytes(b"no video")
    folder = FingerprintFolder(tmp_path / "prints")
    clips = as_files(videos)
    missing = ClipBytes(key="missing", file=str(videos / "none.mp4"), offset=0, size_bytes=1, sha256="")
    told = fingerprint_clips([*clips, missing], Store(tmp_path), folder)
    assert [failed.key for failed in told.failed] == ["missing"]
    assert told.made == 7
    known = {k: v for path in folder.folder.iterdir() for k, v in folder.read(path).items()}
    assert {key for key, sha256 in told.sha256.items() if known[sha256].reason} == {"broken"}
    assert len(known[told.sha256[key(ALONE)]].frames) >= 29


def test_what_a_stopped_run_had_written_is_not_decoded_again(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_FLUSH_CLIPS", 1)

    def stop(stage: str, done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit_content(ContentConfig(folder=built), stop)
    assert not (built / TABLE_FILE).exists()
    assert 1 <= audit_content(ContentConfig(folder=built)).made <= 3


@pytest.mark.slow
def test_killed_at_any_time_it_goes_on_to_the_same_bytes(built: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from k710.fingerprints import stored, content\n"
        "stored._FLUSH_CLIPS = 1\n"
        "content.audit_content(content.ContentConfig(folder=Path(sys.argv[1]), workers=2))\n"
    )
    whole = shutil.copytree(built, tmp_path / "whole")
    audit_content(ContentConfig(folder=whole))
    for wait_s in (0.3, 0.8, 1.2, 1.6, 2.0, 2.5):
        run = subprocess.Popen([sys.executable, "-c", code, str(built)], start_new_session=True)
        time.sleep(wait_s)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    audit_content(ContentConfig(folder=built))
    names = [TABLE_FILE, DOCUMENT_FILE, *(f"{FOLDER}/{p.name}" for p in (whole / FOLDER).iterdir())]
    assert [(built / n).read_bytes() for n in names] == [(whole / n).read_bytes() for n in names]
    assert not list(built.rglob("*.partial"))


def test_the_table_has_what_a_gallery_shows_first() -> None:
    assert NEAR_DUPLICATES.names[:5] == ["key_a", "key_b", "kind", "views_a", "views_b"]


def test_hashes_of_another_version_are_not_read(compared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = stored.FINGERPRINTS.with_metadata({**stored.FINGERPRINTS.metadata, b"k710.schema_version": b"999"})
    monkeypatch.setattr(stored, "FINGERPRINTS", other)
    assert audit_content(ContentConfig(folder=compared)).made == 6


def test_the_command_prints_it_and_refuses_a_leak(built: Path, invoke: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = invoke("audit", str(built), "--level", "content", "--workers", "1", "--fail-on-leak")
    assert code == 1
    assert "## Clips that look the same" in out
    assert "k710-train and k710-val in 2 pairs" in err
    code, out, _ = invoke("audit", str(built), "--json")
    assert code == 0
    assert json.loads(out)["content"]["pairs"] == 3


def test_lists_have_no_content_to_compare(built: Path, invoke: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = invoke("audit", "--train", "a.csv", "--eval", "b.csv", "--level", "content")
    assert code == 2
    assert "--level content is for a build" in err
