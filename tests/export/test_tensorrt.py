"""TensorRT up to the missing device: what an engine is built of, and for which sizes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fabrica.errors import FabricaError, UsageError
from fabrica.export import int8
from fabrica.export.ranges import seen
from fabrica.export.tensorrt import BATCHES, FORMAT, SIDES, bounds, float16
from fabrica.runtime.tensorrt import check_device, done
from tests.export.test_precision import convolutions, opened, random_weights, some_images

onnx = pytest.importorskip("onnx", reason="needs onnx")
pytest.importorskip("onnxruntime.quantization", reason="needs onnxruntime")


def test_a_graph_in_float16_takes_and_gives_float32() -> None:
    graph, given = convolutions(random_weights(16, 16)), some_images(2)
    made = float16(graph)
    kinds = {each.data_type for each in onnx.load_from_string(made).graph.initializer if len(each.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16} and len(made) < 0.6 * len(graph)
    for inputs in given.inputs:
        one, other = (opened(each)[0](*inputs) for each in (graph, made))
        assert other.dtype == np.float32 and 0 < np.abs(one - other).max() < 2e-2


def test_int8_for_tensorrt_has_signed_values_around_zero_and_biases_in_float() -> None:
    graph, given = convolutions(random_weights(8, 8)), some_images()
    ranges = seen(graph, ["images"], given, int8.OPERATORS)["min-max"]
    layers = ["layer0", "layer1"]
    made = onnx.load_from_string(int8.quantised(graph, ranges, FORMAT.scheme, layers))
    zeros = [onnx.numpy_helper.to_array(e) for e in made.graph.initializer if "zero_point" in e.name]
    assert zeros and all(each.dtype == np.int8 and not each.any() for each in zeros)
    assert not [each for each in made.graph.initializer if each.data_type == onnx.TensorProto.INT32]
    off = opened(made.SerializeToString())[0](*given.inputs[0]) - opened(graph)[0](*given.inputs[0])
    assert 0 < np.abs(off).max() < 0.2


@pytest.mark.parametrize(
    ("shape", "dims"), [((-1, 1, -1, -1), 2), ((-1, 3, -1, -1, -1), 3), ((-1, 64), 2), ((-1,), 2), ((-1, 4, 8, 8), 2)]
)
def test_bounds_of_inputs_leave_what_is_fixed(shape: tuple[int, ...], dims: int) -> None:
    for batch, sides in zip(BATCHES[dims], SIDES[dims], strict=True):
        low, usual, most = bounds(shape, batch, sides)
        for k, side in enumerate(shape):
            own = (low[k], usual[k], most[k])
            assert own == ((side,) * 3 if side >= 0 else tuple(sides if k else batch))
            assert own[0] <= own[1] <= own[2]


def cuda(error: str, count: int | None) -> Any:
    """The answers of NVIDIA's calls that are asked for, as they come with and without a driver."""
    kinds = SimpleNamespace(cudaSuccess=SimpleNamespace(name="cudaSuccess"), other=SimpleNamespace(name=error))
    given = kinds.cudaSuccess if error == "cudaSuccess" else kinds.other
    return SimpleNamespace(cudaError_t=kinds, cudaGetDeviceCount=lambda: (given, count))


def test_a_missing_device_is_one_line() -> None:
    check_device(cuda("cudaSuccess", 1))
    for error, count in (("cudaErrorInsufficientDriver", None), ("cudaSuccess", 0), ("cudaErrorNoDevice", 0)):
        with pytest.raises(UsageError, match="TensorRT needs an NVIDIA GPU, and CUDA finds none here") as caught:
            check_device(cuda(error, count))
        assert "\n" not in str(caught.value) and "take --to onnx or openvino" in str(caught.value)


def test_what_the_gpu_refuses_is_one_line() -> None:
    calls = cuda("cudaErrorMemoryAllocation", None)
    assert done(calls, (calls.cudaError_t.cudaSuccess, 3)) == (3,)
    with pytest.raises(FabricaError, match="the GPU refuses \\(cudaErrorMemoryAllocation\\); free its memory"):
        done(calls, calls.cudaGetDeviceCount())
