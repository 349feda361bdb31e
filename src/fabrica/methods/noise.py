"""The noise of `fabrica.diffusion.noise`, as methods take it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fabrica.diffusion import noise

Draw = Callable[[Sequence[int]], Tensor]
"""draw(shape) -> Gaussian noise (N, *shape), float32 on the CPU, anew at each call: one row an image."""


def seeded(seeds: Sequence[int]) -> Draw:
    """The noise of images that come from these seeds, one each."""
    return as_tensors(noise.seeded(seeds))


def between(first: int, last: int, frames: int) -> Draw:
    """The noise of `frames` images on the way from seed `first` to seed `last`, both included."""
    return as_tensors(noise.between(first, last, frames))


def as_tensors(draw: noise.Draw) -> Draw:
    return lambda shape: torch.from_numpy(draw(shape))


def truncated(z: Tensor, limit: float) -> Tensor:
    """Gaussian z (B, D), on the CPU, as if drawn within [-limit, limit]: see `fabrica.diffusion.noise`."""
    return torch.from_numpy(noise.truncated(z.numpy(), limit)) if limit else z
