"""A model in the formats of other programs, each file read again and compared before it gets its name.

    .onnx                        ONNX Runtime and all that reads ONNX
    .pt2                         torch.export.load, without this project
    .pyth .pth .safetensors      the published code: official names, no graph

Axes of clips and logits stand in ``description``, which goes into the files too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from k710 import __version__, atomic
from k710.config import to_mapping
from k710.errors import AnswerIsNo, UsageError
from uniformerv2.data.augment import MEAN, STD
from uniformerv2.models.uniformerv2 import UniFormerV2
from uniformerv2.models.uniformerv2_config import UniFormerV2Config
from uniformerv2.training.source import new_model
from uniformerv2.weights.files import read_weights
from uniformerv2.weights.official import SUFFIXES as OFFICIAL_SUFFIXES
from uniformerv2.weights.official import save_official

SCHEMA = "k710.export"
SCHEMA_VERSION = 1
INPUT, OUTPUT = "clip", "logits"
FACTS_FILE = "k710.json"
"""Name of the extra file of a ``.pt2`` that describes it; ONNX has the same keys in ``metadata_props``."""
TOLERANCE: Final = 1e-4
"""Largest difference of logits that passes."""
BATCHES: Final = (1, 2)
"""Batch sizes that are compared; none is the one that was traced."""
SINGLE_FILE_BYTES = 2**31 - 2**26
"""Weights above this go to a file beside the ONNX file: protobuf ends at 2 GiB, and the graph needs some of it."""

_TRACED_BATCH = 3
_HINT = "make room or get the rights and run the same command again, or give another --out"


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What an exported file says about its weights, beside what the configuration of the model says."""

    classes: tuple[str, ...] = ()
    """Name of row 0, 1, ... of the logits; empty: unknown."""
    taxonomy: str = ""
    """``k710``, ``k400``, ``k600`` or ``k700``; empty: another one."""
    input_known: bool = False
    """The weights were trained on clips as they are made here; else the file does not say how to make them."""
    source_sha256: str = ""
    """Of the weights file that was exported."""
    data_digest: str = ""
    """Of the view the weights were trained on last."""


