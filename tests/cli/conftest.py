"""A small toy Kinetics and its build, made once for each test process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cli.main import run
from k710.build import BuildConfig, build
from k710.synth.plan import SynthConfig
from k710.synth.write import synth


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``annotations/`` and ``videos/`` of the smallest toy Kinetics."""
    out = tmp_path_factory.mktemp("toy")
    synth(SynthConfig(num_clips=59, num_classes=4), out, workers=2)
    return out


@pytest.fixture(scope="session")
def built(toy: Path) -> Path:
    """The toy Kinetics as shards; not to be changed."""
    build(BuildConfig(annotations=toy / "annotations", videos=(str(toy / "videos"),), out=toy / "data", workers=2))
    return toy / "data"


@pytest.fixture
def k710(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process; gives its exit code, stdout and stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        code = run([str(a) for a in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return command
