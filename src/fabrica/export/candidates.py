"""Ways to run a model: in each runtime and precision that there is here, as the gate judges it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fabrica import runtime
from fabrica.errors import FabricaError
from fabrica.export import graphs, onnx, writing
from fabrica.export.gate import NotPassed
from fabrica.export.work import Work
from fabrica.model.model import Model
from fabrica.nets.device import uses_bf16
from fabrica.runtime.folder import Tried
from fabrica.runtime.session import INT8, Session

PRECISIONS = ("fp32", "bf16", "fp16", INT8)
BY_PYTORCH = PRECISIONS[:2]
Told = Callable[[], None]


@dataclass(frozen=True)
class Candidate:
    """A model in a runtime and a precision.

    model      whose weights these are, in words. runtime: "pytorch", or a format of graphs.
    megabytes  of its networks' files. tried: what it loses, and whether that passes the gate.
    place      the exported folder, or the model for PyTorch; None for what has not passed.
    """

    model: str
    runtime: str
    precision: str
    megabytes: float
    tried: Tried
    place: Path | Model | None = None

    def opened(self, threads: int) -> Any:
        """What `fabrica apply` works with (a `Translates`), in so many threads; PyTorch has those of the process."""
        if not isinstance(self.place, Path):
            return self.place
        found = runtime.opened(self.place)
        return replace(found, record=replace(found.record, threads=threads))


def judge(work: Work) -> None:
    """Have the graphs judged by ONNX Runtime's answers in float32. UsageError for a model that no graph can hold, and
    where images to judge it on are not there."""
    for name, network in work.networks.items():
        if name not in work.gates:
            files = [work.graph(name)]
            work.gate(name, onnx.FORMAT.session(name, files, network.inputs, "fp32"))


def usable(formats: Sequence[str], left_out: dict[str, str]) -> list[str]:
    """Those of the formats of graphs that run here. left_out: the others, and why."""
    found = []
    for to in formats:
        try:
            writing(to).FORMAT.computes("fp32")
            found.append(to)
        except ModuleNotFoundError as error:
            left_out[to] = f"{error.name} is not installed"
        except FabricaError as error:
            left_out[to] = str(error)
    return found


def exported(work: Work, who: str, to: str, home: Path, left_out: dict[str, str], told: Told) -> Iterator[Candidate]:
    """The model as graphs of a format, written below `home`. left_out: what is not tried, and why."""
    for precision in PRECISIONS:
        name = f"{f'{who} ' if work.student else ''}{to} {precision}"
        told()
        made = home / f"{to}-{precision}"
        try:
            graphs.write(work, made, writing(to).FORMAT, precision)
        except NotPassed as error:
            yield Candidate(who, to, precision, error.tried[-1].megabytes, error.tried[-1])
            if precision == "fp32":  # of a student: what it loses is no matter of precision
                return
        except FabricaError as error:
            left_out[name] = str(error)
        else:
            of = runtime.opened(made).record.graphs.values()
            size = sum((made / file).stat().st_size for graph in of for file in graph.files) / 1e6
            worst = max([graph.tried[-1] if graph.tried else Tried() for graph in of], key=lambda each: each.off)
            yield Candidate(who, to, precision, float(f"{size:.3g}"), worst, made)


def by_pytorch(work: Work, who: str, left_out: dict[str, str], told: Told) -> Iterator[Candidate]:
    """The model as PyTorch runs it, on its device."""
    weights = work.model.method.state_dict().values()
    size = float(f"{sum(each.numel() * each.element_size() for each in weights) / 1e6:.3g}")
    for precision in BY_PYTORCH:
        told()
        if precision == "bf16" and not uses_bf16("auto", work.model.device):
            left_out["pytorch bf16"] = "nothing here computes in bf16 but by emulation"
            continue
        model, tried = work.model.computing_in(precision), Tried(precision)
        if precision != "fp32" or work.student:
            judged = [
                work.gates[name].judged(Session(model.way(name).net, ()), size, precision) for name in work.networks
            ]
            tried = max(judged, key=lambda each: (not each.passed, each.off))
        yield Candidate(who, "pytorch", precision, size, tried, model if tried.passed else None)
