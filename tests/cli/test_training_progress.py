"""What a training run shows: a table in place on a terminal, the lines of the log elsewhere."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable

import pytest

from cli.progress import Stages
from cli.training import shown_on
from uniformerv2.training.metrics import Progress, TrainLine, Validation

LINE = TrainLine(
    step=20,
    epoch=1,
    steps=10,
    loss=3.14159,
    accuracy=0.256,
    lr=1e-5,
    grad_norm=2.5,
    clips_per_s=231.4,
    data_wait=0.021,
    limit="compute",
    step_s=1.5,
    flops_per_s=412.4e12,
    mfu=0.417,
    memory_bytes=3 * 2**30,
    bad_steps=1,
    scale=None,
    epoch_holes=2,
)
SCORES = Validation(view="k400-val", clips=19_404, top1=0.712, top5=0.901)


def step(number: int, *, logged: bool = False, scored: Validation | None = None) -> Progress:
    return Progress(
        stage="train",
        step=number,
        total_steps=140,
        epoch=1,
        epochs=5,
        recent=LINE,
        logged=LINE if logged else None,
        scored=scored,
        scored_step=20 if scored else 0,
        scored_is_best=True,
        best=scored,
    )


def test_where_there_is_no_terminal_each_line_of_the_log_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    with Stages() as stages:
        show = shown_on(stages, "pretrain")
        show(Progress(stage="train", step=10, total_steps=0, said=("a.pt: damaged",)))
        show(step(19))
        show(step(20, logged=True, scored=SCORES))
        show(step(21, scored=SCORES))
    assert capfd.readouterr().err.splitlines() == [
        "WARNING: a.pt: damaged",
        "pretrain: step 20 of 140, epoch 1 of 5 done: loss 3.142, accuracy 25.6%, lr 1e-05, grad norm 2.5, "
        "231.4 clips/s, step 1.5 s, data wait 2.1% (limited by compute), 412 TFLOP/s, MFU 41.7%, 3.0 GiB, 2 holes, "
        "1 bad steps, 3 min left",
        "scores after step 20: k400-val top-1 71.20%, top-5 90.10% of 19,404 clips; the best so far",
    ]


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, work: Callable[[Stages], None]) -> str:
    """What ``work`` writes to a stderr that is a terminal of 110 columns."""
    for name, value in (("COLUMNS", "110"), ("LINES", "40"), ("NO_COLOR", "1"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    ours, theirs = os.openpty()
    written: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # how the end of a terminal is told
            while part := os.read(ours, 1 << 16):
                written.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    with monkeypatch.context() as patched, os.fdopen(theirs, "w") as stderr:
        patched.setattr(sys, "stderr", stderr)
        with Stages() as stages:
            work(stages)
    reader.join()
    os.close(ours)
    return b"".join(written).decode()


def test_on_a_terminal_a_table_stands_under_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(stages: Stages) -> None:
        show = shown_on(stages, "pretrain")
        show(step(19))
        time.sleep(0.25)  # the table is drawn a few times a second
        show(step(20, logged=True, scored=SCORES))
        show(step(21, scored=SCORES))

    shown = on_a_terminal(monkeypatch, work)
    assert shown.count("scores after step 20") == 1
    assert "pretrain: step" not in shown
    last = shown[shown.rindex("21/140") :]
    values = ("1 of 5 done", "3 min", "3.142", "25.6%", "231.4", "1.5 s", "2.1%", "compute", "412 TFLOP/s, MFU 41.7%")
    for value in (*values, "3.0 GiB", "2 this epoch", "71.20%", "90.10%"):
        assert value in last
    assert "[dim]" not in shown


def test_on_a_terminal_other_commands_show_bars_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(stages: Stages) -> None:
        stages("clips", 1, 2, "a note")
        stages("clips", 2, 2, "a note")

    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", on_a_terminal(monkeypatch, work)).rstrip()
    assert re.fullmatch(r"clips +━+ 2/2 \d:\d\d:\d\d \d:\d\d:\d\d a note *", shown.splitlines()[-1])
