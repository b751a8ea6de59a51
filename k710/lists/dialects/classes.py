"""Labels as they were written to official class names: ``_`` for space, numbers in a named order, class folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from k710.class_names.orders import class_order
from k710.errors import InputError
from k710.labels import MERGED, LabelMap
from k710.lists.dialects.raw import RawRows
from k710.lists.rows import encoded, recoded
from k710.tables import compute


def named(raw: RawRows, where: str, labels: LabelMap, taxonomy: str | None, order: str | None) -> RawRows:
    """``raw`` with class names of ``taxonomy`` (None: of any) for labels, where they can be told; others stay as text.

    Raises:
        InputError: numbers of the named order contradict the class folders of the paths.
        UsageError: there is no such order.
    """
    known = _known(labels, taxonomy)
    columns = dict(raw.columns)
    folder, label = columns.pop("folder", None), columns.get("label")
    if folder is not None:
        # Of use only where every file lies in a folder with a class name.
        folder = recoded(folder, lambda text: _tidy(text, known) if _tidy(text, known) in known else None)
        folder = folder if folder.null_count == 0 else None
    if label is not None and has_numbers(raw):
        if order is not None:
            label = recoded(label, _by_number(labels, taxonomy, order))
            if folder is not None and (differ := compute.not_equal(label, folder)).to_pylist().count(True):
                at = differ.to_pylist().index(True)
                raise InputError(
                    f"{where} row {raw.where_row(at)}: label {raw.columns['label'][at].as_py()!r} is "
                    f"{label[at].as_py()!r} in the order {order}, but the folder is {folder[at].as_py()!r}",
                    hint="name another class order, or none: the folders name every class",
                )
        elif folder is not None:
            label = folder
    elif label is not None:
        label = recoded(label, lambda text: _tidy(text, known))
    else:
        label = folder
    if label is not None:
        columns["label"] = label
    return dataclasses.replace(raw, columns=columns)


def has_numbers(raw: RawRows) -> bool:
    """Whether all labels are numbers."""
    label = raw.columns.get("label")
    if label is None:
        return False
    texts, _ = encoded(label)
    return bool(texts) and all(t.isascii() and t.isdigit() for t in texts)


def _known(labels: LabelMap, taxonomy: str | None) -> Collection[str]:
    if taxonomy is not None:
        return labels.canonical_of(taxonomy)
    return labels.all_names | set(labels.names)


def _tidy(text: str, known: Collection[str]) -> str:
    spaced = text.strip().replace("_", " ")
    return spaced if text not in known and spaced in known else text


def _by_number(labels: LabelMap, taxonomy: str | None, order: str) -> Callable[[str], str]:
    places = class_order(order, labels)
    own = taxonomy or places.taxonomy

    def name(text: str) -> str:
        index = int(text) if len(text) < 9 else len(places.canonical)
        if index >= len(places.canonical):
            return text
        row = labels.rows[places.canonical[index]]
        return row.name if own == MERGED else row.names.get(own, text)

    return name
