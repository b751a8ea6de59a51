"""What the ledger of a build tells of clips: the file each came from, and why one has no bytes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from k710.clips.ledger import SCHEMA
from k710.lists.manifest import digest
from k710.store import Readable, Store

LEDGER_FILE = "ledger.jsonl"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """The last line of a clip."""

    source: str = ""
    """Name of the file that it is from; empty: there was none."""
    detail: str = ""
    """Why it has no bytes, one line."""


def read_told(store: Store, lock: Mapping[str, Any], keys: Collection[str]) -> dict[str, Told]:
    """What is told of ``keys``; clips without a line, or with none under the lock's encode arguments, are left out.

    Lines that are torn or of another schema are passed over, as the build does.
    """
    if not keys or not store.exists(LEDGER_FILE):
        return {}
    wanted, encode = frozenset(keys), digest(lock["config"]["encode"])
    found: dict[str, Told] = {}
    with store.open(LEDGER_FILE) as stream:
        for line in _lines(stream):
            record = _parsed(line)
            if record.get("key") in wanted and record.get("schema") == SCHEMA and record.get("encode") == encode:
                told = Told(source=str(record.get("source", "")), detail=str(record.get("detail", "")))
                found[record["key"]] = told
    return found


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("key"), str) else {}


def _lines(stream: Readable) -> Iterator[bytes]:
    """The whole lines of a stream."""
    rest = b""
    while data := stream.read(_READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
