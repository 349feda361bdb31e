"""Graphs run by TensorRT: engines, machine code for the kind of NVIDIA GPU and the TensorRT that they were built by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fabrica.errors import FabricaError, UsageError
from fabrica.image import Float32
from fabrica.runtime.session import Session, as_arrays, check_names, foreign

INSTEAD = "take --to onnx or openvino, which need no GPU"


def imported() -> tuple[Any, Any]:
    """TensorRT, and the calls of CUDA; UsageError, one line, where one of them or a GPU is missing."""
    try:
        import tensorrt
        from cuda.bindings import runtime as cuda
    except ImportError as error:
        missing = (error.name or str(error)).partition(".")[0]
        raise UsageError(
            f"TensorRT cannot be used: {missing} is not installed; on a machine with an NVIDIA GPU: "
            f"pip install tensorrt cuda-bindings; else {INSTEAD}"
        ) from error
    check_device(cuda)
    return tensorrt, cuda


def check_device(cuda: Any) -> None:
    """UsageError where CUDA finds no GPU, or no driver of one."""
    try:
        error, count = cuda.cudaGetDeviceCount()
        said = "none" if error == cuda.cudaError_t.cudaSuccess and not count else error.name
    except RuntimeError as missing:  # the driver's library
        error, count, said = None, 0, str(missing)
    if not count or error != cuda.cudaError_t.cudaSuccess:
        raise UsageError(f"TensorRT needs an NVIDIA GPU, and CUDA finds none here ({said}); {INSTEAD}")


def session(
    name: str, contents: Sequence[bytes], inputs: Sequence[str], precision: str = "fp32", threads: int = 0
) -> Session:
    """The engine as a function of arrays. precision and threads are the engine's and the GPU's: not looked at.

    name      what messages call it; contents: the one file; inputs: what it takes, in the order of arguments.

    Raises UsageError where TensorRT or a GPU is missing, FabricaError for bytes that are no engine of this TensorRT for
    this kind of GPU.
    """
    tensorrt, cuda = imported()
    (plan,) = contents
    engine = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR)).deserialize_cuda_engine(plan)
    if engine is None:
        raise foreign(name, f"TensorRT {tensorrt.__version__} cannot run it on this GPU, for which it has to be made")
    every = [engine.get_tensor_name(k) for k in range(engine.num_io_tensors)]
    results = [each for each in every if engine.get_tensor_mode(each) == tensorrt.TensorIOMode.OUTPUT]
    check_names(name, [each for each in every if each not in results], inputs)
    context, (stream,) = engine.create_execution_context(), done(cuda, cuda.cudaStreamCreate())
    rooms: dict[str, tuple[int, int]] = {}  # address and bytes on the GPU

    def room(tensor: str, size: int) -> int:
        address, bytes_ = rooms.get(tensor, (0, 0))
        if size > bytes_:
            if address:
                done(cuda, cuda.cudaFree(address))
            (found,) = done(cuda, cuda.cudaMalloc(size))
            address = int(found)
            rooms[tensor] = (address, size)
        context.set_tensor_address(tensor, address)
        return address

    def copied(to: int, source: int, size: int, way: Any) -> None:
        done(cuda, cuda.cudaMemcpyAsync(to, source, size, way, stream))

    def run(*values: Float32) -> Float32:
        given = dict(zip(inputs, as_arrays(values), strict=True))
        profile = _profile(engine, given)
        if profile is None:
            sizes = ", ".join(str(list(each.shape)) for each in given.values())
            raise UsageError(f"{name} was not built for inputs of {sizes}; take smaller windows, or {INSTEAD}")
        if profile != context.active_optimization_profile:
            context.set_optimization_profile_async(profile, int(stream))
        ways = cuda.cudaMemcpyKind
        for tensor, array in given.items():
            context.set_input_shape(tensor, array.shape)
            copied(room(tensor, array.nbytes), array.ctypes.data, array.nbytes, ways.cudaMemcpyHostToDevice)
        made: Float32 = np.empty(tuple(context.get_tensor_shape(results[0])), dtype=np.float32)
        place = room(results[0], made.nbytes)
        if not context.execute_async_v3(int(stream)):
            raise FabricaError(f"{name} failed on the GPU; {INSTEAD}")
        copied(made.ctypes.data, place, made.nbytes, ways.cudaMemcpyDeviceToHost)
        done(cuda, cuda.cudaStreamSynchronize(stream))
        return made

    return Session(run, tuple(tuple(engine.get_tensor_shape(each)) for each in inputs))


def _profile(engine: Any, given: dict[str, Any]) -> int | None:
    """The first of the engine's profiles that inputs of these sizes lie within."""
    for k in range(engine.num_optimization_profiles):
        bounds = {name: engine.get_tensor_profile_shape(name, k) for name in given}
        if all(
            low <= side <= high
            for name, array in given.items()
            for low, side, high in zip(bounds[name][0], array.shape, bounds[name][2], strict=True)
        ):
            return k
    return None


def done(cuda: Any, answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a call of CUDA gives beside its error; FabricaError for one."""
    error, *found = answer
    if error != cuda.cudaError_t.cudaSuccess:
        raise FabricaError(f"the GPU refuses ({error.name}); free its memory, or {INSTEAD}")
    return tuple(found)
