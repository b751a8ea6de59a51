"""Lists over HTTP into the layout that a build reads, to its end."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from pathlib import Path

import pytest
from web_site import HURRIED, Site

from k710.build import BuildConfig, build
from k710.errors import InputError, SourceError, UsageError
from k710.fetch.annotations import FetchAnnotationsConfig, FetchSummary, fetch_annotations, require_all
from k710.fetch.batch import SoFar, in_parallel
from k710.fetch.client import Client
from k710.fetch.record import held
from k710.synth.plan import SynthConfig
from k710.synth.write import synth

RELEASES = {"k400": ("kinetics400", "400"), "k600": ("kinetics600", "600"), "k700": ("kinetics700", "700_2020")}


class _EnoughError(Exception):
    """The lists are written; the videos are not needed."""


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of the smallest toy Kinetics."""
    folder = tmp_path_factory.mktemp("toy")

    def stop_after_the_lists(done: int, total: int) -> None:
        raise _EnoughError

    with pytest.raises(_EnoughError):
        synth(SynthConfig(num_clips=59, num_classes=4), folder, workers=1, progress=stop_after_the_lists)
    return folder / "annotations"


def columns(csv: bytes) -> bytes:
    """A list without header, its columns in an order of their own: what a build must tell by the cells."""
    rows = [line.split(",") for line in csv.decode().splitlines()[1:]]
    return "".join("\t".join([*row[1:4], row[0]]) + "\n" for row in rows).encode()


@pytest.fixture
def published(site: Site, toy: Path) -> Site:
    """The toy lists as CVDF and DeepMind publish theirs."""
    for folder, number in RELEASES.values():
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for split in ("train", "val", "test"):
                data = (toy / folder / f"{split}.csv").read_bytes()
                name = f"{split}.txt" if (number, split) in {("600", "train"), ("600", "val")} else f"{split}.csv"
                site.put(f"/kinetics/{number}/annotations/{name}", data)
                info = tarfile.TarInfo(f"{folder}/{'validate' if split == 'val' else split}.csv")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        site.put(f"/deepmind-media/Datasets/{folder}.tar.gz", packed.getvalue())
    holdout = b"youtube_id,time_start,time_end,split\nhOLdout-_id,1,11,holdout_test\n"
    site.put("/kinetics/600/annotations/kinetics600_holdout_test.csv", holdout)
    return site


def fetch(site: Site, out: Path, *releases: str, **more: object) -> FetchSummary:
    config = FetchAnnotationsConfig(
        releases=releases or ("k400", "k600", "k700-2020"), out=out, base_url=site.url, patience=HURRIED, **more
    )
    return fetch_annotations(config)


def views(annotations: Path, out: Path) -> dict[str, int]:
    return build(BuildConfig(annotations=annotations, out=out, manifest_only=True, workers=1)).views


def test_a_build_reads_what_was_fetched_from_cvdf(published: Site, toy: Path, out: Path, tmp_path: Path) -> None:
    summary = fetch(published, out)
    assert not summary.failed
    assert summary.lists == (
        *(f"k400:{split}" for split in ("train", "val", "test")),
        *(f"k600:{split}" for split in ("train", "val", "test", "holdout")),
        *(f"k700-2020:{split}" for split in ("train", "val", "test")),
    )
    assert (out / "k600" / "train.txt").read_bytes() == (toy / "kinetics600" / "train.csv").read_bytes()
    fetched, direct = views(out, tmp_path / "fetched"), views(toy, tmp_path / "direct")
    assert fetched["k710-train"] == direct["k710-train"] > 0


def test_a_build_reads_what_was_fetched_from_deepmind(published: Site, toy: Path, out: Path, tmp_path: Path) -> None:
    summary = fetch(published, out, "k400", "k600", "k700", publisher="deepmind")
    assert [outcome.name for outcome in summary.files] == [f"kinetics{n}.tar.gz" for n in (400, 600, 700)]
    assert views(out, tmp_path / "fetched") == views(toy, tmp_path / "direct")


def test_a_text_list_stays_as_it_came_and_is_told_by_its_cells(
    published: Site, toy: Path, out: Path, tmp_path: Path
) -> None:
    pages = [published.pages[f"/kinetics/600/annotations/{split}.txt"] for split in ("train", "val")]
    for page in pages:
        page.data = columns(page.data)
    fetch(published, out)
    assert (out / "k600" / "train.txt").read_bytes() == pages[0].data
    assert views(out, tmp_path / "fetched")["k710-train"] == views(toy, tmp_path / "direct")["k710-train"]


def test_one_list_that_is_missing_does_not_keep_the_others(published: Site, out: Path) -> None:
    del published.pages["/kinetics/600/annotations/val.txt"]
    summary = fetch(published, out)
    assert [(o.name, o.status) for o in summary.failed] == [("k600/val.txt", "not_found")]
    assert summary.lists == ()
    assert (out / "k600" / "train.txt").exists()
    with pytest.raises(SourceError, match=r"1 of 10 files are not there, the first is k600/val\.txt: not_found"):
        require_all(out, summary.files)


def test_the_record_does_not_depend_on_the_order_in_which_files_come(
    published: Site, out: Path, tmp_path: Path
) -> None:
    fetch(published, out, parallel=1)
    fetch(published, tmp_path / "other", parallel=8)
    assert (out / "sources.json").read_bytes() == (tmp_path / "other" / "sources.json").read_bytes()
    assert len(json.loads((out / "sources.json").read_text())["files"]) == 10


def test_two_publishers_in_one_folder_are_said_to_be_too_many(published: Site, out: Path) -> None:
    fetch(published, out, "k400")
    with pytest.raises(InputError, match="second file for k400:test"):
        fetch(published, out, "k400", publisher="deepmind")


def test_two_runs_in_one_folder_are_refused(published: Site, out: Path) -> None:
    with held(out), pytest.raises(UsageError, match="another `k710 fetch` or `k710 build` writes there"):
        fetch(published, out)
    assert not fetch(published, out).failed


def test_a_folder_that_cannot_be_written_is_named(published: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        fetch(published, tmp_path / "file" / "out")


def test_a_record_that_cannot_be_read_stops_it(published: Site, out: Path) -> None:
    (out / "sources.json").write_text('{"schema": "k710.sources/9", "files": {}}')
    with pytest.raises(InputError, match=r"sources\.json: cannot be read \(schema is k710\.sources/9"):
        fetch(published, out)


def test_progress_counts_files_and_bytes(published: Site, out: Path) -> None:
    seen: list[SoFar] = []
    config = FetchAnnotationsConfig(releases=("k400",), out=out, base_url=published.url, patience=HURRIED)
    summary = fetch_annotations(config, seen.append)
    last, size = seen[-1], sum(outcome.size_bytes for outcome in summary.files)
    assert (last.done, last.total, last.done_bytes, last.total_bytes, last.new_bytes) == (3, 3, size, size, size)
    assert "kB of " in last.note()


def test_files_come_in_parallel_but_not_more_than_asked(client: Client) -> None:
    at_once, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(3)

    def work(number: int) -> int:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        together.wait(timeout=20)
        with lock:
            at_once -= 1
        return number

    assert in_parallel(client, range(9), work, 3) == list(range(9))
    assert most == 3


def test_one_that_breaks_ends_the_others(client: Client) -> None:
    def work(number: int) -> None:
        if number == 1:
            raise UsageError("no room")
        client.rest(60, "http://h/")

    began = time.monotonic()
    with pytest.raises(UsageError, match="no room"):
        in_parallel(client, range(9), work, 3)
    assert time.monotonic() - began < 10
