"""A trained model written in another format: `export(model, to, folder)`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

from fabrica.errors import UsageError, unknown
from fabrica.model import Model

FORMATS = {"bundle": "fabrica.export.bundle:write"}
Writer = Callable[[Model, Path], None]


def writer(to: str) -> Writer:
    """What writes this format; UsageError for an unknown one."""
    if to not in FORMATS:
        raise unknown("export format", to, FORMATS)
    module, _, name = FORMATS[to].partition(":")
    return cast(Writer, getattr(import_module(module), name))


def export(model: Model, to: str, out: Path) -> None:
    """Write the model as `to`, one of FORMATS, to `out`, which must not be there yet.

    Raises UsageError for an unknown format, and for a model that the format cannot hold.
    """
    write = writer(to)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} is there already; choose another place with -o")
    write(model, out)
