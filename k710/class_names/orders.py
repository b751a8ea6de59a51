"""The orders in which projects number the same classes, and the index lists between them.

A head or a list of one project read with the numbers of another gives wrong labels without an error, so orders are
named: ``mmaction2_k710``, ``uniformerv2_k400``, ... ``k400``, ``k600``, ``k700`` mean the order of the table's own
indices (alphabetical), ``k710`` and ``canonical`` that of the canonical classes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from k710.errors import UsageError
from k710.labels import CANONICAL, MERGED, ClassRow, LabelMap, load_labels, published_order


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassOrder:
    """One numbering of the classes of a taxonomy."""

    name: str
    """Such as ``uniformerv2_k710``."""
    taxonomy: str
    """Whose classes and names they are: ``k710`` for the canonical ones, else a taxonomy of the table."""
    origin: str
    """Who numbers so, and how that is known."""
    canonical: tuple[int, ...]
    """Canonical index of the class at each position."""

    def names(self, labels: LabelMap) -> list[str]:
        """The taxonomy's own class name at each position."""
        if self.taxonomy == MERGED:
            return [labels.rows[index].name for index in self.canonical]
        return [labels.rows[index].names[self.taxonomy] for index in self.canonical]


def all_orders(labels: LabelMap | None = None) -> tuple[ClassOrder, ...]:
    """Every published order that a class table can number (default: the packaged table), and the table's own ones.

    A user's table has its own orders, and the published ones of each taxonomy whose classes are exactly the official
    ones; those of K710 only when it is the packaged table.
    """
    packaged = load_labels()
    if labels is None or labels is packaged:
        return _packaged_orders()
    own = [_own(labels, MERGED), *(_own(labels, t) for t in labels.taxonomies)]
    return (*own, *(o for order in _published() if (o := _carried(order, packaged, labels)) is not None))


def class_order(name: str, labels: LabelMap | None = None) -> ClassOrder:
    """The order called ``name``, in the canonical indices of ``labels`` (default: the packaged table).

    Raises:
        UsageError: no such order in this table.
    """
    known = {order.name: order for order in all_orders(labels)}
    if name == CANONICAL:
        return next(order for order in known.values() if order.taxonomy == MERGED)
    if name not in known:
        raise UsageError(
            f"unknown class order {name!r}", hint=f"known: {', '.join(dict.fromkeys((*known, CANONICAL)))}"
        )
    return known[name]


def distinct_orders(labels: LabelMap | None = None) -> dict[ClassOrder, tuple[str, ...]]:
    """Each numbering once, with all the names that it goes by."""
    first: dict[tuple[str, tuple[int, ...]], ClassOrder] = {}
    names: dict[ClassOrder, list[str]] = {}
    for order in all_orders(labels):
        kept = first.setdefault((order.taxonomy, order.canonical), order)
        names.setdefault(kept, []).append(order.name)
    return {order: tuple(called) for order, called in names.items()}


def index_map(source: ClassOrder, target: ClassOrder) -> list[int | None]:
    """For each position of ``target``, the position in ``source`` of its class; None where ``source`` lacks it.

    From a K710 order to a release's it is the list that makes a head: ``weight = weight_710[index_map]``.
    """
    place = {canonical: position for position, canonical in enumerate(source.canonical)}
    return [place.get(canonical) for canonical in target.canonical]


