"""How many edited copies are found as near-duplicates and how many other pairs are, and what the index costs.

usage: python bench/near_duplicates.py quality --videos DIR --folder DIR [--part calibrate|test|fresh]
       python bench/near_duplicates.py index [--clips N] [--frames N] [--tables N]

quality: sources are parts of the real clips in --videos (each of nine regions and the whole picture, in two segments
that share no frame) and drawn scenes of `k710 synth`. Every source is encoded, every edit is encoded from that, and
each original is compared with the edit of each source. Hashes stay in --folder. `calibrate` uses other clips and drawn
scenes than `test`; thresholds were chosen on the first. `fresh` has drawn scenes that neither has: what was changed
after a look at `test` was measured there once.

index: random hashes, of which some belong to copies (a hash of each copy's frame differs in 0 to 31 bits) and some to
pictures that thousands of clips show.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np

from k710.fingerprints.bands import BandSettings, Entries, close_owners
from k710.fingerprints.frames import HASH_BYTES, FrameHashes, hash_frames
from k710.fingerprints.matching import Match, MatchSettings, compare
from k710.fingerprints.moments import MOST_MOMENTS
from k710.fingerprints.search import Index, SearchSettings, find_near_duplicates
from k710.synth.scenes import APPEARANCE_FAMILIES, ORDER_FAMILIES, Scene, draw

REAL = {
    "calibrate": ("kinetics_340x256_30fps.mp4", "h264_1080p_2s.mp4"),
    "fresh": (),
    "test": ("kinetics_340x256_28fps.mp4", "kinetics_426x320_30fps.mp4", "mpeg4_320x240_audio.avi"),
}
TWIN = ("kinetics_340x256_28fps.mp4", "h264_340x256_6fps.mp4")
NUM_DRAWN = {"calibrate": 60, "test": 72, "fresh": 36}
DRAWN_OTHERS = 14
SAME_PICTURES = ("light", "slanted_stripes")
"""Families whose two segments show the same pictures, brighter or shifted by a stripe: neither copies nor others."""
_GAP_S = 1.2
_EVEN = "scale=trunc(iw/2)*2:trunc(ih/2)*2"
FILTERS = {
    "scale to 160": "scale=160:-2",
    "crop 5 %": f"crop=iw*0.95:ih*0.95,{_EVEN}",
    "crf 35": "null",
    "mirrored": "hflip",
    "logo": "drawbox=x=iw*0.02:y=ih*0.02:w=iw*0.2:h=ih*0.15:color=white:t=fill",
    "brightness +20 %": "lutyuv=y=val*1.2",
    "crop 5 % each side": f"crop=iw*0.9:ih*0.9,{_EVEN}",
    "crop 5 % corner": f"crop=iw*0.95:ih*0.95:0:0,{_EVEN}",
}
OFFSETS_S = {"offset 1 s": 1.0, "offset 0.77 s": 0.77}
PARTS = ("whole", "middle", "quality", "light", "middle_light")
GOALS = ("scale to 160", "crop 5 %", "crf 35", "offset 1 s")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A stretch of a picture region of a file."""

    file: Path
    """The file."""
    scene: str
    """What is seen; sources of one scene are two segments of it."""
    kind: str
    """``real`` or ``drawn``."""
    crop: str
    """ffmpeg's filter for the region."""
    start_s: float
    """Where it starts in the file."""
    duration_s: float
    """How long it is."""
    shift: int
    """1: an offset copy begins later; -1: earlier."""

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.scene}.{self.shift}"


def quality(arguments: argparse.Namespace) -> None:
    """Print recall and precision per edit."""
    arguments.folder.mkdir(parents=True, exist_ok=True)
    sources = [*real_sources(arguments.videos, arguments.part), *drawn_sources(arguments.folder, arguments.part)]
    clips = encoded(sources, arguments.folder, arguments.workers)
    print(f"{arguments.part}: {sum(s.kind == 'real' for s in sources)} real sources, {len(sources)} in all")
    settings = MatchSettings()
    matches = {edit: compared(sources, clips, edit, settings) for edit in [*FILTERS, *OFFSETS_S]}
    for kind in ("real", "drawn", "all"):
        heads = (
            f"{'recall':>28}{'of those compared':>28}{'precision':>28}{'false of':>14}{'same scene':>14}{'index':>10}"
        )
        print(f"\n{kind}\n{'edit':<20}{heads}")
        for edit, found in matches.items():
            report(edit, [f for f in found if kind in ("all", f[0].kind)], clips)
    if arguments.part == "test":
        pair = [hash_frames((arguments.videos / name).read_bytes()) for name in TWIN]
        print(f"\none scene twice, {' and '.join(TWIN)}: {compare(pair[0], pair[1], settings)}")
    if arguments.dump:
        dump(arguments.dump, matches)


