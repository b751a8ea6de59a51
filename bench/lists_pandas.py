"""The list stages as one would write them in pandas in an afternoon: what the build's own are held against.

usage: python bench/lists_pandas.py ANNOTATIONS OUT

The job of ``k710 build --manifest-only`` under the default policy: lists checked, views, every excluded row and why,
manifest, shards, leaks, audit.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from k710.config import Release, load_releases
from k710.labels import NUM_CLASSES, TAXONOMIES, load_labels

SPLIT_OF_FILE = {
    "train": "train",
    "val": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "holdout": "holdout",
    "holdout_test": "holdout",
}
SPLITS = ["train", "val", "test", "holdout"]
ROW = ["release", "split", "id", "start_s", "end_s", "label"]
CLIPS_PER_SHARD = 1000
NUM_EXAMPLES = 5


def run(annotations: Path, out: Path) -> dict[str, Any]:
    """Read the lists of ``annotations``, write everything to ``out``, and return the counts."""
    lists = read_lists(annotations)
    rows = pd.concat(lists.values(), ignore_index=True)
    check_keys(rows)
    views = build_views(rows, list(lists))
    excluded = pd.concat([gone.assign(view=name) for name, (_, gone) in views.items()], ignore_index=True)
    excluded = excluded.sort_values(["view", *ROW, "reason"], na_position="first", ignore_index=True)
    manifest = build_manifest(rows, {name: members for name, (members, _) in views.items()})
    shared = count_shared(lists)
    leaks = pair_rows(lists)
    audit = build_audit(lists, views, shared)

    (out / "views").mkdir(parents=True, exist_ok=True)
    manifest.to_parquet(out / "manifest.parquet")
    excluded.to_parquet(out / "excluded.parquet")
    leaks.to_parquet(out / "leaks.parquet")
    hash_held_out(rows).to_parquet(out / "held_out.parquet")
    for name, (members, _) in views.items():
        (out / "views" / f"{name}.json").write_text(json.dumps(describe_view(name, members, manifest), indent=1))
    inputs = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in find_lists(annotations).items()}
    (out / "audit.json").write_text(json.dumps({"inputs": inputs, **audit}, indent=1))
    return {
        "rows": {name: len(table) for name, table in lists.items()},
        "ids": {name: int(table["id"].nunique()) for name, table in lists.items()},
        "shared_ids": shared,
        "clips": {name: len(members) for name, (members, _) in views.items()},
        "excluded": {name: count_reasons(gone) for name, (_, gone) in views.items()},
        "conflicts": audit["conflicts"],
        "row_pairs": count_row_pairs(leaks),
        "shards": int(manifest["leaf"].nunique()),
    }


def find_lists(annotations: Path) -> dict[str, Path]:
    """The file of each list, by ``release:split``, in order of release and split."""
    found = {}
    for release in load_releases().values():
        for folder in sorted(p for p in annotations.iterdir() if p.is_dir() and p.name.lower() in release.aliases):
            for path in sorted([*folder.glob("*.csv"), *folder.glob("*.csv.gz")]):
                split = SPLIT_OF_FILE.get(path.name.lower().split(".")[0])
                if split is None:
                    continue
                if (release.name, split) in found:
                    raise ValueError(f"{path}: second file for {release.name}:{split}")
                found[release.name, split] = path
    releases = list(load_releases())
    order = sorted(found, key=lambda pair: (releases.index(pair[0]), SPLITS.index(pair[1])))
    return {f"{release}:{split}": found[release, split] for release, split in order}


def read_lists(annotations: Path) -> dict[str, pd.DataFrame]:
    """The checked rows of each list, by ``release:split``."""
    lists = {}
    for name, path in find_lists(annotations).items():
        release, split = name.split(":")
        lists[name] = read_rows(path, load_releases()[release], split)
    if not lists:
        raise ValueError(f"{annotations}: no annotation lists found")
    return lists


def read_rows(path: Path, release: Release, split: str) -> pd.DataFrame:
    """The rows of one file, with clip key and canonical class (-1 without a label)."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    ids = table["youtube_id"]
    if release.id_kind == "youtube" and not ids.str.fullmatch(r"[A-Za-z0-9_-]{11}").all():
        raise ValueError(f"{path}: an id is not 11 characters of A-Za-z0-9_-")
    start_s = pd.to_numeric(table["time_start"], errors="coerce").astype(float)
    end_s = pd.to_numeric(table["time_end"], errors="coerce").astype(float)
    if start_s.isna().any() or end_s.isna().any() or (start_s < 0).any() or (end_s <= start_s).any():
        raise ValueError(f"{path}: a segment is not a time range in seconds")
    if "split" in table and not (table["split"].map(SPLIT_OF_FILE) == split).all():
        raise ValueError(f"{path}: a row does not belong in the {split} list")
    rows = pd.DataFrame({"id": ids, "start_s": start_s, "end_s": end_s})
    rows["release"], rows["split"] = release.name, split
    if "label" in table:
        rows["label"] = table["label"]
        rows["canonical"] = table["label"].map(dict(load_labels().canonical_of(release.taxonomy)))
        if rows["canonical"].isna().any():
            raise ValueError(f"{path}: a label is not a class of {release.taxonomy}")
        rows["canonical"] = rows["canonical"].astype(int)
    else:
        rows["label"], rows["canonical"] = pd.Series([None] * len(rows), dtype=object), -1
    rows["key"] = [make_key(*segment) for segment in zip(ids, start_s, end_s, strict=True)]
    rows["release_order"] = list(load_releases()).index(release.name)
    rows["split_order"] = SPLITS.index(split)
    return rows


