"""The gallery in a browser: silent, offline, all text is text, found and followed by mouse and by keyboard."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gallery_cases import (
    CLASSES,
    IMAGE,
    PLAIN,
    SCRIPT,
    UP,
    WORDS,
    make_build,
    write_near_duplicates,
    write_sources,
)

from k710.browse.folder import claim
from k710.browse.gallery import BrowseConfig, Gallery, browse
from k710.browse.sections import Asked
from k710.browse.serve import GalleryServer

if TYPE_CHECKING:
    from conftest import Opened

    Visits = Callable[..., Opened]

KINDS = {
    "index": "index.html",
    "view": "views/k400-train/index.html",
    "class": "views/k710-train/class-0004-page-0001.html",
    "status": "statuses/missing-page-0001.html",
    "conflicts": "conflicts/index.html",
    "pairs": "conflicts/page-0001.html",
    "near": "near-duplicates/page-0001.html",
}

SCREENS = [(width_px, scheme) for width_px in (400, 1280) for scheme in ("light", "dark")]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of odd names."""
    root = tmp_path_factory.mktemp("browsed")
    write_sources(root)
    out = make_build(root, root / "data")
    write_near_duplicates(out)
    return out


@pytest.fixture(scope="session")
def gallery(built: Path) -> Path:
    """All of its pages, two clips to each."""
    browse(BrowseConfig(build=str(built), asked=Asked(everything=True), per_page=2, workers=2))
    return built / "browse"


