"""The torchcodec package with its libraries, or what is missing of it."""

from __future__ import annotations

import re
from typing import Any

import torch

from k710.errors import UsageError

_FFMPEG = ("libav", "libsw", "libpostproc")
_NOT_FOUND = re.compile(r"(lib[\w.+-]+): cannot open shared object file|Library not loaded: \S*?(lib[\w.+-]+)")


def load() -> Any:
    """The package ``torchcodec``.

    Raises:
        UsageError: it is not there, or its libraries cannot be loaded; it says which part is missing.
    """
    try:
        import torchcodec
        import torchcodec.decoders
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "torchcodec":
            raise
        raise UsageError("the package torchcodec is not installed", hint="pip install 'k710[torchcodec]'") from error
    except (ImportError, RuntimeError, OSError) as error:
        raise _cannot_load(str(error)) from error
    if not hasattr(torchcodec, "core_library_path"):
        raise UsageError("this torchcodec is too old", hint="pip install --upgrade 'k710[torchcodec]'")
    return torchcodec


def _cannot_load(said: str) -> UsageError:
    """What the package says of every version of FFmpeg that it tried, in one sentence."""
    missing = sorted({first or second for first, second in _NOT_FOUND.findall(said)})
    other = [name for name in missing if not name.startswith(_FFMPEG)]
    # A library of a version of FFmpeg that is not there is expected; what else is wrong says more.
    if other:
        return UsageError(
            f"torchcodec needs {', '.join(other)}, which this machine does not have",
            hint=f"install the torchcodec that is made for torch {torch.__version__} on this kind of machine: "
            "those for CUDA need its libraries",
        )
    if "undefined symbol" in said or not missing:
        reason = next((line for line in reversed(said.splitlines()) if "undefined symbol" in line), said)
        return UsageError(
            f"torchcodec does not fit torch {torch.__version__}: {reason.strip()[:200]}",
            hint="install the minor version of torchcodec that its table of versions names for this torch",
        )
    return UsageError(
        f"torchcodec finds no whole FFmpeg 4 to 8 on this system: {', '.join(missing)} cannot be loaded",
        hint="install FFmpeg with its shared libraries, such as `apt install ffmpeg` or `conda install ffmpeg`",
    )
