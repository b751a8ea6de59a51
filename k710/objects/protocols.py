"""Which object stores can be built to: those whose writes can depend on what is there."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict
from urllib.parse import urlsplit

from k710.errors import UsageError
from k710.objects.objects import Objects
from k710.objects.s3 import S3Objects

GUARDED: dict[str, type[Objects]] = {"s3": S3Objects, "s3a": S3Objects}
"""Protocols with conditional writes that k710 knows, and what speaks them; another is one class and one line."""


def objects_at(url: str, *, unguarded: bool = False) -> Objects:
    """The objects at ``url``.

    Raises:
        UsageError: no URL of an object store, or one that could not keep two builds apart, unless ``unguarded``.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        # Not shown: what stands there may be a secret.
        raise UsageError(
            f"{parts.scheme}:// URL of --out: names a user, a password or a query",
            hint="give scheme, bucket and path only; keys come from the environment or the profile of the store",
        )
    if not parts.netloc:
        raise UsageError(f"{url}: names no bucket", hint="give a URL such as s3://bucket/folder")
    if not parts.path.strip("/"):
        raise UsageError(f"{url}: a whole bucket", hint="give a folder in it, such as s3://bucket/k710")
    if "//" in parts.path.rstrip("/"):
        raise UsageError(
            f"{url}: has an empty name in its path", hint="give a URL with single slashes, such as s3://bucket/k710"
        )
    if unguarded:
        return Objects(url)
    if parts.scheme in GUARDED:
        return GUARDED[parts.scheme](url)
    raise UsageError(
        f"{url}: no conditional writes are known for {parts.scheme}://, so two builds could not be told apart",
        hint=f"use {', '.join(f'{name}://' for name in GUARDED)}, also of other stores that speak it; or mount it and "
        "give a folder; or --unguarded, if you see to it that nothing else writes there",
    )


class Place(TypedDict, total=False):
    """The fields of a configuration that say where a build lies: one of the two."""

    out: Path
    store: str


def place(text: str) -> Place:
    """Where a build lies, from a folder or a URL."""
    return {"store": text.rstrip("/")} if is_url(text) else {"out": Path(text.removeprefix("file://"))}


def is_url(text: str) -> bool:
    """Whether ``text`` is an address rather than a folder of this machine."""
    return "://" in text and not text.startswith("file://")
