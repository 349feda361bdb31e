"""Networks as ONNX graphs, compared with PyTorch; and the folder that holds them, which `fabrica.runtime` opens."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fabrica.errors import FabricaError, UsageError, unknown
from fabrica.export.chart import picture
from fabrica.export.drawing import draws
from fabrica.export.gate import ALLOWED, Limits, table
from fabrica.export.images import shown
from fabrica.export.networks import Network, networks, sizes, traced_with
from fabrica.export.precision import Asked, lowered
from fabrica.export.quiet import unlogged
from fabrica.methods import Translator
from fabrica.model.model import Model
from fabrica.nets.device import autocast
from fabrica.progress import Progress
from fabrica.recipe.folder import CARD, FOUND, RECIPE, WORDS
from fabrica.runtime import folder as place
from fabrica.runtime.exported import opened as open_exported
from fabrica.runtime.folder import Exported, Graph, Parity, Pictures
from fabrica.runtime.session import INT8, PRECISIONS, Session

OPSET = 20
PICTURES = 8  # that are compared with PyTorch's
UNLIKE = 0.01  # of the range: the largest mean difference of pictures; steps add up what networks differ by
TOLERANCE = 1e-4  # of the range of values: the largest difference from PyTorch in float32
AXES = ("batch", "channels", "depth", "height", "width")
PICTURE = "precision.png"
MOST = 2**31 - 1  # bytes that protobuf can hold in one file


@dataclass(frozen=True)
class Format:
    """A format of graphs, and what runs it.

    converted   (name, ONNX graph, precision) -> the files of this format, the graph first.
    session     what opens these files: see `fabrica.runtime.onnx.session`.
    computes    from the precision of an export to what the runtime is told to compute in; UsageError for one that this
                processor lacks. operators: of ONNX, which are quantised.
    """

    name: str
    converted: Callable[[str, bytes, str], dict[str, bytes]]
    session: Callable[[str, Sequence[bytes], Sequence[str], str], Session]
    computes: Callable[[str], str]
    operators: Sequence[str]


def write(
    model: Model,
    folder: Path,
    format_: Format,
    precision: str = "fp32",
    calibrate: str = "",
    limits: Limits = ALLOWED,
    progress: Progress | None = None,
) -> None:
    """Write a model's graphs and what belongs to them into a folder.

    precision  "fp32", "fp16", "bf16" or "int8"; a lower one is judged on held-out images. calibrate: a folder or
               manifest of images that takes the place of the model's own for that. limits: what it may lose.

    Raises UsageError for a model that no graph can hold and for a precision that is none or that the processor lacks,
    FabricaError for graphs whose results differ from PyTorch's, or lose too much in the lower precision.
    """
    if precision not in (*PRECISIONS, INT8):
        raise unknown("precision", precision, (*PRECISIONS, INT8))
    computes = format_.computes(precision)
    graphs: dict[str, Graph] = {}
    files: dict[str, bytes] = {}
    for name, network in networks(model).items():
        graph = onnx_graph(network, f"{model.name}, {name}")
        own = format_.converted(name, graph, "fp32")
        session = format_.session(name, list(own.values()), network.inputs, "fp32")
        found = compared(shown(network, model, name, calibrate, progress), name, session, model)
        if precision != "fp32":
            asked = Asked(precision, computes, calibrate, limits, progress)
            own, tried = lowered(model, name, network, format_, graph, asked, session)
            found = replace(found, tried=tried)
        graphs[name] = replace(found, files=list(own))
        files |= own
    folder.mkdir(parents=True)
    model.recipe.save(folder / RECIPE)
    model.found.save(folder / FOUND)
    if precision != "fp32":
        files[PICTURE] = picture({name: graph.tried for name, graph in graphs.items()})
    files[CARD] = _card(model, format_.name, graphs).encode()
    if (model.folder / WORDS).is_file():
        files[WORDS] = (model.folder / WORDS).read_bytes()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    hashes = {each.name: place.digest(each.read_bytes()) for each in sorted(folder.iterdir())}
    local = isinstance(model.method, Translator) and model.method.local
    record = Exported(
        format=format_.name, hash=model.hash, local=local, precision=precision, computes=computes, graphs=graphs,
        draws=draws(model), sha256=hashes,
    )  # fmt: skip
    place.save(folder, record)
    if record.draws.shape:
        record = replace(record, pictures=pictures(model, folder))
        (folder / CARD).write_text(_card(model, format_.name, graphs, record.pictures), encoding="utf-8")
        hashes[CARD] = place.digest((folder / CARD).read_bytes())
        place.save(folder, record)


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


def compared(network: Network, name: str, session: Session, model: Model) -> Graph:
    """The graph's parity with PyTorch; FabricaError where the largest difference is above TOLERANCE of the range."""
    found, widest = list[tuple[int, tuple[int, ...], float, float, float]](), 0.0
    for batch, size in sizes(network):
        inputs = network.example(batch, size)
        with torch.inference_mode():
            wanted = network.module(*inputs).numpy()
            with autocast(model.recipe.train.precision, torch.device("cpu")):
                trained = network.module(*inputs).float().numpy()
        made = session(*(values.numpy() for values in inputs))
        if made.shape != wanted.shape:
            raise _unlike(name, f"gives {list(made.shape)} where PyTorch gives {list(wanted.shape)}")
        off = np.abs(made - wanted)
        found.append((batch, size, float(off.max()), float(off.mean()), float(np.abs(trained - wanted).max())))
        widest = max(widest, float(np.ptp(wanted)))
    half, spread = (1.0, widest) if network.half is None else (network.half, 2.0)
    parity = [
        Parity(batch, list(size), *(float(f"{half * value:.3g}") for value in values)) for batch, size, *values in found
    ]
    largest = max(each.largest for each in parity)
    if not largest <= TOLERANCE * half * spread:
        allowed = TOLERANCE * half * spread
        raise _unlike(name, f"is off by up to {largest:.3g} {network.unit}, and {allowed:.3g} is allowed")
    return Graph(inputs=list(network.inputs), unit=network.unit, range=half * spread, parity=parity)


