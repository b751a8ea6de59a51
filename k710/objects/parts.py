"""The ledger of a build in an object store, which cannot append: each run writes numbered parts of its own.

Parts have the names of the ledgers of tasks, so that a copy of all objects is a build in a folder. Whoever has the
build alone puts the parts into ``ledger.jsonl``. A kill between that and the removal of the parts must not make their
lines count as newer ones; so it is written before which parts a ledger with which checksum holds.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from k710.clips.ledger import LEDGER_FILE
from k710.errors import FeedError
from k710.objects.objects import Objects

MERGED_FILE = ".merged-ledger.json"
"""Which parts the ledger with which sha256 holds."""
PART_BYTES = 64 << 10
"""A part that has grown to this is followed by another: the last one is written anew with each commit."""

_STEM = LEDGER_FILE.removesuffix(".jsonl")
_PART = re.compile(rf"({_STEM}-.+)-(\d{{6}})\.jsonl")


class LedgerParts:
    """The parts that one run writes."""

    def __init__(self, objects: Objects, who: str) -> None:
        self._objects = objects
        self._stem = f"{_STEM}-{who}-{secrets.token_hex(4)}"
        self._number = 1
        self.names: list[str] = []
        """The parts that this run has written."""
        self._written = b""
        self._waiting = b""

    def note(self, lines: bytes) -> None:
        """Take in lines that the next ``flush`` writes."""
        self._waiting += lines

    def flush(self) -> None:
        """Write what was taken in."""
        if not self._waiting:
            return
        data = self._written + self._waiting
        name = f"{self._stem}-{self._number:06d}.jsonl"
        self._objects.put(name, data)
        if not self._written:
            self.names.append(name)
        self._waiting, self._written = b"", data
        if len(data) > PART_BYTES:
            self._number, self._written = self._number + 1, b""


def parts_in(names: Iterable[str]) -> list[str]:
    """Those of the objects' names that are parts of a ledger, in order of name."""
    return sorted(name for name in names if _PART.fullmatch(name))


def pull_ledgers(objects: Objects, names: Iterable[str], work: Path) -> None:
    """Have the ledger and the parts of all runs in the folder ``work``, those of one run in one file."""
    for old in (work / LEDGER_FILE, *work.glob(f"{_STEM}-*.jsonl")):
        old.unlink(missing_ok=True)
    known = set(names)
    if LEDGER_FILE in known:
        objects.get_files([(LEDGER_FILE, work / LEDGER_FILE)])
    left = parts_in(known)
    if left and MERGED_FILE in known:
        merged = _merged_into(work / LEDGER_FILE, objects.read(MERGED_FILE))
        left = [name for name in left if name not in merged]
    beside = work / ".parts"
    # What a killed run left would be in the way.
    shutil.rmtree(beside, ignore_errors=True)
    objects.get_files([(name, beside / name) for name in left])
    for name in left:
        match = _PART.fullmatch(name)
        assert match is not None
        with (work / f"{match[1]}.jsonl").open("ab") as whole:
            whole.write((beside / name).read_bytes())
        (beside / name).unlink()
    shutil.rmtree(beside, ignore_errors=True)


def put_merged(objects: Objects, parts: Sequence[str], work: Path) -> None:
    """Write the ledger in ``work``, which has the lines of all ``parts``, and remove those."""
    if not parts:
        return
    path = work / LEDGER_FILE
    document = {"ledger_sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "parts": list(parts)}
    objects.put(MERGED_FILE, json.dumps(document, indent=1).encode())
    objects.upload(path, LEDGER_FILE)
    objects.delete(parts)
    objects.delete([MERGED_FILE])


def _merged_into(ledger: Path, document: bytes) -> set[str]:
    try:
        facts = json.loads(document)
        same = ledger.exists() and hashlib.sha256(ledger.read_bytes()).hexdigest() == facts["ledger_sha256"]
        return set(facts["parts"]) if same else set()
    except (ValueError, KeyError, TypeError) as error:
        raise FeedError(f"{MERGED_FILE}: damaged ({error})", hint="remove this object; `k710 build` goes on") from error
