"""A graph in INT8, by ONNX Runtime's static quantisation: what activations range over is seen on training images, and
layers that cost too much stay float.

Weights are int8, symmetric, a scale a channel. What layers take, and perhaps what they give, is rounded as each runtime
computes it best: see `Scheme`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fabrica.export.gate import Gate
from fabrica.export.quiet import silent
from fabrica.export.ranges import RANGES
from fabrica.progress import Progress
from fabrica.runtime.folder import Tried
from fabrica.runtime.onnx import imported
from fabrica.runtime.session import Session

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
OPERATORS = (
    *WEIGHTED, "Add", "Mul", "Concat", "Split", "Slice", "Clip", "Relu", "LeakyRelu", "MaxPool", "AveragePool",
    "DepthToSpace",
)  # fmt: skip
"""Of ONNX, those that ONNX Runtime computes in 8 bits; ranges are seen of what all of them take and give."""
FEW = 2  # images on which a layer is tried by itself
Opened = Callable[[bytes], tuple[Session, float]]
"""From an ONNX graph to what runs it, and MB of its files."""


@dataclass(frozen=True)
class Scheme:
    """Which values are rounded to 8 bits.

    operators  of ONNX: what these take. outputs: what they give, too.
    signed     values are int8 with 0 for zero, and biases float; else uint8 with a zero point, and biases int32.
    """

    operators: Sequence[str]
    outputs: bool = True
    signed: bool = False


def quantised(graph: bytes, ranges: Any, scheme: Scheme, layers: Sequence[str]) -> bytes:
    """The ONNX graph with these of its layers (see `layers_of`) in INT8, as QDQ. ranges: of values between layers, one
    that `fabrica.export.ranges.seen` gives."""
    onnx, quantization = _packages()
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph))
    chosen = [node for name, nodes in layers_of(model).items() if name in layers for node in nodes]
    with silent():
        types, signed = quantization.QuantType, scheme.signed
        choices: dict[str, Any] = {"ActivationSymmetric": signed, "QuantizeBias": not signed}
        choices |= {} if scheme.outputs else {"OpTypesToExcludeOutputQuantization": list(scheme.operators)}
        quantizer = QDQQuantizer(
            model, True, False, types.QInt8, types.QInt8 if signed else types.QUInt8, ranges, chosen, [],
            list(scheme.operators), choices,
        )  # fmt: skip
        quantizer.quantize_model()
    made = quantizer.model.model
    made.graph.ClearField("value_info")
    written: bytes = made.SerializeToString(deterministic=True)
    return written


def layers_of(model: Any) -> dict[str, list[str]]:
    """Layers of an ONNX graph by the names of their weights, in order, with the names of their nodes: what has weights,
    and what follows until the next one has. "" is what comes before all of them."""
    weights = {each.name for each in model.graph.initializer}
    found: dict[str, list[str]] = {"": []}
    name = ""
    for node in model.graph.node:
        if node.op_type in WEIGHTED and (own := [each for each in node.input[1:2] if each in weights]):
            name = own[0].removeprefix("method.").removesuffix(".weight")
            name = name if name not in found else f"{name} ({node.name})"
        found.setdefault(name, []).append(node.name)
    return found


def searched(
    graph: bytes,
    ranges: Callable[[str], Any],
    gate: Gate,
    opened: Opened,
    scheme: Scheme,
    progress: Progress | None = None,
) -> tuple[bytes, list[Tried]]:
    """The graph in INT8 as far as the gate allows, and what was tried, the last one being it; if that did not pass,
    nothing does.

    All ranges are tried on the whole network, and the best kept. If that loses too much, each layer is tried by itself,
    and those that make most noise stay float, as few as the gate asks for. What leads to the result stays float anyway:
    8 bits of the whole range would be seen as steps. ranges: one of RANGES -> what was seen.
    """
    onnx, _ = _packages()
    layers = list(layers_of(onnx.load_from_string(graph)))
    *inner, last = layers[1:]
    tried: list[Tried] = []

    def judged(how: str, floats: Sequence[str]) -> tuple[bytes, Tried]:
        made = quantised(graph, ranges(how), scheme, [each for each in inner if each not in floats])
        tried.append(gate.judged(*opened(made), "int8", how, [*floats, last]))
        return made, tried[-1]

    best: tuple[bytes, Tried] | None = None
    for k, how in enumerate(RANGES):
        _tell(progress, "trying ranges of INT8", k, len(RANGES))
        made = judged(how, [])
        best = made if best is None or lost(made[1]) < lost(best[1]) else best
    assert best is not None
    if not best[1].passed and len(inner) > 1:
        how = best[1].ranges

        def alone(layer: str) -> Session:
            return opened(quantised(graph, ranges(how), scheme, [layer]))[0]

        order = _noisiest(alone, gate, inner, progress)
        best = _fewest(lambda count: judged(how, order[:count]), len(order))
    tried.remove(best[1])
    return best[0], [*tried, best[1]]


def lost(tried: Tried) -> float:
    """What decides between two: the loss of the task, or the distance from float32."""
    return next((value for value in (tried.psnr, tried.dice, tried.mae) if value is not None), tried.off)


def _noisiest(
    alone: Callable[[str], Session], gate: Gate, layers: Sequence[str], progress: Progress | None
) -> list[str]:
    """The layers by how far the result is from float32 where one of them alone is INT8, the furthest first."""
    noise: dict[str, float] = {}
    for k, layer in enumerate(layers):
        noise[layer] = gate.noise(alone(layer), FEW)
        _tell(progress, "trying layers in INT8 one by one", k + 1, len(layers))
    return sorted(noise, key=lambda layer: -noise[layer])


def _fewest(judged: Callable[[int], tuple[bytes, Tried]], most: int) -> tuple[bytes, Tried]:
    """The result with the fewest layers left float that passes: counts that double until one does, then halves."""
    fails, count = 0, min(1, most - 1)  # one at least stays INT8
    while not (best := judged(count))[1].passed and count < most - 1:
        fails, count = count, min(2 * count, most - 1)
    while best[1].passed and count - fails > 1:
        between = (fails + count) // 2
        if (made := judged(between))[1].passed:
            best, count = made, between
        else:
            fails = between
    return best


def _packages() -> tuple[Any, Any]:
    imported()
    import onnx
    import onnxruntime.quantization as quantization

    return onnx, quantization


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress:
        progress(what, done, total)
