"""The exception family of both packages, and the exit code each member ends the program with.

    K710Error
    ├── AnswerIsNo        1   a question was asked and the answer is no (a leak before training, ...)
    ├── UsageError        2   wrong flags, configuration or recipe
    ├── InputError        3   annotation files or class names that are wrong
    ├── SourceError       4   no usable videos, or ffmpeg does not work
    ├── FeedError         5   shards or their index cannot be read
    ├── CheckpointError   6   a checkpoint that does not fit
    └── StoppedOnPurposeError  75  interrupted at a safe point; running the same command again goes on

Anything else that escapes is our bug and ends with 70. A dead video is an outcome, never one of these.
"""

from __future__ import annotations

from typing import ClassVar


class K710Error(Exception):
    """A failure that the user can act on: what is wrong and where, and what to do next."""

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class AnswerIsNo(K710Error):  # noqa: N818 - it is an answer, not an error
    """A check that the user asked for, or that guards a run, did not hold."""

    exit_code = 1


class UsageError(K710Error):
    """Flags, configuration or a recipe ask for something that cannot be."""

    exit_code = 2


class InputError(K710Error):
    """An annotation file, or a row in it, is wrong."""

    exit_code = 3


class SourceError(K710Error):
    """Videos cannot be had, or ffmpeg cannot be run."""

    exit_code = 4


class FeedError(K710Error):
    """Shards or their index are missing, damaged or of another build."""

    exit_code = 5


class CheckpointError(K710Error):
    """A checkpoint is missing, damaged, or does not fit what is asked of it."""

    exit_code = 6


class StoppedOnPurposeError(K710Error):
    """The program was asked to stop and did so at a point from which it can go on."""

    exit_code = 75
