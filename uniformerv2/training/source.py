"""Weights that a run starts from: found, read, and their classifier's rows put in the order of the target's classes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from k710.config import from_mapping
from k710.errors import CheckpointError, UsageError
from k710.labels import LabelMap
from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.config import HeadConfig, read_recipe
from uniformerv2.training.checkpoint import (
    HEADER_KEY,
    MODEL_FILE,
    SCHEMA,
    check_schema,
    lineage_path,
    parse_checkpoint,
    parsing,
    weights_digest,
)
from uniformerv2.training.classes import CANONICAL_ORDERS, ORDER_HINT, ClassTable, named_order
from uniformerv2.training.folder import run_files
from uniformerv2.training.lineage import Lineage, read_lineage
from uniformerv2.training.saves import CHECKPOINT_FOLDER, newest_checkpoint_path
from uniformerv2.weights.files import INDEX_SUFFIX, parts_of, read_weights, unreadable
from uniformerv2.weights.layouts import read_layout
from uniformerv2.weights.positions import POSITIONS
from uniformerv2.weights.published import as_tensor, require_fit
from uniformerv2.weights.remap import HEAD_KEYS, select_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Weights read from a file, with what the file says about them."""

    state: Mapping[str, Tensor]
    """State dict under published names, without prefixes."""
    sha256: str
    """Of the file."""
    lineage: Lineage
    """Videos the weights have seen; unknown for a bare state dict."""
    classes: ClassTable | None = None
    """Row by row; None: the file does not say."""
    class_order: str = ""
    """Order of the rows in the program that wrote the file; empty: unknown."""
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Resolved settings of the run that made them; empty: the file does not say."""
    data_digest: str = ""
    """Of the view they were trained on last."""

    @property
    def model(self) -> Mapping[str, Any]:
        """Settings of the model; empty when the file does not say."""
        return self.config["recipe"]["model"] if self.config else {}


def find_weights(path: Path) -> Path:
    """The weights file that a run folder or a path names.

    Raises:
        CheckpointError: there is none, or the run has not finished.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such run or checkpoint", hint="give a run folder, or a weights file")
    if (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    if (checkpoint := newest_checkpoint_path(path)) is not None:
        raise CheckpointError(
            f"{path}: the run has not finished",
            hint=f"let it finish, or name {checkpoint} to use it as it is",
        )
    raise CheckpointError(
        f"{path}: neither {MODEL_FILE} nor a checkpoint is in it",
        hint="name the folder of a run that has saved, or a weights file",
    )


def read_settings(path: Path) -> Mapping[str, Any]:
    """Settings of the run that made the weights at ``path``, without the weights where they stand apart."""
    file = find_weights(path)
    header = _header(file)
    if header is None:
        return read_source(file).config
    check_schema(header, str(file))
    with parsing(str(file)):
        return dict(header["config"])


def read_source(path: Path) -> Source:
    """The weights at ``path``: a run folder, one of our files, or a published state dict.

    Raises:
        CheckpointError: missing, damaged, of a version that is not read here, or beside another model's lineage.
    """
    file = find_weights(path)
    content = read_weights(file)
    sha256 = file_sha256(file)
    header = _header(file)
    if header is not None:
        return _from_model_file(file, content, header, sha256)
    if content.get("schema") == SCHEMA:
        saved = parse_checkpoint(content, where=str(file))
        p = saved.provenance
        return Source(
            state=saved.model,
            sha256=sha256,
            lineage=p.lineage,
            classes=p.classes,
            config=p.config,
            data_digest=p.data_digest,
        )
    layout = read_layout(content)
    state = {name: as_tensor(name, value) for name, value in layout.weights.items()}
    return Source(state=state, sha256=sha256, lineage=Lineage(known=False), class_order=layout.class_order)


def start_model(
    config: UniFormerV2Config, source: Source | None, target: str, head: HeadConfig, labels: LabelMap, seed: int
) -> UniFormerV2:
    """A model for ``target``: initial weights from ``seed``, then all of ``source``, the classifier by class name."""
    model = new_model(config, seed)
    if source is not None:
        state = dict(source.state)
        # Before the head is changed: a message should speak of the file as it is. These entries are fitted below.
        require_fit(state, model.state_dict(), apart_from=(*HEAD_KEYS, POSITIONS))
        if head.init == "random":
            # Not of the same seed: torch would draw the very rows that the K710 head began with, and the features
            # that were trained against those rows still fit them.
            fresh = new_model(config, _other_seed(seed)).state_dict()
            state |= {key: fresh[key] for key in HEAD_KEYS}
        else:
            rows = head_rows(source, target, head.class_order, labels)
            state |= zip(HEAD_KEYS, select_rows(state[HEAD_KEYS[0]], state[HEAD_KEYS[1]], rows), strict=True)
        model.load_official(state)
    return model


def new_model(config: UniFormerV2Config, seed: int) -> UniFormerV2:
    """A model with the initial weights of ``seed``; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UniFormerV2(config)


def _other_seed(seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"head {seed}".encode(), digest_size=4).digest(), "big")


def source_classes(source: Source, class_order: str, labels: LabelMap) -> ClassTable:
    """The class of each row of the source's head: its own table, else the order of its format or that the user names.

    Raises:
        CheckpointError: the head is none, its own table is of another size, or nothing says which class a row is.
        UsageError: the source and the user both say, and not the same.
    """
    num_rows = num_head_rows(source.state)
    if source.classes is not None:
        if class_order:
            raise UsageError("the checkpoint has its own class table", hint="leave head.class_order out")
        if len(source.classes.names) != num_rows:
            raise CheckpointError(f"the checkpoint names {len(source.classes.names)} classes, its head has {num_rows}")
        return source.classes
    # A file of names is taken all the same: mmaction2 trains on any list, and only what it publishes has its order.
    if source.class_order and not class_order.endswith(".csv"):
        if class_order and {class_order, source.class_order}.difference(CANONICAL_ORDERS):
            raise UsageError(
                f"the checkpoint is one of {source.class_order}, whose heads are not in the order {class_order!r}",
                hint="leave head.class_order out, or name a .csv of its classes",
            )
        class_order = source.class_order
    if not class_order:
        raise CheckpointError("the checkpoint does not say which class each row of its head is", hint=ORDER_HINT)
    return named_order(class_order, num_rows, labels)


def head_rows(source: Source, target: str, class_order: str, labels: LabelMap) -> list[int]:
    """Row of the source's head for class 0, 1, ... of ``target``, found by name.

    Raises:
        CheckpointError: the order of the rows is unknown, or a class of the target is not among them.
    """
    return ClassTable.of(labels, target).rows_from(source_classes(source, class_order, labels), labels)


def num_head_rows(state: Mapping[str, Tensor]) -> int:
    """Classes of the head in ``state``.

    Raises:
        CheckpointError: there is no head, or a damaged one.
    """
    absent = [key for key in HEAD_KEYS if key not in state]
    if absent:
        raise CheckpointError(
            f"the checkpoint has no classifier ({absent[0]})",
            hint="use another checkpoint; or, to train, start a new classifier with --set head.init=random",
        )
    weight, bias = (state[key].shape for key in HEAD_KEYS)
    if len(weight) != 2 or bias != weight[:1] or not weight[0]:
        raise CheckpointError(
            f"the checkpoint's classifier is damaged: weight {tuple(weight)}, bias {tuple(bias)}",
            hint="use another copy of the checkpoint",
        )
    return int(weight[0])


def source_model(source: Source, recipe: str) -> Mapping[str, Any]:
    """Settings of the model that the weights are of: what the file says, else those of the recipe that the user names.

    Raises:
        CheckpointError: neither says.
        UsageError: both say, or there is no such recipe, or one without a model.
    """
    if source.model and recipe:
        raise UsageError("the checkpoint says itself what model it is of", hint=f"leave --set recipe={recipe} out")
    if source.model:
        return source.model
    if not recipe:
        raise CheckpointError(
            "the checkpoint does not say what model it is of", hint="name its recipe: --set recipe=k710_b16"
        )
    values = read_recipe(recipe).get("model")
    if not isinstance(values, Mapping) or not values:
        raise UsageError(
            f"recipe {recipe}: has no [model] table",
            hint="name the recipe that the model was pre-trained with, such as --set recipe=k710_b16",
        )
    return values


def model_config(values: Mapping[str, Any], **changes: Any) -> UniFormerV2Config:
    """The model configuration of plain values, such as those in a checkpoint, with some fields replaced."""
    return from_mapping(UniFormerV2Config, {**values, **changes}, where="model")


def require_not_of(weights: Path, out: Path) -> None:
    """Refuse ``out`` as a place to write to when the weights are read from it, or when a run keeps its files there."""
    parts = parts_of(weights) if weights.name.endswith(INDEX_SUFFIX) else ()
    taken = [weights.parent / name for name in (weights.name, lineage_path(weights).name, *parts)]
    here = weights.absolute()
    folder = here.parent.parent if here.parent.name == CHECKPOINT_FOLDER else here.parent
    if here in run_files(folder):
        # Also those that are not there: a run that goes on would take what is written for a file of its own.
        taken += run_files(folder)
        if os.path.realpath(out.parent) == os.path.realpath(folder / CHECKPOINT_FOLDER):
            taken.append(out)
    if os.path.realpath(out) in {os.path.realpath(path) for path in taken}:
        raise UsageError(f"--out {out}: is a file of the weights or of their run", hint="give another --out")


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes; of an index of weights files, also over the files that it names."""
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256")
    if path.name.endswith(INDEX_SUFFIX):
        for name in sorted(parts_of(path)):
            digest.update(bytes.fromhex(file_sha256(path.parent / name)))
    return digest.hexdigest()


def _header(path: Path) -> dict[str, Any] | None:
    if path.suffix != ".safetensors":
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as handle:
            text = (handle.metadata() or {}).get(HEADER_KEY)
    except (OSError, safetensors.SafetensorError) as error:
        raise unreadable(path, error) from error
    with parsing(str(path)):
        return None if text is None else dict(json.loads(text))


def _from_model_file(path: Path, state: Mapping[str, Tensor], header: Mapping[str, Any], sha256: str) -> Source:
    check_schema(header, str(path))
    # Files from before there was a digest are taken as they are.
    if (digest := header.get("weights_digest")) is not None and digest != weights_digest(state):
        raise CheckpointError(
            f"{path}: damaged: its weights are not those that were written (the digests differ)",
            hint="use another copy of it; where they were changed on purpose, write them without `weights_digest`",
        )
    with parsing(str(path)):
        lineage = read_lineage(
            lineage_path(path),
            digest=header["lineage_sha256"],
            known=header["lineage_known"],
            not_checked=header["not_checked"],
        )
        return Source(
            state=state,
            sha256=sha256,
            lineage=lineage,
            classes=ClassTable.from_plain(header["classes"]),
            config=header["config"],
            data_digest=header["data_digest"],
        )
