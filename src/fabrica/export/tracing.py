"""A network as an ONNX graph."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from fabrica.errors import UsageError
from fabrica.export.networks import Network, traced_with
from fabrica.export.quiet import unlogged

OPSET = 20
AXES = ("batch", "channels", "depth", "height", "width")
MOST = 2**31 - 1  # bytes that protobuf can hold in one file


def onnx_graph(network: Network, what: str) -> bytes:
    """The network as one ONNX file that takes batches and images of any size. UsageError for one that cannot be."""
    example = traced_with(network)
    free = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in network.free)
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(network.module, example, dynamic_shapes=(free,), strict=False)
            written: Any = torch.onnx.export(
                program, (), dynamo=True, input_names=[f"{name}_" for name in network.inputs], output_names=["result"],
                opset_version=OPSET, external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # any: what PyTorch cannot trace it says in many types
        cause = error.__cause__ or error
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise UsageError(f"{what} cannot become a graph: {reason}") from error
    proto = written.model_proto
    _named(proto, network.inputs)
    _bare(proto, len(example[0].shape))
    if proto.ByteSize() > MOST:
        raise UsageError(
            f"{what} has {proto.ByteSize() / 2**30:.1f} GiB of weights; a graph of one file holds 2 at most"
        )
    graph: bytes = proto.SerializeToString(deterministic=True)
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch says of its own insides while it exports: warnings, and lines on stderr."""
    with unlogged(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _named(proto: Any, inputs: Sequence[str]) -> None:
    """Inputs, which were traced with a stroke behind them, under their own names. What PyTorch calls so within the
    graph, after its operators ("view"), changes places with them."""
    names = {f"{name}_": name for name in inputs} | {name: f"{name}_" for name in inputs}
    for node in proto.graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
    for each in (*proto.graph.input, *proto.graph.initializer):
        each.name = names.get(each.name, each.name)


def _bare(proto: Any, dims: int) -> None:
    """Without what tracing notes down, places of files on this machine among it; axes under names that a person
    knows."""
    names: dict[str, str] = {}
    axes = [*AXES[:2], *AXES[len(AXES) - (dims - 2) :]] if dims > 2 else AXES[:2]
    for shape in (value.type.tensor_type.shape for value in proto.graph.input):
        for axis, dim in zip(axes, shape.dim, strict=False):
            names |= {dim.dim_param: axis} if dim.dim_param else {}
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]
            elif dim.dim_param:
                dim.ClearField("dim_param")
    proto.graph.ClearField("value_info")
    noted = (proto, proto.graph, *proto.graph.node, *proto.graph.initializer, *proto.graph.input, *proto.graph.output)
    for each in noted:
        each.ClearField("metadata_props")
        each.ClearField("doc_string")
