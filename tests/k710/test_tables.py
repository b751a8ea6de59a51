"""Tables carry the name and version of their schema, and are refused when it is another."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from k710.errors import FeedError
from k710.tables import named_schema, read_table, write_table

SCHEMA = named_schema("fruit", 1, [pa.field("name", pa.string()), pa.field("kg", pa.float64())])
TABLE = pa.table({"name": ["apple"], "kg": [0.2]})


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    write_table(tmp_path / "t", TABLE, SCHEMA)
    assert read_table(tmp_path / "t", SCHEMA).to_pylist() == [{"name": "apple", "kg": 0.2}]


def test_some_columns_can_be_read(tmp_path: Path) -> None:
    write_table(tmp_path / "t", TABLE, SCHEMA)
    assert read_table(tmp_path / "t", SCHEMA, ["kg"]).column_names == ["kg"]


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    write_table(tmp_path / "a", TABLE, SCHEMA)
    write_table(tmp_path / "b", TABLE, SCHEMA)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_folder_name_with_a_sign_is_no_column(tmp_path: Path) -> None:
    write_table(tmp_path / "run=3" / "t", TABLE, SCHEMA)
    assert read_table(tmp_path / "run=3" / "t", SCHEMA).column_names == ["name", "kg"]


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="t: no such file"):
        read_table(tmp_path / "t", SCHEMA)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all"])
def test_a_damaged_table_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(FeedError, match="t: not a readable parquet file"):
        read_table(tmp_path / "t", SCHEMA)


def test_a_truncated_table_is_named(tmp_path: Path) -> None:
    write_table(tmp_path / "t", TABLE, SCHEMA)
    data = (tmp_path / "t").read_bytes()
    (tmp_path / "t").write_bytes(data[: len(data) // 2])
    with pytest.raises(FeedError, match="t: not a readable parquet file"):
        read_table(tmp_path / "t", SCHEMA)


def test_another_version_is_refused_by_name(tmp_path: Path) -> None:
    write_table(tmp_path / "t", TABLE, named_schema("fruit", 2, list(SCHEMA)))
    with pytest.raises(FeedError, match="schema version is 2, this version reads 1"):
        read_table(tmp_path / "t", SCHEMA)


def test_another_schema_is_refused_by_name(tmp_path: Path) -> None:
    write_table(tmp_path / "t", TABLE, named_schema("vegetables", 1, list(SCHEMA)))
    with pytest.raises(FeedError, match="schema is vegetables, this version reads fruit"):
        read_table(tmp_path / "t", SCHEMA)


def test_a_folder_in_place_of_a_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"cannot be read \(Is a directory\)"):
        read_table(tmp_path, SCHEMA)


def test_a_table_with_changed_bytes_is_named_or_read(tmp_path: Path) -> None:
    big = pa.table({"name": [f"apple {n}" for n in range(500)], "kg": [n / 7 for n in range(500)]})
    write_table(tmp_path / "t", big, SCHEMA)
    data = (tmp_path / "t").read_bytes()
    named = 0
    for place in range(4, len(data) // 2, 7):
        (tmp_path / "t").write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        try:
            read_table(tmp_path / "t", SCHEMA)
        except FeedError as error:
            named += error.message.startswith(f"{tmp_path / 't'}: ")
    assert named > 10
