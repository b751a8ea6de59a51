"""Time and memory to scan a copy of Kinetics by its names, and to match every clip; files are empty, none is opened.

usage: python bench/scan.py [--files N] [--layout classes|flat|links|untimed] [--rounds N] [--folder DIR]

  classes  400 class folders of {id}_{start}_{end}.mp4
  flat     the same names in one folder
  links    flat, and class folders of symbolic links to the files, as arrange_by_classes.py makes them
  untimed  64 folders of {id}.mp4
The files are made below DIR (a temporary folder if none is given) and removed again. Every round is a fresh process;
the listing comes from the page cache, except where the folder is too large for it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NUM_FULL = 650_000
MAX_SCAN_S = 60.0
NUM_CLASSES = 400
NUM_VOLUMES = 64
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def main(arguments: argparse.Namespace) -> None:
    """Print medians and what they come to for a full copy."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        started = time.perf_counter()
        lay_out(Path(folder), arguments.layout, arguments.files)
        print(f"{arguments.files:,} files, layout {arguments.layout}, made in {time.perf_counter() - started:.1f} s")
        rounds = [measured(Path(folder), arguments.files) for _ in range(arguments.rounds)]
    median = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    scan_s = median["scan_s"]
    full_s = scan_s / arguments.files * NUM_FULL
    print(f"scan       {scan_s:7.2f} s  {arguments.files / scan_s:,.0f} files/s")
    print(f"match      {median['match_s']:7.2f} s  every clip to its file")
    print(f"unclaimed  {median['unclaimed_s']:7.2f} s  one annotation in a hundred gone")
    print(f"memory     {median['names_bytes'] / 1e6:7.0f} MB of names")
    print(f"           {median['peak_bytes'] / 1e6:7.0f} MB at most, with every clip and its match")
    mark = f"mark {MAX_SCAN_S:.0f} s: {'met' if full_s < MAX_SCAN_S else 'NOT met'}"
    print(f"scan of {NUM_FULL:,} files: {full_s:.1f} s ({mark})")


def lay_out(root: Path, layout: str, num: int) -> None:
    """Make ``num`` empty files."""
    folders = NUM_VOLUMES if layout == "untimed" else NUM_CLASSES
    for number in range(folders):
        (root / "train" / _folder(layout, number)).mkdir(parents=True, exist_ok=True)
    (root / "links").mkdir()
    for number in range(folders):
        (root / "links" / f"class {number:03d}").mkdir()
    for i, (video, start) in enumerate(itertools.islice(videos(), num)):
        name = f"{video}.mp4" if layout == "untimed" else f"{video}_{start:06d}_{start + 10:06d}.mp4"
        path = f"{root}/train/{_folder(layout, i % folders)}/{name}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        if layout == "links":
            Path(root, "links", f"class {i % folders:03d}", name).symlink_to(path)


def videos() -> Iterator[tuple[str, int]]:
    """Ids in no order, each with a start."""
    for i in itertools.count():
        # Odd, so that every number has its own product: ids are spread as real ones are.
        value, start = i * 0x9E3779B97F4A7C15 % (1 << 64), i * 7919 % 10_000 // (1 + i % 50)
        yield "".join(_ALPHABET[value >> 6 * k & 63] for k in range(11)), start


def measured(root: Path, num: int) -> dict[str, float]:
    """What one fresh process measures."""
    command = [sys.executable, __file__, "--measure", str(root), "--files", str(num)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return dict(json.loads(done.stdout))


def measure(root: Path, num: int) -> None:
    """Scan ``root`` and match every clip; print the seconds and bytes as JSON."""
    sys.path.insert(0, str(ROOT))
    from k710.clips.sources.candidates import Wanted
    from k710.clips.sources.local import LocalFolders
    from k710.segments import Segment

    before = resident_bytes()
    started = time.perf_counter()
    folders = LocalFolders([root])
    scanned = time.perf_counter()
    names = resident_bytes() - before
    wanted = [
        Wanted(segment=Segment(id=video, start_s=float(start), end_s=start + 10.0), releases=frozenset({"k400"}))
        for video, start in itertools.islice(videos(), num)
    ]
    ready = time.perf_counter()
    matches = folders.candidates(wanted, {})
    matched = time.perf_counter()
    assert all(len(files) == 1 for files in matches)
    assert folders.num_files == num
    del matches
    again = time.perf_counter()
    left = folders.unclaimed(item.segment for i, item in enumerate(wanted) if i % 100)
    listed = time.perf_counter()
    assert len(left) == len(range(0, num, 100))
    result = {
        "scan_s": scanned - started,
        "match_s": matched - ready,
        "unclaimed_s": listed - again,
        "names_bytes": names,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(result))


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _folder(layout: str, number: int) -> str:
    return {"classes": f"class {number:03d}", "untimed": f"vol_{number:02d}"}.get(layout, ".")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=NUM_FULL)
    parser.add_argument("--layout", choices=["classes", "flat", "links", "untimed"], default="classes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to make the files")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure, given.files)
    else:
        main(given)
