"""The command line as users know it: its flags change only on purpose, and all of it is documented."""

from __future__ import annotations

import typer.main
from source_tree import ROOT

from cli.main import make_app

FLAGS = {
    "synth": {"out", "--clips", "--classes", "--seed", "--workers"},
    "build": {
        "--annotations",
        "--videos",
        "--out",
        "--manifest-only",
        "--workers",
        "--releases",
        "--protect",
        "--leaks",
        "--views",
        "--require-complete",
        "--replan",
        "--clips-per-shard",
        "--keep-clips",
        "--json",
    },
    "audit": {"--data", "--fail-on-leak", "--json"},
    "pretrain": {
        "--recipe",
        "--data",
        "--out",
        "--init",
        "--resume",
        "--fresh",
        "--allow-leaks",
        "--devices",
        "--set",
        "--json",
    },
    "finetune": {
        "--target",
        "--from",
        "--data",
        "--out",
        "--recipe",
        "--epochs",
        "--train-view",
        "--resume",
        "--fresh",
        "--allow-leaks",
        "--devices",
        "--set",
        "--json",
    },
    "evaluate": {"--view", "--from", "--data", "--clips", "--crops", "--out", "--set", "--json"},
    "export": {"--from", "--out", "--force", "--set", "--json"},
    "demo": {"out", "--workers"},
}
COMMANDS = typer.main.get_command(make_app()).commands  # type: ignore[attr-defined]
DOCUMENT = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def _flags(name: str) -> set[str]:
    return {p.opts[0] for p in COMMANDS[name].params if p.name != "help"}


def test_the_flags_are_the_frozen_ones() -> None:
    assert {name: _flags(name) for name in COMMANDS} == FLAGS


def test_every_command_and_option_has_help_in_one_sentence() -> None:
    for name, command in COMMANDS.items():
        assert command.help.strip().endswith("."), name
        assert [p.name for p in command.params if not (getattr(p, "help", "") or "").endswith(".")] == [], name


def test_every_command_and_option_is_documented() -> None:
    for name in COMMANDS:
        section = DOCUMENT.split(f"\n## `k710 {name}", 1)[1].split("\n## ", 1)[0]
        assert [f for f in _flags(name) if f.startswith("--") and f"`{f}" not in section] == [], name
