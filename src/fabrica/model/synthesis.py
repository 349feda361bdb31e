"""Synthesis: images made of noise, by a trained model and by one in training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fabrica.conditioning.dataset import Conditioned
from fabrica.conditioning.encoder import Asked, Encoded
from fabrica.conditioning.masks import shown
from fabrica.data.augment import Int64
from fabrica.data.dataset import Dataset
from fabrica.data.standardise import middle, placed
from fabrica.diffusion import Begin
from fabrica.errors import UsageError
from fabrica.image import Float32, Image
from fabrica.io.contact_sheet import Uint8, image_grid
from fabrica.methods import Synthesiser, as_conditions, check_pace, noise
from fabrica.model.editing import begin
from fabrica.model.model import Model
from fabrica.model.task import drawn, grey, rows_of_two
from fabrica.nets.device import autocast
from fabrica.progress import Progress
from fabrica.recipe import card
from fabrica.recipe.codecs import codec_of
from fabrica.recipe.found import Found
from fabrica.recipe.schema import Recipe, SampleConfig

OF_SOURCE = ("dicom", "patient")  # of an image's origin: whose it is


@dataclass(frozen=True)
class SynthesisModel(Model):
    """A trained model that makes images of noise."""

    use = "makes images of noise; use it with: fabrica sample {folder}"
    method: Synthesiser

    @property
    def choices(self) -> tuple[str, ...]:
        """Which settings of `sample` mean something to this model."""
        return self.method.choices

    @property
    def paces(self) -> tuple[int, ...]:
        return self.method.paces

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
        start, strength, redraw   an image to draw anew, how much of it, and where: see `fabrica.model.editing.begin`.
        steps, sampler, guidance, rescale (diffusion), truncation (GANs)   None: as the model's recipe says.
        warn      called with one sentence on what the model cannot read of a text; None: `warnings.warn`.
        """
        if n < 1:
            raise UsageError(f"asked for {n} images; expected at least 1")
        tensors = self._conditions(n, seed, conditions or {}, warn or warnings.warn)
        settings = self._settings(
            steps=steps, sampler=sampler, guidance=guidance, rescale=rescale, truncation=truncation
        )
        first = begin(self.method, self.method_name, self.data, self.codec, self.device, start, strength, redraw)

        def draw(start: int, stop: int) -> noise.Draw:
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

        The noise moves from one to the other (`fabrica.methods.noise.between`), all else stays as it is.
        conditions   what all frames show, as in `sample_array`; without a label, the first of the classes.
        choices   steps, sampler, guidance, rescale, truncation as in `sample_array`.
        """
        if frames < 2:
            raise UsageError(f"asked for {frames} frames; expected at least 2, the two ends")
        data = self.data
        first_class = {"label": data.classes[0]} if data.condition == ["label"] else {}
        tensors = self._conditions(frames, 0, {**first_class, **(conditions or {})}, warn or warnings.warn)

        def draw(start: int, stop: int) -> noise.Draw:
            whole = noise.between(first, last, frames)  # anew for each batch: all have the same two ends
            return lambda shape: whole(shape)[start:stop]

        return self._draw(draw, tensors, self._settings(**choices), frames, batch, progress)

    def _draw(
        self,
        draw: Callable[[int, int], noise.Draw],
        conditions: Encoded,
        settings: SampleConfig,
        n: int,
        batch: int,
        progress: Progress | None,
        first: Begin | None = None,
    ) -> Float32:
        """n images of the middle size, a batch at a time; draw(start, stop) is the noise of images start to stop."""
        parts, more = [], {"begin": first} if first else {}
        for start in range(0, n, batch):
            stop = min(start + batch, n)
            own = as_conditions(conditions, slice(start, stop))
            with torch.inference_mode(), autocast(self.recipe.train.precision, self.device):
                images = self.method.sample(draw(start, stop), own, settings, self.device, **more)
            parts.append(middle(images.float().cpu().numpy(), self.size))
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
        check_pace(self.method, given.get("steps", self.recipe.sample.steps))
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


class Synthesis:
    """What is asked of a method that makes images of noise while it trains, and of its model."""

    model = SynthesisModel
    verb = "synthesises"
    evaluation = "fabrica.evaluation.synthesis.evaluate"
    next = "sample {folder} -n 16 -o samples"
    compares = True
    diverse = True

    def card(self, recipe: Recipe, found: Found, method: Synthesiser) -> card.CardPart:
        return card.synthesis(recipe)

    def preview(
        self, method: Synthesiser, recipe: Recipe, found: Found, heldout: Conditioned, device: torch.device
    ) -> Uint8:
        """16 samples of seeds 0 to 15, told the classes in turn, or what held-out images are told, and below their
        masks."""
        with torch.inference_mode():
            conditions = {**heldout.conditions(np.arange(16) % len(heldout)), **in_turn(recipe, found, 16)}
            images = method.sample(noise.seeded(range(16)), as_conditions(conditions), recipe.sample, device)
        made = images.float().cpu().numpy()
        if "mask" in conditions:
            return rows_of_two(grey(conditions["mask"] * 2 - 1).repeat(made.shape[1], axis=1), made, found)
        return image_grid(middle(made, found.size), columns=8, spacing=found.spacing)

    def paired(self, heldout: Conditioned) -> bool:
        return True

    def judged(self, heldout: Conditioned) -> Dataset:
        return heldout.images

    def maker(
        self, recipe: Recipe, heldout: Conditioned, chosen: Int64, device: torch.device
    ) -> Callable[[Synthesiser], Float32]:
        conditions = heldout.conditions(chosen)
        return lambda method: drawn(method, recipe, conditions, len(chosen), device)

    def before_keeping(self, method: Synthesiser, data: Conditioned, feed: object) -> None:
        """Nothing."""

    def concluded(self, found: Found, opened: object, data: Conditioned, heldout: Conditioned) -> Found:
        return found


def in_turn(recipe: Recipe, found: Found, count: int) -> Encoded:
    """{"label": int64 (count,)}: every class in turn; {} for a model that is told none, or more than a label."""
    classes = len(found.classes) if recipe.data.condition == ["label"] else 0
    return {"label": np.arange(count) % classes} if classes else {}
