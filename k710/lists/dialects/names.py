"""What the name of a file says: which split's list it is, if any, and which of two files of one list is taken."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from k710.lists.rows import SPLIT_WORDS

_ENDINGS = (".csv", ".json", ".txt", ".tsv", ".parquet", ".list")
_PATH_LIST = re.compile(r"(?:(?P<owner>.*?)_)?(?P<word>holdout_test|[a-z]+)_list(?:_(?:videos|video|rawframes))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class ListName:
    """A file name that is a list's."""

    split: str
    """``train``, ``val``, ``test`` or ``holdout``."""
    rank: int
    """0: a list; 1: a JSON, which steps back for it; 2: a list of files on a disk, which steps back for both."""
    owner: str = ""
    """What stands before the split in the name of a list of files, such as ``k400``."""


def list_name(name: str) -> ListName | None:
    """What list a file is by its name; None when it is none."""
    lower = name.lower().removesuffix(".gz")
    ending = PurePosixPath(lower).suffix
    stem = lower.removesuffix(ending) if ending in _ENDINGS else ""
    if stem in SPLIT_WORDS:
        return ListName(split=SPLIT_WORDS[stem], rank=1 if ending == ".json" else 0)
    found = _PATH_LIST.fullmatch(stem)
    if found is not None and found["word"] in SPLIT_WORDS and ending != ".json":
        return ListName(split=SPLIT_WORDS[found["word"]], rank=2, owner=found["owner"] or "")
    return None
