"""The model in a folder, for the verbs that put one to work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fabrica.cli.options import note


def opened(folder: Path, precision: str = "") -> Any:
    """The model in a folder: what translates is a `Translates`, what synthesises a `Synthesises`, both of
    `fabrica.inference`. One that was exported is opened without PyTorch."""
    from fabrica import runtime

    if runtime.found(folder):
        return runtime.opened(folder, precision)
    from fabrica.model.loading import load

    loaded = load(folder, warn=note)
    return loaded.computing_in(precision) if precision else loaded
