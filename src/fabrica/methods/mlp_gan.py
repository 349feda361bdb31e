"""The first GAN: two multilayer perceptrons, one that draws and one that judges.

Goodfellow et al.: Generative adversarial nets (2014), with the widths, leaky ReLU and dropout that are usual for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from fabrica.adversarial.losses import (
    accuracy,
    critic_loss,
    frozen,
    generator_loss,
    refuse_labels,
    square_side,
)
from fabrica.methods import Conditions, Synthesiser, Turn
from fabrica.methods.noise import Draw, truncated
from fabrica.nets.dcgan import reach
from fabrica.recipe.schema import SampleConfig


class MLPGAN(Synthesiser):
    """Networks see images (B, C, side, side) in [-1, 1] as one long vector."""

    @dataclass
    class Config:
        latent: int = 100
        dropout: float = 0.3  # of the critic
        smoothing: float = 0.0  # real images are called real with 1 - smoothing (Salimans et al. 2016)

    ships = ("generator",)
    players: Mapping[str, tuple[str, ...]] = {"critic": ("critic",), "generator": ("generator",)}
    keep = "frd"
    choices = ("truncation",)
    config: Config

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int = 0) -> None:
        """shape (C, side, side) of the images; classes must be 0: this method takes no labels."""
        super().__init__()
        refuse_labels("mlp-gan", classes)
        square_side(shape)
        self.config = config
        self.generator: nn.Module = Generator(config.latent, shape)
        self.critic: nn.Module = nn.Sequential(
            nn.Flatten(),
            *_layers([math.prod(shape), 1024, 512, 256], config.dropout),
            nn.Linear(256, 1),
            nn.Flatten(0),
        )

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        real = batch["image"]
        fake = self.generator(torch.randn(len(real), self.config.latent, generator=rng).to(real.device))
        on_real, on_fake = self.critic(real), self.critic(fake.detach())
        conditions = accuracy(on_real, on_fake)._asdict()
        yield Turn("critic", critic_loss(on_real, on_fake, self.config.smoothing), conditions)
        with frozen(self.critic):
            loss = generator_loss(self.critic(fake))
        yield Turn("generator", loss)

    def sample(self, draw: Draw, conditions: Conditions, settings: SampleConfig, device: torch.device) -> Tensor:
        """Images (N, C, side, side) in [-1, 1]."""
        z = truncated(draw((self.config.latent,)), settings.truncation).to(device)
        images: Tensor = self.generator(z)
        return images.clamp(-1, 1)


class Generator(nn.Module):
    """z (B, latent) -> images (B, *shape)."""

    def __init__(self, latent: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.Sequential(*_layers([latent, 256, 512, 1024], dropout=0.0), nn.Linear(1024, math.prod(shape)))

    def forward(self, z: Tensor) -> Tensor:
        return reach(self.layers(z)).view(-1, *self.shape)


def _layers(widths: list[int], dropout: float) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.LeakyReLU(0.2), nn.Dropout(dropout)]
    return layers
