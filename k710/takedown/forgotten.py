"""The videos that a build has forgotten for good: hashes in a file of the build, honoured by every later plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from k710 import atomic
from k710.errors import FeedError, UsageError
from k710.segments import id_hash, is_youtube_id

FORGOTTEN_FILE = "forgotten.json"
SCHEMA = "k710.forgotten/1"

_FORM = "an id is 11 characters of A-Za-z0-9_-; one that begins with - stands behind a lone --, or in a file for --ids"


def read_forgotten(out: Path) -> tuple[int, ...]:
    """Hashes of the videos that the build in ``out`` has forgotten, ascending; none where nothing was.

    Raises:
        FeedError: the file is there and is not of this form: a takedown must not be lost silently.
    """
    path = out / FORGOTTEN_FILE
    try:
        document = json.loads(path.read_bytes())
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']}, this version reads {SCHEMA}")
        return tuple(sorted({int(text, 16) for text in document["id_hashes"]}))
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as error:
        raise FeedError(
            f"{path}: not a list of forgotten videos ({error})", hint="restore it: videos that it names must stay out"
        ) from error


def write_forgotten(out: Path, hashes: Iterable[int]) -> None:
    """Replace the list of the build in ``out``."""
    atomic.write_json(out / FORGOTTEN_FILE, {"schema": SCHEMA, "id_hashes": [f"{h:016x}" for h in sorted(set(hashes))]})


def summed(videos: Iterable[int | str]) -> dict[str, Any]:
    """What a lock says of videos that somebody wants gone: how many, and the sha256 over their ids or hashes."""
    texts = [str(video) for video in sorted(set(videos))]
    data = json.dumps(texts, separators=(",", ":")).encode()
    return {"count": len(texts), "sha256": hashlib.sha256(data).hexdigest() if texts else None}


def read_ids(source: Path | TextIO) -> list[str]:
    """The ids in a file or an open text, one a line; empty lines and space around an id do not count.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        text = source.read_text(encoding="utf-8-sig") if isinstance(source, Path) else source.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{source}: cannot be read ({error})", hint="--ids takes a text file, one id a line"
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def hashes_of(ids: Sequence[str], kinds: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The hashes of each id, once: one for every kind of the build's lists that it may be of.

    Raises:
        UsageError: there is no id, or one has not the form of any of ``kinds``.
    """
    kinds = sorted({"youtube", *kinds})
    if not ids:
        raise UsageError("no video named", hint="give its id: k710 forget ID, or --ids FILE with one id a line")
    strange = [i for i in ids if kinds == ["youtube"] and not is_youtube_id(i)]
    if strange:
        more = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
        raise UsageError(f"{strange[0]!r} is not a YouTube id{more}", hint=_FORM)
    return {i: tuple(id_hash(i, k) for k in kinds if k != "youtube" or is_youtube_id(i)) for i in dict.fromkeys(ids)}
