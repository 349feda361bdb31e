"""The convolutional pair of Radford et al. 2016 (DCGAN), for squares whose side is a power of two from 32.

Every resolution has one strided convolution, 4 x 4, whose width doubles where the side halves, up to 512.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

WIDEST = 512
COARSEST = 4


def reach(x: Tensor) -> Tensor:
    """1.1 tanh x, where generators end; samples are cut to [-1, 1]. Tanh alone never gives the -1 of air or the 1 of a
    marker, by which a critic knows every radiograph."""
    return 1.1 * torch.tanh(x)


class Generator(nn.Module):
    """z (B, latent) -> images (B, C, side, side): transposed convolutions, batch norm, ReLU, and a stretched tanh."""

    def __init__(self, latent: int, channels: int, side: int, width: int = 64) -> None:
        super().__init__()
        channels_at = widths(side, width)
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, channels_at[-1], COARSEST, bias=False)]
        for wide, narrow in zip(channels_at[:0:-1], channels_at[-2::-1], strict=True):
            layers += [nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]
            layers += [nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(channels_at[0]), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(channels_at[0], channels, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers)
        self.apply(initialise)

    def forward(self, z: Tensor) -> Tensor:
        return reach(self.layers(z[:, :, None, None]))


class Critic(nn.Module):
    """images (B, C, side, side) -> scores (B,): strided convolutions, leaky ReLU.

    norm   "batch" on all but the first layer (DCGAN), "spectral" on every weight (Miyato et al. 2018), or "none".
    """

    def __init__(self, channels: int, side: int, width: int = 64, norm: str = "batch") -> None:
        super().__init__()
        channels_at = widths(side, width)
        layers: list[nn.Module] = []
        for k, (before, after) in enumerate(zip([channels, *channels_at[:-1]], channels_at, strict=True)):
            normed = norm == "batch" and k > 0
            layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=not normed))
            layers += [nn.BatchNorm2d(after)] * normed + [nn.LeakyReLU(0.2, inplace=True)]
        layers.append(nn.Conv2d(channels_at[-1], 1, COARSEST))
        self.layers = nn.Sequential(*layers)
        self.apply(initialise)
        if norm == "spectral":
            for layer in self.layers:
                if isinstance(layer, nn.Conv2d):
                    spectral_norm(layer)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.layers(images)
        return scores.flatten()


def widths(side: int, width: int) -> list[int]:
    """The widths at side / 2, side / 4, ... 4."""
    return [min(width * 2**k, WIDEST) for k in range(int(math.log2(side // COARSEST)))]


def initialise(layer: nn.Module) -> None:
    """Weights from a normal distribution of standard deviation 0.02 (Radford et al. 2016, section 4)."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
