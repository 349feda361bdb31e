"""Graphs compared with PyTorch, and the folder that holds them, which `fabrica.runtime` opens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fabrica.errors import FabricaError, unknown
from fabrica.export.chart import picture
from fabrica.export.drawing import draws
from fabrica.export.gate import table
from fabrica.export.int8 import Scheme
from fabrica.export.networks import Network, sizes
from fabrica.export.precision import lowered
from fabrica.export.work import Work
from fabrica.methods import Translator
from fabrica.model.model import Model
from fabrica.nets.device import autocast
from fabrica.recipe.folder import CARD, FOUND, RECIPE, WORDS
from fabrica.runtime import folder as place
from fabrica.runtime.exported import opened as open_exported
from fabrica.runtime.folder import Exported, Graph, Parity, Pictures
from fabrica.runtime.session import INT8, PRECISIONS, Session

PICTURES = 8  # that are compared with PyTorch's
UNLIKE = 0.01  # of the range: the largest mean difference of pictures; steps add up what networks differ by
TOLERANCE = 1e-4  # of the range of values: the largest difference from PyTorch in float32
PICTURE = "precision.png"


@dataclass(frozen=True)
class Format:
    """A format of graphs, and what runs it.

    converted   (name, ONNX graph, precision) -> the files of this format, the graph first.
    session     what opens these files: see `fabrica.runtime.onnx.session`.
    computes    from the precision of an export to what the runtime is told to compute in; UsageError for one that this
                processor lacks. scheme: what is in 8 bits.
    """

    name: str
    converted: Callable[[str, bytes, str], dict[str, bytes]]
    session: Callable[[str, Sequence[bytes], Sequence[str], str], Session]
    computes: Callable[[str], str]
    scheme: Scheme


def write(work: Work, folder: Path, format_: Format, precision: str = "fp32") -> None:
    """Write a model's graphs and what belongs to them into a folder.

    precision  "fp32", "fp16", "bf16" or "int8"; a lower one is judged on held-out images, as is a student.

    Raises UsageError for a model that no graph can hold and for a precision that is none or that the processor lacks,
    FabricaError for graphs whose results differ from PyTorch's, and NotPassed for those that lose too much.
    """
    if precision not in (*PRECISIONS, INT8):
        raise unknown("precision", precision, (*PRECISIONS, INT8))
    computes = format_.computes(precision)
    model, graphs, files = work.model, dict[str, Graph](), dict[str, bytes]()
    for name, network in work.networks.items():
        own = format_.converted(name, work.graph(name), "fp32")
        session = format_.session(name, list(own.values()), network.inputs, "fp32")
        found = compared(work.tried(name), name, session, model)
        if precision != "fp32" or work.student:
            own, tried = lowered(work, name, format_, precision, own, session)
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
    local = isinstance(model.method, Translator) and model.method.local
    record = Exported(
        format=format_.name, hash=model.hash, local=local, precision=precision, computes=computes, graphs=graphs,
        draws=draws(model),
    )  # fmt: skip
    record = place.seal(folder, record)
    if record.draws.shape:
        record = replace(record, pictures=pictures(model, folder))
        (folder / CARD).write_text(_card(model, format_.name, graphs, record.pictures), encoding="utf-8")
        place.seal(folder, record)


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
