"""Graphs run by OpenVINO, on the processor."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from fabrica.image import Float32
from fabrica.runtime import session as common
from fabrica.runtime.session import Session, as_arrays, check_names, check_precision, foreign

HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
ABLE = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16"}  # as OpenVINO calls what a processor computes in


def imported() -> Any:
    """The package, without its telemetry, which would write into the home and report to its makers at import."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # what is None cannot be imported
    import openvino

    return openvino


def able() -> list[str]:
    """What this processor computes in."""
    can = imported().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [each for each, called in ABLE.items() if called in can]


def session(
    name: str, contents: Sequence[bytes], inputs: Sequence[str], precision: str = "fp32", threads: int = 0
) -> Session:
    """The graph as a function of arrays, computed in fp32, fp16 or bf16; what goes in and out is float32.

    name      what messages call it; contents: graph and weights; inputs: what the graph takes, in the order of
              arguments; threads: at most, 0: as many as there are.

    Raises UsageError for a precision that the processor lacks, FabricaError for bytes that are no such graph.
    """
    openvino = imported()
    core = openvino.Core()
    check_precision(precision, able(), "OpenVINO", "take --precision fp32")
    graph, weights = contents
    if not graph.startswith(b"<?xml"):  # else it would be tried as a file of other makers' formats
        raise foreign(name, "it is no XML")
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],  # unless told, it computes in bf16 where the processor does
        "INFERENCE_NUM_THREADS": common.threads(threads),
        "ENABLE_CPU_PINNING": False,
    }
    try:
        read = core.read_model(graph, openvino.Tensor(np.frombuffer(weights, dtype=np.uint8)))
        compiled = core.compile_model(read, "CPU", settings)
    except Exception as error:  # RuntimeError, for the most part, with lines of its sources
        raise foreign(name, str(error).strip().splitlines()[-1]) from error
    # an input has many names where what was done to it first came to nothing, such as times 1
    found = {
        next((own for own in inputs if own in each.get_names()), each.get_any_name()): each for each in compiled.inputs
    }
    check_names(name, list(found), inputs)
    request = compiled.create_infer_request()

    def run(*values: Float32) -> Float32:
        answers = request.infer(dict(zip(inputs, as_arrays(values), strict=True)))
        made: Float32 = np.array(answers[0])  # its memory is used again at the next call
        return made

    shapes = (found[each].get_partial_shape() for each in inputs)
    return Session(run, tuple(tuple(n.get_length() if n.is_static else -1 for n in shape) for shape in shapes))