def make_key(video_id: str, start_s: float, end_s: float) -> str:
    """Name of a clip: whole seconds, else milliseconds."""
    if start_s.is_integer() and end_s.is_integer():
        return f"{video_id}_{int(start_s):06d}_{int(end_s):06d}"
    return f"{video_id}_{round(start_s * 1000):09d}_{round(end_s * 1000):09d}"


def check_keys(rows: pd.DataFrame) -> None:
    """Refuse two clips of one key."""
    clips = rows[["key", "id", "start_s", "end_s"]].drop_duplicates()
    if clips["key"].duplicated().any():
        raise ValueError(f"two clips would have the key {clips.loc[clips['key'].duplicated(), 'key'].iloc[0]}")


def build_views(rows: pd.DataFrame, names: list[str]) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Members and excluded rows of each default view, in order of name."""
    nobody = rows.iloc[:0]
    views = {}
    for split in ("train", "val"):
        source = rows[rows["split"] == split]
        if len(source):
            held_out = rows[rows["split"] != "train"] if split == "train" else nobody
            views[f"k710-{split}"] = build_view(source, held_out, "id")
    for name in names:
        release, split = name.split(":")
        own = rows[rows["release"] == release]
        if split == "train":
            views[f"{release}-train"] = build_view(own[own["split"] == "train"], own[own["split"] != "train"], "key")
        elif split == "val":
            views[f"{release}-val"] = build_view(own[own["split"] == "val"], nobody, "key")
    return dict(sorted(views.items()))


def build_view(source: pd.DataFrame, held_out: pd.DataFrame, one_per: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of ``source`` whose videos are not held out, one per id or key, and the others with their reasons."""
    order = ["split_order", "release_order", "start_s", "end_s", "label"]
    holders = held_out.sort_values(order, na_position="first").drop_duplicates("id")
    is_held = source["id"].isin(holders["id"])
    held = add_deciding_row(source[is_held], holders, "id").assign(reason="held_out")

    left = source[~is_held].sort_values(
        ["release_order", "start_s", "end_s", "label", "split_order"],
        ascending=[False, True, True, True, True],
        na_position="first",
    )
    members = left.drop_duplicates(one_per)
    lost = add_deciding_row(left[left.duplicated(one_per)], members, one_per)
    lost["reason"] = (lost["key"] == lost["by_key"]).map({True: "same_clip", False: "other_segment"})
    excluded = pd.concat([held, lost], ignore_index=True)
    both = (excluded["canonical"] >= 0) & (excluded["by_canonical"] >= 0)
    excluded["class_differs"] = both & (excluded["canonical"] != excluded["by_canonical"])
    by = ["by_release", "by_split", "by_start_s", "by_end_s", "by_label"]
    return members, excluded[[*ROW, "key", "reason", *by, "class_differs"]]


def add_deciding_row(rows: pd.DataFrame, deciding: pd.DataFrame, on: str) -> pd.DataFrame:
    """``rows`` with ``by_`` columns: the row of ``deciding`` of the same id or key."""
    return rows.merge(deciding.add_prefix("by_"), left_on=on, right_on=f"by_{on}")


