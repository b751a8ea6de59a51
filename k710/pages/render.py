"""Templates to whole pages: everything inline, every value escaped, and no script runs but those that were named."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

_STYLE = "style.css"
_HEAD_SCRIPT = "theme.js"
"""Runs before anything is drawn, so that a page does not flash in the other theme."""
_PAGE_SCRIPT = "page.js"


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """A script of a page."""

    text: str
    """JavaScript; must not hold ``</script`` or ``<!--``, which would end it early."""
    digest: str
    """SHA-256 in base64: what the page's policy allows to run."""


def render(
    template: str,
    *,
    scripts: Sequence[Script] = (),
    image_sources: str = "data:",
    media_sources: str = "'none'",
    **values: Any,
) -> str:
    """The page of a template of this package; equal values give equal bytes.

    Args:
        template: its file name, such as ``audit.html``.
        scripts: what runs at the end of the page, after the tables were made sortable.
        image_sources: where the policy lets images come from.
        media_sources: where it lets videos come from.
        values: what the template names; one that is missing is an error.
    """
    head, page = packaged_script(_HEAD_SCRIPT), packaged_script(_PAGE_SCRIPT)
    every = (head, page, *scripts)
    return (
        environment()
        .get_template(template)
        .render(
            **values,
            policy=_policy([script.digest for script in every], image_sources, media_sources),
            style=_asset(_STYLE),
            head_script=head.text,
            scripts=[script.text for script in every[1:]],
        )
    )


def script(text: str) -> Script:
    """``text`` as a script of a page."""
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError("a script must hold neither '</script' nor '<!--'")
    return Script(text=text, digest=base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())


@functools.cache
def packaged_script(name: str) -> Script:
    """A script of this package by its file name."""
    return script(_asset(name))


@functools.cache
def _asset(name: str) -> str:
    return (resources.files("k710.pages") / "assets" / name).read_text(encoding="utf-8")


def _policy(digests: Sequence[str], image_sources: str, media_sources: str) -> str:
    """A content security policy under which nothing is fetched and no other script runs, wherever it comes from."""
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {allowed}",
            # The figures set styles on what they draw.
            "style-src 'unsafe-inline'",
            f"img-src {image_sources}",
            f"media-src {media_sources}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


@functools.cache
def environment() -> Environment:
    """The templates of this package: every value escaped, one that is missing an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("k710.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = cell
    # `tojson` writes <, >, & and ' as \u003c and so on: safe inside a script element, whatever the values hold.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":"), "allow_nan": False}
    return environment


def cell(value: str | int | float | None, kind: str = "count") -> str:
    """A value as a table shows it: thousands grouped, a ``share`` as per cent, ``-`` for what is not known."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{100 * value:.1f} %" if kind == "share" else f"{value:,}"
