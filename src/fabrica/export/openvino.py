"""A trained model as graphs of OpenVINO's own format, made of ONNX ones."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from fabrica.export import graphs, int8
from fabrica.runtime import openvino
from fabrica.runtime.session import check_precision


def converted(name: str, graph: bytes, precision: str) -> dict[str, bytes]:
    """The files of the graph; weights in float32, or in float16."""
    package = openvino.imported()
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / f"{name}.xml"
        package.save_model(package.Core().read_model(graph), path, compress_to_fp16=precision == "fp16")
        return {each.name: each.read_bytes() for each in (path, path.with_suffix(".bin"))}


def computes(precision: str) -> str:
    """What this processor is to compute in: bfloat16 where it can, else UsageError; for fp16, whose files are half as
    large anyway, float32 where it has no float16. What INT8 leaves float is computed in float32."""
    able = openvino.able()
    if precision == "bf16":
        check_precision(precision, able, "OpenVINO", "take --precision int8")
    return precision if precision in able else "fp32"


# It carries 8 bits on by itself, through what is between layers; where values are rounded before an activation and
# behind it, that is no longer part of the convolution, and takes as long as another one.
FORMAT = graphs.Format("openvino", converted, openvino.session, computes, int8.Scheme(int8.WEIGHTED, outputs=False))
