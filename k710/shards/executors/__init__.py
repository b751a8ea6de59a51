"""Ways to run many independent tasks: one module an executor, and the dict that names them."""

from __future__ import annotations

from k710.shards.executors.local import run_batches

EXECUTORS = {"local": run_batches}
"""Executors by name; another is one module and one line."""
