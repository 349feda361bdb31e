"""DCGAN: the first stable recipe for convolutional GANs.

Radford, Metz, Chintala: Unsupervised representation learning with deep convolutional generative adversarial networks
(2016). The paper trains both players by Adam, learning rate 2e-4, beta_1 0.5: see the recipes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
from fabrica.errors import UsageError
from fabrica.methods import Conditions, Synthesiser, Turn
from fabrica.methods.noise import Draw, truncated
from fabrica.nets.dcgan import Critic, Generator
from fabrica.recipe.schema import SampleConfig


class DCGAN(Synthesiser):
    """Networks see images (B, C, side, side) in [-1, 1]."""

    @dataclass
    class Config:
        latent: int = 100
        width: int = 64  # channels at half the side; doubled at each halving, up to 512
        smoothing: float = 0.0  # real images are called real with 1 - smoothing (Salimans et al. 2016)
        norm: str = "batch"  # of the critic: batch, or spectral (Miyato et al. 2018)

    ships = ("generator",)
    players: Mapping[str, tuple[str, ...]] = {"critic": ("critic",), "generator": ("generator",)}
    keep = "frd"
    choices = ("truncation",)
    least_batch = 2  # batch norm
    config: Config

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int = 0) -> None:
        """shape (C, side, side) of the images; classes must be 0: this method takes no labels."""
        super().__init__()
        refuse_labels("dcgan", classes)
        if config.norm not in ("batch", "spectral"):
            raise UsageError(f"method.norm is {config.norm!r}; expected batch or spectral")
        self.config = config
        channels, side = shape[0], square_side(shape)
        self.generator: nn.Module = Generator(config.latent, channels, side, config.width)
        self.critic: nn.Module = Critic(channels, side, config.width, config.norm)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster on processors

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
        images: Tensor = self.generator(truncated(draw((self.config.latent,)), settings.truncation).to(device))
        return images.clamp(-1, 1)
