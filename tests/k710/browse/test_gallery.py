"""A gallery: who stands on which page, what is made and kept, and what odd builds do to it."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from full_disk import full_disk
from gallery_cases import CLASSES, DASHED, IMAGE, LOST, PLAIN, SCRIPT, TRAIN, UP, WORDS, key_of, make_build

from k710.browse import sheets
from k710.browse.folder import GUARD_FILE, gallery_kept_away, remove_gallery
from k710.browse.gallery import BrowseConfig, BrowseSummary, Gallery, browse
from k710.browse.pool import Pool
from k710.browse.sections import Asked, Sections, file_name, plan_sections
from k710.clips.encodings import EncodeConfig
from k710.errors import FeedError, UsageError
from k710.processes import only_writer
from k710.shards.executors.local import WorkerDied
from k710.takedown.forget import ForgetConfig, forget


class Seen(HTMLParser):
    """What a reader of HTML sees: links, names of elements, text of clips."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: Counter[str] = Counter()
        self.headings: list[str] = []
        self._open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.tags[tag] += 1
        self._open.append(tag)
        self.links += [str(facts[name]) for name in ("href", "src") if name in facts]
        self.ids += [str(facts["id"])] if "id" in facts else []

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._open):
            self.text += data
        if self._open[-1:] == ["h1"]:
            self.headings.append(data)


def seen(path: Path) -> Seen:
    return Seen(path.read_text(encoding="utf-8"))


