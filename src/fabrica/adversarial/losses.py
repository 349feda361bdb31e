"""Adversarial training as mathematics: losses of critics and generators, gradient penalties, accuracy.

Scores are a critic's raw outputs (B,), higher for more real; images are (B, C, *S). No function knows a network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fabrica.errors import UsageError

SIDES = (32, 64, 128, 256)
PATCH = 24  # the shortest side that a critic of patches takes


def critic_loss(real: Tensor, fake: Tensor, smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy of a critic that tells real from fake (Goodfellow et al. 2014, eq. 1).

    smoothing   real images are called real with 1 - smoothing only (one-sided: Salimans et al. 2016, section 3.4).
    """
    return (softplus(-real) + smoothing * real).mean() + softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """-log D(G(z)): the non-saturating loss (Goodfellow et al. 2014, section 3)."""
    return softplus(-fake).mean()


def least_squares(scores: Tensor, wanted: float) -> Tensor:
    """(D(x) - wanted)^2: a critic wants 1 of real and 0 of fake images, a generator 1 of its own (Mao et al. 2017)."""
    return (scores - wanted).square().mean()


def wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    """What a Wasserstein critic minimises, E D(fake) - E D(real) (Arjovsky et al. 2017, eq. 2)."""
    return fake.mean() - real.mean()


def relativistic(better: Tensor, worse: Tensor) -> Tensor:
    """softplus(worse - better), pair by pair (Jolicoeur-Martineau 2018; R3GAN, Huang et al. 2024, eq. 2).

    The critic wants real images to score better than fake ones, the generator the reverse.
    """
    return softplus(worse - better).mean()


def slopes(scores: Tensor, images: Tensor) -> Tensor:
    """|d score / d image|^2 (B,), itself differentiable; images (B, C, *S) must require gradients."""
    (slope,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return slope.float().flatten(1).square().sum(1)


class Accuracy(NamedTuple):
    """The shares of real and of fake images that a critic knows, under their names in the log."""

    real_accuracy: float
    fake_accuracy: float


def mixed_accuracy(real: Tensor, fake: Tensor) -> Accuracy:
    """The shares of real and of fake images that a critic without a fixed threshold tells apart.

    The threshold lies halfway between the mean scores of the two; 0.5 means that it knows nothing.
    """
    return accuracy(real, fake, threshold=float((real.mean() + fake.mean()).detach()) / 2)


def accuracy(real: Tensor, fake: Tensor, threshold: float = 0.0) -> Accuracy:
    """The shares of real images scored above the threshold, and of fake ones below it."""
    return Accuracy(float((real > threshold).float().mean()), float((fake < threshold).float().mean()))


class History(nn.Module):
    """Images made earlier, shown to a critic again so that it does not forget them (Shrivastava et al. 2017, 2.3).

    Buffers (size, C, *S), so that checkpoints hold them. size 0: every image is passed on as it comes.
    """

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("past", torch.zeros(size, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.past: Tensor
        self.count: Tensor

    @torch.no_grad()
    def forward(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """images (B, C, *S) -> as many: each with even chances itself or an older one, whose place it takes."""
        shown = images.clone()
        for k, image in enumerate(images):
            if self.count < len(self.past):
                self.past[self.count] = image
                self.count += 1
            elif len(self.past) and float(torch.rand((), generator=rng)) < 0.5:
                place = int(torch.randint(len(self.past), (), generator=rng))
                shown[k] = self.past[place]
                self.past[place] = image
        return shown


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Gradients pass through these networks but none is kept for their own weights."""
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


def refuse_labels(name: str, classes: int) -> None:
    """UsageError for a GAN that takes no labels and is given some."""
    if classes:
        raise UsageError(f"{name} takes no labels; set data.condition='' or take method.name=modern-gan")


def refuse_volumes(name: str, shape: tuple[int, ...]) -> None:
    """UsageError for a translator of slices (C, H, W) that is given volumes, or slices too small for its critic."""
    if len(shape) != 3:
        raise UsageError(f"{name} sees slices; give data.size as [H, W], or take method.name=pix2pix for volumes")
    refuse_small(name, shape)


def refuse_small(name: str, shape: tuple[int, ...]) -> None:
    """UsageError for images (C, *S) that a critic of patches cannot see."""
    if min(shape[1:]) < PATCH:
        raise UsageError(f"data.size is {list(shape[1:])}; the critic of {name} takes {PATCH} or more along each axis")


def square_side(shape: tuple[int, ...]) -> int:
    """The side of images (C, side, side), a power of two from 32 to 256; UsageError for anything else."""
    sides = shape[1:]
    if len(sides) == 2 and sides[0] == sides[1] and sides[0] in SIDES:
        return sides[0]
    nearest = min(SIDES, key=lambda side: abs(side - max(sides)))
    raise UsageError(
        f"data.size {list(sides)} does not fit; this network takes squares of {', '.join(map(str, SIDES))} pixels, "
        f"e.g. data.size={nearest} with data.fit=pad"
    )
