"""Packages that tell of their own insides while a model is exported, kept quiet."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO


@contextmanager
def unlogged() -> Iterator[None]:
    """Without what is logged up to warnings, whoever does."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def silent() -> Iterator[None]:
    """Without what a package tells whoever calls it by hand, on stdout much of it."""
    with unlogged(), redirect_stdout(StringIO()):
        yield
