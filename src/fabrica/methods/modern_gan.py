"""A modern GAN: a relativistic loss on pairs of real and fake images, labels, and differentiable augmentation.

The loss is that of Huang, Gokaslan, Kuleshov, Tompkin: The GAN is dead; long live the GAN! A modern baseline GAN
(R3GAN, 2024), and so are the residual blocks of the critic; the paper's penalties R1 and R2 on a critic without
normalisation are options (`norm=none`, `penalty=0.3`). In the minutes that a processor has, batch norm in both networks
learned several times as far: see docs/synthesis.md. Differentiable augmentation (Zhao et al. 2020) is for small sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from fabrica.adversarial.diffaugment import KINDS, augmented
from fabrica.adversarial.losses import frozen, mixed_accuracy, relativistic, slopes, square_side
from fabrica.errors import UsageError, unknown
from fabrica.methods import Conditions, Synthesiser, Turn
from fabrica.methods.noise import Draw, truncated
from fabrica.nets import dcgan
from fabrica.nets.generator import Generator
from fabrica.recipe.schema import SampleConfig

TRUNK = 16  # pixels a side: residual blocks work from here down to 4 x 4
SLOPE = 0.2


class ModernGAN(Synthesiser):
    """Networks see images (B, C, side, side) in [-1, 1]."""

    @dataclass
    class Config:
        latent: int = 64
        width: int = 32  # of the generator: channels at half the side; doubled at each halving, up to 512
        critic_width: int = 32  # the same of the critic
        blocks: int = 1  # residual blocks of the critic at each of 16, 8 and 4 pixels a side
        norm: str = "batch"  # of the critic: batch, or none
        penalty: float = 0.0  # gamma of R1 and R2; 0.3 with norm=none
        lazy: int = 2  # penalties in one step of so many, at random, and that much stronger (Karras et al. 2020)
        augment: list[str] = field(default_factory=list)  # what the critic sees: see fabrica.adversarial.diffaugment

    ships = ("generator",)
    players: Mapping[str, tuple[str, ...]] = {"critic": ("critic",), "generator": ("generator",)}
    keep = "frd"
    choices = ("truncation",)
    least_batch = 2  # batch norm
    config: Config

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int = 0) -> None:
        """shape (C, side, side) of the images; classes: how many labels, 0 for unconditional."""
        super().__init__()
        self.config = config
        _check(config)
        side = square_side(shape)
        self.generator: nn.Module = Generator(config.latent, config.width, shape[0], side, classes)
        self.critic: nn.Module = Critic(config, shape[0], side, classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on processors

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        real, labels = batch["image"], batch.get("label")
        z = torch.randn(len(real), self.config.latent, generator=rng).to(real.device)
        fake = self.generator(z, labels)
        real, shown = (augmented(images, self.config.augment, rng) for images in (real, fake))

        due = self.config.penalty > 0 and bool(torch.rand((), generator=rng) < 1 / self.config.lazy)
        judged = [images.detach().requires_grad_(due) for images in (real, shown)]
        on_real, on_fake = (self.critic(images, labels) for images in judged)  # apart: each set has its own statistics
        loss = relativistic(on_real, on_fake)
        if due:
            both = slopes(on_real, judged[0]) + slopes(on_fake, judged[1])  # R1 + R2
            loss = loss + self.config.lazy * self.config.penalty / 2 * both.mean()
        conditions = mixed_accuracy(on_real, on_fake)._asdict()
        yield Turn("critic", loss, conditions)

        with frozen(self.critic):
            with torch.no_grad():
                on_real = self.critic(real, labels)
            loss = relativistic(self.critic(shown, labels), on_real)
        yield Turn("generator", loss)

    def sample(self, draw: Draw, conditions: Conditions, settings: SampleConfig, device: torch.device) -> Tensor:
        """Images (N, C, side, side) in [-1, 1]; conditions["label"] (N,) int64 for a class-conditional model."""
        z = truncated(draw((self.config.latent,)), settings.truncation).to(device)
        images: Tensor = self.generator(z, conditions["label"].to(device) if "label" in conditions else None)
        return images.clamp(-1, 1)


class Block(nn.Module):
    """x + three convolutions through half the width. The last one starts at 0, so that depth costs no stability
    (fix-up initialisation, R3GAN section 4.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 2
        self.enter = nn.Conv2d(width, inner, 1)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1)
        self.leave = nn.Conv2d(inner, width, 1, bias=False)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = leaky_relu(self.enter(x), SLOPE)
        y = leaky_relu(self.mix(y), SLOPE)
        grown: Tensor = x + self.leave(y)
        return grown


class Critic(nn.Module):
    """images (B, C, side, side) and labels (B,) -> scores (B,): strided convolutions, batch norm, residual blocks.

    Each label has a score of its own, a projection of the features (Miyato & Koyama 2018).
    """

    def __init__(self, config: ModernGAN.Config, channels: int, side: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in dcgan.widths(side, config.critic_width):
            normed = config.norm == "batch" and bool(layers)  # not the first layer, as in DCGAN
            layers.append(nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=not normed))
            layers += [nn.BatchNorm2d(width)] * normed + [nn.LeakyReLU(SLOPE)]
            side, channels = side // 2, width
            layers += [Block(width) for _ in range(config.blocks if side <= TRUNK else 0)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, classes or 1, dcgan.COARSEST), nn.Flatten())
        self.apply(initialise)

    def forward(self, images: Tensor, labels: Tensor | None) -> Tensor:
        scores: Tensor = self.layers(images)
        return scores[:, 0] if labels is None else scores.gather(1, labels[:, None])[:, 0]


def initialise(layer: nn.Module) -> None:
    """DCGAN's small weights: the critic starts weak, and the generator learns from the first step. The last layer of a
    residual block keeps its zeros."""
    if not (isinstance(layer, nn.Conv2d) and not layer.weight.any()):
        dcgan.initialise(layer)


def _check(config: ModernGAN.Config) -> None:
    if config.norm not in ("batch", "none"):
        raise UsageError(f"method.norm is {config.norm!r}; expected batch or none")
    if config.penalty < 0:
        raise UsageError(f"method.penalty is {config.penalty}; expected 0 (none) or more")
    if config.lazy < 1:
        raise UsageError(f"method.lazy is {config.lazy}; expected 1 (penalties in every step) or more")
    for kind in config.augment:
        if kind not in KINDS:
            raise unknown("augmentation", kind, KINDS)
