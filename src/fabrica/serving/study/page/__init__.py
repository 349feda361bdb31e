"""The files of the page, as they stand in this folder: no build, nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

PAGE = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
    "words.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The files, and their types."""


@cache
def file_of(name: str) -> bytes:
    """The content of one of PAGE."""
    return (files(__name__) / name).read_bytes()