def _unlike(name: str, how: str) -> FabricaError:
    return FabricaError(f"the graph {name} {how}: it is not the network, and was not written; report it")


def pictures(model: Model, folder: Path) -> Pictures:
    """How far the pictures of an exported folder are from PyTorch's; FabricaError where they are others."""
    quiet: Any = {"warn": lambda sentence: None}
    wanted = model.computing_in("fp32").sample_array(PICTURES, **quiet)
    opened: Any = open_exported(folder)
    off, (low, high) = np.abs(opened.sample_array(PICTURES, **quiet) - wanted), model.codec.span
    if not off.mean() <= UNLIKE * 2:
        raise FabricaError(
            f"pictures are off by {off.mean() / 2:.1%} of their range on average, and {UNLIKE:.1%} is allowed: they "
            "are not the model's, and nothing was written; report it"
        )
    half = (high - low) / 2
    return Pictures(PICTURES, *(float(f"{half * float(value):.3g}") for value in (off.max(), off.mean())))


def _card(model: Model, format_: str, graphs: Mapping[str, Graph], drawn: Pictures | None = None) -> str:
    """The model's own card, and what was measured of its graphs."""
    own = model.folder / CARD
    card = own.read_text("utf-8") if own.is_file() else f"# {model.name}\n\n{model.recipe.about}\n"
    rows = [
        f"| {name} | {each.batch} x {' x '.join(map(str, each.size))} | {each.largest:.3g} | {each.mean:.3g} "
        f"| {each.as_trained:.3g} | {graph.unit} of {graph.range:.6g} |"
        for name, graph in graphs.items()
        for each in graph.parity
    ]
    lines = "\n".join(rows)
    told = drawn and (
        f"\n{drawn.count} pictures of the seeds from 0 on, drawn as the recipe says, are off those that PyTorch draws\n"
        f"in float32 by at most {drawn.largest:.3g} {model.codec.unit}, by {drawn.mean:.3g} on average.\n"
    )
    return f"""{card.rstrip()}

## As {format_}

Exported from model {model.hash}; it needs no PyTorch. Differences from PyTorch in float32, on held-out images where
they were at hand, else on random ones:

| graph | images | largest | mean | PyTorch as trained | unit, and range |
|---|---|---|---|---|---|
{lines}
{told or ""}{_judged(graphs)}"""


def _judged(graphs: Mapping[str, Graph]) -> str:
    """What lower precisions lose, for the card."""
    parts = [f"\n{name}:\n\n" + "\n".join(table(each.tried, each.unit)) for name, each in graphs.items() if each.tried]
    if not parts:
        return ""
    said = "\n".join(parts)
    return f"""
## Precision

Tried on held-out images, beside the float32 graph; the last line is what the files hold.
{said}

![What each precision costs]({PICTURE})
"""
