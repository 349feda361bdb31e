"""Translation and restoration: images of one side made of images of the other, by a trained model and by one in
training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fabrica.codec import Codec
from fabrica.data.augment import Int64
from fabrica.data.dataset import Dataset, evenly
from fabrica.data.pairs import Pairs
from fabrica.data.standardise import middle
from fabrica.image import Float32, Float64, Image
from fabrica.inference.out_of_distribution import out_of_distribution, uncertainty_in_body
from fabrica.inference.test_time import with_uncertainty
from fabrica.inference.tiling import Net
from fabrica.inference.translation import Way
from fabrica.inference.translator import Applied, apply
from fabrica.inference.ways import way_of
from fabrica.io.contact_sheet import Uint8, image_grid
from fabrica.methods import Translator
from fabrica.model.model import Model
from fabrica.model.task import MOST, SHOWN, grey
from fabrica.nets.device import autocast
from fabrica.nets.recorded import Recorded
from fabrica.recipe import card
from fabrica.recipe.codecs import codec_of
from fabrica.recipe.found import Found
from fabrica.recipe.schema import Recipe

ASKED = 16  # held-out images that say how uncertain a model usually is


@dataclass(frozen=True)
class TranslationModel(Model):
    """A trained model that translates or restores."""

    use = "translates images; use it with: fabrica apply {folder} IN -o OUT"
    method: Translator

    @cached_property
    def codec_b(self) -> Codec:
        """That of side b."""
        return codec_of(self.found.codec_b)

    @cached_property
    def codecs_auxiliary(self) -> tuple[Codec, ...]:
        """Those of the contrasts that it sees beside a."""
        return tuple(codec_of(codec) for codec in self.found.codecs_auxiliary)

    def apply(self, image: Image, *, direction: str = "a2b", **choices: Any) -> Applied:
        """The image translated or restored; direction "a2b", or "b2a" for a model that goes both ways; choices as in
        `fabrica.inference.translator.apply`."""
        return apply(image, self.way(direction), **choices)

    def out_of_distribution(self, image: Image, direction: str = "a2b") -> list[str]:
        """What tells the image from those that the model was trained on, a phrase each; [] where nothing does."""
        return out_of_distribution(image, self.way(direction))

    def way(self, direction: str = "a2b") -> Way:
        """One direction, for `fabrica.inference`; UsageError for one that the model does not ship."""
        method = self.method
        return way_of(self.recipe, self.found, method.directions, self._net, direction, local=method.local)

    def gradient(self, windows: Float32, weights: Float64, direction: str = "a2b") -> tuple[Float64, Float32]:
        """(F (B,), dF/dx (B, C, *W)) of F, the sum of weights (C2, *W) times the answers to windows x (B, C, *W), all
        in network values. In float32, whatever the model's precision: bfloat16 is too coarse for sums of gradients."""
        x = torch.from_numpy(np.ascontiguousarray(windows)).to(self.device).requires_grad_()
        with torch.enable_grad():
            made = self.method.translate(x, direction).double()
            values = (made * torch.from_numpy(weights).to(self.device)).flatten(1).sum(1)
            (slopes,) = torch.autograd.grad(values.sum(), x)
        return values.detach().cpu().numpy(), slopes.cpu().numpy()

    def _net(self, direction: str) -> Net:
        run = self._runs[direction]
        flat = self.device.type == "cuda" and len(self.data.size) == 2
        order = torch.channels_last if flat else torch.contiguous_format

        def net(windows: Float32) -> Float32:
            with torch.inference_mode(), autocast(self.recipe.train.precision, self.device):
                images = torch.from_numpy(np.ascontiguousarray(windows)).to(self.device, memory_format=order)
                made: Float32 = run(images).float().cpu().numpy()
            return made

        return net

    @cached_property
    def _runs(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """What translates in each direction: on a GPU recorded, and 2-D networks as its tensor cores take images."""

        def translating(direction: str) -> Callable[[Tensor], Tensor]:
            return lambda images: self.method.translate(images, direction)

        runs = {direction: translating(direction) for direction in self.method.directions}
        if self.device.type != "cuda":
            return runs
        if len(self.data.size) == 2:
            self.method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return {direction: Recorded(run) for direction, run in runs.items()}


class Translation:
    """What is asked of a method that translates while it trains, and of its model."""

    model = TranslationModel
    verb = "translates"
    evaluation = "fabrica.evaluation.translation.evaluate"
    next = "apply {folder} IN -o OUT"
    compares = True
    diverse = False

    def card(self, recipe: Recipe, found: Found, method: Translator) -> card.CardPart:
        return card.translation(recipe, found, method.directions)

    def preview(self, method: Translator, recipe: Recipe, found: Found, heldout: Pairs, device: torch.device) -> Uint8:
        """Held-out images, each as source, result, and the truth or, where there are no pairs, the way back."""
        chosen = evenly(len(heldout.a), SHOWN)
        source = heldout.a.read(chosen)
        columns = [source, translated(method, heldout.read_a(chosen), device)]
        if heldout.paired:
            columns.append(heldout.b.read(chosen))
        elif "b2a" in method.directions:
            columns.append(translated(method, columns[1], device, "b2a"))
        shown = np.stack([grey(images) for images in columns], axis=1)
        shown = middle(shown.reshape(-1, *shown.shape[2:]), found.size)
        return image_grid(shown, columns=2 * len(columns), spacing=found.spacing)

    def paired(self, heldout: Pairs) -> bool:
        return heldout.paired

    def judged(self, heldout: Pairs) -> Dataset:
        return heldout.b

    def maker(
        self, recipe: Recipe, heldout: Pairs, chosen: Int64, device: torch.device
    ) -> Callable[[Translator], Float32]:
        sources = range(min(MOST, len(heldout.a)))
        return lambda method: translated(method, heldout.read_a(sources), device)

    def before_keeping(self, method: Translator, data: Pairs, feed: object) -> None:
        """Nothing."""

    def concluded(self, found: Found, opened: Callable[[], TranslationModel], data: Pairs, heldout: Pairs) -> Found:
        """The error on held-out images beside what needs no model; and how uncertain the model is at most of these
        images, so that more than that can be flagged."""
        from fabrica.model.held_out import held_out_error

        model = opened()
        for direction in model.method.directions:
            error = held_out_error(model, data, heldout, direction)
            usual = _usual_uncertainty(model.way(direction), heldout, direction)
            if direction == "a2b":
                found = replace(found, held_out_b=error, fingerprint_a=replace(found.fingerprint_a, uncertainty=usual))
            else:
                found = replace(found, held_out_a=error, fingerprint_b=replace(found.fingerprint_b, uncertainty=usual))
        return found


def _usual_uncertainty(way: Way, heldout: Pairs, direction: str) -> float:
    read, count = (heldout.read_a, len(heldout.a)) if direction == "a2b" else (heldout.b.read, len(heldout.b))
    asked = (with_uncertainty(way.net, way.source.reach)(read([k]))[0] for k in range(min(count, ASKED)))
    answers = [np.split(answer, 2) for answer in asked]  # the result's channels, and as many of its spread
    return round(max(uncertainty_in_body([(made, spread)], way.target) for made, spread in answers), 5)


@torch.no_grad()
def translated(method: Translator, images: Float32, device: torch.device, direction: str = "a2b") -> Float32:
    """Images (N, C, *S) in [-1, 1] of one side as the other, by a method in training."""
    parts = [torch.from_numpy(images[k : k + 16]).to(device) for k in range(0, len(images), 16)]
    return np.concatenate([method.translate(part, direction).float().cpu().numpy() for part in parts])
