"""Exported models put to work where PyTorch is not installed: a folder is opened and checked (`folder`), ONNX Runtime
or OpenVINO runs its graphs, and all around them is `fabrica.inference`, as it is for a model that PyTorch runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fabrica.runtime.exported import ExportedModel

RECORD = "exported.yaml"


def found(folder: Path) -> bool:
    """Whether the folder is an exported model."""
    return (folder / RECORD).is_file()


def opened(folder: str | Path, precision: str = "") -> ExportedModel:
    """The exported model in a folder: see `fabrica.runtime.exported.opened`."""
    from fabrica.runtime import exported

    return exported.opened(Path(folder), precision)
