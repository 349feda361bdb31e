"""A GAN to use today: a relativistic loss on pairs, gradient penalties on real and fake images, residual networks
without normalisation.

Huang, Gokaslan, Kuleshov, Tompkin: The GAN is dead; long live the GAN! A modern baseline GAN (R3GAN, 2024). The loss
has a local optimum that both players converge to, so that neither tricks nor luck are needed; small training sets are
protected by differentiable augmentation (Zhao et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from fabrica.adversarial import frozen, mixed_accuracy, relativistic, slopes, square_side, truncated
from fabrica.diffaugment import KINDS, augmented
from fabrica.errors import UsageError, did_you_mean
from fabrica.methods import Turn
from fabrica.noise import Draw
from fabrica.recipe import SampleConfig

COARSEST, TRUNK = 4, 16  # pixels a side: residual blocks work from 4 x 4 to 16 x 16
SLOPE = 0.2
RECTIFIED = math.sqrt(2 / (1 + SLOPE**2))  # gain that keeps the variance through a leaky ReLU


class ModernGAN(nn.Module):
    """Networks see images (B, C, side, side) in [-1, 1]."""

    @dataclass
    class Config:
        latent: int = 64
        width: int = 96  # channels at 16 x 16 pixels; twice as many at 8 x 8, four times at 4 x 4
        thin: int = 32  # channels at 32 x 32 pixels; half as many at 64 x 64 and so on, at least 8
        blocks: int = 1  # residual blocks at each resolution up to 16 x 16; finer ones have one convolution
        penalty: float = 1.0  # gamma of R1 and R2
        lazy: int = 4  # penalties in one step of so many, at random, and that much stronger (Karras et al. 2020)
        augment: list[str] = field(default_factory=list)  # what the critic sees: see fabrica.diffaugment

    ships: ClassVar[tuple[str, ...]] = ("generator",)
    players: ClassVar[dict[str, tuple[str, ...]]] = {"critic": ("critic",), "generator": ("generator",)}
    keep: ClassVar[str] = "frd"
    choices: ClassVar[tuple[str, ...]] = ("truncation",)

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int = 0) -> None:
        """shape (C, side, side) of the images; classes: how many labels, 0 for unconditional."""
        super().__init__()
        self.config = config
        _check(config)
        side = square_side(shape)
        self.generator: nn.Module = Generator(config, shape[0], side, classes)
        self.critic: nn.Module = Critic(config, shape[0], side, classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on processors

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        real, labels = batch["image"], batch.get("label")
        z = torch.randn(len(real), self.config.latent, generator=rng).to(real.device)
        fake = self.generator(z, labels)
        real, shown = (augmented(images, self.config.augment, rng) for images in (real, fake))

        both = torch.cat([real, shown.detach()]).requires_grad_()  # at once: nothing mixes the images of a batch
        scores = self.critic(both, None if labels is None else labels.repeat(2))
        on_real, on_fake = scores.chunk(2)
        loss = relativistic(on_real, on_fake)
        if torch.rand((), generator=rng) < 1 / self.config.lazy:
            loss = loss + self.config.lazy * self.config.penalty * slopes(scores, both).mean()  # R1 + R2
        told = dict(zip(("real_accuracy", "fake_accuracy"), mixed_accuracy(on_real, on_fake), strict=True))
        yield Turn("critic", loss, told)

        with frozen(self.critic):
            with torch.no_grad():
                on_real = self.critic(real, labels)
            loss = relativistic(self.critic(shown, labels), on_real)
        yield Turn("generator", loss)

    def sample(self, draw: Draw, labels: Tensor | None, settings: SampleConfig, device: torch.device) -> Tensor:
        """Images (N, C, side, side) in [-1, 1]; labels (N,) int64 for a class-conditional model."""
        z = truncated(draw((self.config.latent,)), settings.truncation).to(device)
        images: Tensor = self.generator(z, None if labels is None else labels.to(device))
        return images.clamp(-1, 1)


class Block(nn.Module):
    """x + three convolutions. The last one starts at 0, so that depth costs no stability (fix-up initialisation,
    R3GAN section 4.2). The paper groups the middle one; the second derivative of the penalties then takes a loop over
    groups in torch, so it is dense and narrower here."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(width, width, 1)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, width, 1, bias=False)
        for layer in (self.enter, self.mix):
            scaled(layer, RECTIFIED * depth**-0.25)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = leaky_relu(self.enter(x), SLOPE)
        y = leaky_relu(self.mix(y), SLOPE)
        grown: Tensor = x + self.leave(y)
        return grown