Compared = tuple[Source, Source, Match | None]


def compared(
    sources: list[Source], clips: dict[tuple[str, str], FrameHashes], edit: str, settings: MatchSettings
) -> list[Compared]:
    """Each original against the edit of each source of its kind; of drawn ones, of its own and of some others."""
    return [
        (a, b, compare(clips[a.name, "original"], clips[b.name, edit], settings))
        for (i, a), (j, b) in itertools.product(enumerate(sources), enumerate(sources))
        if a.kind == b.kind and not contain_each_other(a, b)
        if a.kind == "real" or a.scene == b.scene or (i - j) % len(sources) <= DRAWN_OTHERS
    ]


def contain_each_other(a: Source, b: Source) -> bool:
    """Whether one is the whole picture and the other a region of it: neither a copy nor another picture."""
    return a.scene != b.scene and a.file == b.file and "" in (a.crop, b.crop)


def report(edit: str, found: list[Compared], clips: dict[tuple[str, str], FrameHashes]) -> None:
    """Print the figures of one edit."""
    copies = [(a, m) for a, b, m in found if a.name == b.name]
    scenes = [m for a, b, m in found if a.name != b.name and a.scene == b.scene]
    others = [m for a, b, m in found if a.scene != b.scene]
    proposed = [in_index(clips[a.name, "original"], clips[a.name, edit]) for a, _ in copies]
    # All the way: proposed by the index, and confirmed.
    both = [[clips[a.name, "original"], clips[a.name, edit]] for a, _ in copies]
    hits = sum(len(find_near_duplicates(pair)) == 1 for pair in both)
    # The content audit counts the others by name, as clips that show too little to be compared.
    shown = sum(int(pair[0].is_shown.sum()) >= MatchSettings().least_samples for pair in both)
    false, same = (sum((m is not None) for m in group) for group in (others, scenes))
    goal = "*" if edit in GOALS else " "
    print(
        f"{edit:<19}{goal}{_part(hits, len(copies)):>28}{_part(hits, shown):>28}{_part(hits, hits + false + same):>28}"
        f"{f'{false}/{len(others)}':>14}{f'{same}/{len(scenes)}':>14}{f'{sum(proposed)}/{len(copies)}':>10}"
    )


def in_index(a: FrameHashes, b: FrameHashes) -> bool:
    """Whether the index proposes the pair."""
    found = Index()
    found.add(0, a)
    found.add(1, b)
    return len(found.candidates(SearchSettings())) > 0


def _part(hits: int, of: int) -> str:
    low, high = wilson(hits, of)
    return f"{hits}/{of} {hits / of if of else 0:.3f} [{low:.3f},{high:.3f}]"


