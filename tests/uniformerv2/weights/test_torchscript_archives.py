"""TorchScript archives give their tensors, and nothing in them is run."""

from __future__ import annotations

import pickle
import random
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from k710.errors import CheckpointError
from uniformerv2.weights.files import read_weights


class Inner(nn.Module):
    """Everything that a module can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3).t())
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.register_buffer("mean", torch.ones(3, dtype=torch.float64))
        self.register_buffer("passing", torch.ones(3), persistent=False)
        self.attribute = torch.ones(4)
        self.sizes = [1, 2]
        self.rates = {"a": 1.5}
        self.device = torch.device("cpu")

    def forward(self, x: Tensor) -> Tensor:
        return x


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.layers = nn.ModuleList([nn.Linear(2, 3).half(), nn.Linear(2, 3).bfloat16(), nn.BatchNorm1d(3)])
        self.tied = self.layers[0]

    def forward(self, x: Tensor) -> Tensor:
        return x


class WritesAFile(nn.Module):
    """Writes a file when TorchScript loads it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.weight = nn.Parameter(torch.zeros(2))

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, str, bool]:
        return (self.weight, self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, str, bool]) -> None:
        torch.save(state[0], state[1])
        self.weight = state[0]
        self.path = state[1]
        self.training = state[2]

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # TorchScript is deprecated for new programs.
        warnings.simplefilter("ignore")
        yield


def traced(module: nn.Module) -> Any:
    return torch.jit.trace(module, torch.zeros(1))


@pytest.mark.parametrize("compiled", [torch.jit.script, traced], ids=["scripted", "traced"])
def test_an_archive_gives_what_torchscript_gives(tmp_path: Path, compiled: Callable[[nn.Module], Any]) -> None:
    path = tmp_path / "clip.pt"
    torch.jit.save(compiled(Outer()), path)
    theirs, ours = torch.jit.load(path).state_dict(), read_weights(path)
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype
        assert torch.equal(ours[key], value)


def test_what_an_archive_would_run_is_not_run(tmp_path: Path) -> None:
    made, path = tmp_path / "made", tmp_path / "evil.pt"
    torch.jit.save(torch.jit.script(WritesAFile(str(made))), path)
    with pytest.raises(CheckpointError, match=r"holds code \(__torch__.*\.WritesAFile\.__setstate__\)"):
        read_weights(path)
    assert not made.exists()
    torch.jit.load(path)
    assert made.exists(), "the archive does run code where it may"


def replaced(path: Path, member: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, old in members.items():
            archive.writestr(name, content if name.endswith(member) else old)


class Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return eval, (f"open({str(self.path)!r}, 'w')",)


def test_python_in_the_tree_of_an_archive_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    torch.jit.save(torch.jit.script(Inner()), path)
    replaced(path, "/data.pkl", pickle.dumps(Touches(tmp_path / "made"), protocol=2))
    with pytest.raises(CheckpointError, match=r"holds code \(__builtin__\.eval\)"):
        read_weights(path)
    assert not (tmp_path / "made").exists()


def test_a_tree_without_a_module_and_other_byte_orders_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    torch.jit.save(torch.jit.script(Inner()), path)
    whole = path.read_bytes()
    replaced(path, "/byteorder", b"big")
    with pytest.raises(CheckpointError, match="not a weights file"):
        read_weights(path)
    path.write_bytes(whole)
    replaced(path, "/data.pkl", pickle.dumps([1], protocol=2))
    with pytest.raises(CheckpointError, match="not a weights file"):
        read_weights(path)


def node(depth: int) -> bytes:
    """A pickled object that holds the next one twice, and so on, down to an empty one."""
    if not depth:
        return b"c__torch__\nNode\n)\x81}b"
    below = bytes([depth])
    return b"c__torch__\nNode\n)\x81}(U\x01a" + node(depth - 1) + b"q" + below + b"U\x01bh" + below + b"ub"


@pytest.mark.timeout(60)
def test_objects_that_hold_each_other_again_and_again_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    torch.jit.save(torch.jit.script(Inner()), path)
    replaced(path, "/data.pkl", b"\x80\x02" + node(3) + b".")
    assert read_weights(path) == {}
    replaced(path, "/data.pkl", b"\x80\x02" + node(28) + b".")
    with pytest.raises(CheckpointError, match=r"clip\.pt: .* more than 100000 values") as caught:
        read_weights(path)
    assert caught.value.hint


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("where", ["tree", "archive"])
def test_a_damaged_archive_is_read_or_refused(tmp_path: Path, where: str) -> None:
    path = tmp_path / "clip.pt"
    torch.jit.save(torch.jit.script(Inner()), path)
    whole, dice, refused = path.read_bytes(), random.Random(0), 0
    with zipfile.ZipFile(path) as archive:
        tree = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
    for _ in range(150):
        damaged = bytearray(tree if where == "tree" else whole)
        for _ in range(dice.randint(0, 3)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        del damaged[len(damaged) - dice.choice([0, 0, 1, 40]) :]
        path.write_bytes(whole if where == "tree" else damaged)
        if where == "tree":
            replaced(path, "/data.pkl", bytes(damaged))
        try:
            assert isinstance(read_weights(path), dict)
        except CheckpointError:
            refused += 1
    assert 0 < refused < 150
