"""A trained model as ONNX graphs, for ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

from fabrica.export import graphs
from fabrica.model.model import Model
from fabrica.runtime import onnx


def write(model: Model, folder: Path) -> None:
    """Write the folder: see `fabrica.export.graphs.write`."""
    graphs.write(model, folder, "onnx", lambda name, graph: {f"{name}.onnx": graph}, onnx.session)
