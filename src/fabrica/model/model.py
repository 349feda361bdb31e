"""A trained model, ready to use: `load(folder)` gives a Model; it makes images (`sample`), translates (`apply`) or
compresses (`encode`, `decode`)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fabrica.codec import Codec
from fabrica.conditioning.encoder import UNCONDITIONAL, Asked, ConditionEncoder, Encoded
from fabrica.conditioning.masks import shown
from fabrica.data.standardise import middle, placed
from fabrica.diffusion import Begin
from fabrica.errors import UsageError
from fabrica.image import Float32, Float64, Image
from fabrica.inference.tiling import Net
from fabrica.inference.translation import Way
from fabrica.inference.translator import Applied, apply, known_direction
from fabrica.methods import Compressor, Method, Synthesiser, Translator, as_conditions, check_pace, noise
from fabrica.model.editing import begin
from fabrica.nets.device import autocast
from fabrica.progress import Progress
from fabrica.recipe.codecs import codec_of
from fabrica.recipe.schema import Recipe, SampleConfig

OF_SOURCE = ("dicom", "patient")  # of an image's origin: whose it is


@dataclass(frozen=True)
class Model:
    """A trained model, ready to use. `hash` is the start of the SHA-256 of its weights; `codec` that of the images it
    makes of noise, or of side a; `codec_b` that of side b; `codecs_beside` those of the contrasts that it sees beside
    a."""

    folder: Path
    recipe: Recipe
    codec: Codec
    codec_b: Codec
    method: Method
    device: torch.device
    hash: str
    codecs_beside: tuple[Codec, ...] = ()
    encoder: ConditionEncoder = UNCONDITIONAL

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial size of the images it makes, (H, W) or (D, H, W): data.size without padding."""
        return tuple(self.recipe.made_size)

    @property
    def choices(self) -> tuple[str, ...]:
        """Which settings of `sample` mean something to this model; UsageError for one that translates."""
        return self._synthesiser().choices

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
        told: Mapping[str, Asked] | None = None,
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

        told      what they are to show: {"label": ..., "text": ..., "age": ..., "sex": ..., "view": ..., "mask": ...},
                  of these what the model's recipe names in data.condition; each one value for all images, or one an
                  image. Without a label, the classes come in turn, by seed; anything else that is not there is left
                  open. A mask is an Image, a label map; it is brought to the model's size as those in training were.
        start, strength, redraw   an image to draw anew, how much of it, and where: see `fabrica.model.editing.begin`.
        steps, sampler, guidance, rescale (diffusion), truncation (GANs)   None: as the model's recipe says.
        warn      called with one sentence on what the model cannot read of a text; None: `warnings.warn`.
        """
        if n < 1:
            raise UsageError(f"asked for {n} images; expected at least 1")
        self._synthesiser()
        tensors = self._conditions(n, seed, told or {}, warn or warnings.warn)
        settings = self._settings(
            steps=steps, sampler=sampler, guidance=guidance, rescale=rescale, truncation=truncation
        )
        first = begin(self.method, self.recipe, self.codec, self.device, start, strength, redraw)

        def draw(start: int, stop: int) -> noise.Draw:
            return noise.seeded(range(seed + start, seed + stop))

        return self._draw(draw, tensors, settings, n, batch, progress, first)

    def interpolate(
        self,
        first: int,
        last: int,
        frames: int = 16,
        *,
        told: Mapping[str, Asked] | None = None,
        batch: int = 64,
        progress: Progress | None = None,
        warn: Callable[[str], None] | None = None,
        **choices: Any,
    ) -> Float32:
        """float32 (frames, C, *S) in [-1, 1]: the way from the image of seed `first` to that of seed `last`.

        The noise moves from one to the other (`fabrica.methods.noise.between`), all else stays as it is.
        told      what all frames show, as in `sample_array`; without a label, the first of the classes.
        choices   steps, sampler, guidance, rescale, truncation as in `sample_array`.
        """
        if frames < 2:
            raise UsageError(f"asked for {frames} frames; expected at least 2, the two ends")
        data = self.recipe.data
        first_class = {"label": data.classes[0]} if data.condition == ["label"] else {}
        tensors = self._conditions(frames, 0, {**first_class, **(told or {})}, warn or warnings.warn)

        def draw(start: int, stop: int) -> noise.Draw:
            whole = noise.between(first, last, frames)  # anew for each batch: all have the same two ends
            return lambda shape: whole(shape)[start:stop]

        return self._draw(draw, tensors, self._settings(**choices), frames, batch, progress)

    def _draw(
        self,
        draw: Callable[[int, int], noise.Draw],
        told: Encoded,
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
            own = as_conditions(told, slice(start, stop))
            with torch.inference_mode(), autocast(self.recipe.train.precision, self.device):
                images = self._synthesiser().sample(draw(start, stop), own, settings, self.device, **more)
            parts.append(middle(images.float().cpu().numpy(), self.size))
            if progress:
                progress("sampling", stop, n)
        return np.concatenate(parts)

    def encode(self, images: Float32, *, batch: int = 16) -> Float32:
        """The latents float32 (N, L, *s) of images (N, C, *S) in [-1, 1], of any size, by an autoencoder: mean 0 and
        standard deviation 1 a channel over its training images. s is S over the autoencoder's factor, rounded up."""
        return self._in_batches(self.compressor.encode, images, batch)

    def decode(self, latents: Float32, size: Sequence[int] = (), *, batch: int = 16) -> Float32:
        """The images float32 (N, C, *S) in [-1, 1] of latents (N, L, *s). size: S of what was encoded; empty: the size
        of the training images, data.size."""
        method = self.compressor
        return self._in_batches(lambda part: method.decode(part, size), latents, batch)

    def _in_batches(self, net: Callable[[Tensor], Tensor], values: Float32, batch: int) -> Float32:
        parts = []
        for start in range(0, len(values), batch):
            part = torch.from_numpy(np.ascontiguousarray(values[start : start + batch], dtype=np.float32))
            with torch.inference_mode(), autocast(self.recipe.train.precision, self.device):
                parts.append(net(part.to(self.device)).float().cpu().numpy())
        return np.concatenate(parts)

    @property
    def compressor(self) -> Compressor:
        """The method of an autoencoder; UsageError for another model."""
        if not isinstance(self.method, Compressor):
            kind = self.recipe.method["name"]
            raise UsageError(f"model {self.name} ({kind}) has no latents; encode and decode are for method autoencoder")
        return self.method

    def _not_alone(self) -> None:
        """UsageError for an autoencoder, which neither makes images of noise nor translates."""
        if isinstance(self.method, Compressor):
            raise UsageError(
                f"model {self.name} is an autoencoder, for latent diffusion to work on; see what it leaves of images "
                f"with: fabrica evaluate {self.folder}"
            )

    def _synthesiser(self) -> Synthesiser:
        self._not_alone()
        if not isinstance(self.method, Synthesiser):
            raise UsageError(f"model {self.name} translates images; use it with: fabrica apply {self.folder} IN -o OUT")
        return self.method

    def _settings(self, **choices: Any) -> SampleConfig:
        """The recipe's settings of `sample` with those given laid over them; UsageError for what cannot be."""
        given = {key: value for key, value in choices.items() if value is not None}
        for key in given:
            if key not in self.choices:
                known = ", ".join(self.choices)
                raise UsageError(f"model {self.name} ({self.recipe.method['name']}) has no {key}; it has {known}")
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

    def known(self, n: int, *, seed: int = 0, told: Mapping[str, Asked] | None = None) -> list[dict[str, str]]:
        """What each image is told in words that `sample` makes with the same arguments, by condition; see
        `ConditionEncoder.asked`."""
        return self.encoder.asked(n, seed, told or {})

    def _conditions(self, n: int, seed: int, told: Mapping[str, Asked], warn: Callable[[str], None]) -> Encoded:
        known = self.known(n, seed=seed, told=told)
        for note in self.encoder.notes(known):
            warn(note)
        said = {name for one in known for name, value in one.items() if value}
        found = {name: values for name, values in self.encoder.encode(known).items() if name in said}
        return found | self._masks(told.get("mask"), n, warn)

    def _masks(self, given: Any, n: int, warn: Callable[[str], None]) -> Encoded:
        if "mask" not in self.encoder.names:
            return {}
        if isinstance(given, str | Path):
            raise UsageError(f"the mask is {str(given)!r}; expected an Image: fabrica.read({str(given)!r})")
        seen = None if given is None else shown(given, n, codec_of(self.recipe.codec_mask), self.recipe.data)
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

    def apply(self, image: Image, *, direction: str = "a2b", **choices: Any) -> Applied:
        """The image translated or restored; direction "a2b", or "b2a" for a model that goes both ways; choices as in
        `fabrica.inference.translator.apply`."""
        return apply(image, self.way(direction), **choices)

    def way(self, direction: str = "a2b") -> Way:
        """One direction of a translator, for `fabrica.inference`; UsageError for one that it does not ship."""
        self._not_alone()
        method = self.method
        if not isinstance(method, Translator):
            raise UsageError(f"model {self.name} makes images of noise; use it with: fabrica sample {self.folder}")
        known_direction(self.name, direction, method.directions)
        recipe, codecs = self.recipe, (self.codec, self.codec_b)
        sides = ((recipe.seen_a, codecs[0]), (recipe.seen_b, codecs[1]))
        (source, from_codec), (target, to_codec) = sides if direction == "a2b" else sides[::-1]
        other = "b2a" if direction == "a2b" else "a2b"
        return Way(
            self._net(method, direction),
            from_codec,
            to_codec,
            recipe.data,
            source,
            target.modality,
            restores=recipe.data.one_scale,
            local=getattr(method, "local", False),
            beside=self.codecs_beside,
            model=self.name,
            direction=direction,
            held_out=recipe.held_out(direction),
            back=self._net(method, other) if other in method.directions else None,
        )

    def _net(self, method: Translator, direction: str) -> Net:
        def net(windows: Float32) -> Float32:
            with torch.inference_mode(), autocast(self.recipe.train.precision, self.device):
                images = torch.from_numpy(np.ascontiguousarray(windows)).to(self.device)
                made: Float32 = method.translate(images, direction).float().cpu().numpy()
            return made

        return net

    def _image(self, values: Float32, seed: int, start: Image | None = None) -> Image:
        """start: the image that it was drawn from, if any: it is the same patient's then, and lies where that does."""
        low, high = self.codec.span
        origin = {
            "format": "synthetic",
            "modality": self.recipe.output.modality or "OT",
            "range": (low, high),
            "window": ((low + high) / 2, high - low),
            "step": 1.0 if high - low > 1 else (high - low) / 65535,
            "model": self.name,
            "model_hash": self.hash,
            "seed": seed,
        }
        known = start is not None and start.measured
        affine = placed(start, self.size, self.recipe.data.fit) if start and known else self.affine
        if start is not None:
            origin |= {"translated": True, "start": start.origin.get("path", "")}
            origin |= {key: start.origin[key] for key in OF_SOURCE if key in start.origin}
        return Image(self.codec.decode(values), affine, self.codec.unit, origin)

    @property
    def affine(self) -> Float64:
        """Of the images it makes, as the data set stands: volumes in RAS+, pictures with the patient's right on the
        left and the head or the front at the top; the identity where the spacing is not known."""
        direction = 1.0 if len(self.recipe.data.size) == 3 else -1.0
        affine = np.eye(4)
        for axis, spacing in enumerate(reversed(self.recipe.output.spacing)):
            affine[axis, axis] = direction * spacing
        return affine
