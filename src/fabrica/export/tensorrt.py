"""A trained model as engines of TensorRT, built of ONNX graphs on the GPU that is to run them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fabrica.errors import UsageError
from fabrica.export import graphs, int8
from fabrica.runtime import tensorrt

# (fewest, usual, most) of a batch and of sides, for which an engine holds memory: many windows, or one slice.
BATCHES = {2: ((1, 4, 16), (1, 1, 1)), 3: ((1, 1, 2),)}
SIDES = {2: ((8, 256, 512), (8, 1024, 2048)), 3: ((4, 96, 256),)}


def converted(name: str, graph: bytes, precision: str) -> dict[str, bytes]:
    """The engine, in the types that the graph has: float32, float16, or INT8 where it says so. UsageError for a graph
    that TensorRT cannot hold."""
    package, _ = tensorrt.imported()
    logger = package.Logger(package.Logger.ERROR)
    builder = package.Builder(logger)
    network = builder.create_network(1 << int(package.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = package.OnnxParser(network, logger)
    if not parser.parse(float16(graph) if precision == "fp16" else graph):
        raise UsageError(f"TensorRT cannot hold the graph {name}: {parser.get_error(0).desc()}; take --to onnx")
    config = builder.create_builder_config()
    config.clear_flag(package.BuilderFlag.TF32)  # else what is called float32 has the digits of float16
    inputs = [network.get_input(k) for k in range(network.num_inputs)]
    dims = 3 if any(len(each.shape) == 5 for each in inputs) else 2
    for batch, sides in zip(BATCHES[dims], SIDES[dims], strict=True):
        profile = builder.create_optimization_profile()
        for each in inputs:
            profile.set_shape(each.name, *bounds(tuple(each.shape), batch, sides))
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UsageError(f"TensorRT builds no engine of the graph {name} for this GPU; take --to onnx")
    return {f"{name}.engine": bytes(plan)}


def bounds(shape: Sequence[int], batch: Sequence[int], sides: Sequence[int]) -> list[tuple[int, ...]]:
    """The fewest, usual and most of each axis of an input, -1 where it is free: the first one is the batch."""
    free = [batch, *[sides] * (len(shape) - 1)]
    return [tuple(own[k] if side < 0 else side for side, own in zip(shape, free, strict=True)) for k in range(3)]


def float16(graph: bytes) -> bytes:
    """The ONNX graph computed in float16; what goes in and out stays float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    made: Any = convert_float_to_float16(onnx.load_from_string(graph), keep_io_types=True)
    written: bytes = made.SerializeToString(deterministic=True)
    return written


def computes(precision: str) -> str:
    """UsageError where TensorRT or a GPU is missing, and for bfloat16."""
    tensorrt.imported()
    if precision == "bf16":
        raise UsageError("engines of TensorRT are made in fp32, fp16 or int8; take --precision fp16")
    return precision if precision == "fp16" else "fp32"


# It takes int8 values whose zero is 0 alone, and biases in float; what weighted layers give is not rounded, so that
# what follows can be part of them.
SCHEME = int8.Scheme(int8.WEIGHTED, outputs=False, signed=True)
FORMAT = graphs.Format("tensorrt", converted, tensorrt.session, computes, SCHEME)