def map_orders(pair: str, labels: LabelMap | None = None) -> tuple[ClassOrder, ClassOrder]:
    """The two orders of ``A:B``, such as ``k710:k400``.

    Raises:
        UsageError: not two names, or an unknown one.
    """
    source, colon, target = pair.partition(":")
    if not colon or not source or not target or ":" in target:
        raise UsageError(f"--map {pair}: expected two orders", hint="write A:B, such as k710:k400 or k400:k710")
    return class_order(source, labels), class_order(target, labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class MergedClass:
    """A class whose name is not the same everywhere."""

    index: int
    """Canonical index."""
    name: str
    """Canonical name."""
    names: dict[str, str]
    """Its name in each taxonomy that has it."""
    because: str
    """Why these are one class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Membership:
    """The classes that exactly these taxonomies have."""

    taxonomies: tuple[str, ...]
    num_classes: int
    names: tuple[str, ...]
    """Canonical names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderFacts:
    """One line about a numbering."""

    name: str
    taxonomy: str
    num_classes: int
    same_as: tuple[str, ...]
    """Other names of the very same numbering."""
    origin: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TableSummary:
    """What a class table holds."""

    num_classes: int
    """Canonical classes."""
    num_names: int
    """Distinct names in all taxonomies together."""
    sizes: dict[str, int]
    """Classes of each taxonomy."""
    merges: tuple[MergedClass, ...]
    membership: tuple[Membership, ...]
    """The largest group first."""
    orders: tuple[OrderFacts, ...]


def summarise(labels: LabelMap) -> TableSummary:
    """What a class table holds, in figures, merges and orders."""
    groups = labels.membership().items()
    called = {(order.taxonomy, order.canonical): names for order, names in distinct_orders(labels).items()}
    return TableSummary(
        num_classes=labels.num_classes,
        num_names=len(labels.all_names),
        sizes={t: len(labels.canonical_of(t)) for t in labels.taxonomies},
        merges=tuple(
            MergedClass(index=r.index, name=r.name, names=dict(r.names), because=r.merged_because)
            for r in labels.merges
        ),
        membership=tuple(
            Membership(taxonomies=who, num_classes=len(rows), names=tuple(labels.rows[i].name for i in rows))
            for who, rows in groups
        ),
        orders=tuple(
            OrderFacts(
                name=order.name,
                taxonomy=_title(labels, order),
                num_classes=len(order.canonical),
                same_as=tuple(name for name in called[order.taxonomy, order.canonical] if name != order.name),
                origin=order.origin,
            )
            for order in all_orders(labels)
        ),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassFacts:
    """One class wherever it stands."""

    index: int
    """Canonical index."""
    name: str
    """Canonical name."""
    names: dict[str, str]
    """Its name in each taxonomy that has it."""
    merged_because: str
    """Why names were merged; empty when there is one name."""
    rows: dict[str, int | None]
    """Its row in each order; None where it has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderRow:
    """One position of an order."""

    index: int
    name: str
    """In the order's taxonomy."""
    canonical_index: int
    canonical_name: str


def order_rows(labels: LabelMap, name: str) -> list[OrderRow]:
    """The classes of a taxonomy or order, in its order.

    Raises:
        UsageError: no such order.
    """
    order = class_order(name, labels)
    return [
        OrderRow(index=place, name=own, canonical_index=index, canonical_name=labels.rows[index].name)
        for place, (own, index) in enumerate(zip(order.names(labels), order.canonical, strict=True))
    ]


def class_facts(labels: LabelMap, name: str) -> list[ClassFacts]:
    """The classes that a taxonomy calls ``name`` (else: calls so but for capitals, ``_`` and quotes).

    Raises:
        UsageError: nothing has this name.
    """
    known = {MERGED: labels.canonical_of(MERGED)} | {t: labels.canonical_of(t) for t in labels.taxonomies}
    found = sorted({names[name] for names in known.values() if name in names})
    if not found:
        folded = fold(name)
        found = sorted({i for names in known.values() for own, i in names.items() if fold(own) == folded})
    if not found:
        near = dict.fromkeys(near for t in known for near in labels.nearest(t, name))
        raise UsageError(
            f"no taxonomy has a class {name!r}",
            hint=f"nearest: {', '.join(map(repr, list(near)[:3]))}" if near else "`k710 labels show --membership`",
        )
    orders = all_orders(labels)
    return [_facts(labels.rows[index], orders) for index in found]


def fold(name: str) -> str:
    """A name without what people write otherwise and mean the same: capitals, ``_``, outer quotes, blanks."""
    bare = name.strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
        bare = bare[1:-1].replace(bare[0] * 2, bare[0])
    return " ".join(bare.replace("_", " ").split()).casefold()


def _facts(row: ClassRow, orders: Sequence[ClassOrder]) -> ClassFacts:
    places = {o.name: o.canonical.index(row.index) if row.index in o.canonical else None for o in orders}
    return ClassFacts(
        index=row.index, name=row.name, names=dict(row.names), merged_because=row.merged_because, rows=places
    )


def _title(labels: LabelMap, order: ClassOrder) -> str:
    return labels.name if order.taxonomy == MERGED else order.taxonomy


@functools.cache
def _packaged_orders() -> tuple[ClassOrder, ...]:
    labels = load_labels()
    return (_own(labels, MERGED), *(_own(labels, t) for t in labels.taxonomies), *_published())


def _own(labels: LabelMap, taxonomy: str) -> ClassOrder:
    """The order of a table's own indices."""
    merged = taxonomy == MERGED
    return ClassOrder(
        name=labels.name if merged else taxonomy,
        taxonomy=taxonomy,
        origin=f"the {'canonical' if merged else taxonomy} indices in {labels.where}",
        canonical=tuple(labels.rows_for(taxonomy)),
    )


_BY_INDEX_LIST = "its published index list; not verified on weights"
_ORIGINS = {
    "mmaction2_k710": "mmaction2, label_map_k710.txt: Kinetics-400 in alphabetical order in 0-399, then a table",
    "mmaction2_k400": "mmaction2, label_map_k400.txt: alphabetical",
    "mmaction2_k600": "mmaction2, label_map_k600.txt: alphabetical",
    "mmaction2_k700": "mmaction2, label_map_k700.txt: alphabetical",
    "uniformerv2_k710": "heads of UniFormerV2: UniFormer's Kinetics-400 order in 0-399, then as mmaction2",
    "uniformerv2_k400": "UniFormer's list of Kinetics-400 categories: 0 is riding a bike",
    "uniformerv2_k600": f"UniFormer's own order, 0 is feeding fish; {_BY_INDEX_LIST}",
    "uniformerv2_k700": f"UniFormer's own order; {_BY_INDEX_LIST}",
    "videomaev2_k710": "heads of VideoMAE V2: the rows of uniformerv2_k710, by its index lists; many names in its "
    "label_map_k710.txt contradict them",
    "videomaev2_k400": "VideoMAE V2: alphabetical",
    "videomaev2_k600": f"VideoMAE V2: UniFormer's own order, by {_BY_INDEX_LIST}; names in its text list contradict it",
    "videomaev2_k700": f"VideoMAE V2: UniFormer's own order, by {_BY_INDEX_LIST}; names in its text list contradict it",
}
"""What is known of each published order; one of which nothing is known is not here."""
_FOLLOWS_UNIFORMER = ("videomaev2_k710", "videomaev2_k600", "videomaev2_k700")


@functools.cache
def _published() -> tuple[ClassOrder, ...]:
    return tuple(_published_one(name, origin) for name, origin in _ORIGINS.items())


def _published_one(name: str, origin: str) -> ClassOrder:
    project, taxonomy = name.split("_")
    if project == "uniformerv2" or name in _FOLLOWS_UNIFORMER:
        rows = published_order(f"uniformerv2_{taxonomy}")
    else:
        rows = load_labels().rows_for(taxonomy)
    return ClassOrder(name=name, taxonomy=taxonomy, origin=origin, canonical=tuple(rows))


def _carried(order: ClassOrder, packaged: LabelMap, labels: LabelMap) -> ClassOrder | None:
    """A published order in the canonical indices of another table; None when its classes are not the same there."""
    if order.taxonomy == MERGED:
        return order if labels.is_packaged else None
    if order.taxonomy not in labels.taxonomies:
        return None
    if labels.taxonomy_names(order.taxonomy) != packaged.taxonomy_names(order.taxonomy):
        return None
    theirs = labels.rows_for(order.taxonomy)
    places = [packaged.rows[index].indices[order.taxonomy] for index in order.canonical]
    return ClassOrder(
        name=order.name,
        taxonomy=order.taxonomy,
        origin=order.origin,
        canonical=tuple(theirs[place] for place in places),
    )