def wilson(hits: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a part, 95 %."""
    if not of:
        return 0.0, 1.0
    part, base = hits / of, 1 + z * z / of
    middle = (part + z * z / (2 * of)) / base
    reach = z / base * math.sqrt(part * (1 - part) / of + z * z / (4 * of * of))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def real_sources(videos: Path, part: str) -> Iterator[Source]:
    """Regions and segments of the real clips."""
    for name in REAL[part]:
        with av.open(str(videos / name)) as container:
            length_s = (container.duration or 0) / 1e6
        regions = {"whole": ""}
        for x, y in itertools.product(range(3), range(3)):
            regions[f"{x}{y}"] = f"crop=iw/3:ih/3:iw*{x}/3:ih*{y}/3,scale=340:256"
        for region, crop in regions.items():
            yield from segments(videos / name, f"{Path(name).stem}-{region}", "real", crop, length_s)


def drawn_sources(folder: Path, part: str) -> Iterator[Source]:
    """Segments of drawn scenes; their files are made in ``folder``."""
    families = [f for f in (*ORDER_FAMILIES, *APPEARANCE_FAMILIES) if f not in SAME_PICTURES]
    for number in range(NUM_DRAWN[part]):
        family = families[number % len(families)]
        seed = {"calibrate": 1, "test": 2, "fresh": 3}[part]
        path = folder / f"drawn-{part}-{number}.mp4"
        if not path.exists():
            scene = Scene(family=family, seed=seed, number=number, num_frames=150, width_px=340, height_px=256)
            write_frames(path, draw(scene), 15)
        yield from segments(path, path.stem, "drawn", "", 10.0)


def segments(file: Path, scene: str, kind: str, crop: str, length_s: float) -> Iterator[Source]:
    """Two stretches of a file that share nothing, nor with the other's offset copy; one of a file under 5 s."""
    length_s -= 0.05
    starts = [(0.0, 1, length_s)]
    if length_s >= 5:
        each = (length_s - _GAP_S) / 2
        starts = [(0.0, 1, each), (length_s - each, -1, each)]
    for start_s, shift, duration_s in starts:
        yield Source(file=file, scene=scene, kind=kind, crop=crop, start_s=start_s, duration_s=duration_s, shift=shift)


def write_frames(path: Path, frames_THWC: np.ndarray, fps: int) -> None:
    """Encode drawn frames."""
    height, width = frames_THWC.shape[1:3]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{width}x{height}", "-r", str(fps), "-i", "-", "-crf", "18", "-threads", "1", str(path)]
    subprocess.run(command, input=frames_THWC.tobytes(), check=True)


def encoded(sources: list[Source], folder: Path, workers: int) -> dict[tuple[str, str], FrameHashes]:
    """Hashes of each original and of each edit."""
    found: dict[tuple[str, str], FrameHashes] = {}
    with ProcessPoolExecutor(workers) as pool:
        for source, hashes in zip(sources, pool.map(encode_and_hash, sources, itertools.repeat(folder)), strict=True):
            found |= {(source.name, edit): frames for edit, frames in hashes.items()}
    return found


def encode_and_hash(source: Source, folder: Path) -> dict[str, FrameHashes]:
    """The original of a source and its edits, as hashes; kept in ``folder``."""
    stored = folder / f"{source.name}.npz"
    edits = ["original", *FILTERS, *OFFSETS_S]
    if not stored.exists():
        arrays = {}
        for edit, path in encode(source, folder).items():
            hashes = hash_frames(path.read_bytes())
            arrays |= {f"{edit}/{name}": getattr(hashes, name) for name in PARTS}
            path.unlink()
        np.savez(stored, **arrays)
    data = np.load(stored)
    return {e: FrameHashes(**{n: data[f"{e}/{n}"] for n in PARTS}) for e in edits}


def encode(source: Source, folder: Path) -> dict[str, Path]:
    """Encode a source, and its edits from that."""
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error"]
    paths = {edit: folder / f"{source.name}.{i}.mp4" for i, edit in enumerate(["original", *FILTERS, *OFFSETS_S])}
    region = ["-vf", source.crop] if source.crop else []
    for edit, offset_s in {"original": 0.0, **OFFSETS_S}.items():
        start_s = source.start_s + source.shift * offset_s
        with av.open(str(source.file)) as container:
            length_s = (container.duration or 0) / 1e6
        cut = ["-ss", f"{start_s}", "-t", f"{min(source.duration_s, length_s - start_s)}"]
        # Behind the input: one of the files has no key frame to go to, and is decoded from its start.
        subprocess.run([*ffmpeg, "-i", str(source.file), *cut, *region, *_output(paths[edit])], check=True)
    edits = [a for e, f in FILTERS.items() for a in ("-vf", f, *_output(paths[e], 35 if e == "crf 35" else 23))]
    subprocess.run([*ffmpeg, "-i", str(paths["original"]), *edits], check=True)
    return paths


def _output(path: Path, crf: int = 23) -> list[str]:
    return [
        "-an",
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-pix_fmt",
        "yuv420p",
        "-crf",
        str(crf),
        "-threads",
        "1",
        str(path),
    ]


def dump(path: Path, matches: dict[str, list[Compared]]) -> None:
    """Write every comparison, a line each, to look at thresholds."""
    with path.open("w") as lines:
        for edit, found in matches.items():
            for a, b, m in found:
                kind = "copy" if a.name == b.name else "scene" if a.scene == b.scene else "other"
                if m is not None:
                    lines.write(
                        f"{edit}\t{a.kind}\t{kind}\t{a.name}\t{b.name}\t{m.frames}\t{m.part:.3f}\t"
                        f"{m.distance}\t{m.rest:.3f}\t{m.offset_s}\t{m.is_mirrored}\t{m.found_by}\n"
                    )
                elif kind == "copy":
                    lines.write(f"{edit}\t{a.kind}\t{kind}\t{a.name}\t{b.name}\tnone\n")


def index(arguments: argparse.Namespace) -> None:
    """Print what the index costs at the size of Kinetics, and what it finds."""
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    entries, copies = made_entries(rng, arguments.clips, arguments.frames)
    made_s = time.perf_counter() - started
    before_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started, started_cpu = time.perf_counter(), time.process_time()
    pairs = close_owners(entries, BandSettings(tables=arguments.tables))
    took_s, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    codes = set((pairs[:, 0] << 32 | pairs[:, 1]).tolist())
    print(f"{arguments.clips:,} clips, {len(entries):,} moments, {arguments.tables} tables; made in {made_s:.0f} s")
    print(f"index  {took_s:7.1f} s  ({cpu_s:.1f} s of one core), load {os.getloadavg()[0]:.1f}")
    print(f"memory {peak_bytes / 1e9:7.2f} GB at most, {before_bytes / 1e9:.2f} GB of them before it began")
    print(f"pairs  {len(pairs):,}")
    for bits in sorted(set(copies.values())):
        those = [pair for pair, noise in copies.items() if noise == bits]
        hits = sum((a << 32 | b) in codes for a, b in those)
        print(f"copies whose frames differ in about {bits} bits: {_part(hits, len(those))}")


NOISE = {0.0: 0, 1 / 32: 8, 1 / 16: 16, 3 / 32: 24, 1 / 8: 32}
"""Part of the bits of a copy's hashes that differ, and how many these are of 256."""


def made_entries(rng: np.random.Generator, clips: int, frames: int) -> tuple[Entries, dict[tuple[int, int], int]]:
    """Random clips whose frames follow from each other, popular pictures and copies; and what the copies are of."""
    whole = np.empty((clips, frames, HASH_BYTES), dtype=np.uint8)
    whole[:, 0] = rng.integers(0, 256, (clips, HASH_BYTES), dtype=np.uint8)
    for frame in range(1, frames):
        whole[:, frame] = whole[:, frame - 1] ^ flips(rng, clips, 1 / 8)
    middle = whole ^ flips(rng, clips * frames, 3 / 16).reshape(whole.shape)
    popular = rng.integers(0, 256, (20, HASH_BYTES), dtype=np.uint8)
    shown = rng.choice(clips, clips // 50, replace=False)
    whole[shown, 0] = popular[rng.integers(0, 20, len(shown))] ^ flips(rng, len(shown), 1 / 64)
    copies = {}
    chosen = rng.choice(clips, 2 * (clips // 200), replace=False).reshape(-1, 2)
    for number, (part, bits) in enumerate(NOISE.items()):
        pairs = chosen[number :: len(NOISE)]
        noise = flips(rng, len(pairs) * frames, part).reshape(len(pairs), frames, HASH_BYTES)
        whole[pairs[:, 1]] = whole[pairs[:, 0]] ^ noise
        copies |= {(int(min(p)), int(max(p))): bits for p in pairs}
    owner = np.repeat(np.arange(clips, dtype=np.int32), frames)
    shape = (clips * frames, HASH_BYTES)
    return Entries(whole=whole.reshape(shape), middle=middle.reshape(shape), owner=owner), copies


def flips(rng: np.random.Generator, num: int, part: float) -> np.ndarray:
    """Hashes in which about ``part`` of the bits are set; ``part`` is a multiple of 1/64."""
    found = np.zeros((num, HASH_BYTES), dtype=np.uint8)
    # One binary digit of the part after the other, from the last: a random bit halves what there is, or its rest.
    digits = round(part * 64)
    for place in range(6):
        random = rng.integers(0, 256, found.shape, dtype=np.uint8)
        found = found | random if digits >> place & 1 else found & random
    return found


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="what", required=True)
    one = parts.add_parser("quality")
    one.add_argument("--videos", type=Path, required=True)
    one.add_argument("--folder", type=Path, required=True)
    one.add_argument("--part", choices=("calibrate", "test", "fresh"), default="test")
    one.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    one.add_argument("--dump", type=Path)
    two = parts.add_parser("index")
    two.add_argument("--clips", type=int, default=650_000)
    two.add_argument("--frames", type=int, default=MOST_MOMENTS)
    two.add_argument("--tables", type=int, default=BandSettings().tables)
    return parser.parse_args()


if __name__ == "__main__":
    given = parsed()
    {"quality": quality, "index": index}[given.what](given)
