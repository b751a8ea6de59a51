"""Time of the list stages on real annotation files: reading, catalog, views, clips.

usage: python bench/lists_time.py ANNOTATIONS_FOLDER
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

from k710.config import load_releases
from k710.labels import load_labels
from k710.lists.annotations import find_lists, read_list
from k710.lists.catalog import build_catalog
from k710.lists.clips import plan_clips
from k710.lists.views import Policy, build_views, choose_views


def main(folder: Path) -> None:
    """Print the seconds of each stage."""
    labels, marks = load_labels(), [("start", time.perf_counter())]
    files = find_lists(folder)
    lists = [read_list(file, labels) for file in files]
    marks.append(("read", time.perf_counter()))
    catalog = build_catalog(lists)
    marks.append(("catalog", time.perf_counter()))
    releases = [r for r in load_releases().values() if r.name in {f.release.name for f in files}]
    views = build_views(
        catalog, choose_views(["default"], releases, [(f.release.name, f.split) for f in files]), Policy()
    )
    marks.append(("views", time.perf_counter()))
    clips = plan_clips(catalog, views, labels, 1000)
    marks.append(("clips", time.perf_counter()))
    for (_, before), (name, after) in itertools.pairwise(marks):
        print(f"{name:>8}: {after - before:6.2f} s")
    print(f"{len(catalog):,} rows -> {clips.num_rows:,} clips in {marks[-1][1] - marks[0][1]:.2f} s")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
