"""The part of the audit page that is about clips that look the same, in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from browsing import Opened

from k710 import schema
from k710.build import BuildConfig, build
from k710.report.near_duplicates import NEAR_DUPLICATES, ContentAudit
from k710.report.page import audit_page
from k710.report.stored import parsed_audit
from k710.tables import read_table

MARKUP = '"><img src=x onerror=alert(1)>'
SECTION = "section[aria-labelledby=look-alikes]"


def content() -> ContentAudit:
    facts: dict[str, Any] = {
        "kind": "own_train_eval", "views_a": "k400-train,k710-train", "views_b": "k400-val", "frames": 87,
        "offset_s": 1.3, "distance": 12.0, "part": 0.87, "mirrored": True, "rest": 0.1, "found_by": "rest",
        "same_video": False, "same_bytes": False, "group": "", "id_a": "", "id_b": "", "gave_way": False,
    }  # fmt: skip
    rows = [{**facts, "key_a": f"id{i:09d}_000000_000010", "key_b": MARKUP} for i in range(60)]
    document = {
        "statement": f"NOT free of near-duplicates: {MARKUP}",
        "clips": 99, "pairs": 60, "groups": 1, "same_video_pairs": 3, "gave_way_pairs": 0,
        "not_compared": {MARKUP: 3}, "kinds": {"own_train_eval": 60},
        "between": [{"views": ["k400-train", MARKUP], "pairs": 60, "clips": [60, 1], "protected": True}],
        "levels": {"near_duplicate": {"checked": True, "clips": 99, "pairs": 60}},
    }  # fmt: skip
    return ContentAudit(document=document, table=pa.Table.from_pylist(rows, schema=NEAR_DUPLICATES), made=0)


@pytest.fixture(scope="session")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alike")
    train = folder / "annotations" / "kinetics400" / "train.csv"
    train.parent.mkdir(parents=True)
    train.write_text("label,youtube_id,time_start,time_end,split\nyoga,id000000001,0,10,train\n", encoding="utf-8")
    out = folder / "out"
    build(BuildConfig(annotations=folder / "annotations", out=out, manifest_only=True, workers=1))
    audit = parsed_audit((out / "audit.json").read_text(encoding="utf-8"), out)
    page = audit_page(audit, read_table(out / "leaks.parquet", schema.LEAKS), None, content())
    (folder / "page.html").write_text(page, encoding="utf-8")
    return folder / "page.html"


@pytest.mark.parametrize(("scheme", "width_px"), [("light", 1280), ("dark", 400)])
def test_the_section_can_be_read_by_all_and_fits(
    opened: Callable[..., Opened], page_file: Path, scheme: str, width_px: int
) -> None:
    found = opened(page_file, scheme=scheme, width_px=width_px)
    found.page.wait_for_selector("html[data-drawn=yes]")
    assert found.serious_findings(within=SECTION) == []
    assert found.overflow_px() == 0
    assert found.said == []


def test_what_clips_and_views_are_called_is_text_and_pairs_are_searched(
    opened: Callable[..., Opened], page_file: Path
) -> None:
    found = opened(page_file)
    page = found.page
    page.wait_for_selector("html[data-drawn=yes]")
    assert page.locator(f"{SECTION} img").count() == 0
    assert MARKUP in page.locator(f"{SECTION} p").first.inner_text()
    page.locator("#look-alike-pairs-search").fill("id000000059")
    rows = page.locator("#look-alike-pairs tbody tr")
    found.until("document.querySelectorAll('#look-alike-pairs tbody tr').length === 1")
    assert MARKUP in rows.inner_text()
    assert found.said == []
    assert [url for url in found.requests if not url.startswith("data:")] == [page.url]
