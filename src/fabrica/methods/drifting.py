"""A generator of one step that learns by drifting: Deng et al.: Generative modeling via drifting (2026).

No critic, no teacher, no steps at work: what it makes is moved by a field towards real images and away from each
other, and it learns to make what it was moved to (`fabrica.diffusion.drifting`). The paper compares features of a large
network that was trained before; here windows of the images are compared, at every scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fabrica.adversarial.losses import square_side
from fabrica.diffusion.drifting import PLACES, SIDES, TEMPERATURES, drifting_loss
from fabrica.errors import UsageError
from fabrica.methods import Conditions, Synthesiser, Turn
from fabrica.methods.noise import Draw, truncated
from fabrica.nets.generator import Generator
from fabrica.recipe.schema import SampleConfig


class Drifting(Synthesiser):
    """Networks see images (B, C, side, side) in [-1, 1]."""

    @dataclass
    class Config:
        latent: int = 64
        width: int = 32  # of the generator: channels at half the side; doubled at each halving, up to 512
        windows: list[int] = field(default_factory=lambda: list(SIDES))  # sides of what is compared, at each scale
        places: int = PLACES  # windows of a scale that are compared in one step
        temperatures: list[float] = field(default_factory=lambda: list(TEMPERATURES))

    ships = ("generator",)
    players: Mapping[str, tuple[str, ...]] = {"generator": ("generator",)}
    keep = "frd"
    choices = ("truncation",)
    least_batch = 2  # what is made must have something to keep away from
    config: Config

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int = 0) -> None:
        """shape (C, side, side) of the images; classes: how many labels, 0 for unconditional."""
        super().__init__()
        self.config = config
        if (
            config.places < 1
            or not all(each > 1 for each in config.windows or [0])
            or not all(each > 0 for each in config.temperatures or [0.0])
        ):
            raise UsageError(
                f"method.windows is {config.windows}, method.places {config.places} and method.temperatures "
                f"{config.temperatures}; expected windows of at least 2 pixels, 1 place, and temperatures above 0"
            )
        side = square_side(shape)
        self.generator: nn.Module = Generator(config.latent, config.width, shape[0], side, classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on processors

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        real, labels, config = batch["image"], batch.get("label"), self.config
        z = torch.randn(len(real), config.latent, generator=rng).to(real.device)
        made = self.generator(z, labels).float().contiguous()
        alike = None if labels is None else (labels[:, None] == labels).repeat(1, 2)
        loss = drifting_loss(
            made, real, config.windows, config.places, rng=rng, temperatures=config.temperatures, alike=alike
        )
        yield Turn("generator", loss)

    def sample(self, draw: Draw, conditions: Conditions, settings: SampleConfig, device: torch.device) -> Tensor:
        """Images (N, C, side, side) in [-1, 1]; conditions["label"] (N,) int64 for a class-conditional model."""
        z = truncated(draw((self.config.latent,)), settings.truncation).to(device)
        images: Tensor = self.generator(z, conditions["label"].to(device) if "label" in conditions else None)
        return images.clamp(-1, 1)
