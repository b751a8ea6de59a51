"""Where videos come from: one module a kind of source, and the dict that names them."""

from __future__ import annotations

from k710.clips.sources.local import LocalFolders

SOURCES = {"local": LocalFolders}
"""Kinds of sources by name; another kind is one module and one line."""
