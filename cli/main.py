"""The `k710` program: commands, exit codes, and one line for every error that a user can act on."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from k710 import __version__
from k710.errors import K710Error, StoppedOnPurposeError, UsageError

from . import (
    audit,
    browse,
    build,
    compare,
    demo,
    diff,
    evaluate,
    export,
    fetch,
    finetune,
    forget,
    labels,
    lineage,
    plan,
    pretrain,
    recipes,
    retry,
    synth,
    verify,
)
from .options import is_first_rank

INTERNAL_ERROR = 70
INTERRUPTED = 130

_COMMANDS = (
    synth.synth,
    plan.plan,
    build.build,
    retry.retry,
    verify.verify,
    audit.audit,
    diff.diff,
    browse.browse,
    forget.forget,
    pretrain.pretrain,
    finetune.finetune,
    evaluate.evaluate,
    compare.compare,
    lineage.lineage,
    demo.demo,
)

_CLASSES = {"audit": audit.SeveralValues}
"""Commands that read their words in a way of their own."""


def make_app() -> typer.Typer:
    """The commands, each under the name of its function."""
    app = typer.Typer(
        name="k710",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_root)
    for command in _COMMANDS:
        app.command(name=command.__name__, cls=_CLASSES.get(command.__name__))(command)
    app.add_typer(export.make_export_app(), name="export")
    app.add_typer(fetch.make_fetch_app(), name="fetch")
    app.add_typer(labels.make_labels_app(), name="labels")
    app.add_typer(recipes.make_recipes_app(), name="recipes")
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"k710 {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Build Kinetics-710 from annotation files and videos, and train UniFormerV2 on it."""


def main() -> None:
    """Run the program and exit with the code of the contract."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _stop)
    sys.exit(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command (that of the process by default) and return its exit code; errors go to stderr."""
    console = Console(stderr=True, highlight=False, emoji=False)
    try:
        _refuse_empty(sys.argv[1:] if arguments is None else arguments)
        outcome = make_app()(arguments, standalone_mode=False)
        # The parser catches Ctrl-C itself and returns the code without a word.
        return _interrupted(console) if outcome == INTERRUPTED else outcome if isinstance(outcome, int) else 0
    except K710Error as error:
        if not is_first_rank():
            return error.exit_code
        console.print(f"error: {error.message}", style="bold red", markup=False, soft_wrap=True)
        if error.hint:
            console.print(f"hint: {error.hint}", markup=False, soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        return _interrupted(console)
    except BrokenPipeError:
        # The reader of our output has gone; what is left to flush has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # Files and folders that the user named: no right to them, no room, not what they should be.
        console.print(f"error: {_said_by_the_system(error)}", style="bold red", markup=False, soft_wrap=True)
        console.print("hint: what was saved is whole; mend this and run the same command again", markup=False)
        return UsageError.exit_code
    except Exception as error:
        return _unexpected(error, console)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """No option takes an empty value: one is a variable of a script that was not set."""
    for before, argument in zip(("k710", *arguments), arguments, strict=False):
        if argument == "" or (argument.startswith("--") and argument.endswith("=") and argument.count("=") == 1):
            named = argument.removesuffix("=") or before
            raise UsageError(f"{named}: given an empty value", hint="is a variable of your script unset?")


def _said_by_the_system(error: OSError) -> str:
    path = f"{error.filename}: " if error.filename else ""
    return f"{path}{error.strerror or error}"


def _interrupted(console: Console) -> int:
    console.print("interrupted: run the same command again to go on", style="bold yellow", markup=False)
    return INTERRUPTED


def _unexpected(error: Exception, console: Console) -> int:
    show = getattr(error, "show", None)
    if callable(show):  # a wrong flag, which the parser words itself
        show()
        return int(getattr(error, "exit_code", 2))
    if type(error).__name__ == "Abort":  # what the parser makes of Ctrl-C
        return _interrupted(console)
    traceback.print_exc()
    console.print("error: this is a bug in k710; please report it with the lines above", style="bold red", markup=False)
    return INTERNAL_ERROR


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape of a handler
    raise StoppedOnPurposeError(f"stopped by {signal.Signals(number).name}", hint="run the same command again to go on")
