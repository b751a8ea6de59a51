"""Fixtures for all tests: where shared reference data is, and what a missing one means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REQUIRED = os.environ.get("K710_REQUIRE_SHARED", "") not in ("", "0")
"""Set in CI: what is missing there (shared data, ffmpeg, a browser) is a failure, not a skip."""


def missing(reason: str) -> None:
    """Skip the running test for ``reason``, or fail it where nothing may be missing."""
    if REQUIRED:
        pytest.fail(f"{reason} (K710_REQUIRE_SHARED is set)")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data that stands beside the checkout: golden tensors, real annotation files, real clips."""
    folder = Path(os.environ.get("K710_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "golden").is_dir():
        missing(f"no reference data at {folder}; set K710_SHARED to its folder")
    return folder
