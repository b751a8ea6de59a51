"""UniFormerV2 against its own matrix products and against the published algorithm: time, kept bytes, peak memory.

usage: python bench/model.py [--rounds N] [--step-rounds N] [--threads N] [--variant b16] [--json FILE]

One process, everything interleaved (A B C A B C ...), medians. On a CPU, 1 clip of 8 frames:
  forward   eval mode; products: every matrix product of our algorithm, alone, on tensors of their own
  step      forward, backward, clipping, AdamW; bf16 is autocast over fp32 weights, as in training
  kept      bytes kept for the backward pass, each storage once, parameters not counted
  peak RSS  of one step in a fresh process, several for each
With a GPU: training steps of B/16 and L/14, ours in bf16 and compiled, the published algorithm in eager fp16 autocast.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from gpu_steps import measure_gpu
from matrix_products import record_products, run_all
from published_model import PublishedUniFormerV2
from torch import Tensor, nn
from training_step import TrainingStep, kept_bytes

from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.training.flops import count_macs

MODELS: dict[str, type[nn.Module]] = {"ours": UniFormerV2, "published": PublishedUniFormerV2}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main(arguments: argparse.Namespace) -> None:
    """Print what was measured as Markdown tables, and write it as JSON."""
    torch.set_num_threads(arguments.threads)
    config = UniFormerV2Config.variant(arguments.variant)
    if arguments.peak_rss:
        print(peak_rss_bytes(config, *arguments.peak_rss))
        return
    result: dict[str, Any] = {
        "variant": arguments.variant,
        "torch": torch.__version__,
        "threads": arguments.threads,
        "gmac": {name: count_macs(config, name).total / 1e9 for name in ("ours", "published")},  # type: ignore[arg-type]
        "forward_s": {name: time_forward(config, dtype, arguments.rounds) for name, dtype in DTYPES.items()},
        "step_s": {name: time_steps(config, dtype, arguments.step_rounds) for name, dtype in DTYPES.items()},
        "kept_bytes": {name: kept(config, dtype) for name, dtype in DTYPES.items()},
        "peak_rss_bytes": {name: peak_rss(arguments, name) for name in DTYPES},
        "gpu": measure_gpu() if torch.cuda.is_available() else "not measured",
    }
    print(tables(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def time_forward(config: UniFormerV2Config, dtype: torch.dtype, rounds: int) -> dict[str, float]:
    """Median seconds of a forward pass in eval mode."""
    clip = _clip(config).to(dtype)
    models = {name: _new(kind, config).to(dtype).eval() for name, kind in MODELS.items()}
    products = record_products(models["ours"], clip)
    with torch.no_grad():
        runs: dict[str, Callable[[], object]] = {"products": lambda: run_all(products)}
        return interleaved(runs | {n: lambda m=m: m(clip) for n, m in models.items()}, rounds)


def time_steps(config: UniFormerV2Config, dtype: torch.dtype, rounds: int) -> dict[str, float]:
    """Median seconds of a training step."""
    steps = {name: TrainingStep(_new(kind, config), _clip(config), dtype) for name, kind in MODELS.items()}
    return interleaved(steps, rounds)


def kept(config: UniFormerV2Config, dtype: torch.dtype) -> dict[str, float]:
    """Bytes kept for the backward pass."""
    return {
        name: float(kept_bytes(TrainingStep(_new(kind, config), _clip(config), dtype))) for name, kind in MODELS.items()
    }


def peak_rss(arguments: argparse.Namespace, dtype: str) -> dict[str, float]:
    """Largest resident set of one step, median over processes of their own for each model, in turn."""
    command = [sys.executable, __file__, "--variant", arguments.variant, "--threads", str(arguments.threads)]
    seen: dict[str, list[float]] = {name: [] for name in MODELS}
    for _ in range(arguments.step_rounds):
        for name, values in seen.items():
            run = subprocess.run([*command, "--peak-rss", name, dtype], check=True, capture_output=True)
            values.append(float(run.stdout))
    return {name: statistics.median(values) for name, values in seen.items()}


def peak_rss_bytes(config: UniFormerV2Config, name: str, dtype: str) -> int:
    """What ``peak_rss`` asks of its process."""
    TrainingStep(_new(MODELS[name], config), _clip(config), DTYPES[dtype])()
    # Not getrusage: its figure is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def interleaved(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, over ``rounds`` rounds in turn, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if index:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def tables(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"{result['variant']}, 1 clip, {result['threads']} threads, torch {result['torch']}, medians",
        "",
        "| | products | ours | published | ours / products | ours / published |",
        "|---|---|---|---|---|---|",
    ]
    for key, unit, scale in (
        ("forward_s", "s", 1.0),
        ("step_s", "s", 1.0),
        ("kept_bytes", "MB", 1e-6),
        ("peak_rss_bytes", "MB", 1e-6),
    ):
        for dtype, row in result[key].items():
            products = f"{row['products'] * scale:.3f}" if "products" in row else ""
            over = f"{row['ours'] / row['products']:.3f}" if "products" in row else ""
            ours, published = row["ours"] * scale, row["published"] * scale
            name = f"{key.rpartition('_')[0].replace('_', ' ')}, {dtype}, {unit}"
            cells = (name, products, f"{ours:.3f}", f"{published:.3f}", over, f"{ours / published:.3f}")
            lines.append(f"| {' | '.join(cells)} |")
    gpu = result["gpu"]
    if isinstance(gpu, str):
        return "\n".join([*lines, "", f"GPU: {gpu}"])
    return "\n".join([*lines, "", *(f"GPU {row}" for row in gpu)])


def _new(kind: type[nn.Module], config: UniFormerV2Config) -> nn.Module:
    torch.manual_seed(0)
    return kind(config)


def _clip(config: UniFormerV2Config) -> Tensor:
    return torch.randn(1, 3, config.num_frames, *config.frame_size, generator=torch.Generator().manual_seed(0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of forward passes")
    parser.add_argument("--step-rounds", type=int, default=5, help="rounds of training steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variant", default="b16", choices=("b16", "l14", "l14_336"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak-rss", nargs=2, metavar=("MODEL", "DTYPE"), help=argparse.SUPPRESS)
    main(parser.parse_args())