NO_FACTS = Facts()


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A file that was written, read again, and found to compute the same."""

    path: Path
    """The file."""
    size_bytes: int
    """Of the file, and of the one beside it."""
    external_data: Path | None = None
    """File beside an ONNX file that holds its weights, when they are too many for one; the two belong together."""
    difference: float
    """Largest absolute difference of logits from the model itself."""


def export_program(model: UniFormerV2) -> ExportedProgram:
    """The forward pass of ``model`` in eval mode as a graph for CPUs, for batches of any size.

    Takes ``clip`` [batch, 3, frames, height, width], normalised, by position; returns logits. The model stays as it
    is, in train mode or compiled.

    Raises:
        ValueError: the model is not in fp32.
    """
    return _trace(_plain_copy(model))


def export_onnx(model: UniFormerV2, path: Path, facts: Facts = NO_FACTS) -> Written:
    """Write ``model`` as ONNX with ``facts`` in it, for batches of any size; input ``clip``, output ``logits``.

    One file up to the limit of protobuf; beyond it the weights go to ``{name}.data`` beside it. Such a file of an
    earlier export is replaced or removed.

    Raises:
        UsageError: onnx is not installed, or the folder cannot be written.
        AnswerIsNo: ONNX Runtime computes something else; nothing is written then.
        ValueError: the model is not in fp32.
    """
    require_onnx()
    import onnx_ir

    plain = _plain_copy(model)
    onnx_model = _to_onnx(_trace(plain))
    # Where each operation stands in our source says nothing to others, and is most of a small file.
    onnx_model.graph.metadata_props.clear()
    for node in onnx_model.graph.all_nodes():
        node.metadata_props.clear()
    onnx_model.producer_name, onnx_model.producer_version = "k710", __version__
    onnx_model.metadata_props.update(
        {k: v if isinstance(v, str) else json.dumps(v) for k, v in description(model.config, facts).items()}
    )
    size = sum(value.const_value.nbytes for value in onnx_model.graph.initializers.values())
    data_name = f"{path.name}.data"
    with _staged(path, beside=data_name) as staged:
        onnx_ir.save(onnx_model, staged, external_data=data_name if size > SINGLE_FILE_BYTES else None)
        difference = _compared(plain, _onnx_session(staged), path)
    return _written(path, difference, data_name if size > SINGLE_FILE_BYTES else None)


def export_pt2(model: UniFormerV2, path: Path, facts: Facts = NO_FACTS) -> Written:
    """Write ``model`` as a program that ``torch.export.load`` reads, with ``facts`` as its extra file ``k710.json``.

    Raises:
        UsageError: the folder cannot be written.
        AnswerIsNo: what was written computes something else; nothing is left then.
        ValueError: the model is not in fp32.
    """
    plain = _plain_copy(model)
    program = _trace(plain)
    text = json.dumps(description(model.config, facts))
    # By way of memory: on a full disk torch's own writer ends the whole process.
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={FACTS_FILE: text})
    with _staged(path) as staged:
        staged.write_bytes(content.getbuffer())
        difference = _compared(plain, torch.export.load(staged).module(), path)
    return _written(path, difference)


def export_official(model: UniFormerV2, path: Path) -> Written:
    """Write the weights of ``model`` where the published code can load them; that format has no room for facts.

    Raises:
        CheckpointError: the published code has no such model.
        UsageError: another ending, or the folder cannot be written.
        AnswerIsNo: what was written computes something else; nothing is left then.
        ValueError: the model is not in fp32.
    """
    plain = _plain_copy(model)
    with _staged(path) as staged:
        with _writing(path):
            save_official(plain, staged)
        again = new_model(model.config, seed=1)
        again.load_official(read_weights(staged))
        difference = _compared(plain, again.eval(), path)
    return _written(path, difference)


def description(config: UniFormerV2Config, facts: Facts) -> dict[str, Any]:
    """All that a program needs to feed an exported model and to read its answers, as plain values."""
    height, width = config.frame_size
    made = _how_clips_are_made(config) if facts.input_known else {}
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "program": f"k710 {__version__}",
        "input": {
            "name": INPUT,
            "axes": "batch, channel, frame, row, column",
            "shape": ["batch", 3, config.num_frames, height, width],
            "dtype": "float32",
            **made,
        },
        "output": {"name": OUTPUT, "axes": "batch, class", "meaning": "softmax over the classes gives their scores"},
        "classes": list(facts.classes),
        "taxonomy": facts.taxonomy,
        "source_sha256": facts.source_sha256,
        "data_digest": facts.data_digest,
        "model": to_mapping(config),
    }


def require_onnx() -> None:
    """Raise a ``UsageError`` unless everything that writes and checks ONNX files is installed."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"writing ONNX needs {', '.join(missing)}", hint="pip install 'k710[export]'")


def _how_clips_are_made(config: UniFormerV2Config) -> dict[str, Any]:
    """The input of our own models and of those published for Kinetics; others were trained on BGR, for one."""
    count = config.num_frames
    return {
        "channels": "RGB",
        "normalisation": "(pixel / 255 - mean) / std",
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "frames": f"one from the middle of each of {count} equal parts of the video; of n frames, in Python: "
        f"[round((n - 1) / {count} * i) + int((n - 1) / {count} / 2) for i in range({count})]",
        "resize": "bilinear, without antialias, until the frame covers the size; then its centre",
    }


Writer = Callable[[UniFormerV2, Path, Facts], Written]
FORMATS: Mapping[str, tuple[str, Writer]] = {
    ".onnx": ("ONNX", export_onnx),
    ".pt2": ("torch.export", export_pt2),
    **dict.fromkeys(OFFICIAL_SUFFIXES, ("official weights", lambda model, path, _: export_official(model, path))),
}
"""Suffix -> name of the format, and what writes it."""


class _Named(UniFormerV2):
    """A model whose input has the name that exported files give it."""

    def forward(self, clip: Tensor) -> Tensor:
        return super().forward(clip)


def _plain_copy(model: UniFormerV2) -> UniFormerV2:
    """``model`` on the CPU in eval mode, neither compiled nor recomputing; its weights are shared where they can be."""
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    others = sorted({str(v.dtype) for v in state.values() if v.is_floating_point() and v.dtype != torch.float32})
    if others or torch.is_autocast_enabled("cpu"):
        raise ValueError(f"only fp32 models are exported, got {', '.join(others) or 'autocast'}")
    with torch.random.fork_rng(devices=[]):
        plain = _Named(model.config)
    plain.load_state_dict(state, assign=True)
    return plain.eval().requires_grad_(False)


