"""Differentiable augmentation (Zhao et al. 2020): what a critic sees, real and fake alike, is distorted at random,
so that it cannot learn a small training set by heart, while gradients still reach the generator.

Images are (B, C, H, W) in [-1, 1]; every image draws its own distortion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Distortion = Callable[[Tensor, torch.Generator], Tensor]

SHIFT = 1 / 8  # of the side, at most
HOLE = 1 / 2  # of the side


def augmented(images: Tensor, kinds: Sequence[str], rng: torch.Generator) -> Tensor:
    """The images with these kinds of distortion (keys of KINDS), one after the other."""
    for kind in kinds:
        images = KINDS[kind](images, rng)
    return images


def brightness(images: Tensor, rng: torch.Generator) -> Tensor:
    """Everything lighter or darker by up to a quarter of the range."""
    return images + (_uniform(images, rng) - 0.5)


def contrast(images: Tensor, rng: torch.Generator) -> Tensor:
    """Half to one and a half times as far from the image's mean."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * (_uniform(images, rng) + 0.5) + mean


def translation(images: Tensor, rng: torch.Generator) -> Tensor:
    """Shifted by whole pixels, up to an eighth of the side; what comes in from outside is grey."""
    _, _, height, width = images.shape
    most_y, most_x = round(height * SHIFT), round(width * SHIFT)
    padded = torch.nn.functional.pad(images, (most_x, most_x, most_y, most_y))
    rows = _offsets(images, most_y, rng) + torch.arange(height, device=images.device)[None]
    columns = _offsets(images, most_x, rng) + torch.arange(width, device=images.device)[None]
    which = torch.arange(len(images), device=images.device)
    return padded.permute(0, 2, 3, 1)[which[:, None, None], rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def cutout(images: Tensor, rng: torch.Generator) -> Tensor:
    """A square of half the side, anywhere, is grey."""
    _, _, height, width = images.shape
    inside = []
    for side in (height, width):
        centre = _uniform(images, rng).view(-1, 1) * side
        inside.append((torch.arange(side, device=images.device)[None] - centre).abs() < side * HOLE / 2)
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images * ~hole


def _uniform(images: Tensor, rng: torch.Generator) -> Tensor:
    """(B, 1, 1, 1) in [0, 1)."""
    return torch.rand((len(images), 1, 1, 1), generator=rng).to(images.device)


def _offsets(images: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """(B, 1) whole numbers from 0 to 2 * most."""
    return torch.randint(0, 2 * most + 1, (len(images), 1), generator=rng).to(images.device)


KINDS: dict[str, Distortion] = {
    "brightness": brightness,
    "contrast": contrast,
    "translation": translation,
    "cutout": cutout,
}