def files(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def dead_links(out: Path) -> list[str]:
    """Links that lead to no file, or to no element of one."""
    pages = {path: seen(path) for path in out.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            target, _, name = link.partition("#")
            if link.startswith("data:"):
                continue
            found = (path.parent / unquote(target)).resolve() if target else path
            is_there = found.is_file() and found.is_relative_to(out.resolve())
            if not is_there or (name and unquote(name) not in pages[found].ids):
                dead.append(f"{path.name}: {link}")
    return dead


def run(build: Path, asked: Asked | None = None, **settings: object) -> BrowseSummary:
    config = {"build": str(build), "workers": 1, "asked": asked or Asked(), **settings}
    return browse(BrowseConfig(**config))  # type: ignore[arg-type]


def removed(build: Path) -> bool:
    with gallery_kept_away(build):
        return remove_gallery(build)


def tiles(out: Path) -> Iterator[tuple[str, str]]:
    """Each page of a class with each clip on it."""
    for path in sorted(out.glob("views/*/class-*.html")):
        for name in seen(path).ids:
            if re.fullmatch(r".+_[0-9]{6}_[0-9]{6}", name):
                yield path.relative_to(out / "views").as_posix(), name


def test_every_clip_stands_once_in_its_class_of_each_of_its_views(odd_build: Path, whole: Path) -> None:
    found = Counter((page.partition("-page-")[0], key) for page, key in tiles(whole))
    rows = Pool(str(odd_build)).table.select(["key", "views", "view_classes"]).to_pylist()
    wanted = Counter(
        (f"{view}/class-{index:04d}", row["key"])
        for row in rows
        for view, index in zip(row["views"], row["view_classes"], strict=True)
    )
    assert found == wanted
    assert all(count == 1 for count in found.values())


def test_no_page_holds_more_clips_than_it_may(whole: Path) -> None:
    assert set(Counter(page for page, _ in tiles(whole)).values()) == {1, 2}


@pytest.mark.parametrize("per_page", [1, 3, 60])
def test_pages_of_any_size_share_the_clips_among_them(odd_build: Path, per_page: int) -> None:
    sections = plan_sections(Pool(str(odd_build)), per_page)
    for section in sections:
        items = [item for page in section.pages for item in range(section.items)[page.items]]
        assert items == list(range(section.items))
        assert all(sections.page_at(page.path) == page for page in section.pages)


def test_a_page_shows_labels_source_and_notes_of_a_clip(whole: Path) -> None:
    text = seen(whole / "views" / "k710-train" / "class-0003-page-0001.html").text
    assert f"k400:train {SCRIPT}" in text
    assert f"k600:train {WORDS}" in text
    assert f"{key_of(TRAIN)}.mp4" in text
    assert "96x64, 10 frames, 10 fps, h264" in text


def test_a_clip_without_bytes_is_a_tile_with_its_status(whole: Path) -> None:
    for page in ("views/k400-train/class-0004-page-0001.html", "statuses/missing-page-0001.html"):
        found = seen(whole / page)
        assert key_of(LOST) in found.ids
        assert "no file is named after it" in found.text


def test_class_names_are_text(whole: Path) -> None:
    for path in whole.rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        assert SCRIPT not in html
        assert IMAGE not in html
    titles = {seen(path).headings[0] for path in whole.glob("views/k710-train/class-*.html")}
    assert titles == {f"{name} (k710-train)" for name in CLASSES}


def test_files_have_names_that_every_disk_takes(whole: Path) -> None:
    names = list(files(whole))
    assert len({name.lower() for name in names}) == len(names)
    assert [n for n in names if not re.fullmatch(r"[a-z0-9.-]+(/[a-z0-9.-]+)*", n) or ".." in n] == []


@pytest.mark.parametrize("name", ["..", "a/b", "K400-train", "a..b", "a.", "犬", "x-a", "-a", "a b", ""])
def test_a_name_that_is_not_safe_is_replaced_by_its_hash(name: str) -> None:
    assert re.fullmatch(r"x-[0-9a-f]{16}", file_name(name))


def test_no_link_is_dead_when_everything_is_made(whole: Path) -> None:
    assert len(list(whole.rglob("*.html"))) > 20
    assert dead_links(whole) == []


@pytest.mark.parametrize("budget", [0, 1, 5, 11])
def test_no_link_is_dead_when_little_is_made(odd: Path, budget: int) -> None:
    summary = run(odd, budget=budget, per_page=2)
    assert summary.pages < summary.planned
    assert dead_links(odd / "browse") == []


def test_the_first_run_makes_no_more_clips_than_its_budget(odd_build: Path) -> None:
    sections = plan_sections(Pool(str(odd_build)), 2)
    for budget in range(40):
        pages = sections.within(budget)
        assert len(set(pages)) == len(pages)
        assert sum(page.items.stop - page.items.start for page in pages) <= budget


def test_a_page_that_is_not_made_is_named_with_the_command_that_makes_it(odd: Path) -> None:
    run(odd, budget=0)
    html = seen(odd / "browse" / "views" / "k400-train" / "index.html").text
    assert f"k710 browse {odd} --view=k400-train '--class={SCRIPT}'" in html
    assert f"k710 browse {odd} --view=k400-train --class={DASHED}" in html


@pytest.mark.parametrize("name", [UP, WORDS, DASHED])
def test_a_class_is_made_by_its_name_whatever_it_is(odd: Path, name: str) -> None:
    index = CLASSES.index(name)
    run(odd, Asked(classes=(name,), views=("k710-train",)))
    made = [path.name for path in (odd / "browse").glob("views/*/class-*.html")]
    assert made == [f"class-{index:04d}-page-0001.html"]
    assert dead_links(odd / "browse") == []


def test_a_clip_is_found_by_its_key(odd: Path) -> None:
    summary = run(odd, Asked(keys=(key_of(TRAIN),)), per_page=1)
    assert {path.parent.name for path in summary.asked} == {"k400-train", "k600-train", "k710-train"}
    assert all(key_of(TRAIN) in seen(path).ids for path in summary.asked)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(views=("k700-val",)), "view 'k700-val' is not in the build"),
        (Asked(classes=("abseilin",)), "unknown class 'abseilin'"),
        (Asked(classes=("none",)), "no clips of class 'none'"),
        (Asked(classes=(SCRIPT,), views=("k400-val",)), "no clips of class"),
        (Asked(statuses=("corrupt",)), "no clips of status 'corrupt'"),
        (Asked(keys=("-nothing",)), "clip '-nothing' is not planned"),
    ],
)
def test_what_is_not_in_the_build_is_refused_before_anything_is_written(odd: Path, asked: Asked, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        run(odd, asked)
    assert caught.value.hint
    assert not (odd / "browse").exists()


def test_a_second_run_writes_and_draws_nothing(odd: Path) -> None:
    run(odd)
    before = {p: p.stat().st_mtime_ns for p in (odd / "browse").rglob("*.html")}
    again = run(odd)
    assert (again.written, again.sheets) == (0, 0)
    assert {p: p.stat().st_mtime_ns for p in (odd / "browse").rglob("*.html")} == before


def test_pages_that_are_made_step_by_step_are_those_that_are_made_at_once(odd: Path) -> None:
    run(odd, Asked(everything=True), per_page=2)
    once = files(odd / "browse")
    shutil.rmtree(odd / "browse")
    for asked in (Asked(conflicts=True), Asked(classes=(PLAIN,), keys=(key_of(TRAIN),)), Asked(everything=True)):
        run(odd, asked, per_page=2)
        assert dead_links(odd / "browse") == []
    assert files(odd / "browse") == once


def test_what_was_made_stays_when_something_else_is_asked_for(odd: Path) -> None:
    first = run(odd, Asked(views=("k400-val",)))
    second = run(odd, Asked(classes=(UP,), views=("k400-train",)))
    assert second.pages == first.pages + 1
    assert second.written == 1


@pytest.mark.slow
def test_another_size_of_pages_leaves_none_of_the_old_ones(odd: Path) -> None:
    run(odd, Asked(everything=True), per_page=1)
    summary = run(odd, Asked(everything=True), per_page=60)
    assert summary.pages == summary.planned == len(list((odd / "browse").rglob("*page-*.html")))
    assert summary.sheets == 0


def test_a_sheet_that_is_lost_or_damaged_is_drawn_again(odd: Path) -> None:
    run(odd)
    before = files(odd / "browse")
    lost, damaged = sorted((odd / "browse" / "sheets").rglob("*.jpg"))[:2]
    lost.unlink()
    damaged.write_bytes(b"")
    assert run(odd).sheets == 2
    assert files(odd / "browse") == before


def test_a_forgotten_video_leaves_no_picture_and_no_name(odd: Path) -> None:
    run(odd)
    before = len(list((odd / "browse" / "sheets").rglob("*.jpg")))
    forget(ForgetConfig(ids=(TRAIN,), out=odd))
    run(odd)
    assert len(list((odd / "browse" / "sheets").rglob("*.jpg"))) == before - 1
    assert not any(TRAIN.encode() in data for name, data in files(odd / "browse").items() if name.endswith(".html"))
    assert dead_links(odd / "browse") == []


def test_a_clip_whose_bytes_are_damaged_is_a_tile_that_says_so_until_they_are_restored(odd: Path) -> None:
    pool = Pool(str(odd))
    where = next(pool.bytes_at(pool.members.by_key[:1]))
    assert where is not None
    shard = odd / where.file
    whole = shard.read_bytes()
    shard.write_bytes(whole[: where.offset + 100] + b"damage" + whole[where.offset + 106 :])
    summary = run(odd)
    assert list(summary.not_drawn) == [key_of(TRAIN)]
    assert "sha256" in summary.not_drawn[key_of(TRAIN)]
    page = odd / "browse" / "views" / "k710-train" / "class-0003-page-0001.html"
    assert "not those that the index was written for" in seen(page).text
    shard.write_bytes(whole)
    again = run(odd)
    assert (again.sheets, again.not_drawn) == (1, {})
    assert "no picture" not in seen(page).text


def test_a_page_without_a_picture_is_made_again_when_another_run_has_drawn_it(odd: Path) -> None:
    moved = odd / "away"
    (odd / "shards").rename(moved)
    run(odd)
    moved.rename(odd / "shards")
    gallery = Gallery(BrowseConfig(build=str(odd), workers=1))
    for page in gallery.wanted(Asked(everything=True)):
        gallery.draw(page)
    summary = run(odd)
    assert (summary.sheets, summary.not_drawn) == (0, {})
    assert "no picture" not in seen(odd / "browse" / "views" / "k710-train" / "class-0003-page-0001.html").text


def test_a_shard_that_is_gone_is_said_on_every_tile_of_it(odd: Path) -> None:
    shutil.rmtree(odd / "shards")
    summary = run(odd)
    assert len(summary.not_drawn) == Pool(str(odd)).is_ok.sum()
    assert all("no such file" in reason for reason in summary.not_drawn.values())


def test_a_clip_that_kills_its_decoder_is_a_tile(odd: Path, in_process: pytest.MonkeyPatch) -> None:
    def dies(function: Callable[..., object], tasks: object, *, workers: int) -> Iterator[list[object]]:
        for task in tasks:  # type: ignore[attr-defined]
            yield [(task, WorkerDied(exit_code=-11))]

    with in_process.context() as patch:
        patch.setitem(sheets.EXECUTORS, "local", dies)  # type: ignore[arg-type]
        summary = run(odd)
    assert "the process that decoded it died (exit code -11)" in set(summary.not_drawn.values())
    assert run(odd).not_drawn == {}


def test_files_that_are_indexed_in_place_are_shown(sources: Path, tmp_path: Path) -> None:
    build = make_build(sources, tmp_path / "data", encode=EncodeConfig(encode="none"))
    summary = run(build)
    assert summary.sheets == Pool(str(build)).is_ok.sum() > 10
    assert summary.not_drawn == {}


def test_a_build_of_lists_alone_shows_what_is_planned(sources: Path, tmp_path: Path) -> None:
    build = make_build(sources, tmp_path / "data", manifest_only=True)
    summary = run(build)
    assert summary.sheets == 0
    assert "its bytes have not been made yet" in seen(build / "browse/views/k400-val/class-0004-page-0001.html").text
    assert dead_links(build / "browse") == []


def test_a_build_elsewhere_is_read_through_its_protocol(odd: Path, tmp_path: Path) -> None:
    here = run(odd, Asked(everything=True), out=tmp_path / "here")
    there = browse(
        BrowseConfig(build=f"local://{odd}", out=tmp_path / "there", asked=Asked(everything=True), workers=1)
    )
    assert (there.pages, there.sheets, there.not_drawn) == (here.pages, here.sheets, {})
    assert [n for n in files(tmp_path / "there") if "sheets/" in n] == [
        n for n in files(tmp_path / "here") if "sheets/" in n
    ]


def test_a_build_elsewhere_needs_a_folder_for_its_gallery(odd: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written there") as caught:
        browse(BrowseConfig(build=f"local://{odd}"))
    assert "--out" in caught.value.hint


def test_a_folder_that_holds_something_else_is_left_alone(odd: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.html").write_text("mine")
    with pytest.raises(UsageError, match="no gallery"):
        run(odd, out=tmp_path / "mine")
    assert files(tmp_path / "mine") == {"thesis.html": b"mine"}


def test_a_gallery_is_removed_whole_and_nothing_else_is(odd: Path) -> None:
    before = set(files(odd))
    assert not removed(odd)
    run(odd, Asked(conflicts=True))
    assert removed(odd)
    assert set(files(odd)) == before
    (odd / "browse").mkdir()
    (odd / "browse" / "mine.txt").write_text("mine")
    assert not removed(odd)
    assert files(odd / "browse") == {"mine.txt": b"mine"}


def test_a_removal_that_breaks_off_is_finished_by_the_next(odd: Path, in_process: pytest.MonkeyPatch) -> None:
    before = set(files(odd))
    run(odd, budget=0)
    real = shutil.rmtree

    def breaks(path: Path) -> None:
        if path.name == "views":
            raise KeyboardInterrupt
        real(path)

    with in_process.context() as patch:
        patch.setattr(shutil, "rmtree", breaks)
        with pytest.raises(KeyboardInterrupt):
            removed(odd)
    assert removed(odd)
    assert set(files(odd)) == before


@pytest.mark.parametrize("out", ["s3://bucket/gallery", "https://example.org/gallery"])
def test_a_gallery_is_written_to_no_address(odd: Path, out: str) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        run(odd, out=Path(out))


def test_a_full_disk_is_said_and_the_next_run_goes_on(odd: Path) -> None:
    with full_disk(9_000), pytest.raises(UsageError, match="cannot be written"):
        run(odd)
    run(odd)
    assert dead_links(odd / "browse") == []
    assert list((odd / "browse").rglob("*.partial")) == []


def test_what_a_killed_run_was_writing_is_cleared_away(odd: Path) -> None:
    run(odd)
    before = set(files(odd / "browse"))
    for place in ("", "views/k400-val/", "statuses/", "sheets/ab/"):
        (odd / "browse" / place).mkdir(exist_ok=True)
        (odd / "browse" / f"{place}.page.html.abc.partial").write_text("half")
    run(odd)
    assert set(files(odd / "browse")) == before


def test_a_run_that_was_killed_at_its_very_first_file_is_gone_on_with(odd: Path) -> None:
    (odd / "browse").mkdir()
    (odd / "browse" / ".gallery.json.abc.partial").write_text("{")
    run(odd, budget=0)
    assert list((odd / "browse").glob(".*.partial")) == []


def test_two_runs_do_not_write_to_one_gallery(odd: Path) -> None:
    with only_writer(odd / "browse" / GUARD_FILE, "held"), pytest.raises(UsageError, match="another k710 browse"):
        run(odd)


def test_a_build_that_looks_like_an_option_is_named_as_a_folder(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd.rename(odd.parent / "--all")
    monkeypatch.chdir(odd.parent)
    browse(BrowseConfig(build="--all", budget=0, workers=1))
    assert "k710 browse ./--all" in seen(odd.parent / "--all" / "browse" / "index.html").text


def test_no_build_is_named(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"k710\.lock\.json: no such file"):
        run(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_conflicts_are_those_of_the_audit_with_the_winner_marked(odd_build: Path, whole: Path) -> None:
    audit = json.loads((odd_build / "audit.json").read_bytes())["conflicts"]
    sections = plan_sections(Pool(str(odd_build)), 60)
    found = [{"label": k.label, "winner": k.winner, "rows": k.rows} for k in sections.kinds]
    assert (sections.conflicts.items, found) == (audit["rows"], audit["pairs"])
    assert {(kind["label"], kind["winner"]) for kind in found} == {(SCRIPT, WORDS), (UP, WORDS)}
    pages = [" ".join(seen(path).text.split()) for path in sorted(whole.glob("conflicts/page-*.html"))]
    for label, what in ((SCRIPT, "one clip, two classes"), (UP, "two segments of one video")):
        text = next(text for text in pages if f"gave way {label}" in text)
        assert f"kept {WORDS}" in text
        assert what in text


def test_near_duplicates_stand_side_by_side_with_their_score(whole: Path) -> None:
    text = seen(whole / "near-duplicates" / "page-0001.html").text
    assert "score: 0.9877" in text
    assert seen(whole / "near-duplicates" / "page-0001.html").tags["img"] == 2
    assert "no view of this build lists the clip" in seen(whole / "near-duplicates" / "page-0002.html").text


def test_without_a_table_of_near_duplicates_the_index_says_so(odd: Path) -> None:
    (odd / "near_duplicates.parquet").unlink()
    with pytest.raises(UsageError, match=r"no near_duplicates\.parquet"):
        run(odd, Asked(near_duplicates=True))
    run(odd, budget=0)
    assert "the build does not say" in seen(odd / "browse" / "index.html").text


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (b"no parquet", "not a readable parquet file"),
        (pa.table({"key_a": ["a"]}), "no column key_b"),
        (pa.table({"key_a": ["a"], "key_b": [7]}), "column key_b holds int64"),
        (pa.table({"key_a": ["a", None], "key_b": ["a", "b"]}), "column key_a has empty rows"),
    ],
)
def test_a_table_of_near_duplicates_that_is_none_is_refused(odd: Path, table: bytes | pa.Table, said: str) -> None:
    path = odd / "near_duplicates.parquet"
    if isinstance(table, bytes):
        path.write_bytes(table)
    else:
        pq.write_table(table, path)
    with pytest.raises(FeedError, match=said):
        run(odd)


def test_a_status_of_the_ledger_comes_with_its_reason(odd: Path) -> None:
    ledger = odd / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    line = next(line for line in lines if line["key"] == key_of(LOST))
    ledger.write_text(ledger.read_text() + json.dumps(line | {"detail": "<b>gone</b>"}) + "\n" + '{"key": "torn')
    run(odd)
    assert "<b>gone</b>" in seen(odd / "browse" / "statuses" / "missing-page-0001.html").text


def test_names_that_are_not_utf8_are_spelled_out(odd: Path) -> None:
    ledger = odd / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    ledger.write_text("".join(json.dumps(line | {"source": "\udcff.mp4"}) + "\n" for line in lines))
    run(odd)
    assert "\\udcff.mp4" in seen(odd / "browse" / "views" / "k710-train" / "class-0003-page-0001.html").text


def test_an_index_of_another_manifest_is_refused(odd: Path) -> None:
    table = pq.read_table(odd / "manifest.parquet")
    pq.write_table(table.take(list(range(len(table)))[::-1]), odd / "manifest.parquet")
    with pytest.raises(FeedError, match="not the index of the manifest"):
        run(odd)


def test_sections_are_found_by_no_other_path(odd_build: Path) -> None:
    sections: Sections = plan_sections(Pool(str(odd_build)), 2)
    first = next(next(iter(sections)).pages).path
    assert sections.page_at(first) is not None
    for path in (f"/{first}", f"../{first}", first.replace("0001.html", "1.html"), first.replace("0001", "9999"), ""):
        assert sections.page_at(path) is None