def build_manifest(rows: pd.DataFrame, views: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per clip of any view: its views and classes, the rows it comes from, its planned shard."""
    views_of: dict[str, dict[str, int]] = defaultdict(dict)
    for name, members in views.items():
        for key, canonical in zip(members["key"], members["canonical"], strict=True):
            views_of[key][name] = canonical
    used = rows[rows["key"].isin(list(views_of))]
    rows_of: dict[str, list[dict[str, Any]]] = defaultdict(list)
    classes_of: dict[str, set[int]] = defaultdict(set)
    for key, canonical, *values in used[["key", "canonical", *ROW]].itertuples(index=False):
        rows_of[key].append(dict(zip(ROW, values, strict=True)))
        if canonical >= 0:
            classes_of[key].add(canonical)

    clips = used.drop_duplicates("key")[["key", "id", "start_s", "end_s"]].sort_values("key", ignore_index=True)
    clips["id_hash"] = pd.Series([hash_id(i) for i in clips["id"]], dtype="uint64")
    clips["class"] = pd.array([single_class(views_of[key], classes_of[key]) for key in clips["key"]], "Int16")
    clips["classes"] = [sorted(classes_of[key]) for key in clips["key"]]
    clips["views"] = [sorted(views_of[key]) for key in clips["key"]]
    clips["view_classes"] = [[views_of[key][view] for view in sorted(views_of[key])] for key in clips["key"]]
    for taxonomy in TAXONOMIES:
        clips[f"{taxonomy}_class"] = clips["key"].map(taxonomy_classes(used, taxonomy)).astype("Int16")
    clips["leaf"] = plan_shards(clips)
    clips["rows"] = clips["key"].map(rows_of)
    return clips.sort_values(["leaf", "key"], ignore_index=True)


def single_class(view_classes: dict[str, int], classes: set[int]) -> int | None:
    """The class of a clip in the merged views, else its only one; None when these differ."""
    merged = {c for view, c in view_classes.items() if view.startswith("k710-") and c >= 0}
    candidates = merged or classes
    return next(iter(candidates)) if len(candidates) == 1 else None


def taxonomy_classes(rows: pd.DataFrame, taxonomy: str) -> dict[str, int]:
    """Index in ``taxonomy`` of each clip with a row of its releases; the newest one's earliest split speaks."""
    labels = load_labels()
    indices = {c: i for c in range(NUM_CLASSES) if (i := labels.index_in(taxonomy, c)) is not None}
    releases = [r.name for r in load_releases().values() if r.taxonomy == taxonomy]
    own = rows[rows["release"].isin(releases) & (rows["canonical"] >= 0)]
    own = own.sort_values(["release_order", "split_order", "label"], ascending=[False, True, True])
    own = own.drop_duplicates("key")
    return dict(zip(own["key"], own["canonical"].map(indices), strict=True))


def plan_shards(clips: pd.DataFrame) -> list[str]:
    """The shard of each clip: a leaf of the binary trie over sha256(id), one trie per set of views."""
    groups: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for key, video_id, views in zip(clips["key"], clips["id"], clips["views"], strict=True):
        value = int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:8], "big")
        groups[".".join(views)].append((value, key))
    leaf_of: dict[str, str] = {}

    def divide(group: str, members: list[tuple[int, str]], bits: str) -> None:
        if len(members) <= CLIPS_PER_SHARD or len(bits) == 64:
            for _, key in members:
                leaf_of[key] = f"shards/{group}/t-{bits or 'root'}.tar"
            return
        shift = 63 - len(bits)
        divide(group, [m for m in members if not m[0] >> shift & 1], bits + "0")
        divide(group, [m for m in members if m[0] >> shift & 1], bits + "1")

    for group, members in groups.items():
        divide(group, members, "")
    return [leaf_of[key] for key in clips["key"]]


def hash_id(video_id: str) -> int:
    """64-bit hash of an id."""
    return int.from_bytes(hashlib.blake2b(b"yt:" + video_id.encode(), digest_size=8).digest(), "big")


def hash_held_out(rows: pd.DataFrame) -> pd.DataFrame:
    """The videos of every list that is not for training, as hashes."""
    held_out = rows.loc[rows["split"] != "train", ["release", "split", "id"]].drop_duplicates()
    held_out["id_hash"] = pd.Series([hash_id(i) for i in held_out["id"]], index=held_out.index, dtype="uint64")
    return held_out.drop(columns="id").sort_values(["release", "split", "id_hash"], ignore_index=True)


def count_shared(lists: dict[str, pd.DataFrame]) -> dict[str, int]:
    """Number of videos in both lists, for every pair of lists."""
    ids = {name: table[["id"]].drop_duplicates() for name, table in lists.items()}
    return {f"{a} {b}": len(ids[a].merge(ids[b], on="id")) for a, b in itertools.combinations(ids, 2)}