class Generator(nn.Module):
    """z (B, latent) and labels (B,) -> images (B, C, side, side): a basis at 4 x 4, then doubled again and again."""

    def __init__(self, config: ModernGAN.Config, channels: int, side: int, classes: int) -> None:
        super().__init__()
        trunk, fine = trunk_widths(config), fine_widths(config, side)
        self.embed = nn.Embedding(classes, config.latent) if classes else None
        self.basis = nn.Parameter(torch.randn(trunk[0], COARSEST, COARSEST))
        self.weigh = scaled(nn.Linear(config.latent * (2 if classes else 1), trunk[0], bias=False))
        layers: list[nn.Module] = [*blocks(trunk[0], config)]
        for before, width in pairwise(trunk):
            layers += [scaled(nn.Conv2d(before, width, 1, bias=False)), Doubled(), *blocks(width, config)]
        for before, width in pairwise([trunk[-1], *fine]):
            layers += [scaled(nn.Conv2d(before, width, 1)), Doubled()]
            layers += [scaled(nn.Conv2d(width, width, 3, padding=1), RECTIFIED), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, scaled(nn.Conv2d(fine[-1], channels, 3, padding=1)))

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        if self.embed is not None:
            assert labels is not None  # Model and the data set see to it
            z = torch.cat([z, self.embed(labels)], dim=1)
        images: Tensor = self.layers(self.weigh(z)[:, :, None, None] * self.basis)
        return images


class Critic(nn.Module):
    """images (B, C, side, side) and labels (B,) -> scores (B,): the generator's way back.

    Each label has a score of its own, a projection of the features (Miyato & Koyama 2018).
    """

    def __init__(self, config: ModernGAN.Config, channels: int, side: int, classes: int) -> None:
        super().__init__()
        trunk, fine = trunk_widths(config)[::-1], fine_widths(config, side)[::-1]
        layers: list[nn.Module] = []
        for before, width in pairwise([channels, *fine[1:], trunk[0]]):
            layers += [scaled(nn.Conv2d(before, width, 4, stride=2, padding=1), RECTIFIED), nn.LeakyReLU(SLOPE)]
        for before, width in pairwise(trunk):
            layers += [*blocks(before, config), nn.AvgPool2d(2), scaled(nn.Conv2d(before, width, 1, bias=False))]
        layers += blocks(trunk[-1], config)
        layers.append(scaled(nn.Conv2d(trunk[-1], trunk[-1], COARSEST, groups=trunk[-1], bias=False)))
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.judge = scaled(nn.Linear(trunk[-1], classes or 1, bias=False))

    def forward(self, images: Tensor, labels: Tensor | None) -> Tensor:
        scores: Tensor = self.judge(self.layers(images))
        return scores[:, 0] if labels is None else scores.gather(1, labels[:, None])[:, 0]


class Doubled(nn.Module):
    """(B, C, H, W) -> (B, C, 2H, 2W), bilinear: no checkerboard of transposed convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def trunk_widths(config: ModernGAN.Config) -> list[int]:
    """Channels at 4 x 4, 8 x 8 and 16 x 16 pixels."""
    return [4 * config.width, 2 * config.width, config.width]


def fine_widths(config: ModernGAN.Config, side: int) -> list[int]:
    """Channels at 32 x 32, 64 x 64 ... pixels."""
    return [max(8, config.thin >> k) for k in range(int(math.log2(side // TRUNK)))]


def blocks(width: int, config: ModernGAN.Config) -> list[nn.Module]:
    """The residual blocks of one resolution."""
    return [Block(width, depth=config.blocks * len(trunk_widths(config))) for _ in range(config.blocks)]


def scaled(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Module:
    """The layer with weights that keep the variance of what goes in, times gain^2 (He et al. 2015, eq. 10)."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _check(config: ModernGAN.Config) -> None:
    if config.lazy < 1:
        raise UsageError(f"method.lazy is {config.lazy}; expected 1 (penalties in every step) or more")
    for kind in config.augment:
        if kind not in KINDS:
            raise UsageError(f"no augmentation {kind!r}{did_you_mean(kind, KINDS)}")
