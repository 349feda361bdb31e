"""A graph in a lower precision, judged beside its float32 form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fabrica.export.gate import NotPassed
from fabrica.export.int8 import searched
from fabrica.export.work import Work
from fabrica.runtime.folder import Tried
from fabrica.runtime.session import INT8, Session

if TYPE_CHECKING:
    from fabrica.export.graphs import Format


def lowered(
    work: Work, name: str, format_: Format, precision: str, plain: dict[str, bytes], exact: Session
) -> tuple[dict[str, bytes], list[Tried]]:
    """The graph's files in this precision, and what was tried for it, the last one being it. NotPassed where it loses
    more than the gate allows. plain: the files in float32, exact: what runs them."""
    graph, computes, inputs = work.graph(name), format_.computes(precision), work.networks[name].inputs
    gate = work.gate(name, exact)

    def opened(content: bytes) -> tuple[Session, float]:
        own = format_.converted(name, content, precision)
        return format_.session(name, list(own.values()), inputs, computes), megabytes(own)

    tried = [gate.judged(exact, megabytes(plain), "fp32")]
    if precision == INT8:
        graph, more = searched(graph, lambda how: work.ranges(name, how), gate, opened, format_.scheme, work.progress)
        tried += more
    elif precision != "fp32":
        tried.append(gate.judged(*opened(graph), precision))
    if not tried[-1].passed:
        raise NotPassed(name, gate, tried)
    return format_.converted(name, graph, precision), tried


def megabytes(files: dict[str, bytes]) -> float:
    return sum(map(len, files.values())) / 1e6
