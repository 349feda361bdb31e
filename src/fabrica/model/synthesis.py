"""Synthesis: images made of noise, by a trained model and by one in training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from fabrica.conditioning.dataset import Conditioned
from fabrica.conditioning.encoder import Encoded
from fabrica.data.augment import Int64
from fabrica.data.dataset import Dataset, evenly
from fabrica.data.levels import landmarks, usual
from fabrica.data.standardise import middle
from fabrica.diffusion import Begin
from fabrica.diffusion.noise import Draw
from fabrica.image import Float32
from fabrica.inference.synthesis import Synthesises
from fabrica.io.contact_sheet import Uint8, image_grid
from fabrica.methods import Synthesiser, as_conditions
from fabrica.methods.noise import as_tensors, seeded
from fabrica.model.model import Model
from fabrica.model.task import drawn, grey, rows_of_two
from fabrica.nets.device import autocast
from fabrica.recipe import card
from fabrica.recipe.found import Found
from fabrica.recipe.schema import Recipe, SampleConfig

LOOKED_AT = 1000  # training images, for what grey levels are usual


@dataclass(frozen=True)
class SynthesisModel(Synthesises, Model):
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
    def edits(self) -> bool:
        return self.method.edits

    def _made(self, draw: Draw, conditions: Encoded, settings: SampleConfig, begin: Begin | None) -> Float32:
        more = {"begin": self._moved(begin)} if begin else {}
        with torch.inference_mode(), autocast(self.recipe.train.precision, self.device):
            images = self.method.sample(as_tensors(draw), as_conditions(conditions), settings, self.device, **more)
        return images.float().cpu().numpy()

    def _moved(self, begin: Begin) -> Begin:
        """As tensors, where the networks are."""
        keep = None if begin.keep is None else torch.from_numpy(begin.keep).to(self.device)
        return replace(begin, x_0=torch.from_numpy(begin.x_0).to(self.device), keep=keep)


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
            images = method.sample(seeded(range(16)), as_conditions(conditions), recipe.sample, device)
        made = images.float().clamp(-1, 1).cpu().numpy()
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
        if found.codec.kind == "label":
            return found
        chosen = evenly(len(data), LOOKED_AT)
        each = [landmarks(middle(data.images.read(chosen[k : k + 1]), found.size)) for k in range(len(chosen))]
        return replace(found, levels=usual(np.concatenate(each)))


def in_turn(recipe: Recipe, found: Found, count: int) -> Encoded:
    """{"label": int64 (count,)}: every class in turn; {} for a model that is told none, or more than a label."""
    classes = len(found.classes) if recipe.data.condition == ["label"] else 0
    return {"label": np.arange(count) % classes} if classes else {}
