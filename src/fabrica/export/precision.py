"""A graph in a lower precision, judged beside its float32 form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fabrica.export.gate import Gate, Limits, answers
from fabrica.export.images import images
from fabrica.export.int8 import searched
from fabrica.export.networks import Network
from fabrica.model.model import Model
from fabrica.progress import Progress
from fabrica.runtime.folder import Tried
from fabrica.runtime.session import INT8, Session

if TYPE_CHECKING:
    from fabrica.export.graphs import Format


@dataclass(frozen=True)
class Asked:
    """A lower precision, what the runtime computes in for it, where images come from, what may be lost on them, and who
    is told how far it is."""

    precision: str
    computes: str
    calibrate: str
    limits: Limits
    progress: Progress | None


def lowered(
    model: Model, name: str, network: Network, format_: Format, graph: bytes, asked: Asked, exact: Session
) -> tuple[dict[str, bytes], list[Tried]]:
    """The graph's files in a lower precision, and what was tried for it, the last one being it. FabricaError where it
    loses more than the gate allows. exact: the float32 graph."""
    some = images(model, name, network, "val", asked.calibrate, asked.progress)
    gate = Gate(some, exact, answers(exact, some), network.unit, network.half, asked.limits)

    def opened(content: bytes, precision: str, computes: str) -> tuple[Session, float]:
        own = format_.converted(name, content, precision)
        session = format_.session(name, list(own.values()), network.inputs, computes)
        return session, sum(map(len, own.values())) / 1e6

    first = gate.judged(*opened(graph, "fp32", "fp32"), "fp32")
    if asked.precision == INT8:
        shown = images(model, name, network, "train", asked.calibrate, asked.progress)
        graph, tried = searched(
            graph, network.inputs, shown, gate, lambda made: opened(made, INT8, asked.computes), format_.operators,
            asked.progress,
        )  # fmt: skip
    else:
        tried = [gate.judged(*opened(graph, asked.precision, asked.computes), asked.precision)]
    if not tried[-1].passed:
        raise gate.refusal(name, tried[-1])
    return format_.converted(name, graph, asked.precision), [first, *tried]
