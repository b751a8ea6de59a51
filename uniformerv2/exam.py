"""What is scored: weights with their classes, a view of a build, and the test views that its clips are given."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from k710.config import from_mapping, to_mapping
from k710.errors import UsageError
from k710.labels import LabelMap
from k710.shards.index import ShardIndex, View
from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.config import DataConfig, HeadSettings, TestConfig, read_recipe
from uniformerv2.data.decode import Decoder
from uniformerv2.data.feed import TestClips
from uniformerv2.data.samples import Sampling
from uniformerv2.data.sampling import FrameOrder
from uniformerv2.data.torchcodec_check import require_decoder
from uniformerv2.scores import Precision, clips_of_view, scorable
from uniformerv2.training.classes import ClassTable
from uniformerv2.training.feeds import target_labels
from uniformerv2.training.source import Source, model_config, new_model, read_source, source_classes, source_model
from uniformerv2.weights.remap import HEAD_KEYS, select_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateSettings:
    """What ``--set`` can change of an evaluation."""

    frame_order: FrameOrder = "source"
    """Order of each test clip's frames; ``shuffled`` and ``reversed`` show whether the model looks at time."""
    precision: Precision = "fp32"
    """Of the forward pass: ``fp32`` as in the published test, ``bf16`` or ``fp16`` under autocast."""
    test_views_per_batch: int = 32
    """Test views in one forward pass."""
    workers: int = 2
    """Decoding processes of each rank; 0: decode in this one."""
    decoder: Decoder = "pyav"
    """Library that decodes; the frames are the same."""
    threads: int = 0
    """Torch threads of each rank; 0 leaves torch's choice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes CUDA when there is one."""
    max_hole_fraction: float = 0.05
    """Share of the view's clips that may fail at read time before the evaluation stops."""
    save_every_s: float = 30.0
    """Seconds between two saves of what is scored so far, where there is a file to write in the end."""
    recipe: str = ""
    """Recipe whose model the weights are of, for a checkpoint that does not say."""
    head: HeadSettings = field(default_factory=HeadSettings)
    """``head.class_order`` names the rows of a checkpoint without a class table."""

    def __post_init__(self) -> None:
        if self.test_views_per_batch < 1 or self.workers < 0 or self.threads < 0:
            raise ValueError("test_views_per_batch must be at least 1, workers and threads at least 0")
        if not 0 <= self.max_hole_fraction <= 1:
            raise ValueError(f"max_hole_fraction must be between 0 and 1, got {self.max_hole_fraction}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exam:
    """All that decides a score."""

    settings: EvaluateSettings
    """What ``--set`` changed."""
    labels: LabelMap
    """The class table of the build."""
    source: Source
    """The weights."""
    classes: ClassTable
    """Of each row of their head."""
    model_config: UniFormerV2Config
    """Of the model that they are of."""
    index: ShardIndex
    """The build."""
    view: View
    """What is scored."""
    targets: npt.NDArray[np.int64]
    """Class of each planned position in the order of the taxonomy; -1: none."""
    test: TestConfig
    """Test views of each clip."""
    test_from: str
    """What set them."""
    sampling: Sampling
    """How the frames of a test clip are chosen: as in the training of the weights."""
    stride: int
    """Distance of neighbouring frames under ``dense`` sampling."""

    @property
    def frame_sampling(self) -> str:
        """``sampling`` and ``stride`` in words."""
        return f"dense, stride {self.stride}" if self.sampling == "dense" else self.sampling

    @property
    def positions(self) -> tuple[int, ...]:
        """Planned positions of the clips that have bytes and a class."""
        return scorable(self.view, self.targets)

    @property
    def names(self) -> list[str]:
        """All classes of the taxonomy, in order of index."""
        return list(self.labels.taxonomy_names(self.classes.taxonomy))

    def model(self) -> UniFormerV2:
        """The model with its head rows in the order of its taxonomy, in evaluation mode."""
        source = self.source
        model = new_model(self.model_config, seed=0)
        row_of = self.classes.canonical_rows(self.labels)
        rows = [row_of[c] for c in self.labels.rows_for(self.classes.taxonomy)]
        head = select_rows(source.state[HEAD_KEYS[0]], source.state[HEAD_KEYS[1]], rows)
        model.load_official({**source.state, **dict(zip(HEAD_KEYS, head, strict=True))})
        return model.eval()

    def test_views(self, model: UniFormerV2) -> TestClips:
        """The test views of each clip as ``model`` takes them."""
        return clips_of_view(
            model,
            self.index,
            self.view,
            clips=self.test.clips,
            crops=self.test.crops,
            frame_order=self.settings.frame_order,
            sampling=self.sampling,
            stride=self.stride,
            decoder=self.settings.decoder,
        )

    def digest(self, device: str) -> str:
        """Of all that decides the scores of a batch on a kind of device."""
        view, settings = self.view, self.settings
        places = [
            (view.keys[p], view.shards[p], int(view.offsets[p]), int(view.sizes_bytes[p])) for p in self.positions
        ]
        decides = {
            "weights": self.source.sha256,
            "model": to_mapping(self.model_config),
            "classes": list(self.classes.names),
            "view": [view.name, view.digest, view.data_digest, places],
            "test": [to_mapping(self.test), self.frame_sampling],
            "settings": [settings.frame_order, settings.precision, settings.test_views_per_batch],
            "device": device,
            "versions": versions(),
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def read_exam(
    source_path: Path, data: str, view_name: str, settings: EvaluateSettings, *, clips: int | None, crops: int | None
) -> Exam:
    """Weights and view, read and checked against each other; ``clips`` and ``crops`` win over the weights' recipe.

    Raises:
        UsageError: a view without classes, or with classes that the model lacks; frames that are not square.
        CheckpointError: weights that cannot be read, or whose class order is unknown.
        FeedError: the build cannot be read.
    """
    require_decoder(settings.decoder, "decoder")
    source, index = read_source(source_path), ShardIndex(data)
    labels = index.labels
    view = index.view(view_name)
    if not (view.classes >= 0).any():
        raise UsageError(f"view {view.name} has no classes: it can be predicted, not scored")
    classes = source_classes(source, settings.head.class_order, labels)
    own = source.config.get("recipe", {})
    test, test_from = _test_views(clips, crops, own, settings.recipe)
    fed = from_mapping(DataConfig, _table("data", own, settings.recipe)[0] or {}, where="the recipe: data")
    return Exam(
        settings=settings,
        labels=labels,
        source=source,
        classes=classes,
        model_config=_square_config(source, settings.recipe, len(classes.names)),
        index=index,
        view=view,
        targets=target_labels(view, classes.taxonomy, labels),
        test=test,
        test_from=test_from,
        sampling=fed.sampling,
        stride=fed.stride,
    )


def versions() -> dict[str, str]:
    """Of the libraries that numbers depend on."""
    return {name: importlib.metadata.version(name) for name in ("torch", "av", "numpy")}


def _table(name: str, own: Mapping[str, Any], recipe: str) -> tuple[Mapping[str, Any] | None, str]:
    """A table of the recipe of the weights, else of the one that the user names; and whose it is."""
    if name in own:
        return own[name], "the recipe of the weights"
    named = read_recipe(recipe).get(name) if recipe else None
    return named, f"recipe {recipe}" if named is not None else "the default"


def _test_views(clips: int | None, crops: int | None, own: Mapping[str, Any], recipe: str) -> tuple[TestConfig, str]:
    """Test clips and crops, and what set them: flags, else the recipe of the weights, else the published default."""
    values, whose = _table("test", own, recipe)
    default = from_mapping(TestConfig, values or {}, where=f"{whose}: test")
    given = {"clips": clips, "crops": crops}
    flags = [f"--{name}" for name, value in given.items() if value is not None]
    test = TestConfig(**{name: getattr(default, name) if value is None else value for name, value in given.items()})
    return test, " and ".join([*flags, *([whose] if len(flags) < len(given) else [])])


def _square_config(source: Source, recipe: str, num_classes: int) -> UniFormerV2Config:
    """The configuration of the weights, by the file or by ``recipe``; test crops are cut square."""
    config = model_config(source_model(source, recipe), num_classes=num_classes)
    height, width = config.frame_size
    if height != width:
        raise UsageError(
            f"evaluation takes square frames, got model.image_size {config.image_size}",
            hint="name a recipe whose model.image_size is one number",
        )
    return config