@pytest.fixture(scope="session")
def sparse(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One class of one view, and nothing else."""
    out = tmp_path_factory.mktemp("sparse") / "gallery"
    asked = Asked(views=("k710-train",), classes=(PLAIN,))
    browse(BrowseConfig(build=str(built), out=out, asked=asked, per_page=2, workers=1))
    return out


@pytest.fixture
def visited(tab: Opened) -> Visits:
    """Opens a file in the one tab of these tests, which has then said and asked for nothing yet."""

    def visits(path: Path, *, scheme: str = "light", width_px: int = 1280) -> Opened:
        tab.page.emulate_media(media="screen", color_scheme=scheme)
        tab.page.set_viewport_size({"width": width_px, "height": 900})
        tab.page.goto("about:blank")
        tab.said.clear()
        tab.requests.clear()
        tab.page.goto(path.absolute().as_uri())
        return tab

    return visits


@pytest.fixture(scope="session")
def tab(opened: Callable[..., Opened], gallery: Path) -> Opened:
    """A tab."""
    return opened(gallery / "index.html")


def shown_rows(page: Any, table: str) -> list[str]:
    return [str(text) for text in page.locator(f"#{table} tbody tr:not([hidden]) > th").all_inner_texts()]


def drawn_pictures(page: Any) -> int:
    for picture in page.locator("img").all():
        picture.scroll_into_view_if_needed()
    return int(page.evaluate("[...document.images].filter((i) => i.complete && i.naturalWidth > 0).length"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_silent_draws_its_pictures_and_stays_in_its_folder(visited: Visits, gallery: Path, kind: str) -> None:
    found = visited(gallery / KINDS[kind])
    pictures = found.page.locator("img").count()
    assert drawn_pictures(found.page) == pictures
    assert bool(pictures) == (kind in ("class", "pairs", "near"))
    asked = [url for url in found.requests if not url.startswith("data:")]
    assert all(url.startswith(gallery.absolute().as_uri() + "/") for url in asked)
    assert found.said == []


def test_class_names_are_text_wherever_they_stand(visited: Visits, gallery: Path) -> None:
    for index, name in enumerate(CLASSES):
        found = visited(gallery / "views" / "k710-train" / f"class-{index:04d}-page-0001.html")
        assert found.page.locator("h1").inner_text() == f"{name} (k710-train)"
        assert found.page.title().startswith(f"{name} (k710-train)")
        assert found.said == []
    front = visited(gallery / "index.html")
    assert shown_rows(front.page, "classes") == list(CLASSES)
    assert front.said == []


def test_a_class_is_found_and_opened_by_keyboard_alone(visited: Visits, gallery: Path) -> None:
    page = visited(gallery / "index.html").page
    page.locator("#classes-search").focus()
    page.keyboard.type("ONERROR img")
    assert shown_rows(page, "classes") == [IMAGE]
    assert page.locator("[data-filter=classes] .table-count").inner_text() == f"1 of {len(CLASSES)}"
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_url("**/views/*/class-0001-page-0001.html")
    assert page.locator("h1").inner_text().startswith(IMAGE)


def test_a_search_that_finds_nothing_says_so_and_can_be_undone(visited: Visits, gallery: Path) -> None:
    page = visited(gallery / "views" / "k400-train" / "index.html").page
    page.fill("#classes-search", "no such class")
    assert shown_rows(page, "classes") == []
    assert page.locator("[data-filter=classes] .table-count").inner_text() == f"0 of {len(CLASSES)}"
    page.fill("#classes-search", "")
    assert shown_rows(page, "classes") == list(CLASSES)


def test_pages_are_turned_by_mouse_and_by_arrow_keys(visited: Visits, gallery: Path) -> None:
    page = visited(gallery / "views" / "k710-train" / "class-0004-page-0001.html").page
    page.locator(".pager a[rel=next]").first.click()
    page.wait_for_url("**/class-0004-page-0002.html")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**/class-0004-page-0001.html")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/class-0004-page-0002.html")
    page.get_by_role("link", name="k710-train", exact=True).click()
    page.wait_for_url("**/views/k710-train/index.html#class-0004")
    page.get_by_role("link", name="All views").click()
    page.wait_for_url("**/browse/index.html")


def test_arrow_keys_in_a_field_turn_no_page(visited: Visits, gallery: Path) -> None:
    page = visited(gallery / "views" / "k710-train" / "class-0004-page-0001.html").page
    page.locator("#theme").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)
    assert page.url.endswith("class-0004-page-0001.html")


@pytest.mark.parametrize(("number", "label", "clips"), [(1, UP, 2), (2, SCRIPT, 1)])
def test_the_winner_of_a_conflict_stands_beside_the_other_class(
    visited: Visits, gallery: Path, number: int, label: str, clips: int
) -> None:
    page = visited(gallery / "conflicts" / f"page-{number:04d}.html").page
    sides = page.locator(".side")
    assert [side.locator(".label").inner_text() for side in sides.all()] == [label, WORDS]
    assert page.locator(".side.kept .label").inner_text() == WORDS
    left, right = (side.bounding_box() for side in sides.all())
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    assert page.locator("img").count() == clips
    # Of one clip under both classes, of two each under its own.
    assert page.locator(".side img").count() == (0 if clips == 1 else 2)


def test_what_is_not_made_opens_with_the_command_that_makes_it(visited: Visits, sparse: Path, built: Path) -> None:
    page = visited(sparse / "index.html").page
    page.locator("#classes tbody tr").filter(has_text="alert(1)").locator("a").first.click()
    page.wait_for_url("**/index.html#class-0000")
    command = page.locator("#class-0000 code.command")
    assert command.is_visible()
    assert command.inner_text().startswith(f"k710 browse {built} --out={sparse} --per-page=2 --view=k400-train")
    visited(sparse / "views" / "k710-train" / "class-0004-page-0001.html")
    assert page.locator(".pager a").count() > 0


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_an_automated_check_finds_nothing_serious(visited: Visits, gallery: Path, kind: str, scheme: str) -> None:
    assert visited(gallery / KINDS[kind], scheme=scheme).serious_findings() == []


def test_what_is_not_made_is_accessible_too(visited: Visits, sparse: Path) -> None:
    found = visited(sparse / "views" / "k400-train" / "index.html")
    assert found.page.locator("details").count() > len(CLASSES)
    found.page.locator("td details summary").first.click()
    assert found.serious_findings() == []


@pytest.mark.parametrize(
    ("width_px", "scheme"),
    [
        (400, "light"),
        *(pytest.param(*screen, marks=pytest.mark.slow) for screen in SCREENS if screen != (400, "light")),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_no_page_is_wider_than_its_window(
    visited: Visits, gallery: Path, tmp_path: Path, kind: str, width_px: int, scheme: str
) -> None:
    found = visited(gallery / KINDS[kind], scheme=scheme, width_px=width_px)
    assert found.overflow_px() == 0
    folder = Path(os.environ.get("K710_SCREENSHOTS", tmp_path))
    found.page.screenshot(path=folder / f"browse-{kind}-{scheme}-{width_px}.png", full_page=True)


def test_a_printed_page_has_its_clips_and_nothing_to_click(visited: Visits, gallery: Path) -> None:
    page = visited(gallery / KINDS["class"]).page
    page.emulate_media(media="print")
    assert page.locator(".clip").first.is_visible()
    assert not page.locator(".pager").first.is_visible()
    assert not page.locator("#theme").is_visible()


def test_a_served_gallery_draws_its_pictures_too(browser: Any, built: Path, tmp_path: Path) -> None:
    claim(tmp_path)
    config = BrowseConfig(build=str(built), out=tmp_path, per_page=2, workers=1)
    with GalleryServer(Gallery(config), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        context = browser.new_context()
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(server.address)
        page.locator("#classes tbody tr").filter(has_text=PLAIN).locator("a").first.click()
        page.wait_for_url("**/class-0004-page-0001.html")
        assert drawn_pictures(page) == page.locator("img").count() > 0
        assert said == []
        context.close()
        server.shutdown()
        thread.join()
