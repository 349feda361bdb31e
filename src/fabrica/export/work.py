"""A model being exported: what its formats and precisions have in common is made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar, cast

from fabrica.errors import UsageError
from fabrica.export import int8
from fabrica.export.gate import ALLOWED, Gate, Limits, answers
from fabrica.export.images import Images, images, shown
from fabrica.export.networks import Network, networks
from fabrica.export.ranges import seen
from fabrica.export.tracing import onnx_graph
from fabrica.model.model import Model
from fabrica.progress import Progress
from fabrica.runtime.session import Session

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """A model, and what is asked of its graphs.

    calibrate  a folder or manifest of images that takes the place of the model's own; "": these. limits: what a lower
               precision may lose on them. progress: who is told how far it is.
    gates      what judges its graphs, by name, each made when it is first asked for; of a student those of its teacher:
               what it loses beside its teacher's float32 is judged, in float32 too.
    """

    model: Model
    calibrate: str = ""
    limits: Limits = ALLOWED
    progress: Progress | None = None
    gates: dict[str, Gate] = field(default_factory=dict, repr=False)
    student: bool = False
    _made: dict[tuple[str, ...], Any] = field(default_factory=dict, repr=False)

    @cached_property
    def networks(self) -> dict[str, Network]:
        """See `fabrica.export.networks.networks`."""
        return networks(self.model)

    def graph(self, name: str) -> bytes:
        """A network as ONNX, in float32; UsageError for one that cannot be."""
        return self._once(("graph", name), lambda: onnx_graph(self.networks[name], f"{self.model.name}, {name}"))

    def images(self, name: str, split: str) -> Images:
        """What a graph is given of a split, "train" or "val"; UsageError where the images are not there, or too few."""
        return self._once(
            ("images", name, split),
            lambda: images(self.model, name, self.networks[name], split, self.calibrate, self.progress),
        )

    def tried(self, name: str) -> Network:
        """The network, to be tried with held-out images where these are at hand, else with random ones."""
        network = self.networks[name]
        if network.inputs != ("images",):
            return network
        try:
            return shown(network, self.images(name, "val"))
        except UsageError:
            if self.calibrate:
                raise
            return network

    def ranges(self, name: str, how: str) -> Any:
        """What values between layers range over on training images, by one of `fabrica.export.ranges.RANGES`."""
        inputs = self.networks[name].inputs
        found = self._once(
            ("ranges", name), lambda: seen(self.graph(name), inputs, self.images(name, "train"), int8.OPERATORS)
        )
        return found[how]

    def gate(self, name: str, plain: Session) -> Gate:
        """What judges a graph; plain: its float32 form, by which others are timed."""
        if name not in self.gates:
            network, some = self.networks[name], self.images(name, "val")
            self.gates[name] = Gate(some, plain, answers(plain, some), network.unit, network.half, self.limits)
        return replace(self.gates[name], plain=plain)

    def _once(self, what: tuple[str, ...], make: Callable[[], T]) -> T:
        if what not in self._made:
            self._made[what] = make()
        return cast(T, self._made[what])
