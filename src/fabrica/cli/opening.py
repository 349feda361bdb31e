"""The model that a command names, for the verbs that put one to work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fabrica.cli.options import note


def opened(model: Path, precision: str = "") -> Any:
    """See `fabrica.model.opening.load`."""
    from fabrica.model.opening import load

    return load(model, precision=precision, warn=note)
