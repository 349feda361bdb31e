"""Diffusion whose images are values from low to high, worked with as if they were from -1 to 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from fabrica.diffusion import Begin
from fabrica.errors import UsageError
from fabrica.methods import Conditions, Synthesiser, Turn
from fabrica.methods.diffusion import Diffusion
from fabrica.methods.noise import Draw
from fabrica.nets.framing import OURS, Span, moved
from fabrica.recipe.schema import SampleConfig


class Spread(Synthesiser):
    """Diffusion on pixels whose images are values in a part of [-1, 1], for all that a model asks of a method."""

    Config = Diffusion.Config
    edits = True

    def __init__(self, method: Diffusion, span: Span) -> None:
        super().__init__()
        if not OURS[0] <= span[0] < span[1] <= OURS[1]:
            raise UsageError(f"images of diffusion on pixels are {list(span)}; expected [0, 1] or [-1, 1]")
        self.method, self.span = method, span
        self.ships, self.choices, self.players = method.ships, method.choices, method.players
        self.denoiser, self.config, self.keep = method.denoiser, method.config, method.keep

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        raise UsageError("a bundle's diffusion is not trained further; train a recipe of your own")

    def sample(
        self,
        draw: Draw,
        conditions: Conditions,
        settings: SampleConfig,
        device: torch.device,
        begin: Begin | None = None,
    ) -> Tensor:
        """As `Diffusion.sample`: images (N, C, *S) in [-1, 1], as those are that it begins with."""
        if begin is not None:
            begin = replace(begin, x_0=moved(begin.x_0, OURS, self.span))
        images = self.method.sample(draw, conditions, settings, device, begin)
        return moved(images, self.span, OURS).clamp(-1, 1)
