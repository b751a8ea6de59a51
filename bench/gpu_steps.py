"""Training steps on a GPU: ours compiled in bf16, the published algorithm in eager fp16 autocast, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from published_model import PublishedUniFormerV2
from training_step import TrainingStep

from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.training.flops import count_macs, peak_flops

RUNS = (("b16", 64), ("l14", 16))
"""Variant and clips of a step."""


def measure_gpu(rounds: int = 10) -> list[dict[str, Any]]:
    """Clips per second, MFU of our count of operations, and peak memory of each variant and model."""
    torch.backends.cuda.matmul.allow_tf32 = True
    return [_measure(variant, batch, rounds) for variant, batch in RUNS]


def _measure(variant: str, batch: int, rounds: int) -> dict[str, Any]:
    config = UniFormerV2Config.variant(variant)  # type: ignore[arg-type]
    clip = torch.randn(batch, 3, config.num_frames, *config.frame_size, device="cuda")
    ours = UniFormerV2(config).cuda()
    ours.compile_blocks()
    steps = {
        "ours": TrainingStep(ours, clip, torch.bfloat16),
        "published": TrainingStep(PublishedUniFormerV2(config).cuda(), clip, torch.float16),
    }
    row: dict[str, Any] = {"device": torch.cuda.get_device_name(), "variant": variant, "batch": batch}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(3):
            step()
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(_seconds(step))
    for name, step in steps.items():
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step()
        row[name] = {
            "clips_per_s": batch / statistics.median(seconds[name]),
            "step_peak_bytes": torch.cuda.max_memory_allocated() - held,
        }
    peak = peak_flops(row["device"], torch.bfloat16)
    flops = count_macs(config).training_flops * row["ours"]["clips_per_s"]
    row["mfu"] = flops / peak if peak else None
    row["speedup"] = row["ours"]["clips_per_s"] / row["published"]["clips_per_s"]
    return row


def _seconds(step: Callable[[], None]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - started
