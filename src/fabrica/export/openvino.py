"""A trained model as graphs of OpenVINO's own format, made of ONNX ones."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from fabrica.export import graphs
from fabrica.model.model import Model
from fabrica.runtime import openvino


def write(model: Model, folder: Path) -> None:
    """Write the folder: see `fabrica.export.graphs.write`. Weights are kept in float32."""
    package = openvino.imported()

    def converted(name: str, graph: bytes) -> dict[str, bytes]:
        with TemporaryDirectory() as temporary:
            path = Path(temporary) / f"{name}.xml"
            package.save_model(package.Core().read_model(graph), path, compress_to_fp16=False)
            return {each.name: each.read_bytes() for each in (path, path.with_suffix(".bin"))}

    graphs.write(model, folder, "openvino", converted, openvino.session)
