"""TOML and command-line settings to frozen dataclasses, and the one place that finds ``manifests/``."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from k710.errors import InputError, UsageError

T = TypeVar("T")


def manifests_folder() -> Path:
    """Folder of the packaged data files: installed as ``k710_manifests``, or ``manifests/`` of a bare checkout."""
    beside = Path(__file__).resolve().parent.parent / "manifests"
    if (beside / "classes.csv").is_file():
        return beside
    spec = importlib.util.find_spec("k710_manifests")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the packaged data files (k710_manifests) are not installed", hint="install k710 again")
    return Path(next(iter(spec.submodule_search_locations)))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFile:
    """One file of a release that somebody offers for download."""

    publisher: typing.Literal["cvdf", "deepmind"]
    """Who offers it."""
    what: typing.Literal["annotations", "path_list", "replacement"]
    """A list of rows or an archive of such lists; a text of one archive's URL a line; an archive of whole videos for
    broken ones of a split."""
    url: str
    """Where it is."""
    split: str = ""
    """The split that it is of; empty: all of them."""
    sha256: str = ""
    """Checksum of its bytes, where the publisher states one."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """One published list set, as a block of ``manifests/releases.toml`` describes it."""

    name: str
    """Id used everywhere: ``k400``, ``k600``, ``k700``, ``k700-2020``."""
    title: str
    """Name for people."""
    taxonomy: str
    """Whose class names its rows use."""
    id_kind: str
    """``youtube`` or ``opaque``."""
    aliases: tuple[str, ...]
    """Folder names that mean this release, lower case."""
    splits: tuple[str, ...]
    """Lists without which a leak audit of the release is incomplete."""
    optional_splits: tuple[str, ...] = ()
    """Lists that are published too, but not in every distribution."""
    archives: tuple[str, ...] = ()
    """Names of archives of its lists that are no folder's, lower case, without ``.tar.gz``."""
    pattern: str = "{id}_{start:06d}_{end:06d}"
    """File name of a clip without its ending; the part after ``{id}`` may be missing."""
    published: tuple[PublishedFile, ...] = ()
    """Files of it that are offered for download, in order of preference."""

    @property
    def held_out_splits(self) -> tuple[str, ...]:
        """Every list of the release that is not for training."""
        return tuple(s for s in (*self.splits, *self.optional_splits) if s != "train")


@functools.cache
def load_releases() -> dict[str, Release]:
    """The known releases by name, oldest first."""
    path = manifests_folder() / "releases.toml"
    with path.open("rb") as handle:
        blocks = tomllib.load(handle)["release"]
    return {b["name"]: from_mapping(Release, b, where=f"{path.name} [{b['name']}]") for b in blocks}


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; a file that is missing, unreadable or malformed is a ``UsageError`` naming it."""
    try:
        with path.open("rb") as handle:
            return tomllib.load(handle)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8", hint="save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error


def from_mapping(cls: type[T], values: Mapping[str, Any], *, where: str = "") -> T:
    """A frozen dataclass from plain values, nested ones from nested mappings.

    Raises:
        UsageError: an unknown or missing field, a value of another type, or one that ``__post_init__`` refuses.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise UsageError(_at(where, f"unknown setting {unknown[0]!r}"), hint=f"known: {', '.join(sorted(fields))}")
    required = [
        n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = [n for n in required if n not in values]
    if missing:
        raise UsageError(_at(where, f"setting {missing[0]!r} is missing"))
    converted = {n: _convert(hints[n], v, f"{where}.{n}" if where else n) for n, v in values.items()}
    try:
        return cls(**converted)
    except ValueError as error:
        raise UsageError(_at(where, str(error))) from error


def to_mapping(value: Any) -> Any:
    """Plain dicts, lists and scalars of a dataclass tree: the form that is written to JSON beside every output."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_mapping(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_mapping(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_mapping(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value


def with_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """``values`` with each ``a.b=value`` of ``--set`` applied; the value is read as TOML, else as a string."""
    merged = _copy(values)
    for item in overrides:
        name, sign, text = item.partition("=")
        if not sign or not all(name.split(".")):
            raise UsageError(f"--set {item}: expected name=value, such as optim.base_lr=1e-5")
        *parents, leaf = name.split(".")
        table = merged
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise UsageError(f"--set {item}: {parent!r} is a value, not a group of settings")
        table[leaf] = _toml_value(text)
    return merged


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line ``a.b: old -> new`` for each value in which two plain mappings differ, in order of name."""
    lines: list[str] = []
    for name in sorted(set(old) | set(new)):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            lines.append(f"{prefix}{name}: {before!r} -> {after!r}")
    return lines


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(typing.get_args(hint), value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise UsageError(_at(where, f"expected a group of settings, got {value!r}"))
        return from_mapping(hint, value, where=where)
    if origin is tuple:
        return _convert_tuple(typing.get_args(hint), value, where)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise UsageError(
                _at(where, f"expected one of {', '.join(map(repr, typing.get_args(hint)))}, got {value!r}")
            )
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
        raise UsageError(_at(where, f"expected {hint.__name__}, got {value!r}"))
    return value


def _convert_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    problem: UsageError | None = None
    for option in options:
        if option is type(None):
            continue
        try:
            return _convert(option, value, where)
        except UsageError as error:
            problem = problem or error
    raise problem or UsageError(_at(where, f"cannot be {value!r}"))


def _convert_tuple(items: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise UsageError(_at(where, f"expected a list, got {value!r}"))
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_convert(items[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if len(items) != len(value):
        raise UsageError(_at(where, f"expected {len(items)} values, got {len(value)}"))
    return tuple(_convert(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(items, value, strict=True)))


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _copy(value: dict[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, dict) else v for k, v in value.items()}


def _at(where: str, message: str) -> str:
    return f"{where}: {message}" if where else message
