"""A gallery beside a takedown, a removal or a stop: in no order of events does it keep what was forgotten."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gallery_cases import TRAIN, key_of

from k710 import atomic
from k710.browse.folder import GUARD_FILE, gallery_kept_away
from k710.browse.gallery import BrowseConfig, Gallery, browse
from k710.browse.sections import Asked
from k710.errors import FeedError, UsageError
from k710.processes import only_writer
from k710.takedown import forget as takedown
from k710.takedown.forget import ForgetConfig, forget

PAGE = "views/k710-train/class-0003-page-0001.html"


def config(build: Path | str, **settings: object) -> BrowseConfig:
    return BrowseConfig(**{"build": str(build), "workers": 1, "budget": 10, **settings})  # type: ignore[arg-type]


def take_down(build: Path) -> None:
    forget(ForgetConfig(ids=(TRAIN,), out=build))


def names_it(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and key_of(TRAIN).encode() in path.read_bytes()]


def test_a_takedown_is_refused_before_anything_while_a_gallery_is_written(odd: Path) -> None:
    before = {path: path.read_bytes() for path in odd.rglob("*") if path.is_file()}

    def halfway(stage: str, done: int, total: int) -> None:
        with pytest.raises(UsageError, match="k710 browse is writing to"):
            take_down(odd)
        assert {path: path.read_bytes() for path in before} == before

    browse(config(odd), halfway)
    assert not (odd / "forgotten.json").exists()
    take_down(odd)
    assert not (odd / "browse").exists()


def test_a_gallery_planned_before_a_takedown_is_not_made_after_it(odd: Path) -> None:
    gallery = Gallery(config(odd))
    take_down(odd)
    with pytest.raises(FeedError, match="has changed"), gallery.held():
        pytest.fail("the build is another")
    assert names_it(odd / "browse") == []


def test_no_gallery_is_begun_during_a_takedown(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried, gallery = [], Gallery(config(odd))

    def also_browses(*args: object) -> None:
        with pytest.raises(UsageError, match="another k710 browse"), gallery.held():
            pytest.fail("the takedown holds it")
        tried.append(True)

    monkeypatch.setattr(takedown, "remove_unfinished", also_browses)
    take_down(odd)
    assert tried
    assert not (odd / "browse").exists()


def test_a_gallery_elsewhere_ends_with_an_error_when_its_build_is_taken_down(odd: Path, tmp_path: Path) -> None:
    def halfway(stage: str, done: int, total: int) -> None:
        if not (odd / "forgotten.json").exists():
            take_down(odd)

    elsewhere = config(odd, out=tmp_path / "gallery", asked=Asked(keys=(key_of(TRAIN),)))
    with pytest.raises(FeedError, match="has changed since it was read"):
        browse(elsewhere, halfway)
    browse(config(odd, out=tmp_path / "gallery"))
    assert names_it(tmp_path / "gallery") == []


def test_a_build_that_is_removed_meanwhile_is_an_error(odd: Path, tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="has been removed since it was read"):
        browse(config(odd, out=tmp_path / "gallery"), lambda *_: shutil.rmtree(odd, ignore_errors=True))


def test_a_build_that_is_written_again_as_it_was_is_no_other(odd: Path) -> None:
    def again(stage: str, done: int, total: int) -> None:
        for name in ("k710.lock.json", "shards.parquet"):
            atomic.write_bytes(odd / name, (odd / name).read_bytes())

    assert browse(config(odd), again).pages > 0


def test_a_takedown_that_was_stopped_has_to_end_before_clips_are_shown(
    odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(*args: object) -> None:
        raise KeyboardInterrupt

    browse(config(odd))
    with monkeypatch.context() as patch:
        patch.setattr(takedown, "write_stored_plan", stops)
        with pytest.raises(KeyboardInterrupt):
            take_down(odd)
    assert not (odd / "browse").exists()
    with pytest.raises(FeedError, match="a takedown was stopped"):
        browse(config(odd))
    take_down(odd)
    browse(config(odd))
    assert names_it(odd / "browse") == []


def test_a_gallery_that_lost_its_mark_is_known_by_its_files(odd: Path) -> None:
    browse(config(odd, asked=Asked(everything=True)))
    (odd / "browse" / "gallery.json").unlink()
    (odd / "browse" / GUARD_FILE).unlink()
    browse(config(odd))
    (odd / "browse" / "gallery.json").unlink()
    take_down(odd)
    assert not (odd / "browse").exists()


@pytest.mark.parametrize("name", ["index.html", "views/a/index.html", "sheets/mine.jpg", "views/mine.html", "x/y", "x"])
def test_files_of_somebody_else_make_no_gallery(odd: Path, name: str) -> None:
    path = odd / "browse" / name
    path.parent.mkdir(parents=True)
    path.write_text("<!doctype html>mine")
    with pytest.raises(UsageError, match="no gallery"):
        browse(config(odd))
    take_down(odd)
    assert path.read_text() == "<!doctype html>mine"
    assert [p for p in (odd / "browse").rglob("*") if p.is_file()] == [path]


def test_a_gallery_behind_a_link_is_not_made_and_one_that_is_there_goes(odd: Path, tmp_path: Path) -> None:
    browse(config(odd))
    (odd / "browse").rename(tmp_path / "far")
    (odd / "browse").symlink_to(tmp_path / "far")
    for out in (None, odd / "browse", tmp_path / "far"):
        with pytest.raises(UsageError, match="is a link"):
            browse(config(odd, out=out))
    take_down(odd)
    assert (odd / "shards.parquet").exists()
    assert not (odd / "browse").is_symlink()
    assert not (tmp_path / "far").exists()


@pytest.mark.parametrize("target", ["", "elsewhere"])
def test_a_link_that_leads_to_no_gallery_stops_no_takedown(odd: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (odd / "browse").symlink_to(tmp_path / (target or "nowhere"))
    take_down(odd)
    assert (odd / "browse").is_symlink()


def test_a_gallery_has_no_links_in_it(odd: Path, tmp_path: Path) -> None:
    browse(config(odd, budget=0))
    (tmp_path / "far").mkdir()
    (odd / "browse" / "sheets").symlink_to(tmp_path / "far")
    with pytest.raises(UsageError, match="sheets: is a link"):
        browse(config(odd))


@pytest.mark.parametrize(
    "place", ["shards/zz", "cache", "views", "", "new/deep", "browse/views", "link", "other/browse"]
)
def test_no_gallery_goes_into_a_build(odd: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "link").symlink_to(odd / "views")
    other = tmp_path / "other"
    other.mkdir()
    (other / "k710.lock.json").write_text("{}")
    out = tmp_path / place if place in ("link", "other/browse") else odd / place
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="belongs to the build"):
        browse(config(odd, out=out))
    assert sorted(tmp_path.rglob("*")) == before


def test_the_own_place_of_a_gallery_may_be_named(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(odd)
    browse(config(odd, out=Path("views/../browse"), budget=0))
    assert (odd / "browse" / "index.html").is_file()


def test_a_run_that_is_stopped_leaves_no_half_of_a_file(odd: Path) -> None:
    def stopped(stage: str, done: int, total: int) -> None:
        (odd / "browse" / "sheets" / "ab").mkdir(parents=True, exist_ok=True)
        (odd / "browse" / "sheets" / "ab" / ".x.jpg.abc.partial").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        browse(config(odd), stopped)
    assert list((odd / "browse").rglob("*.partial")) == []


def test_who_had_opened_the_guard_of_a_removed_gallery_holds_nothing(
    odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browse(config(odd))
    gallery = Gallery(config(odd))
    guard = odd / "browse" / GUARD_FILE

    @contextmanager
    def replaced(path: Path, refusal: str) -> Iterator[None]:
        with only_writer(path, refusal):
            guard.rename(odd / "opened")
            guard.touch()
            yield

    monkeypatch.setattr("k710.browse.folder.only_writer", replaced)
    with pytest.raises(UsageError, match="another k710 browse"), gallery.held():
        pytest.fail("nothing is held")


def test_a_build_without_a_gallery_gets_no_folder_by_a_takedown(odd: Path) -> None:
    with gallery_kept_away(odd):
        assert (odd / "browse" / GUARD_FILE).exists()
    assert not (odd / "browse").exists()


def test_a_build_that_is_read_by_a_url_is_looked_at_once_more_at_the_end(odd: Path, tmp_path: Path) -> None:
    def halfway(stage: str, done: int, total: int) -> None:
        if not (odd / "forgotten.json").exists():
            take_down(odd)

    with pytest.raises(FeedError, match="has changed since it was read"):
        browse(config(f"local://{odd}", out=tmp_path / "gallery"), halfway)
