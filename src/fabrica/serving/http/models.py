"""A model as it is served: what it can do, put in words, and all of it done once before anybody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from fabrica.errors import UsageError
from fabrica.image import Float32, Image
from fabrica.inference.refusal import cautions
from fabrica.inference.synthesis import Synthesises
from fabrica.inference.translation import Way
from fabrica.inference.translator import Translates
from fabrica.progress import Progress
from fabrica.recipe.card import OF_PHANTOMS
from fabrica.runtime.exported import DIRECTIONS, ExportedModel
from fabrica.serving.http.tasks import DATATYPES, Entry, Served

Open = Callable[[Path, str], Any]
"""open(folder, precision): the model in a folder, exported or not. Given by who may import what opens it."""


class Samples(Protocol):
    """A model that makes images of noise, see `fabrica.model.synthesis.SynthesisModel`."""

    @property
    def name(self) -> str: ...
    @property
    def hash(self) -> str: ...
    def sample(self, n: int, *, seed: int = 0, progress: Progress | None = None, **choices: Any) -> list[Image]: ...


@dataclass(frozen=True)
class Ready:
    """An opened model, what it is to clients, and its graphs as functions of arrays."""

    model: Any
    served: Served
    graphs: Mapping[str, Callable[..., Float32]]


def ready(name: str, model: Any) -> Ready:
    """A model under this name, warm: each of its graphs run once and, of one that synthesises, an image made."""
    found = dict(_ways(model))
    if found:
        served, graphs = _translator(name, model, found)
    elif isinstance(model, ExportedModel):
        served, graphs = _exported(name, model)
        if isinstance(model, Synthesises):
            served = replace(_synthesiser(name, model), tasks=("sample", "infer"), graphs=served.graphs)
    else:
        served, graphs = _synthesiser(name, model), {}
    for graph, way in found.items():
        (entry,) = served.graphs[graph]
        size = way.data.size if way.data.size else [64] * (len(entry.shape) - 2)
        way.net(np.full((1, entry.shape[1], *size), -1, np.float32))
    for graph in graphs if not found else ():
        graphs[graph](*(_blank(each, graph, served.size) for each in served.graphs[graph]))
    if "sample" in served.tasks:
        choices = model.choices
        pace = {"steps": min(model.paces) if model.paces else 2} if "steps" in choices else {}
        model.sample(1, **pace, warn=lambda sentence: None)
    return Ready(model, served, graphs)


def _ways(model: Any) -> Iterator[tuple[str, Way]]:
    for direction in DIRECTIONS:
        with suppress(UsageError):  # one that it does not go
            yield direction, cast(Translates, model).way(direction)


def _translator(
    name: str, model: Translates, ways: Mapping[str, Way]
) -> tuple[Served, Mapping[str, Callable[..., Float32]]]:
    first = next(iter(ways.values()))
    served = Served(
        name,
        model.name,
        model.hash,
        ("apply", "infer"),
        modality=first.seen.modality,
        size=tuple(first.data.size),
        graphs={direction: (_windows(way),) for direction, way in ways.items()},
        directions={direction: way.name for direction, way in ways.items()},
        labels={int(number): label for number, label in first.labels.items()},
        image=first.data.a,
        auxiliary=tuple(first.data.auxiliary),
        mirror=bool(first.mirror),
        round_trip=first.back is not None,
        cautions=tuple(dict.fromkeys(sentence for way in ways.values() for sentence in cautions(way))),
    )
    return served, {direction: way.net for direction, way in ways.items()}


def _windows(way: Way) -> Entry:
    """What a way's network sees: see `fabrica.inference.translation.Way.net`."""
    one = way.source.classes if way.source.kind == "label" else way.data.channels
    channels = one * (2 * way.data.context + 1) + way.data.channels * len(way.auxiliary)
    return Entry("images", "FP32", (-1, channels, *[-1] * len(way.data.size)))


def _exported(name: str, model: ExportedModel) -> tuple[Served, Mapping[str, Callable[..., Float32]]]:
    """Graphs of an exported model that translates nothing: of one that synthesises, an autoencoder's."""
    graphs, runs = {}, {}
    for graph, record in model.record.graphs.items():
        graphs[graph] = tuple(
            Entry(each, "INT64" if _whole(each, graph) else "FP32", (-1, *shape[1:]))
            for each, shape in zip(record.inputs, model.shapes(graph), strict=True)
        )
        runs[graph] = _running(model, graph)
    found = model.found
    served = Served(
        name, model.name, model.hash, ("infer",), modality=found.modality, size=tuple(found.size), graphs=graphs
    )
    return served, runs


def _whole(name: str, graph: str) -> bool:
    """Whether an input holds whole numbers: classes, tokens."""
    return name == "labels" or (graph == "conditions" and name != "age")


def _blank(entry: Entry, graph: str, size: Sequence[int]) -> npt.NDArray[Any]:
    """One of an input, of zeros; where it takes any size, that of the model's images, or of latents an eighth of it."""
    sides = [max(4, side // 8) if graph == "decoder" else side for side in size] or [64] * (len(entry.shape) - 2)
    free = (side if said < 0 else said for side, said in zip([1, 1, *sides], entry.shape, strict=False))
    return np.zeros(tuple(free), DATATYPES[entry.datatype])


def _running(model: ExportedModel, graph: str) -> Callable[..., Float32]:
    return lambda *inputs: model.run(graph, *inputs)


def _synthesiser(name: str, model: Any) -> Served:
    """UsageError, the model's own, for one that makes no images of noise either."""
    assert model.choices is not None  # the model says what it is for, if not this
    conditions = tuple(model.data.condition)
    return Served(
        name,
        model.name,
        model.hash,
        ("sample",),
        modality=model.found.modality,
        size=tuple(model.size),
        conditions=conditions,
        classes=tuple(model.data.classes) if "label" in conditions else (),
        sampling=model.sampling,
        cautions=(f"the model is {OF_PHANTOMS}",) if model.data.phantoms else (),
    )
