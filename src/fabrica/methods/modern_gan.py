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
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pixel_unshuffle

from fabrica.adversarial import frozen, mixed_accuracy, relativistic, slopes, square_side, truncated
from fabrica.diffaugment import KINDS, augmented
from fabrica.errors import UsageError, did_you_mean
from fabrica.methods import Turn
from fabrica.noise import Draw
from fabrica.recipe import SampleConfig

COARSEST = 4
THIN = 16  # channels at full resolution
SLOPE = 0.2


class ModernGAN(nn.Module):
    """Networks see images (B, C, side, side) in [-1, 1]."""

    @dataclass
    class Config:
        latent: int = 64
        width: int = 64  # channels at the finest resolution; doubled at each halving, up to `widest`
        widest: int = 256
        blocks: int = 1  # residual blocks at each resolution
        patch: int = 2  # residual blocks start at a resolution this much below the image's: larger is faster
        penalty: float = 1.0  # gamma of R1 and R2
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
        stages = int(math.log2(square_side(shape) // config.patch // COARSEST)) + 1
        widths = [min(config.width * 2**k, config.widest) for k in range(stages)]  # from fine to coarse
        self.generator: nn.Module = Generator(config, widths[::-1], shape[0], classes)
        self.critic: nn.Module = Critic(config, widths, shape[0], classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on processors

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        real, labels = batch["image"], batch.get("label")
        z = torch.randn(len(real), self.config.latent, generator=rng).to(real.device)
        fake = self.generator(z, labels)
        real, shown = (augmented(images, self.config.augment, rng) for images in (real, fake))

        both = torch.cat([real, shown.detach()]).requires_grad_()  # at once: nothing mixes the images of a batch
        scores = self.critic(both, None if labels is None else labels.repeat(2))
        on_real, on_fake = scores.chunk(2)
        penalty = 2 * slopes(scores, both).mean()  # R1 + R2
        told = dict(zip(("real_accuracy", "fake_accuracy"), mixed_accuracy(on_real, on_fake), strict=True))
        yield Turn("critic", relativistic(on_real, on_fake) + self.config.penalty / 2 * penalty, told)

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
            scaled(layer, math.sqrt(2 / (1 + SLOPE**2)) * depth**-0.25)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = leaky_relu(self.enter(x), SLOPE)
        y = leaky_relu(self.mix(y), SLOPE)
        grown: Tensor = x + self.leave(y)
        return grown


class Generator(nn.Module):
    """z (B, latent) and labels (B,) -> images (B, C, side, side): a basis at 4 x 4, then doubled again and again."""

    def __init__(self, config: ModernGAN.Config, widths: list[int], channels: int, classes: int) -> None:
        super().__init__()
        self.patch = config.patch
        self.embed = nn.Embedding(classes, config.latent) if classes else None
        self.basis = nn.Parameter(torch.randn(widths[0], COARSEST, COARSEST))
        self.weigh = scaled(nn.Linear(config.latent * (2 if classes else 1), widths[0], bias=False))
        depth = config.blocks * len(widths)
        self.stages = nn.ModuleList()
        for before, width in zip([widths[0], *widths], widths, strict=False):
            wider = [scaled(nn.Conv2d(before, width, 1, bias=False))] if before != width else []
            self.stages.append(nn.Sequential(*wider, *[Block(width, depth) for _ in range(config.blocks)]))
        self.smooth = scaled(nn.Conv2d(widths[-1], THIN, 3, padding=1), math.sqrt(2 / (1 + SLOPE**2)))
        self.leave = scaled(nn.Conv2d(THIN, channels, 3, padding=1))

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        if self.embed is not None:
            assert labels is not None  # Model and the data set see to it
            z = torch.cat([z, self.embed(labels)], dim=1)
        x = self.weigh(z)[:, :, None, None] * self.basis
        for k, stage in enumerate(self.stages):
            x = stage(enlarged(x) if k else x)
        # not by pixel shuffle: without looking over the edge of its patch, no layer can draw a smooth picture
        x = leaky_relu(self.smooth(enlarged(x, self.patch)), SLOPE)
        images: Tensor = self.leave(x)
        return images


class Critic(nn.Module):
    """images (B, C, side, side) and labels (B,) -> scores (B,): the generator's mirror image.

    Labels enter as a projection (Miyato & Koyama 2018): the score is the features' product with the label's vector.
    """

    def __init__(self, config: ModernGAN.Config, widths: list[int], channels: int, classes: int) -> None:
        super().__init__()
        self.patch = config.patch
        depth = config.blocks * len(widths)
        self.enter = scaled(nn.Conv2d(channels * config.patch**2, widths[0], 1))
        self.stages = nn.ModuleList()
        for width, after in zip(widths, [*widths[1:], widths[-1]], strict=True):
            wider = [scaled(nn.Conv2d(width, after, 1, bias=False))] if after != width else []
            self.stages.append(nn.Sequential(*[Block(width, depth) for _ in range(config.blocks)], *wider))
        self.gather = scaled(nn.Conv2d(widths[-1], widths[-1], COARSEST, groups=widths[-1], bias=False))
        self.judge = scaled(nn.Linear(widths[-1], classes or 1, bias=False))

    def forward(self, images: Tensor, labels: Tensor | None) -> Tensor:
        x = self.enter(pixel_unshuffle(images, self.patch))
        for k, stage in enumerate(self.stages):
            x = stage(halved(x) if k else x)
        scores: Tensor = self.judge(self.gather(x).flatten(1))
        if labels is None:
            return scores[:, 0]
        return scores.gather(1, labels[:, None])[:, 0]


def enlarged(x: Tensor, factor: int = 2) -> Tensor:
    """(B, C, H, W) -> (B, C, factor * H, factor * W), bilinear: no checkerboard of transposed convolutions."""
    return torch.nn.functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def halved(x: Tensor) -> Tensor:
    """(B, C, 2H, 2W) -> (B, C, H, W): means of 2 x 2."""
    return torch.nn.functional.avg_pool2d(x, 2)


def scaled(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Module:
    """The layer with weights that keep the variance of what goes in, times gain^2 (He et al. 2015, eq. 10)."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _check(config: ModernGAN.Config) -> None:
    if config.patch not in (1, 2, 4):
        raise UsageError(f"method.patch is {config.patch}; expected 1, 2 or 4")
    for kind in config.augment:
        if kind not in KINDS:
            raise UsageError(f"no augmentation {kind!r}{did_you_mean(kind, KINDS)}")