def _trace(plain: UniFormerV2) -> ExportedProgram:
    config = plain.config
    clip = torch.zeros(_TRACED_BATCH, 3, config.num_frames, *config.frame_size)
    with torch.no_grad(), _quiet():
        # Not strict, torch takes `len` of a tensor as a number, and the traced batch would be the only one.
        program = torch.export.export(plain, (clip,), dynamic_shapes={INPUT: {0: Dim("batch", min=1)}}, strict=True)
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths of this machine
    program.example_inputs = None  # they would be saved too
    return program


def _to_onnx(program: ExportedProgram) -> Any:
    with torch.no_grad(), _quiet():
        onnx_program = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: "batch"}},
        )
    assert onnx_program is not None, "with dynamo=True there is always a program"
    return onnx_program.model


def _onnx_session(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Left to itself it pins threads to cores that a container may not have.
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda clip: torch.from_numpy(session.run([OUTPUT], {INPUT: clip.numpy()})[0])


@torch.no_grad()
def _compared(plain: UniFormerV2, exported: Callable[[Tensor], Tensor], path: Path) -> float:
    """Largest difference of logits between the two; too large a one is an ``AnswerIsNo``."""
    config, generator = plain.config, torch.Generator().manual_seed(0)
    largest = 0.0
    for batch in BATCHES:
        clip = torch.randn(batch, 3, config.num_frames, *config.frame_size, generator=generator)
        difference = float((exported(clip) - plain(clip)).abs().max())
        if not difference < TOLERANCE:  # not a number is no small difference either
            raise AnswerIsNo(
                f"{path}: not written: its logits differ from the model's by {difference:.2g} in a batch of {batch}, "
                f"the limit is {TOLERANCE:g}",
                hint="please report it with the versions of torch and onnxruntime",
            )
        largest = max(largest, difference)
    return largest


@contextlib.contextmanager
def _staged(path: Path, beside: str | None = None) -> Iterator[Path]:
    """A file of the name of ``path`` in a folder of its own, which takes its place when the block ends well.

    A folder, because an ONNX file names the file ``beside`` it that has its weights, and is read again before it moves.
    An older file of that name goes with the older ``path``.
    """
    with atomic.writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name[:100]}.", suffix=".partial", dir=path.parent) as folder:
            staged = Path(folder) / path.name
            yield staged
            atomic.sync_file(staged)
            has_beside = beside is not None and staged.with_name(beside).exists()
            if beside is not None and has_beside:
                atomic.sync_file(staged.with_name(beside))
                # Never an old graph beside new weights.
                path.unlink(missing_ok=True)
                staged.with_name(beside).replace(path.with_name(beside))
            staged.replace(path)
            if beside is not None and not has_beside:
                path.with_name(beside).unlink(missing_ok=True)
            atomic.sync_folder(path.parent)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what torch and safetensors make of a full disk inside the block into a ``UsageError``."""
    try:
        yield
    except (RuntimeError, safetensors.SafetensorError) as error:
        said = str(error).splitlines()[0]
        message = f"{path.parent}: cannot be written: the disk is full, or failed ({said})"
        raise UsageError(message, hint=_HINT) from error


def _written(path: Path, difference: float, data_name: str | None = None) -> Written:
    data = path.with_name(data_name) if data_name else None
    size = sum(p.stat().st_size for p in (path, data) if p is not None)
    return Written(path=path, size_bytes=size, external_data=data, difference=difference)


_CHATTER = (
    ("torch.onnx._internal.exporter._registration", "torchvision is not installed"),
    ("onnxscript.optimizer._constant_folding", "Skipping constant folding"),
)
"""Loggers and beginnings of what they say about every export, which is nothing to users."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the messages and warnings that are known to be harmless."""
    with contextlib.ExitStack() as stack:
        for name, beginning in _CHATTER:
            logger = logging.getLogger(name)
            unlike = _Unlike(beginning)
            logger.addFilter(unlike)
            stack.callback(logger.removeFilter, unlike)
        stack.enter_context(warnings.catch_warnings())
        # Torch's own copying of its own graph.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        yield


class _Unlike(logging.Filter):
    """Lets every record pass that does not begin with some text."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.name)
