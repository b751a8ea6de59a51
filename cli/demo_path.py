"""The steps of the demo as functions, each a library call or two, and the table of what they found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .evaluate import shown_on as shown_scoring
from .progress import Stages
from .training import shown_on

if TYPE_CHECKING:
    from rich.table import Table

    from k710.build_summary import BuildSummary
    from uniformerv2 import UniFormerV2
    from uniformerv2.report import EvaluationReport

_TEST_CLIPS = 2
_TEST_CROPS = 3
_TIMES_CHANCE = 5
_ORDER_POINTS = 0.20
_SAME_LOGITS = 5e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Curated:
    """The curation half of the demo."""

    out: Path
    """Folder of the demo."""
    truth: dict[str, Any]
    """What was planted."""
    summary: BuildSummary
    """What the build did."""

    @property
    def data(self) -> Path:
        """Folder of the build."""
        return Path(self.summary.out)

    @property
    def order_classes(self) -> set[int]:
        """Canonical indices of the classes that only the order of frames tells apart."""
        return {c["index"] for c in self.truth["classes"] if c["kind"] == "order"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """The training half of the demo."""

    k710: EvaluationReport
    """Pre-trained model."""
    shuffled: EvaluationReport
    """The same, with the frames of each clip shuffled."""
    carried: EvaluationReport
    """Kinetics-400 classes, the head's rows carried over, no training."""
    random: EvaluationReport
    """Kinetics-400 classes, a random head, no training."""
    trained: EvaluationReport
    """Kinetics-400 classes, carried over and then trained."""
    rows_equal: bool
    """Whether the carried head's rows are those of the K710 head, bit for bit."""
    logit_difference: float
    """Largest difference of the two models' logits for the same classes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the closing table."""

    what: str
    """What was found."""
    value: str
    """How much."""
    mark: str = ""
    """What it should be."""
    met: bool | None = None
    """Whether it is; None: nothing is asked of it."""


def curate(out: Path, workers: int, stages: Stages) -> Curated:
    """Draw the toy Kinetics and build it."""
    from k710.build import BuildConfig, build
    from k710.synth.plan import SynthConfig
    from k710.synth.write import synth

    toy = out / "toy"
    synth(SynthConfig(), toy, workers=workers, progress=lambda done, total: stages("synth: videos", done, total))
    config = BuildConfig(
        annotations=toy / "annotations", videos=(str(toy / "videos"),), out=out / "data", workers=workers
    )
    summary = build(config, lambda stage, done, total: stages(f"build: {stage}", done, total))
    return Curated(out=out, truth=json.loads((toy / "truth.json").read_bytes()), summary=summary)


def train(curated: Curated, stages: Stages) -> Scores:
    """Pre-train, evaluate, carry the head over to Kinetics-400, fine-tune, evaluate."""
    from uniformerv2.pretrain import PretrainConfig, pretrain

    out, data = curated.out, str(curated.data)
    first = pretrain(
        PretrainConfig(recipe="tiny_cpu", data=data, out=out / "pretrain"), on_progress=shown_on(stages, "pretrain")
    )
    k710 = _score(curated, out / "pretrain", "k710-val", "evaluate k710-val", stages)
    shuffled = _score(curated, out / "pretrain", "k710-val", "  frames shuffled", stages, "frame_order=shuffled")
    carried = _finetune(curated, "k400-carried-head", stages, epochs=0)
    random = _finetune(curated, "k400-random-head", stages, "head.init=random", epochs=0)
    trained = _finetune(curated, "k400-trained", stages)
    rows_equal, difference = compare_heads(first.model, out / "k400-carried-head" / "model.safetensors")
    return Scores(
        k710=k710,
        shuffled=shuffled,
        carried=carried,
        random=random,
        trained=trained,
        rows_equal=rows_equal,
        logit_difference=difference,
    )


def compare_heads(k710_weights: Path, k400_weights: Path) -> tuple[bool, float]:
    """Whether the Kinetics-400 head is made of the K710 head's rows, and how far the logits of 8 clips differ."""
    import torch
    from safetensors.torch import load_file

    from k710.labels import load_labels
    from uniformerv2.weights.remap import HEAD_KEYS

    rows = load_labels().rows_for("k400")
    ours, theirs = load_file(k400_weights), load_file(k710_weights)
    equal = all(torch.equal(ours[key], theirs[key][rows]) for key in HEAD_KEYS)
    large, small = _load(k710_weights), _load(k400_weights)
    generator = torch.Generator().manual_seed(0)
    clip_BCTHW = torch.randn(8, 3, large.config.num_frames, *large.config.frame_size, generator=generator)
    with torch.inference_mode():
        difference = (large(clip_BCTHW)[:, rows] - small(clip_BCTHW)).abs().max()
    return equal, float(difference)


def closing_rows(curated: Curated, scores: Scores) -> list[Row]:
    """What the demo found, against what was planted and what is asked of it."""
    return [*_curation_rows(curated), *_score_rows(curated, scores), *_path_rows(curated)]


def closing_table(rows: list[Row], seconds: float) -> Table:
    """The rows as a table."""
    from rich.table import Table

    table = Table(title=f"k710 demo: {seconds:.0f} s", title_justify="left")
    for name in ("", "found", "mark", ""):
        table.add_column(name, overflow="fold")
    for row in rows:
        verdict = "" if row.met is None else ("[green]met[/]" if row.met else "[bold red]MISSED[/]")
        table.add_row(row.what, row.value, row.mark, verdict)
    return table


def _load(weights: Path) -> UniFormerV2:
    from uniformerv2.training.source import model_config, new_model, read_source

    source = read_source(weights)
    model = new_model(model_config(source.model), seed=0)
    model.load_official(source.state)
    return model.eval()


