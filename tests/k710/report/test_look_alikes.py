"""What the page says of clips that look the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
from audit_cases import A, B, Row, built, catalog, views

from k710.lists.leakage import leak_table
from k710.lists.policy import Policy
from k710.report.audit import audit_document
from k710.report.look_alikes import MAX_PAIRS
from k710.report.near_duplicates import CONTENT_AUDIT, DOCUMENT_FILE, NEAR_DUPLICATES, ContentAudit
from k710.report.page import PAGE_FILE, audit_page, write_stored_page

EVIL = '"><img src=x onerror=alert(1)></script><!--'
ROWS: list[Row] = [("k400:train", A, 0, "yoga"), ("k400:val", B, 50, "zumba")]


def pair(number: int = 0, **more: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "key_a": f"{A}_{number:06d}", "key_b": f"{B}_{number:06d}", "kind": "own_train_eval",
        "views_a": "k400-train,k710-train", "views_b": "k400-val", "frames": 87, "offset_s": -1.3, "distance": 12.0,
        "part": 0.87, "mirrored": False, "rest": 0.1, "found_by": "rest", "same_video": False, "same_bytes": False,
        "group": "", "id_a": A, "id_b": B, "gave_way": False,
    }  # fmt: skip
    return facts | more


def content(rows: list[dict[str, Any]], statement: str = "nothing") -> ContentAudit:
    document = {
        "schema": CONTENT_AUDIT,
        "statement": statement,
        "clips": 7,
        "pairs": len(rows),
        "groups": 1,
        "same_video_pairs": 2,
        "gave_way_pairs": sum(row["gave_way"] for row in rows),
        "not_compared": {"no bytes": 3},
        "kinds": {"own_train_eval": len(rows)},
        "between": [{"views": ["k400-train", "k400-val"], "pairs": len(rows), "clips": [1, 1], "protected": True}],
        "levels": {"near_duplicate": {"checked": True, "clips": 7, "pairs": len(rows)}},
    }
    return ContentAudit(document=document, table=pa.Table.from_pylist(rows, schema=NEAR_DUPLICATES), made=0)


def page(found: ContentAudit | None) -> str:
    policy = Policy()
    lists = catalog(ROWS)
    return audit_page(audit_document(lists, views(lists, policy=policy), policy, []), leak_table(lists), None, found)


def test_a_page_tells_how_many_pairs_there_are_where_they_lie_and_which() -> None:
    text = " ".join(page(content([pair()])).split())
    assert '<h2 id="look-alikes">' in text
    assert "training and held-out view of one release" in text
    assert f"{A}_000000" in text
    assert "8.7" in text
    assert "-1.3" in text
    assert re.search(r"<dt>3 clips</dt><dd>no bytes</dd>", text)
    assert "2 more are segments of one video" in text


def test_a_page_without_a_content_audit_says_nothing_of_it() -> None:
    assert "look-alike" not in page(None)


def test_a_pair_with_markup_in_it_is_text() -> None:
    text = page(content([pair(key_a=EVIL, views_a=EVIL, found_by=EVIL)], statement=EVIL))
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text


def test_a_page_lists_the_first_thousand_pairs_and_says_so() -> None:
    text = page(content([pair(number) for number in range(MAX_PAIRS + 5)]))
    assert f"{A}_{MAX_PAIRS - 1:06d}" in text
    assert f"{A}_{MAX_PAIRS:06d}" not in text
    assert "The first 1,000; all are in" in " ".join(text.split())


def test_a_pair_of_which_one_gave_way_is_told_as_such() -> None:
    text = page(content([pair(gave_way=True, mirrored=True)]))
    assert "the same pictures, mirrored, one gave way" in text
    assert "of 1 more one clip gave way" in " ".join(text.split())


def test_a_damaged_content_audit_does_not_keep_a_build_from_its_page(tmp_path: Path) -> None:
    out = built(tmp_path, ROWS)
    (out / DOCUMENT_FILE).write_text("{", encoding="utf-8")
    (out / "shards.parquet").write_bytes(b"")
    (out / PAGE_FILE).unlink(missing_ok=True)
    write_stored_page(out)
    assert "Leak audit" in (out / PAGE_FILE).read_text(encoding="utf-8")
    assert json.loads((out / "audit.json").read_bytes())
