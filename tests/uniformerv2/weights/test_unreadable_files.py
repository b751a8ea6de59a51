"""Files that are no weights: what is said, and what can be done."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from k710.errors import CheckpointError
from uniformerv2.training.source import file_sha256, find_weights
from uniformerv2.weights.files import parts_of, read_weights
from uniformerv2.weights.published import differences


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "weights.pth"])
def test_a_text_file_is_not_a_weights_file_in_our_words(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("import nothing\n")
    with pytest.raises(CheckpointError, match="not a weights file") as caught:
        read_weights(path)
    assert "weights_only" not in caught.value.message + caught.value.hint
    assert "download it again" in caught.value.hint


@pytest.mark.parametrize("name", ["checkpoint.pt", "step-00000120.pt", "model.safetensors", "model_best.safetensors"])
def test_nobody_is_told_to_download_a_run_of_their_own(tmp_path: Path, name: str) -> None:
    whole = tmp_path / "whole"
    torch.save({"a": torch.zeros(99)}, whole)
    (tmp_path / name).write_bytes(whole.read_bytes()[:200])
    with pytest.raises(CheckpointError) as caught:
        read_weights(tmp_path / name)
    assert "download" not in caught.value.hint
    assert "--fresh in a new folder" in caught.value.hint


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_file_without_the_right_to_read_it_is_not_called_missing(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    path.chmod(0)
    # The superuser may read anything.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(CheckpointError, match="permission denied") as caught:
        read_weights(path)
    assert "No such file" not in caught.value.message


def test_a_folder_without_weights_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_weights(tmp_path)
    assert caught.value.hint


def test_at_most_five_keys_are_listed() -> None:
    _, said = differences({}, {f"k{i}": torch.zeros(1) for i in range(8)})
    assert said == "8 missing: k0, k1, k2, k3, k4, ... and 3 more"


class MakesAFile:
    """Would make a file when a pickle of it is read the careless way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return Path.touch, (str(self.path),)


class RunsACommand(MakesAFile):
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


def save_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def save_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_pickle])
@pytest.mark.parametrize("kind", [MakesAFile, RunsACommand])
def test_code_in_a_pickle_is_named_and_never_run(
    tmp_path: Path, kind: type[MakesAFile], save: Callable[[Any, Path], None]
) -> None:
    made, path = tmp_path / "made", tmp_path / "evil.pyth"
    save({"model_state": {"x": kind(made), "conv1.weight": torch.zeros(2)}}, path)
    with pytest.raises(CheckpointError, match=r"holds code \((posix\.system|getattr)\)") as caught:
        read_weights(path)
    assert not made.exists()
    assert "\n" not in caught.value.message
    assert "state dict" in caught.value.hint


@pytest.mark.filterwarnings("ignore")
def test_a_pickle_that_another_protocol_wrote_is_refused_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"x": RunsACommand(tmp_path / "made")}, protocol=5))
    with pytest.raises(CheckpointError):
        read_weights(path)
    assert not (tmp_path / "made").exists()


def test_nothing_of_torchs_own_advice_is_repeated(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(pickle.dumps({"x": 1}, protocol=4))
    # Warnings are errors in these tests.
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    assert "weights_only" not in caught.value.message + caught.value.hint


def tar_bytes() -> bytes:
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("storages"))
        return buffer.getvalue()


@pytest.mark.parametrize("name", ["weights.pyth", "weights.safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "it is a web page"),
        (b"\n <?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
        (b"\x1f\x8b\x08" + bytes(99), "gzip"),
        (b"please log in", "it is text"),
        (b"\x80\x02" + bytes(range(200)), "cut short, or of another program"),
        (tar_bytes(), "tar archive"),
    ],
    ids=["empty", "html", "xml", "lfs", "gzip", "text", "bytes", "tar"],
)
def test_what_stands_in_place_of_weights_is_said_in_one_line(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_weights(path)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_folder_is_not_a_weights_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a file"):
        read_weights(tmp_path)


def write_parts(folder: Path, **changes: Any) -> Path:
    parts = {"one.safetensors": {"a": torch.ones(2), "b": torch.zeros(1)}, "two.safetensors": {"c": torch.arange(3.0)}}
    for name, tensors in parts.items():
        safetensors.torch.save_file(tensors, folder / name)
    names = {key: name for name, tensors in parts.items() for key in tensors}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {**names, **changes}}))
    return index


def test_weights_in_parts_are_read_through_their_index(tmp_path: Path) -> None:
    index = write_parts(tmp_path)
    content = read_weights(index)
    assert {key: value.tolist() for key, value in content.items()} == {"a": [1, 1], "b": [0], "c": [0, 1, 2]}
    before = file_sha256(index)
    safetensors.torch.save_file({"c": torch.zeros(3)}, tmp_path / "two.safetensors")
    assert file_sha256(index) != before


@pytest.mark.parametrize("name", ["../one.safetensors", "/etc/passwd", "one.pt", "", 3])
def test_an_index_names_no_files_elsewhere(tmp_path: Path, name: Any) -> None:
    with pytest.raises(CheckpointError, match="not a safetensors file beside it"):
        read_weights(write_parts(tmp_path, d=name))


def test_a_part_that_is_missing_or_lacks_a_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"one\.safetensors: lacks 1 tensors .* such as d"):
        read_weights(write_parts(tmp_path, d="one.safetensors"))
    with pytest.raises(CheckpointError, match=r"three\.safetensors: no such file"):
        read_weights(write_parts(tmp_path, d="three.safetensors"))


json_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@settings(deadline=None, max_examples=80)
@given(content=json_values | st.fixed_dictionaries({"weight_map": json_values}))
def test_an_index_of_anything_else_is_refused(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    index = tmp_path_factory.mktemp("index") / "a.safetensors.index.json"
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError):
        parts_of(index)
