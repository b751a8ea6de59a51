"""A page in the browser, with what it said and asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import pytest


def missing(reason: str) -> None:
    """Skip the running test for ``reason``, or fail it where nothing may be missing."""
    if os.environ.get("K710_REQUIRE_SHARED", "") not in ("", "0"):
        pytest.fail(f"{reason} (K710_REQUIRE_SHARED is set)")
    pytest.skip(reason)


@dataclass(kw_only=True, slots=True)
class Opened:
    """A page in the browser."""

    page: Any
    """Playwright's page."""
    said: list[str] = field(default_factory=list)
    """Console messages, uncaught errors and dialogs."""
    requests: list[str] = field(default_factory=list)
    """Addresses that the page asked for, itself among them."""

    def until(self, condition: str) -> None:
        """Wait for a condition in JavaScript; playwright's own waiting would evaluate text, which pages forbid."""
        for _ in range(200):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never true: {condition}")

    def serious_findings(self, *rules: str, within: str | None = None) -> list[str]:
        """What an accessibility check calls serious or critical, with the elements; only these rules, in a selector."""
        from axe_playwright_python.sync_playwright import Axe

        options: dict[str, Any] = {"resultTypes": ["violations"]}
        if rules:
            options["runOnly"] = {"type": "rule", "values": list(rules)}
        found = Axe().run(self.page, context=within, options=options).response["violations"]
        return [
            f"{rule['id']}: {', '.join(node['html'][:120] for node in rule['nodes'][:3])}"
            for rule in found
            if rule["impact"] in ("serious", "critical")
        ]

    def overflow_px(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