def _score(curated: Curated, source: Path, view: str, name: str, stages: Stages, *overrides: str) -> EvaluationReport:
    from uniformerv2.evaluate import EvaluateConfig, evaluate

    config = EvaluateConfig(
        view=view,
        source=source,
        data=str(curated.data),
        clips=_TEST_CLIPS,
        crops=_TEST_CROPS,
        out=source / f"{view}{'-shuffled' if overrides else ''}.json",
        # A forward pass of this small model gains nothing from a second thread; decoding takes the other core.
        overrides=("workers=1", "threads=1", *overrides),
    )
    return evaluate(config, on_progress=shown_scoring(stages, name))


def _finetune(
    curated: Curated, name: str, stages: Stages, *overrides: str, epochs: int | None = None
) -> EvaluationReport:
    from uniformerv2.finetune import FinetuneConfig, finetune

    out = curated.out / name
    config = FinetuneConfig(
        target="k400",
        source=curated.out / "pretrain",
        data=str(curated.data),
        out=out,
        epochs=epochs,
        overrides=overrides,
    )
    finetune(config, on_progress=shown_on(stages, f"finetune {name}"))
    return _score(curated, out, "k400-val", f"evaluate {name}", stages)


def _curation_rows(curated: Curated) -> list[Row]:
    audit, truth = curated.summary.audit, curated.truth
    clips = curated.summary.clips
    planned = sum(clips.values())
    reasons: dict[str, int] = {}
    for counts in curated.summary.excluded.values():
        for reason, count in counts.items():
            reasons[reason] = reasons.get(reason, 0) + count
    failed = {k: v for k, v in clips.items() if k != "ok"}
    expected = {c["key"] for c in truth["files_expected_to_fail"]}
    listed = {name: view["clips"] for name, view in truth["views"].items()}
    found = {f"{r['train']} & {r['held_out']}": r["videos"] for r in audit["leaks"]}
    planted = {pair: count for pair, count in truth["leaks"]["pairs"].items() if count}
    forbidden = sum(r["videos"] for r in audit["remaining"] if r["protected"])
    return [
        Row(what="annotation rows read", value=f"{curated.summary.rows:,}"),
        Row(
            what="clips in the views as planned",
            value=", ".join(f"{n} {c:,}" for n, c in sorted(curated.summary.views.items())),
            mark="as the generator counts them",
            met=all(listed[name] == count for name, count in curated.summary.views.items()),
        ),
        Row(what="rows excluded, over all views", value=_counted(reasons)),
        Row(
            what="clips kept / without a usable file",
            value=f"{clips.get('ok', 0):,} of {planned:,} / {_counted(failed)}",
            mark=f"{len(expected)} were planted broken",
            met=sum(failed.values()) == len(expected),
        ),
        Row(
            what="leaks found between lists",
            value=f"{sum(found.values())} in {len(found)} pairs of lists",
            mark=f"{sum(planted.values())} planted in {len(planted)} pairs",
            met=found == planted,
        ),
        Row(what="protected videos left in training views", value=str(forbidden), mark="0", met=forbidden == 0),
    ]


def _score_rows(curated: Curated, scores: Scores) -> list[Row]:
    k710, carried, trained = scores.k710, scores.carried, scores.trained
    order, mixed = (_top1_of(r, curated.order_classes) for r in (k710, scores.shuffled))
    chance = _TIMES_CHANCE * k710.chance
    return [
        Row(
            what=f"K710 top-1 on {k710.clips_scored} held-out clips",
            value=f"{k710.top1:.1%} (top-5 {k710.top5:.1%})",
            mark=f">= {chance:.1%} (5 x chance), >= 200 clips",
            met=k710.top1 >= chance and k710.clips_scored >= 200,
        ),
        Row(
            what="K710 top-1 on the order classes, frames in order / shuffled",
            value=f"{order:.1%} / {mixed:.1%}",
            mark=">= 20 points apart",
            met=order - mixed >= _ORDER_POINTS,
        ),
        Row(
            what=f"K400 top-1 on {carried.clips_scored} clips, head carried over, no training",
            value=f"{carried.top1:.1%}",
            mark=f">= {_TIMES_CHANCE * carried.chance:.1%} (5 x chance)",
            met=carried.top1 >= _TIMES_CHANCE * carried.chance,
        ),
        Row(what="K400 top-1, random head, no training", value=f"{scores.random.top1:.1%}"),
        Row(
            what="K400 top-1, after fine-tuning",
            value=f"{trained.top1:.1%}",
            mark=f">= {_TIMES_CHANCE * trained.chance:.1%} (5 x chance)",
            met=trained.top1 >= _TIMES_CHANCE * trained.chance,
        ),
        Row(
            what="carried head rows equal to the K710 head's",
            value="bit for bit" if scores.rows_equal else "NO",
            mark="bit for bit",
            met=scores.rows_equal,
        ),
        Row(
            what="logits of the two heads differ by at most",
            value=f"{scores.logit_difference:.1e}",
            mark=f"<= {_SAME_LOGITS:.0e}",
            met=scores.logit_difference <= _SAME_LOGITS,
        ),
    ]


def _path_rows(curated: Curated) -> list[Row]:
    out = curated.out
    return [
        Row(what="toy Kinetics", value=str(out / "toy")),
        Row(what="shards, index, audit", value=f"{curated.data}, {curated.data / 'audit.md'}"),
        Row(what="models, logs, scores", value=f"{out / 'pretrain'}, {out / 'k400-trained'}"),
    ]


def _top1_of(report: EvaluationReport, classes: set[int]) -> float:
    scored = [p for p in report.predictions if p.label in classes]
    return sum(p.predicted == p.label for p in scored) / len(scored)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"
