"""Files that are no weights: what is said, and what can be done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from k710.errors import CheckpointError
from uniformerv2.training.source import find_weights
from uniformerv2.weights.published import read_weights, require_match


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "weights.pth"])
def test_a_text_file_is_not_a_weights_file_in_our_words(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("import nothing\n")
    with pytest.raises(CheckpointError, match="not a weights file") as caught:
        read_weights(path)
    assert "weights_only" not in caught.value.message + caught.value.hint
    assert "download it again" in caught.value.hint


@pytest.mark.parametrize("name", ["checkpoint.pt", "model.safetensors"])
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
    with pytest.raises(CheckpointError, match=r"8 missing: k0, k1, k2, k3, k4, \.\.\. and 3 more$"):
        require_match({}, {f"k{i}": torch.zeros(1) for i in range(8)})
