"""Exported models that make images of noise. Graphs are their networks; the rest, seeds, samplers, guidance, is that of
the trained model, on arrays of NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.conditioning.encoder import UNCONDITIONAL, ConditionEncoder, Encoded, condition_encoder
from fabrica.conditioning.masks import laid_out
from fabrica.conditioning.vocabulary import load_words
from fabrica.data.standardise import middle
from fabrica.diffusion.noise import Draw, truncated
from fabrica.diffusion.objective import Denoise, Predict, estimates
from fabrica.diffusion.samplers import ddim
from fabrica.diffusion.sampling import Begin, guided, sample, within
from fabrica.errors import FabricaError
from fabrica.image import Float32
from fabrica.inference.synthesis import Synthesises
from fabrica.recipe.conditions import Category, Condition, declared, unknown, whole
from fabrica.recipe.folder import WORDS
from fabrica.recipe.found import Found
from fabrica.recipe.schema import Recipe, SampleConfig
from fabrica.runtime.exported import ExportedModel
from fabrica.runtime.folder import ADVICE, Exported, content

AT_ONCE = 2**22  # values of images that a decoder makes in one call


@dataclass(frozen=True)
class ExportedSynthesis(Synthesises, ExportedModel):
    """What `fabrica sample` works with.

    "generator": z (B, D), and labels (B,) int64 where it is told them, to images. "denoiser": noisy (B, C, *S), times
    (B,) from 0 to 1, of a student and k more, and labels (B,), -1 where none is known, or context (B, T, W), and mask
    (B, classes + 1, *places), to what `Draws.objective` names. "conditions": what is told under its own names, see
    `fabrica.recipe.conditions`, texts as long as the context, to the context."""

    encoder: ConditionEncoder = UNCONDITIONAL

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(self.record.draws.choices)

    @property
    def paces(self) -> tuple[int, ...]:
        return tuple(self.record.draws.paces)

    @property
    def edits(self) -> bool:
        return self.record.draws.edits

    def _made(self, draw: Draw, conditions: Encoded, settings: SampleConfig, begin: Begin | None) -> Float32:
        shape = self.record.draws.shape
        if "generator" in self.record.graphs:
            z = truncated(draw(shape), settings.truncation)
            return self.run("generator", z, *self._told(conditions, len(z)))
        latent = "decoder" in self.record.graphs
        first = within(begin, lambda images: self.run("encoder", images), shape[1:]) if begin and latent else begin
        found = self._denoised(draw, conditions, settings, first)
        images = self._decoded(found, draw) if latent else found.clip(-1, 1)
        return images if begin is None or begin.keep is None else np.where(begin.keep, begin.x_0, images)

    def _denoised(self, draw: Draw, conditions: Encoded, settings: SampleConfig, begin: Begin | None) -> Float32:
        """What the denoiser's steps come to: images, or latents."""
        how = self.record.draws
        start, found = draw(how.shape), None
        if how.paces:
            predict = self._predicting(conditions, len(start))
            denoise = estimates(predict, how.schedule, how.objective, later=how.paces.index(settings.steps))
            stride = (len(how.times) - 1) // settings.steps
            found = ddim(denoise, start, how.schedule, how.times[::stride])
        else:
            found = sample(
                self._denoising(conditions, settings, len(start)),
                start,
                how.schedule,
                sampler=settings.sampler,
                steps=settings.steps,
                spacing=settings.spacing,
                noise=lambda: draw(how.shape),
                clip=1.0 if settings.clip and "decoder" not in self.record.graphs else None,
                begin=begin,
            )
        return np.asarray(found, dtype=np.float32)

    def _denoising(self, conditions: Encoded, settings: SampleConfig, count: int) -> Denoise:
        schedule, objective = self.record.draws.schedule, self.record.draws.objective
        denoise = estimates(self._predicting(conditions, count), schedule, objective)
        if conditions and settings.guidance != 1.0:
            null = estimates(self._predicting({}, count), schedule, objective)
            denoise = guided(denoise, null, settings.guidance, settings.rescale)
        return denoise

    def _predicting(self, conditions: Encoded, count: int) -> Predict:
        told = self._told(conditions, count)
        return lambda x_t, t: self.run("denoiser", np.asarray(x_t, dtype=np.float32), t, *told)

    def _told(self, conditions: Encoded, count: int) -> list[Any]:
        """What the denoiser or generator is given beside noise and time, of images of which perhaps not everything is
        told."""
        what = self._declared
        values = {**unknown(what, count), **conditions}
        if set(what) == {"label"} and "conditions" not in self.record.graphs:
            return [values["label"]]
        told: list[Any] = []
        if "conditions" in self.record.graphs:
            said = (whole(what[name], values[name]) for name in self.record.graphs["conditions"].inputs)
            told.append(self.run("conditions", *said))
        if "mask" in what:
            told.append(laid_out(np.asarray(values["mask"]), None, self.record.draws.places))
        return told

    @property
    def _declared(self) -> Mapping[str, Condition]:
        told = self.recipe.data.condition
        return {"label": Category(len(self.found.classes))} if told == ["label"] else declared(self.recipe, self.found)

    def _decoded(self, latents: Float32, draw: Draw) -> Float32:
        """Images of latents, and of noise where the decoder takes it."""
        size, (_, *noise) = self.data.size, self.shapes("decoder")
        given = [latents, *(draw((shape[1], *latents.shape[2:])) for shape in noise)]
        count = max(1, AT_ONCE // prod(size))
        parts = [self.run("decoder", *(each[k : k + count] for each in given)) for k in range(0, len(latents), count)]
        return np.concatenate([middle(part, size) for part in parts])


def encoder_in(folder: Path, recipe: Recipe, found: Found, record: Exported) -> ConditionEncoder:
    """What says what this model is told; FabricaError where the folder's words are not as they were exported."""
    if "text" not in recipe.data.condition:
        return condition_encoder(recipe, found)
    if WORDS not in record.sha256:
        raise FabricaError(f"{folder} has no {WORDS}, by which the model reads prompts; {ADVICE}")
    content(folder, record, WORDS)
    vocabulary, seen = load_words(folder / WORDS)
    return condition_encoder(recipe, found, vocabulary, seen)
