"""Arrow tables on disk: parquet files that carry the name and version of their schema."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from k710 import atomic
from k710.errors import FeedError, UsageError

NAME_KEY = b"k710.schema"
VERSION_KEY = b"k710.schema_version"


compute: Any = pyarrow.compute
"""Arrow's functions on columns; their stubs do not know that scalars, arrays and numbers may be mixed."""


def picked(values: pa.Array[Any], positions: npt.NDArray[Any]) -> pa.Array[Any]:
    """The values at ``positions``; null where a position is negative."""
    return values.take(pa.array(positions, mask=positions < 0, type=pa.int64()))


def named_schema(name: str, version: int, fields: list[pa.Field[Any]]) -> pa.Schema:
    """An arrow schema that carries ``name`` and ``version`` in its metadata."""
    return pa.schema(fields, metadata={NAME_KEY: name.encode(), VERSION_KEY: str(version).encode()})


def write_table(path: Path, table: pa.Table, schema: pa.Schema) -> None:
    """Replace ``path`` with ``table`` in the form of ``schema``; equal tables give equal bytes."""
    with atomic.replacing(path) as partial:
        pq.write_table(table.cast(schema).replace_schema_metadata(schema.metadata), partial, compression="zstd")


def table_bytes(table: pa.Table, schema: pa.Schema) -> bytes:
    """What ``write_table`` writes."""
    buffer = io.BytesIO()
    pq.write_table(table.cast(schema).replace_schema_metadata(schema.metadata), buffer, compression="zstd")
    return buffer.getvalue()


def read_table(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """The table at ``path``, checked to be of ``schema``'s name and version.

    Raises:
        FeedError: the file is missing, unreadable, of another schema or of a version that is not read here.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FeedError(f"{path}: no such file", hint="is this the folder that `k710 build --out` wrote?") from error
    except OSError as error:
        raise FeedError(
            f"{path}: cannot be read ({error.strerror or error})", hint="check the path and the rights to it"
        ) from error
    return table_from_bytes(data, schema, columns, where=str(path))


def require_replaceable_table(path: Path, flag: str, schema: pa.Schema, *, what: str) -> None:
    """Refuse a ``path`` of a user's ``flag`` where there is something else than a table of ``schema``, parquet or CSV.

    Raises:
        UsageError: there is.
    """
    is_parquet = path.suffix.lower() == ".parquet"
    begins = b"PAR1" if is_parquet else ",".join(f'"{name}"' for name in schema.names).encode()
    atomic.require_replaceable(path, flag, begins=begins, what=what)
    if is_parquet and path.exists():
        try:
            read_table(path, schema, [])
        except FeedError as error:
            raise UsageError(f"{flag} {path}: exists and is not {what}", hint=f"give another {flag}") from error


def table_from_bytes(data: bytes, schema: pa.Schema, columns: list[str] | None = None, *, where: str) -> pa.Table:
    """The parquet table in ``data``, checked as in ``read_table``; ``where`` names it in errors."""
    try:
        # A buffer, not a path: pyarrow would otherwise read folder names such as ``a=b`` as columns.
        file = pq.ParquetFile(pa.BufferReader(data))
        found = file.schema_arrow.metadata or {}
    except (pa.ArrowInvalid, OSError) as error:
        raise FeedError(f"{where}: not a readable parquet file ({error})", hint="run `k710 build` again") from error
    wanted = schema.metadata
    for what, key in (("schema", NAME_KEY), ("schema version", VERSION_KEY)):
        if found.get(key) != wanted[key]:
            seen = found.get(key, b"none").decode()
            raise FeedError(
                f"{where}: {what} is {seen}, this version reads {wanted[key].decode()}", hint="build it again"
            )
    try:
        # On this thread: arrow's pool, barely started when a short command ends, was seen to abort the process at exit.
        return file.read(columns=columns, use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise FeedError(f"{where}: damaged ({error})", hint="run `k710 build` again") from error
