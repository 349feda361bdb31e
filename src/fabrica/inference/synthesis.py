"""A trained model that makes images of noise put to work, whatever runs its network."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fabrica.conditioning.encoder import Asked, ConditionEncoder, Encoded
from fabrica.conditioning.masks import shown
from fabrica.data.levels import held
from fabrica.data.standardise import middle, placed
from fabrica.diffusion import noise
from fabrica.diffusion.noise import Draw
from fabrica.diffusion.sampling import Begin
from fabrica.errors import UsageError
from fabrica.image import Float32, Image
from fabrica.inference.editing import begin
from fabrica.progress import Progress
from fabrica.recipe.codecs import codec_of
from fabrica.recipe.record import Recorded
from fabrica.recipe.schema import SampleConfig

OF_SOURCE = ("dicom", "patient")  # of an image's origin: whose it is


class Synthesises(Recorded):
    """What surrounds the network of a model that makes images of noise: seeds, what it is told, settings, grey values.

    hash, encoder   of the model, see `fabrica.model.model.Model`.
    choices   which settings of `sample` mean something to it; paces: the numbers of steps that it samples in, (): any.
    edits     whether it draws an image anew, too, rather than of noise alone.
    """

    if TYPE_CHECKING:  # who has them keeps them as fields, or asks the method

        @property
        def hash(self) -> str: ...
        @property
        def encoder(self) -> ConditionEncoder: ...
        @property
        def choices(self) -> tuple[str, ...]: ...
        @property
        def paces(self) -> tuple[int, ...]: ...
        @property
        def edits(self) -> bool: ...

    def _made(self, draw: Draw, conditions: Encoded, settings: SampleConfig, begin: Begin | None) -> Float32:
        """The images of one batch by the network, float32 (N, C, *S), as `sample_array` has them but for their padding
        and what lies beyond [-1, 1]; of what is not told, what the network has learned for that."""
        raise NotImplementedError

    @property
    def sampling(self) -> str:
        """How images are made by default: of the recipe's values those that mean something to the method."""
        settings, choices = self.recipe.sample, self.choices
        said = f"{settings.sampler}, {settings.steps} steps" if "steps" in choices else "one pass"
        if "guidance" in choices and self.recipe.data.condition:
            said += f", guidance {settings.guidance:g}"
        if "truncation" in choices and settings.truncation:
            said += f", latents within {settings.truncation:g} SD (truncation)"
        return said

    def sample(self, n: int, *, seed: int = 0, progress: Progress | None = None, **choices: Any) -> list[Image]:
        """n synthetic images in physical units; `choices` as in `sample_array`.

        Image k comes from seed + k alone: it is the same whatever n and the batch size.
        """
        values = self.sample_array(n, seed=seed, progress=progress, **choices)
        return [self._image(array, seed + k, choices.get("start")) for k, array in enumerate(values)]

    def sample_array(
        self,
        n: int,
        *,
        seed: int = 0,
        conditions: Mapping[str, Asked] | None = None,
        start: Image | None = None,
        strength: float | None = None,
        redraw: Image | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        guidance: float | None = None,
        rescale: float | None = None,
        truncation: float | None = None,
        batch: int = 64,
        progress: Progress | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> Float32:
        """n synthetic images as float32 (n, C, *S) in [-1, 1].

        conditions   what they are to show: {"label": ..., "text": ..., "age": ..., "sex": ..., "view": ...,
                  "mask": ...}, of these what the model's recipe names in data.condition; each one value for all
                  images, or one an image. Without a label, the classes come in turn, by seed; anything else that is
                  not there is left open. A mask is an Image, a label map; it is brought to the model's size as those
                  in training were.
        start, strength, redraw   an image to draw anew, how much, and where: see `fabrica.inference.editing`.
        steps, sampler, guidance, rescale (diffusion), truncation (GANs)   None: as the model's recipe says.
        warn      called with one sentence on what the model cannot read of a text; None: `warnings.warn`.
        """
        if n < 1:
            raise UsageError(f"asked for {n} images; expected at least 1")
        tensors = self._conditions(n, seed, conditions or {}, warn or warnings.warn)
        settings = self._settings(
            steps=steps, sampler=sampler, guidance=guidance, rescale=rescale, truncation=truncation
        )
        if start is not None and not self.edits:
            raise UsageError(f"{self.method_name} makes images of noise, and not of others; method diffusion does both")
        first = begin(self.method_name, self.data, self.codec, start, strength, redraw)

        def draw(start: int, stop: int) -> Draw:
            return noise.seeded(range(seed + start, seed + stop))

        return self._draw(draw, tensors, settings, n, batch, progress, first)

    def interpolate(
        self,
        first: int,
        last: int,
        frames: int = 16,
        *,
        conditions: Mapping[str, Asked] | None = None,
        batch: int = 64,
        progress: Progress | None = None,
        warn: Callable[[str], None] | None = None,
        **choices: Any,
    ) -> Float32:
        """float32 (frames, C, *S) in [-1, 1]: the way from the image of seed `first` to that of seed `last`.

        The noise moves from one to the other (`fabrica.diffusion.noise.between`), all else stays as it is.
        conditions   what all frames show, as in `sample_array`; without a label, the first of the classes.
        choices   steps, sampler, guidance, rescale, truncation as in `sample_array`.
        """
        if frames < 2:
            raise UsageError(f"asked for {frames} frames; expected at least 2, the two ends")
        data = self.data
        first_class = {"label": data.classes[0]} if data.condition == ["label"] else {}
        tensors = self._conditions(frames, 0, {**first_class, **(conditions or {})}, warn or warnings.warn)

        def draw(start: int, stop: int) -> Draw:
            whole = noise.between(first, last, frames)  # anew for each batch: all have the same two ends
            return lambda shape: whole(shape)[start:stop]

        return self._draw(draw, tensors, self._settings(**choices), frames, batch, progress)

    def _draw(
        self,
        draw: Callable[[int, int], Draw],
        conditions: Encoded,
        settings: SampleConfig,
        n: int,
        batch: int,
        progress: Progress | None,
        first: Begin | None = None,
    ) -> Float32:
        """n images of the middle size, a batch at a time; draw(start, stop) is the noise of images start to stop. What
        is drawn from an image keeps to its grey levels."""
        levels = self.found.levels if settings.levels and first is None else []
        parts = []
        for start in range(0, n, batch):
            stop = min(start + batch, n)
            own = {name: values[start:stop] for name, values in conditions.items()}
            made = middle(self._made(draw(start, stop), own, settings, first), self.size)
            parts.append(held(made, levels).clip(-1, 1))  # held first: what was cut off is all of one value
            if progress:
                progress("sampling", stop, n)
        return np.concatenate(parts)

    def _settings(self, **choices: Any) -> SampleConfig:
        """The recipe's settings of `sample` with those given laid over them; UsageError for what cannot be."""
        given = {key: value for key, value in choices.items() if value is not None}
        for key in given:
            if key not in self.choices:
                known = ", ".join(self.choices)
                raise UsageError(f"model {self.name} ({self.method_name}) has no {key}; it has {known}")
        if given.get("steps", 1) < 1:
            raise UsageError(f"asked for {given['steps']} steps; expected at least 1")
        check_pace(self.paces, given.get("steps", self.recipe.sample.steps))
        if not math.isfinite(given.get("guidance", 1.0)):
            raise UsageError(f"asked for guidance {given['guidance']}; expected a finite number, 1 for as trained")
        if not 0 <= given.get("rescale", 0) <= 1:
            raise UsageError(f"asked for rescale {given['rescale']}; expected 0 (none) to 1")
        if not 0 <= given.get("truncation", 0) < math.inf:
            raise UsageError(f"asked for truncation {given['truncation']}; expected 0 (none) or a positive number")
        return replace(self.recipe.sample, **given)

    def known(self, n: int, *, seed: int = 0, conditions: Mapping[str, Asked] | None = None) -> list[dict[str, str]]:
        """What each image is told in words that `sample` makes with the same arguments, by condition; see
        `ConditionEncoder.asked`."""
        return self.encoder.asked(n, seed, conditions or {})

    def _conditions(self, n: int, seed: int, conditions: Mapping[str, Asked], warn: Callable[[str], None]) -> Encoded:
        known = self.known(n, seed=seed, conditions=conditions)
        for note in self.encoder.notes(known):
            warn(note)
        said = {name for one in known for name, value in one.items() if value}
        found = {name: values for name, values in self.encoder.encode(known).items() if name in said}
        return found | self._masks(conditions.get("mask"), n, warn)

    def _masks(self, given: Any, n: int, warn: Callable[[str], None]) -> Encoded:
        if "mask" not in self.encoder.names:
            return {}
        if isinstance(given, str | Path):
            raise UsageError(f"the mask is {str(given)!r}; expected an Image: fabrica.read({str(given)!r})")
        seen = None if given is None else shown(given, n, codec_of(self.found.codec_mask), self.data)
        if seen is None:
            warn("the model draws what a mask shows, and there is none: anything may come; add a mask")
            return {}
        return {"mask": seen}

    def mask_seen(self, mask: Image) -> Image:
        """A mask as this model sees it when it is told it: a label map (1, *S) on the grid of the images it makes.

        Raises UsageError for one that it cannot be told, and of a model that is told none."""
        found = self._masks(mask, 1, warnings.warn)
        if not found:
            raise UsageError(f"model {self.name} is told no mask of an image; leave it out")
        labels = middle(found["mask"].argmax(1)[:, None].astype(np.float32), self.size)[0]
        return Image(labels, self.affine, "label", {"modality": "SEG", "range": (0, labels.max()), "step": 1.0})

    def _image(self, values: Float32, seed: int, start: Image | None = None) -> Image:
        """start: the image that it was drawn from, if any: it is the same patient's then, and lies where that does."""
        low, high = self.codec.span
        origin = {
            "format": "synthetic",
            "modality": self.found.modality or "OT",
            "range": (low, high),
            "window": ((low + high) / 2, high - low),
            "step": 1.0 if high - low > 1 else (high - low) / 65535,
            "model": self.name,
            "model_hash": self.hash,
            "seed": seed,
        }
        known = start is not None and start.measured
        affine = placed(start, self.size, self.data.fit) if start and known else self.affine
        if start is not None:
            origin |= {"translated": True, "start": start.origin.get("path", "")}
            origin |= {key: start.origin[key] for key in OF_SOURCE if key in start.origin}
        return Image(self.codec.decode(values), affine, self.codec.unit, origin)


def check_pace(paces: Sequence[int], steps: int, asked: str = "asked for {steps} steps") -> None:
    """UsageError for a number of steps that a model does not sample in; paces (): in any; asked: how they were."""
    if paces and steps not in paces:
        *most, last = sorted(paces)
        known = f"{', '.join(map(str, most))} or {last}" if most else last
        raise UsageError(f"{asked.format(steps=steps)}; this model takes {known}")
