"""Fabrica: generative medical imaging from DICOM to DICOM."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Loaded on first use, so that `import fabrica` and `fabrica --help` stay light.
_VERBS = {
    "read": "fabrica.io",
    "write": "fabrica.io",
    "scan": "fabrica.data.scan",
    "train": "fabrica.training.loop",
    "load": "fabrica.model.opening",
    "evaluate": "fabrica.evaluation",
    "explain": "fabrica.evaluation.explanation",
    "Image": "fabrica.image",
    "Codec": "fabrica.codec",
}
__all__ = ["Codec", "Image", "evaluate", "explain", "load", "read", "scan", "train", "write"]


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        return getattr(import_module(_VERBS[name]), name)
    raise AttributeError(f"module 'fabrica' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_VERBS])
