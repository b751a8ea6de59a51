"""Where the time goes: ``K710_STAGE_TIMES=1`` makes each stage say on stderr how long it took."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Time what is done inside, in seconds of wall clock."""
    began = time.perf_counter()
    yield
    if os.environ.get("K710_STAGE_TIMES", "") not in ("", "0"):
        print(f"stage {name} {time.perf_counter() - began:.3f}", file=sys.stderr, flush=True)
