"""Which words are of which image: both as vectors that point the same way where they belong together, as CLIP learns
it (Radford et al. 2021), and ConVIRT of radiographs and reports (Zhang et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

GROUPS = 8
GRID = 4  # places a side that an image comes to: left is not right
FIRST, MOST = 1 / 0.07, 100.0  # times the cosines: at first, and at most


class Alignment(nn.Module):
    """gists (B, G), what is told of images, and images (B, C, *S) -> how well each goes with each, float32 (B, B):
    cosines times a learned number."""

    def __init__(self, gist: int, shape: Sequence[int], width: int = 64, features: int = 128) -> None:
        """gist: G; shape: (C, *S), S = H, W or D, H, W, about what it will see."""
        super().__init__()
        dims = len(shape) - 1
        conv: Any = (nn.Conv2d, nn.Conv3d)[dims - 2]
        pool: Any = (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[dims - 2]
        layers: list[nn.Module] = [conv(shape[0], width, 3, padding=1)]
        wide, sides = width, list(shape[1:])
        while max(sides) >= 2 * GRID:
            strides = tuple(2 if side >= 2 * GRID else 1 for side in sides)
            sides = [-(-side // stride) for side, stride in zip(sides, strides, strict=True)]
            layers += [nn.GroupNorm(GROUPS, wide), nn.SiLU(), conv(wide, 2 * width, 3, strides, 1)]
            wide = 2 * width
        last = nn.Linear(wide * GRID**dims, features)
        self.image = nn.Sequential(*layers, nn.GroupNorm(GROUPS, wide), nn.SiLU(), pool(GRID), nn.Flatten(), last)
        self.gist = nn.Linear(gist, features)
        self.scale = nn.Parameter(torch.tensor(math.log(FIRST)))

    def forward(self, gists: Tensor, images: Tensor) -> Tensor:
        said, seen = self.gist(gists), self.image(images)
        with torch.autocast(images.device.type, enabled=False):
            cosines = normalize(said.float(), dim=1) @ normalize(seen.float(), dim=1).T
            return cosines * self.scale.exp().clamp(max=MOST)


def contrastive(alike: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of finding, for each gist, its image among those of a batch, and for each image its gist
    (Radford et al. 2021, figure 3).

    alike (B, B): how well each gist goes with each image; known (B,) bool: the images of which something is told, the
    others are passed over."""
    own = torch.arange(len(alike), device=alike.device)
    pairs = known[:, None] & known
    alone = alike.masked_fill(~pairs & (own[:, None] != own), -math.inf)  # what is passed over finds only itself: 0
    found = cross_entropy(alone, own, reduction="sum") + cross_entropy(alone.T, own, reduction="sum")
    return 0.5 * found / known.sum().clamp(min=1)
