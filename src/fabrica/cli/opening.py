"""The model in a folder, for the verbs that put one to work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fabrica.cli.options import note

if TYPE_CHECKING:
    from fabrica.inference.translator import Translates


def opened(folder: Path, precision: str = "") -> Translates:
    """The model in a folder; one that was exported without PyTorch."""
    from fabrica import runtime

    if runtime.found(folder):
        return runtime.opened(folder, precision)
    from fabrica.model.loading import load

    loaded = load(folder, warn=note)
    return loaded.computing_in(precision) if precision else loaded
