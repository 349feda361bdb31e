"""A trained model as ONNX graphs, for ONNX Runtime."""

from __future__ import annotations

from fabrica.errors import UsageError
from fabrica.export import graphs, int8
from fabrica.runtime import onnx
from fabrica.runtime.session import INT8


def converted(name: str, graph: bytes, precision: str) -> dict[str, bytes]:
    """The one file of the graph; weights in float32, or in float16, and so are those that INT8 leaves float."""
    return {f"{name}.onnx": halved(graph) if precision in ("fp16", INT8) else graph}


def computes(precision: str) -> str:
    """Float32, whatever the graph: UsageError for bfloat16."""
    if precision == "bf16":
        raise UsageError("ONNX Runtime has no bf16 on processors; take --to openvino, or --precision int8")
    return "fp32"


def halved(graph: bytes) -> bytes:
    """The ONNX graph with its weights stored in float16: half the file. ONNX Runtime has few kernels in float16 on
    processors, so it computes in float32 as before; weights are made that once, when the graph is opened."""
    import numpy as np
    import onnx as package

    model = package.load_from_string(graph)
    rounding = [each for each in model.graph.node if each.op_type in ("QuantizeLinear", "DequantizeLinear")]
    scales = {name for each in rounding for name in each.input}  # what they scale by is exact
    nodes = []
    for each in model.graph.initializer:
        values = package.numpy_helper.to_array(each)
        if each.data_type != package.TensorProto.FLOAT or values.size < 2 or each.name in scales:
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = each.name
        each.CopyFrom(package.numpy_helper.from_array(values.astype(np.float16), f"{name} in float16"))
        nodes.append(package.helper.make_node("Cast", [each.name], [name], f"{name} as float32", to=1))
    all_nodes = [*nodes, *model.graph.node]
    model.graph.ClearField("node")
    model.graph.node.extend(all_nodes)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


# Between layers values stay in 8 bits, with what adds, multiplies, joins and splits them: a layer that gives float is
# computed in float. Signed values have no kernels on processors that are faster than float32 in networks with skips.
FORMAT = graphs.Format("onnx", converted, onnx.session, computes, int8.Scheme(int8.OPERATORS))
