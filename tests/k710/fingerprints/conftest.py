"""Short cuts of real clips with their edits, and a build of them; made once."""

from __future__ import annotations

import csv
import functools
import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
from content_cases import ALONE, COPY, DANCERS, LEAKED, MIRRORED, SKATERS, SLOW, TWICE

from cli.main import run
from k710 import atomic
from k710.build import BuildConfig, build
from k710.clips.encodings import EncodeConfig
from k710.fingerprints import stored
from k710.fingerprints.content import ContentConfig, audit_content
from k710.fingerprints.frames import FrameHashes, hash_frames
from k710.lists.policy import Policy
from k710.report.near_duplicates import ContentAudit, read_content_audit


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the extra, which is compiled where it is installed, there are no fingerprints."""
    if importlib.util.find_spec("pdqhash") is None:
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="no pdqhash: pip install 'k710[content]'"))


Cut = Callable[..., Path]
"""A stretch of a real clip: name, start and duration in seconds, ffmpeg's filter, x264's crf."""


@pytest.fixture(scope="session")
def cut(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Cut:
    """Makes stretches of real clips, each once."""
    folder = tmp_path_factory.mktemp("cuts")

    @functools.cache
    def make(name: str, start_s: float = 0, duration_s: float = 3, edit: str = "null", crf: int = 23) -> Path:
        path = folder / f"{len(list(folder.iterdir()))}.mp4"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(shared / "videos" / name)]
        # Behind the input: one of the files has no key frame to go to, and is decoded from its start.
        command += ["-ss", str(start_s), "-t", str(duration_s), "-an", "-vf", edit]
        command += ["-c:v", "libx264", "-preset", "ultrafast"]
        command += ["-pix_fmt", "yuv420p", "-crf", str(crf), "-threads", "1", str(path)]
        subprocess.run(command, check=True)
        return path

    return make


@pytest.fixture(scope="session")
def hashed(cut: Cut) -> Callable[..., FrameHashes]:
    """The hashes of such a stretch."""
    return functools.cache(lambda *given, **more: hash_frames(cut(*given, **more).read_bytes()))


@pytest.fixture(scope="session")
def sources(cut: Cut, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists and videos: what is trained on, its copy among the held-out ones, its mirror image in another release."""
    root = tmp_path_factory.mktemp("sources")
    lists = {
        "kinetics400/train": [(LEAKED, 0), (ALONE, 0)],
        "kinetics400/val": [(COPY, 0)],
        "kinetics600/train": [(MIRRORED, 0), (TWICE, 0)],
        "kinetics700/train": [(TWICE, 5)],
    }
    for name, rows in lists.items():
        path = root / "annotations" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as handle:
            table = csv.writer(handle, lineterminator="\n")
            table.writerow(["label", "youtube_id", "time_start", "time_end", "split"])
            table.writerows(["abseiling", video, at, at + 3, name.rpartition("/")[2]] for video, at in rows)
    videos = {
        (LEAKED, 0): cut(DANCERS),
        (COPY, 0): cut(DANCERS, 1.0, 3, "scale=212:160", 30),
        (MIRRORED, 0): cut(DANCERS, 0, 3, "hflip"),
        (ALONE, 0): cut(SLOW),
        (TWICE, 0): cut(SKATERS, 0, 3),
        (TWICE, 5): cut(SKATERS, 0, 3, "null", 28),
    }
    (root / "videos").mkdir()
    for (video, at), path in videos.items():
        (root / "videos" / f"{video}_{at:06d}_{at + 3:06d}.mp4").write_bytes(path.read_bytes())
    return root


@pytest.fixture(autouse=True)
def in_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decodes in this process and waits for no disk, but where processes are killed."""
    if "slow" in request.keywords:
        return

    def one_by_one(function: Callable[[Any], Any], tasks: Iterable[Any], *, workers: int) -> Iterator[Any]:
        for task in tasks:
            yield [(task, function(task))]

    monkeypatch.setattr(atomic, "sync_file", lambda path: None)
    monkeypatch.setattr(atomic, "sync_folder", lambda path: None)
    monkeypatch.setitem(stored.EXECUTORS, "local", one_by_one)


@pytest.fixture(scope="session")
def finished(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of them: do not write to it."""
    out = tmp_path_factory.mktemp("finished") / "data"
    build(
        BuildConfig(
            annotations=sources / "annotations",
            videos=(str(sources / "videos"),),
            out=out,
            workers=1,
            encode=EncodeConfig(encode="copy"),
            policy=Policy(unit="segment"),
        )
    )
    return out


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line: exit code, stdout, stderr."""

    def command(*words: str) -> tuple[int, str, str]:
        code = run(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return command


@pytest.fixture(scope="session")
def whole(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build with its content audit: do not write to it."""
    out = shutil.copytree(finished, tmp_path_factory.mktemp("whole") / "data")
    audit_content(ContentConfig(folder=out))
    return out


@pytest.fixture(scope="session")
def audited(whole: Path) -> ContentAudit:
    """That audit."""
    found = read_content_audit(whole)
    assert found is not None
    return found


@pytest.fixture
def compared(whole: Path, tmp_path: Path) -> Path:
    """A copy of the build with its audit, to damage."""
    shutil.copytree(whole, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def built(finished: Path, tmp_path: Path) -> Path:
    """A copy of that build to compare and to damage."""
    shutil.copytree(finished, tmp_path / "data")
    return tmp_path / "data"
