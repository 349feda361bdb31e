"""Wasserstein GAN with gradient penalty: a critic that measures a distance instead of giving a verdict.

Gulrajani et al.: Improved training of Wasserstein GANs (2017), Algorithm 1, on the networks of DCGAN. The paper trains
both players by Adam, learning rate 1e-4, betas 0 and 0.9: see the recipes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fabrica.adversarial.losses import (
    frozen,
    mixed_accuracy,
    refuse_labels,
    slopes,
    square_side,
    wasserstein,
)
from fabrica.errors import UsageError
from fabrica.methods import Conditions, Synthesiser, Turn
from fabrica.methods.noise import Draw, truncated
from fabrica.nets.dcgan import Critic, Generator
from fabrica.recipe.schema import SampleConfig


class WGANGP(Synthesiser):
    """Networks see images (B, C, side, side) in [-1, 1]. A batch is shared among the critic's turns of a step."""

    @dataclass
    class Config:
        latent: int = 100
        width: int = 64  # channels at half the side; doubled at each halving, up to 512
        critic_turns: int = 5  # for each of the generator's
        penalty: float = 10.0  # lambda

    ships = ("generator",)
    players: Mapping[str, tuple[str, ...]] = {"critic": ("critic",), "generator": ("generator",)}
    keep = "frd"
    choices = ("truncation",)
    config: Config

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int = 0) -> None:
        """shape (C, side, side) of the images; classes must be 0: this method takes no labels."""
        super().__init__()
        refuse_labels("wgan-gp", classes)
        if config.critic_turns < 1:
            raise UsageError(f"method.critic_turns is {config.critic_turns}; expected at least 1")
        self.config = config
        self.least_batch = 2 * config.critic_turns  # batch norm in the generator
        channels, side = shape[0], square_side(shape)
        self.generator: nn.Module = Generator(config.latent, channels, side, config.width)
        # no batch norm: the penalty is on the gradient of each image's own score (section 4)
        self.critic: nn.Module = Critic(channels, side, config.width, norm="none")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster on processors

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        shares = batch["image"].tensor_split(self.config.critic_turns)
        for real in shares:
            with torch.no_grad():
                fake = self._generate(len(real), rng, real.device)
            share = torch.rand((len(real), 1, 1, 1), generator=rng).to(real.device)
            mixed = torch.lerp(real, fake, share).requires_grad_()
            steepness = (slopes(self.critic(mixed), mixed) + 1e-12).sqrt()  # a root's own slope at 0 is infinite
            on_real, on_fake = self.critic(real), self.critic(fake)
            loss = wasserstein(on_real, on_fake) + self.config.penalty * (steepness - 1).square().mean()
            conditions = mixed_accuracy(on_real, on_fake)._asdict()
            yield Turn("critic", loss, conditions)
        with frozen(self.critic):
            loss = -self.critic(self._generate(len(shares[0]), rng, batch["image"].device)).mean()
        yield Turn("generator", loss)

    def sample(self, draw: Draw, conditions: Conditions, settings: SampleConfig, device: torch.device) -> Tensor:
        """Images (N, C, side, side) in [-1, 1]."""
        images: Tensor = self.generator(truncated(draw((self.config.latent,)), settings.truncation).to(device))
        return images.clamp(-1, 1)

    def _generate(self, count: int, rng: torch.Generator, device: torch.device) -> Tensor:
        images: Tensor = self.generator(torch.randn(count, self.config.latent, generator=rng).to(device))
        return images
