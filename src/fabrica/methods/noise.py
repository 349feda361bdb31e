"""Where images come from: Gaussian noise that belongs to a seed, or lies between two seeds.

One CPU generator for each image makes all of its noise, so that a seed gives the same image whatever the batch, the
device or the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Draw = Callable[[Sequence[int]], Tensor]
"""draw(shape) -> Gaussian noise (N, *shape), float32 on the CPU, anew at each call: one row an image."""


def seeded(seeds: Sequence[int]) -> Draw:
    """The noise of images that come from these seeds, one each."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return lambda shape: torch.stack([torch.randn(tuple(shape), generator=g) for g in generators])


def between(first: int, last: int, frames: int) -> Draw:
    """The noise of `frames` images on the way from seed `first` to seed `last`, both included.

    Spherical interpolation (White 2016, "Sampling generative networks"): what lies between two Gaussian vectors of
    many dimensions on a straight line is shorter than any vector a network was trained on; on the arc it is not.
    """
    ends = seeded([first, last])
    share = torch.linspace(0, 1, frames)

    def draw(shape: Sequence[int]) -> Tensor:
        a, b = ends(shape)
        cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).clamp(-1, 1)
        angle = torch.arccos(cosine)
        weights = torch.stack([1 - share, share])
        if angle.sin() > 1e-4:  # else the same seed twice, or noise of one number: there is no arc
            weights = (weights * angle).sin() / angle.sin()
        return torch.einsum("kn,k...->n...", weights, torch.stack([a, b]))

    return draw
