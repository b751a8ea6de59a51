"""Which form a file's content has, whatever it is called; and its reader."""

from __future__ import annotations

from collections.abc import Callable

from k710.lists.dialects.json_entries import read_json
from k710.lists.dialects.official import header, is_official, read_official
from k710.lists.dialects.options import ReadOptions
from k710.lists.dialects.paths import looks_like_paths, read_paths
from k710.lists.dialects.raw import Body, RawRows, body
from k710.lists.dialects.tables import guess_layout, read_guessed, read_named, read_parquet, sample

READERS: dict[str, Callable[[Body, ReadOptions], RawRows]] = {
    "official": read_official,
    "json": read_json,
    "paths": read_paths,
    "table": read_guessed,
    "columns": read_named,
    "parquet": read_parquet,
}


def read_raw(data: bytes, where: str, options: ReadOptions) -> RawRows:
    """The text columns of a list's unpacked bytes.

    Raises:
        InputError: it is empty, not UTF-8, of no known form, or damaged as a whole.
    """
    content = body(data, where)
    return READERS[recognise(content, options)](content, options)


def recognise(content: Body, options: ReadOptions) -> str:
    """Name of the reader for ``content``; of the likeliest one, which will say what is missing, when none fits."""
    if content.data[:4] == b"PAR1":
        return "parquet"
    if content.data.lstrip()[:1] in (b"{", b"["):
        return "json"
    names = header(content)
    # --columns is for the files that need it: beside them, official lists stay what they are.
    if options.columns and not (is_official(names) and not set(options.columns.values()) <= set(names)):
        return "columns"
    if "youtube_id" in names:
        return "official"
    if looks_like_paths(sample(content)):
        return "paths"
    if guess_layout(content) is None and content.where.lower().removesuffix(".gz").endswith(".csv"):
        return "official"
    return "table"
