"""Graphs run by ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from fabrica.image import Float32
from fabrica.runtime import session as common
from fabrica.runtime.session import Session, as_arrays, check_names, check_precision, foreign

MENTION = b"location"  # the key under which ONNX says that weights lie in another file; no name of ours holds it


def imported() -> Any:
    """The package, without its telemetry: else it writes into the home when imported, and reports to its makers."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def session(
    name: str, contents: Sequence[bytes], inputs: Sequence[str], precision: str = "fp32", threads: int = 0
) -> Session:
    """The graph as a function of arrays, computed in float32, and in INT8 where it says so.

    name      what messages call it; contents: the one file; inputs: what the graph takes, in the order of arguments;
              threads: at most, 0: as many as there are.

    Raises UsageError for another precision, FabricaError for bytes that are no such graph or ask for other files.
    """
    check_precision(precision, ["fp32"], "ONNX Runtime", "export the model --to openvino for fp16 and bf16")
    onnxruntime = imported()
    (graph,) = contents
    if MENTION in graph:
        raise foreign(name, "its weights lie in another file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = common.threads(threads)
    options.log_severity_level = 4  # what goes wrong is raised, too
    try:
        opened = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common
        raise foreign(name, error) from error
    check_names(name, [each.name for each in opened.get_inputs()], inputs)

    def run(*values: Float32) -> Float32:
        made: Float32 = opened.run(None, dict(zip(inputs, as_arrays(values), strict=True)))[0]
        return made

    sizes = {each.name: tuple(n if isinstance(n, int) else -1 for n in each.shape) for each in opened.get_inputs()}
    return Session(run, tuple(sizes[each] for each in inputs))
