"""Judge synthetic images: features, distances, diversity, memorisation, and one page that says it all."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Loaded on first use, so that the numpy-only modules of this package do not pull in torch.
_DOORS = {
    "evaluate": "fabrica.evaluation.synthesis",
    "Report": "fabrica.evaluation.report",
    "Row": "fabrica.evaluation.report",
    "scores_table": "fabrica.evaluation.report",
}
__all__ = ["Report", "Row", "evaluate", "scores_table"]


def __getattr__(name: str) -> Any:
    if name in _DOORS:
        return getattr(import_module(_DOORS[name]), name)
    raise AttributeError(f"module 'fabrica.evaluation' has no attribute {name!r}")