def pair_rows(lists: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Every two rows of different lists that share a video, with their overlap and whether the class differs."""
    columns = [*ROW, "canonical"]
    tables = []
    for a, b in itertools.combinations(lists, 2):
        left = lists[a][columns].rename(columns={c: f"a_{c}" for c in columns if c != "id"})
        right = lists[b][columns].rename(columns={c: f"b_{c}" for c in columns if c != "id"})
        tables.append(left.merge(right, on="id"))
    if not tables:
        names = [f"{side}_{c}" for side in "ab" for c in columns if c != "id"]
        tables = [pd.DataFrame(columns=["id", *names])]
    pairs = pd.concat(tables, ignore_index=True)
    first_end, last_start = pairs[["a_end_s", "b_end_s"]].min(axis=1), pairs[["a_start_s", "b_start_s"]].max(axis=1)
    pairs["overlap_s"] = (first_end - last_start).clip(lower=0)
    both = (pairs["a_canonical"] >= 0) & (pairs["b_canonical"] >= 0)
    pairs["class_differs"] = both & (pairs["a_canonical"] != pairs["b_canonical"])
    pairs = pairs.rename(columns={"a_canonical": "a_class", "b_canonical": "b_class"})
    by = ["a_release", "a_split", "b_release", "b_split", "id", "a_start_s", "a_end_s", "b_start_s", "b_end_s"]
    return pairs.sort_values(by, ignore_index=True)


def count_row_pairs(leaks: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Row pairs per pair of lists that share a video: all, overlapping, of different classes."""
    counts = {}
    for (a, a_split, b, b_split), pairs in leaks.groupby(
        ["a_release", "a_split", "b_release", "b_split"], observed=True
    ):
        # A table may name the training list first: the pair is the same.
        counts[" ".join(sorted((f"{a}:{a_split}", f"{b}:{b_split}")))] = {
            "pairs": len(pairs),
            "overlapping": int((pairs["overlap_s"] > 0).sum()),
            "class_differs": int(pairs["class_differs"].sum()),
        }
    return counts


def count_reasons(excluded: pd.DataFrame) -> dict[str, int]:
    """Excluded rows per reason."""
    return {str(reason): int(n) for reason, n in excluded["reason"].value_counts().items()}


def count_conflicts(views: dict[str, tuple[pd.DataFrame, pd.DataFrame]]) -> dict[str, int]:
    """Rows of the merged views that lost to a row of another class, by the two names."""
    pairs: Counter[str] = Counter()
    for name, (_, excluded) in views.items():
        if name.startswith("k710-"):
            lost = excluded[excluded["class_differs"] & excluded["reason"].isin(["same_clip", "other_segment"])]
            pairs.update(f"{a} | {b}" for a, b in zip(lost["label"], lost["by_label"], strict=True))
    return dict(pairs.most_common())


def build_audit(
    lists: dict[str, pd.DataFrame], views: dict[str, tuple[pd.DataFrame, pd.DataFrame]], shared: dict[str, int]
) -> dict[str, Any]:
    """What stands in more than one list, what was done about it, and what is left."""
    ids = {name: set(table["id"]) for name, table in lists.items()}
    leaks, remaining = [], []
    for a, b in itertools.combinations(lists, 2):
        if shared[f"{a} {b}"] and a.endswith(":train") != b.endswith(":train"):
            examples = sorted(ids[a] & ids[b])[:NUM_EXAMPLES]
            leaks.append({"lists": [a, b], "videos": shared[f"{a} {b}"], "examples": examples})
    for view, (members, _) in views.items():
        for name in ids:
            if view.endswith("-train") and not name.endswith(":train"):
                count = len(set(members["id"]) & ids[name])
                if count:
                    remaining.append({"view": view, "list": name, "videos": count})
    return {
        "lists": [{"list": n, "rows": len(table), "videos": len(ids[n])} for n, table in lists.items()],
        "shared_videos": shared,
        "leaks": leaks,
        "remaining": remaining,
        "views": {
            name: {
                "clips": len(members),
                "videos": int(members["id"].nunique()),
                "classes": int(members.loc[members["canonical"] >= 0, "canonical"].nunique()),
                "excluded": count_reasons(gone),
                "class_differs": int(gone["class_differs"].sum()),
            }
            for name, (members, gone) in views.items()
        },
        "conflicts": count_conflicts(views),
    }


def describe_view(name: str, members: pd.DataFrame, manifest: pd.DataFrame) -> dict[str, Any]:
    """A view's clips, digest and planned shards."""
    members = members.sort_values("key")
    lines = "".join(f"{key}\t{c}\n" for key, c in zip(members["key"], members["canonical"], strict=True))
    in_view = manifest["views"].map(lambda views: name in views)
    return {
        "name": name,
        "clips": len(members),
        "videos": int(members["id"].nunique()),
        "classes": int(members.loc[members["canonical"] >= 0, "canonical"].nunique()),
        "digest": hashlib.sha256(lines.encode()).hexdigest(),
        "shards": sorted(set(manifest.loc[in_view, "leaf"])),
    }


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(json.dumps(run(Path(sys.argv[1]), Path(sys.argv[2])), indent=1))
