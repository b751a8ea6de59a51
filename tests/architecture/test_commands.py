"""The command line as users know it: its flags change only on purpose, and all of it is documented."""

from __future__ import annotations

from typing import Any

import typer.main
from source_tree import ROOT

from cli.main import make_app

READING = {"--columns", "--on-bad-row", "--class-order"}
LISTS = {
    "--annotations",
    "--releases",
    *READING,
    "--class-table",
    "--protect",
    "--leaks",
    "--unit",
    "--prefer",
    "--conflicts",
    "--only-cc",
    "--classes",
    "--exclude-classes",
    "--exclude-ids",
    "--per-class",
    "--seed",
    "--views",
    "--require-complete",
    "--clips-per-shard",
}
LISTED = {"build", "--out", "--view", "--target", "--json"}
YOUTUBE_ACCESS = ("--cookies", "--cookies-from-browser", "--proxy", "--source-address")
LISTS_OF_FILES = ("mmaction2", "slowfast", "uniformerv2", "videomaev2", "vjepa2")
FLAGS = {
    "synth": {"out", "--clips", "--classes", "--seed", "--workers"},
    "plan": {*LISTS, "--policies", "--json"},
    "build": {
        *LISTS,
        "--videos",
        "--drop-near-duplicates",
        "--archives",
        "--keep-archives",
        "--archives-in-flight",
        "--base-url",
        "--accept-changed",
        "--youtube-rate",
        *YOUTUBE_ACCESS,
        "--out",
        "--manifest-only",
        "--workers",
        "--replan",
        "--locked",
        "--keep-clips",
        "--encode",
        "--preset",
        "--crf",
        "--short-side",
        "--keep-audio",
        "--videos-are",
        "--min-clips",
        "--executor",
        "--task-index",
        "--num-tasks",
        "--ray-address",
        "--work",
        "--unguarded",
        "--json",
    },
    "retry": {"--status", "--data", "--videos", "--workers", "--work", "--min-clips", "--json", *YOUTUBE_ACCESS},
    "verify": {"path", "--decode", "--workers", "--out", "--json"},
    "audit": {
        "build",
        "--data",
        "--train",
        "--eval",
        "--out",
        "--html",
        *READING,
        "--min-per-class",
        "--level",
        "--workers",
        "--fail-on-leak",
        "--json",
    },
    "diff": {"a", "b", "--out", "--fail-on-difference", *READING, "--taxonomy", "--class-table", "--json"},
    "forget": {"ids", "--ids", "--data", "--dry-run", "--json"},
    "fetch annotations": {"--release", "--out", "--from", "--base-url", "--parallel", "--accept-changed", "--json"},
    "fetch videos": {
        "--release",
        "--out",
        "--split",
        "--base-url",
        "--dry-run",
        "--max-archives",
        "--parallel",
        "--extract",
        "--keep-archives",
        "--accept-changed",
        "--json",
    },
    "labels show": {"names", "--taxonomy", "--merges", "--membership", "--class-table", "--json"},
    "labels diff": {"a", "b", "--class-table", "--json"},
    "labels export": {"--order", "--map", "--format", "--out", "--class-table", "--json"},
    "labels check": {"file", "--class-table", "--json"},
    "recipes list": {"--json"},
    "recipes show": {"name", "--json"},
    "recipes diff": {"a", "b", "--json"},
    "pretrain": {
        "--recipe",
        "--data",
        "--out",
        "--init",
        "--resume",
        "--fresh",
        "--allow-leaks",
        "--devices",
        "--accumulate",
        "--stream",
        "--stream-clips",
        "--cache",
        "--cache-gb",
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
        "--accumulate",
        "--stream",
        "--stream-clips",
        "--cache",
        "--cache-gb",
        "--set",
        "--json",
    },
    "evaluate": {
        "--view",
        "--from",
        "--data",
        "--clips",
        "--crops",
        "--devices",
        "--out",
        "--scores",
        "--confusion",
        "--set",
        "--json",
    },
    "compare": {"a", "b", "--json"},
    "lineage": {"checkpoint", "--against", "--add", "--complete", "--out", "--columns", "--on-bad-row", "--json"},
    "browse": {
        "build",
        "--view",
        "--class",
        "--status",
        "--key",
        "--conflicts",
        "--near-duplicates",
        "--all",
        "--out",
        "--budget",
        "--per-page",
        "--frames",
        "--workers",
        "--serve",
        "--port",
        "--json",
    },
    "export model": {"--from", "--out", "--force", "--set", "--json"},
    **{f"export {name}": LISTED | {"--order", "--extract"} for name in LISTS_OF_FILES},
    **{f"export {name}": LISTED - {"--target"} for name in ("wids", "energon", "hf")},
    "export croissant": LISTED | {"--order"},
    "export csv": LISTED | {"--planned"},
    "demo": {"out", "--workers"},
}


def _commands(group: Any, before: str = "") -> dict[str, Any]:
    """Every command by the words that call it."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        found |= _commands(command, f"{before}{name} ") if hasattr(command, "commands") else {before + name: command}
    return found


COMMANDS = _commands(typer.main.get_command(make_app()))
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
        section = DOCUMENT.split(f"\n## `k710 {name.split()[0]}", 1)[1].split("\n## ", 1)[0]
        assert [f for f in _flags(name) if f.startswith("--") and f"`{f}" not in section] == [], name
