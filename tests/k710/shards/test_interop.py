"""Other tools read a build as `docs/interop.md` says, every clip of a view and every byte of it."""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from k710.build import BuildConfig, build
from k710.clips.media import EncodeConfig, encode_frames
from k710.shards.index import ShardIndex

PAGE = Path(__file__).resolve().parents[3] / "docs" / "interop.md"
HIDDEN = "__aaaaaaaaa_000000_000001"
"""A clip of `k400-train` whose id Hugging Face datasets takes for a hidden file's name."""
# Clips differ in their labels, one has a note, one two classes; ids look like options, numbers and hidden files.
LISTS = {
    "kinetics400/train": ["abseiling,__aaaaaaaaa,0,1", "abseiling,_bbbbbbbbbb,0,1", "abseiling,-cccccccccc,0,1"],
    "kinetics600/train": ["abseiling,-cccccccccc,0,1", "air drumming,1e2dddddddd,0,1", "abseiling,NaNeeeeeeee,0,3"],
    "kinetics700/train": ["air drumming,NaNeeeeeeee,0,3"],
    "kinetics400/val": ["air drumming,--ggggggggg,0,1", "abseiling,_-hhhhhhhhh,0,1"],
}
_ENERGON = os.environ.get("K710_ENERGON") or shutil.which("energon")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the build ``k710-data``, one clip a shard: do not write to it."""
    root = tmp_path_factory.mktemp("interop")
    names = sorted({f"{row[-15:-4]}_{int(row[-3]):06d}_{int(row[-1]):06d}" for rows in LISTS.values() for row in rows})
    (root / "videos").mkdir()
    for seed, name in enumerate(names):
        frames_THWC = np.random.default_rng(seed).integers(0, 255, (10, 32, 48, 3), dtype=np.uint8)
        encode_frames(frames_THWC, root / "videos" / f"{name}.mp4", fps=10, config=EncodeConfig())
    for name, rows in LISTS.items():
        path = root / "annotations" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (f"{row},{path.stem}\n" for row in rows)
        path.write_text("label,youtube_id,time_start,time_end,split\n" + "".join(lines))
    (root / "out").mkdir()
    build(_config(root, root / "out" / "k710-data"))
    return root / "out"


@pytest.fixture
def here(built: Path, tmp_path: Path) -> Path:
    """A copy of the folder that holds the build."""
    shutil.copytree(built, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("view", ["k400-train", "k710-train"])
def test_webdataset_reads_a_view_with_two_workers(built: Path, view: str) -> None:
    _need("webdataset")
    assert _run_snippet("webdataset", built, view) == _clips_of(built, view)


# The reader leaves its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_gives_every_member_and_every_byte(built: Path) -> None:
    _need("webdataset")
    import webdataset

    index = ShardIndex(built / "k710-data")
    view = index.view("k710-train")
    shards = sorted({str(built / "k710-data" / shard) for shard in view.shards if shard})
    samples = {s["__key__"]: s for s in webdataset.WebDataset(shards, shardshuffle=False)}
    gc.collect()
    assert sorted(samples) == sorted(view.keys)
    for position, key in enumerate(view.keys):
        sample = samples[key]
        assert {name for name in sample if not name.startswith("__")} == {"mp4", "json", "cls"}
        assert sample["mp4"] == index.read_clip(view, position)
        assert int(sample["cls"]) == view.classes[position] == json.loads(sample["json"])["labels"]["k710"]


@pytest.mark.parametrize("view", ["k400-train", "k710-train"])
def test_wids_reads_a_view_by_number_where_its_tars_are(here: Path, view: str) -> None:
    _need("wids")
    before = _digests(here)
    assert _run_snippet("wids", here, view) == _clips_of(here, view)
    assert _digests(here) == before


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("view", ["k400-train", "k710-train"])
def test_hugging_face_datasets_reads_all_but_what_it_takes_for_hidden_files(
    here: Path, view: str, streaming: bool
) -> None:
    _need("datasets")
    seen = _run_snippet("hugging face datasets", here, view, {"streaming=True": f"streaming={streaming}"})
    expected = _clips_of(here, view)
    assert seen == [line for line in expected if not line.startswith(HIDDEN)]
    assert len(seen) == len(expected) - 1


def test_hugging_face_datasets_has_all_clips_through_webdataset(here: Path) -> None:
    _need("datasets")
    _need("webdataset")
    assert _run_snippet("hugging face datasets", here, "k400-train", number=1) == _clips_of(here, "k400-train")


@pytest.mark.skipif(
    _ENERGON is None,
    reason="no energon on PATH or in K710_ENERGON; it needs older packages than constraints.txt, so no extra has it",
)
def test_energon_prepares_and_reads_a_view_and_leaves_the_tars_alone(here: Path) -> None:
    assert _ENERGON is not None
    before = _digests(here)
    _run(["sh", "-c", _snippets("energon", "sh")[0]], here)
    assert (here / "k710-data/.nv-meta/split.yaml").is_file()
    assert _digests(here) == before
    said = _run([str(Path(_ENERGON).with_name("python")), "-c", _snippets("energon", "python")[0]], here)
    assert sorted(said.splitlines()) == _clips_of(here, "k400-train")


def test_a_build_goes_on_beside_the_files_of_energon(here: Path, built: Path) -> None:
    out = here / "k710-data"
    (out / ".nv-meta").mkdir()
    (out / ".nv-meta" / "split.yaml").write_text("split_parts: {}\n")
    for path in _tars(out):
        path.with_name(f"{path.name}.idx").write_bytes(b"\0")
    before = _digests(here)
    assert build(_config(built.parent, out)).made == 0
    assert _digests(here) == before


def test_a_key_occurs_once_in_a_build_and_its_members_stand_together(built: Path) -> None:
    keys = []
    for path in _tars(built / "k710-data"):
        with tarfile.open(path) as tar:
            names = [info.name for info in tar]
        assert all(re.fullmatch(r"[A-Za-z0-9_-]+\.(mp4|json|cls)", name) for name in names)
        assert len(set(names)) == len(names)
        keys += [key for key, _ in itertools.groupby(name.partition(".")[0] for name in names)]
    assert len(keys) == len(set(keys)) == 7


def test_tars_are_plain_ustar_which_is_all_that_wids_reads(built: Path) -> None:
    for path in _tars(built / "k710-data"):
        with tarfile.open(path) as tar:
            assert {(info.type, len(info.pax_headers)) for info in tar} == {(tarfile.REGTYPE, 0)}


def test_the_samples_of_these_tests_differ_in_labels_and_notes(built: Path) -> None:
    facts = [json.loads(data) for data in _members(built, ".json")]
    assert len({tuple(sorted(f["labels"])) for f in facts}) > 2
    assert {bool(f["notes"]) for f in facts} == {True, False}
    assert {"classes" in f for f in facts} == {True, False}


def _config(root: Path, out: Path) -> BuildConfig:
    return BuildConfig(
        annotations=root / "annotations", videos=(str(root / "videos"),), out=out, workers=1, clips_per_shard=1
    )


def _need(package: str) -> None:
    """Skip where a package of the extra ``dev`` is not installed, or fail where nothing may be missing."""
    if importlib.util.find_spec(package) is None:
        required = os.environ.get("K710_REQUIRE_SHARED", "") not in ("", "0")
        (pytest.fail if required else pytest.skip)(f"{package} is not installed; the extra `dev` has it")


def _clips_of(folder: Path, view_name: str) -> list[str]:
    """What a snippet prints of a view: key, size and class of each clip, sorted."""
    view = ShardIndex(folder / "k710-data").view(view_name)
    return sorted(f"{k} {s} {c}" for k, s, c in zip(view.keys, view.sizes_bytes, view.classes, strict=True))


def _run_snippet(
    tool: str, folder: Path, view: str, changes: Mapping[str, str] | None = None, *, number: int = 0
) -> list[str]:
    """The sorted lines that a snippet of the page prints, of another view or with other changes."""
    code = _snippets(tool, "python")[number].replace('"k400-train"', f'"{view}"')
    # The canonical class is the one label that every clip of a `k710-*` view has.
    for old, new in {'["k400"]["index"]': '["k710"]' if view.startswith("k710") else None, **(changes or {})}.items():
        assert old in code
        code = code.replace(old, new or old)
    script = folder.parent / "snippet.py"
    script.write_text(code)
    return sorted(_run([sys.executable, str(script)], folder).splitlines())


def _run(command: Sequence[str], folder: Path) -> str:
    """What ``command`` prints, run in ``folder`` with caches of its own and no network."""
    path = f"{Path(_ENERGON).parent}{os.pathsep}{os.environ['PATH']}" if _ENERGON else os.environ["PATH"]
    environment = os.environ | {
        "PATH": path,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(folder.parent / "hugging_face"),
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _snippets(tool: str, language: str) -> list[str]:
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    section = next(s for s in sections if s.lower().startswith(f"{tool}\n"))
    return re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


def _digests(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in _tars(folder / "k710-data")}


def _tars(out: Path) -> list[Path]:
    return sorted((out / "shards").glob("**/*.tar"))


def _members(folder: Path, suffix: str) -> Iterator[bytes]:
    for path in _tars(folder / "k710-data"):
        with tarfile.open(path) as tar:
            for info in tar:
                handle = tar.extractfile(info)
                if info.name.endswith(suffix) and handle is not None:
                    yield handle.read()
