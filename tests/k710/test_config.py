"""Plain settings to dataclasses, and what is said of those that do not fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from k710.config import differences, from_mapping, load_releases, read_toml, to_mapping, with_overrides
from k710.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    rate: float = 0.5
    size: tuple[int, int] = (1, 2)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"rate must not be negative, got {self.rate}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    name: str
    folder: Path = Path("x")
    kind: Literal["a", "b"] = "a"
    flag: bool = False
    count: int | None = None
    words: tuple[str, ...] = ()
    inner: Inner = Inner()


def test_values_are_converted_to_their_fields() -> None:
    values = {
        "name": "n",
        "folder": "y",
        "kind": "b",
        "count": 3,
        "words": ["p", "q"],
        "inner": {"rate": 1, "size": [3, 4]},
    }
    assert from_mapping(Outer, values) == Outer(
        name="n", folder=Path("y"), kind="b", count=3, words=("p", "q"), inner=Inner(rate=1.0, size=(3, 4))
    )


def test_a_dataclass_goes_to_plain_values_and_back() -> None:
    value = Outer(name="n", words=("p",), inner=Inner(size=(5, 6)))
    assert from_mapping(Outer, to_mapping(value)) == value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "here: setting 'name' is missing"),
        ({"name": "n", "nam": 1}, "here: unknown setting 'nam'"),
        ({"name": 3}, "here.name: expected str, got 3"),
        ({"name": "n", "kind": "c"}, "here.kind: expected one of 'a', 'b', got 'c'"),
        ({"name": "n", "flag": 1}, "here.flag: expected bool, got 1"),
        ({"name": "n", "count": True}, "here.count: expected int, got True"),
        ({"name": "n", "count": "3"}, "here.count: expected int, got '3'"),
        ({"name": "n", "words": "pq"}, "here.words: expected a list, got 'pq'"),
        ({"name": "n", "words": [1]}, r"here.words\[0\]: expected str, got 1"),
        ({"name": "n", "inner": {"size": [1]}}, "here.inner.size: expected 2 values, got 1"),
        ({"name": "n", "inner": 3}, "here.inner: expected a group of settings, got 3"),
        ({"name": "n", "inner": {"rate": -1}}, "here.inner: rate must not be negative, got -1"),
    ],
)
def test_a_setting_that_does_not_fit_is_named_with_its_value(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_mapping(Outer, values, where="here")


def test_unknown_settings_come_with_those_that_are_known() -> None:
    with pytest.raises(UsageError) as caught:
        from_mapping(Inner, {"sise": 1})
    assert caught.value.hint == "known: rate, size"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=1", 1),
        ("a.b=1e-5", 1e-5),
        ("a.b=true", True),
        ("a.b=[1,2]", [1, 2]),
        ("a.b=abc", "abc"),
        ("a.b=", ""),
        ("a.b=x=y", "x=y"),
    ],
)
def test_an_override_is_read_as_toml_or_else_as_text(text: str, value: Any) -> None:
    assert with_overrides({"a": {"b": 0, "c": 2}}, [text]) == {"a": {"b": value, "c": 2}}


@pytest.mark.parametrize("text", ["a", "=1", "a..b=1", ".=1"])
def test_an_override_without_a_name_and_value_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected name=value"):
        with_overrides({}, [text])


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(UsageError, match="'a' is a value, not a group"):
        with_overrides({"a": 1}, ["a.b=2"])


def test_overrides_leave_the_given_values_alone() -> None:
    values = {"a": {"b": 0}}
    with_overrides(values, ["a.b=1"])
    assert values == {"a": {"b": 0}}


def test_differences_are_named_by_path() -> None:
    old, new = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9, "c": 2}, "e": 4}
    assert differences(old, new, "config.") == ["config.a.b: 1 -> 9", "config.d: 3 -> None", "config.e: None -> 4"]


def test_a_missing_or_malformed_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"r\.toml: no such file"):
        read_toml(tmp_path / "r.toml")
    (tmp_path / "r.toml").write_text("a = ")
    with pytest.raises(UsageError, match=r"r\.toml: not valid TOML"):
        read_toml(tmp_path / "r.toml")


def test_releases_are_known_oldest_first() -> None:
    assert list(load_releases()) == ["k400", "k600", "k700", "k700-2020"]


def test_no_alias_means_two_releases() -> None:
    aliases = [alias for release in load_releases().values() for alias in release.aliases]
    assert len(aliases) == len(set(aliases))
    assert all(alias == alias.lower() for alias in aliases)


def test_a_toml_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read \(Is a directory\)") as caught:
        read_toml(tmp_path)
    assert str(tmp_path) in caught.value.message


def test_a_toml_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"name = 'caf\xe9'")
    with pytest.raises(UsageError, match=r"a\.toml: not UTF-8"):
        read_toml(tmp_path / "a.toml")
