"""An exported model, opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from fabrica.errors import FabricaError, UsageError
from fabrica.image import Float32, Image
from fabrica.inference.tiling import Net
from fabrica.inference.translation import Way
from fabrica.inference.translator import Applied, apply
from fabrica.inference.ways import way_of
from fabrica.recipe.folder import FOUND
from fabrica.recipe.found import Found, found_in
from fabrica.recipe.record import Recorded
from fabrica.recipe.schema import Recipe
from fabrica.runtime.folder import ADVICE, Exported, contents, load
from fabrica.runtime.session import INT8, PRECISIONS, Session

DIRECTIONS = ("a2b", "b2a")


@dataclass(frozen=True)
class ExportedModel(Recorded):
    """What `fabrica apply` works with, and graphs as functions of arrays. A graph is opened when it is first run."""

    folder: Path
    recipe: Recipe
    found: Found
    record: Exported
    precision: str = "fp32"
    _open: dict[str, Session] = field(default_factory=dict, repr=False)

    @property
    def hash(self) -> str:
        """That of the model that it was made of."""
        return self.record.hash

    def run(self, graph: str, *inputs: Float32) -> Float32:
        """What a graph makes of these inputs: images (B, C, *S) in [-1, 1] of "a2b", "b2a" and "encoder", latents
        (B, L, *s) of "decoder", Gaussian z (B, D), and int64 labels (B,) where the model is told them, of "generator";
        "denoiser" and "conditions": see `fabrica.runtime.synthesis`.
        UsageError for a graph that the model does not have."""
        return self._session(graph)(*inputs)

    def shapes(self, graph: str) -> tuple[tuple[int, ...], ...]:
        """Of each input of a graph, in the order of the record; -1 where it takes any size."""
        return self._session(graph).shapes

    def _session(self, graph: str) -> Session:
        if graph not in self.record.graphs:
            known = ", ".join(self.record.graphs)
            raise UsageError(
                f"model {self.name} has the graph{'s' * (len(self.record.graphs) > 1)} {known}; no {graph}"
            )
        if graph not in self._open:
            files, inputs_of = contents(self.folder, self.record, graph), self.record.graphs[graph].inputs
            opener = import_module(f"fabrica.runtime.{self.record.format}").session
            name = str(self.folder / self.record.graphs[graph].files[0])
            self._open[graph] = cast(Session, opener(name, files, inputs_of, self.precision, self.record.threads))
        return self._open[graph]

    def way(self, direction: str = "a2b") -> Way:
        """One direction, for `fabrica.inference`; UsageError for one that the model does not go."""
        directions: Sequence[str] = [each for each in DIRECTIONS if each in self.record.graphs]
        if not directions:
            known = " and ".join(self.record.graphs)
            raise UsageError(
                f"model {self.name} was exported as {known}, and translates nothing"
                f"{'; use it with: fabrica sample' if self.record.draws.shape else ', see ExportedModel.run'}"
            )
        return way_of(self.recipe, self.found, directions, self._net, direction, local=self.record.local)

    def apply(self, image: Image, *, direction: str = "a2b", **choices: Any) -> Applied:
        """The image translated, restored or segmented; see `fabrica.inference.translator.apply`."""
        return apply(image, self.way(direction), **choices)

    def sample(self, *_: Any, **__: Any) -> Any:
        known = " and ".join(self.record.graphs)
        use = f"fabrica apply {self.folder}" if "a2b" in self.record.graphs else "ExportedModel.run in Python"
        raise UsageError(f"model {self.name} was exported as {known}, and makes no images of noise; use it with: {use}")

    def interpolate(self, *_: Any, **__: Any) -> Any:
        self.sample()

    def _net(self, direction: str) -> Net:
        return lambda windows: self.run(direction, windows)


def opened(folder: Path, precision: str = "") -> ExportedModel:
    """The model that `fabrica export` has written. Nothing in the folder is executed, and nothing outside is read.

    precision   "fp32", "fp16" or "bf16" to compute in; "": that of the export, which for INT8 graphs and for
               engines of TensorRT is the only one.

    Raises FabricaError, one line, for a folder that is not as it was exported or of a later Fabrica, UsageError for a
    precision that is none, or that the graphs no longer have.
    """
    if precision and precision not in (*PRECISIONS, INT8):
        raise UsageError(f"precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    record = load(folder)
    fixed = INT8 in (precision, record.precision) or record.format == "tensorrt"
    if precision and fixed and precision != record.precision:
        raise UsageError(
            f"{folder} was exported in {record.precision}, and cannot be run in {precision}; leave --precision out, or "
            f"export the model again with --precision {precision}"
        )
    recipe, found = found_in(folder)
    codecs = [found.codec, found.codec_b] if "a2b" in record.graphs else [found.codec]
    if any(codec.kind == "auto" or codec.low is None for codec in codecs):
        raise FabricaError(f"{folder / FOUND} has no codec, which says what grey values mean; {ADVICE}")
    computes = precision if precision in PRECISIONS else record.computes
    if record.draws.shape:
        from fabrica.runtime.synthesis import ExportedSynthesis, encoder_in

        encoder = encoder_in(folder, recipe, found, record)
        return ExportedSynthesis(folder, recipe, found, record, computes, encoder=encoder)
    return ExportedModel(folder, recipe, found, record, computes)
