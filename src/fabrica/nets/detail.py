"""Detail: what a decoder's images leave open, drawn anew by a flow from noise.

A decoder gives the mean of all images that latents stand for, and the mean of textures and of edges is smooth. What it
leaves over is drawn beside it, told the mean: Mardani et al. 2023 (Residual corrective diffusion modeling), here by
flow matching (Lipman et al. 2023), in units of how much is left over at each place (Nix & Weigend 1994).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, silu

from fabrica.nets.convolutions import starting_at_zero
from fabrica.nets.framing import inner, padded_to
from fabrica.nets.patches import pixel_shuffle as pixels
from fabrica.nets.patches import pixel_unshuffle


class Detail(nn.Module):
    """images + scale(strength) * u, where u solves du/dt = velocity(u, t) from noise at t = 0 to what is left over at
    t = 1, as multiples of its scale.

    factor   of the images over the latents: noise comes as so many times so many numbers for each place of latents.
    """

    STEPS, ORDER, SHORT = 12, 3, 1.4  # of second order they lose a quarter of the power of the finest detail, here 6 %
    FAINT = -5.0  # logarithm of the scale at first, in images of [-1, 1]
    STRONGEST = -2.3  # where more is left over, an edge or a letter was missed: many scales, which a flow can reach

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.velocity = Velocity(channels)

    def forward(self, images: Tensor, strength: Tensor, noise: Tensor) -> Tensor:
        """images (B, C, H, W) in [-1, 1], strength the like, see `scale`, noise (B, C factor^2, h, w) -> images."""
        given = (images.float(), self.scale(strength), pixels(noise.float(), self.factor))
        seen, scale, u = (padded_to(x, Velocity.MULTIPLE) for x in given)
        past: list[Tensor] = []
        for now, weights in self.steps():
            velocity = self.velocity(u, seen, scale, u.new_full((u.shape[0],), now))
            past = [*past, velocity.float()][-len(weights) :]
            u = u + sum(weight * each for weight, each in zip(weights, past, strict=True))
        return images + inner(scale * u, images.shape[2:])

    @classmethod
    def steps(cls) -> list[tuple[float, list[float]]]:
        """Times, and what the last velocities up to each count for in the step that begins there. Steps are short at
        first, where there is nothing to look back on."""
        at = [k / cls.STEPS for k in range(cls.STEPS + 1)]
        times = [x**cls.SHORT / (x**cls.SHORT + 1 - x) for x in at]
        seen = [times[max(0, k - cls.ORDER) : k] for k in range(1, len(times))]
        return [(past[-1], adams_bashforth(past, then)) for past, then in zip(seen, times[1:], strict=True)]

    def loss(self, left_over: Tensor, images: Tensor, strength: Tensor, rng: torch.Generator) -> Tensor:
        """The mean square by which the velocity is off, of what is left over (B, C, H, W) of images."""
        images, scale, left_over = (padded_to(x, Velocity.MULTIPLE) for x in (images, self.scale(strength), left_over))
        u, t = left_over / scale, torch.rand(len(images), generator=rng).to(images.device)
        noise = torch.randn(images.shape, generator=rng).to(images.device)
        between = noise + t.view(-1, 1, 1, 1) * (u - noise)
        found: Tensor = self.velocity(between, images, scale, t)
        return (found.float() - (u - noise)).square().mean()

    def scale(self, strength: Tensor) -> Tensor:
        """The standard deviation of what is left over, place by place."""
        return (strength.float() + self.FAINT).clamp(-12.0, self.STRONGEST).exp()

    def surprise(self, strength: Tensor, left_over: Tensor) -> Tensor:
        """Minus the logarithm of the Gaussian density, less a constant, of what is left over (B, C, H, W), place by
        place: smallest where the scale is its root mean square."""
        scale = self.scale(strength)
        return scale.log() + 0.5 * (left_over / scale).square()


def adams_bashforth(times: Sequence[float], then: float) -> list[float]:
    """What the velocities at these times count for in a step from the last of them to `then`: the polynomial through
    them, integrated (Hairer, Norsett & Wanner 1993, chapter III.1; steps need not be equal)."""
    apart, step = [time - times[-1] for time in times], then - times[-1]
    powers = np.vander(apart, increasing=True).T
    weights: list[float] = np.linalg.solve(powers, [step ** (k + 1) / (k + 1) for k in range(len(times))]).tolist()
    return weights


class Velocity(nn.Module):
    """u (B, C, H, W) at times t (B,), the images that it belongs to, its scale -> du/dt (B, C, H, W): a U-Net of pixels
    two by two, without norms, so that what it does at a place hangs on what lies around and not on the size of the
    image. Sides are multiples of MULTIPLE."""

    PATCH = 2
    WIDTHS: Sequence[int] = (32, 48, 64)
    MULTIPLE = PATCH * 2 ** (len(WIDTHS) - 1)

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths, pairs = self.WIDTHS, list(pairwise(self.WIDTHS))
        self.time = nn.Sequential(nn.Linear(2 * WAVES, TOLD), nn.SiLU(), nn.Linear(TOLD, TOLD), nn.SiLU())
        self.enter = nn.Conv2d(3 * channels * self.PATCH**2, widths[0], 3, padding=1)
        self.downwards = nn.ModuleList(Block(width) for width in widths)
        self.smaller = nn.ModuleList(nn.Conv2d(fine, coarse, 2, 2) for fine, coarse in pairs)
        self.larger = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in pairs)
        self.upwards = nn.ModuleList(Block(fine) for fine, _ in pairs)
        self.leave = starting_at_zero(nn.Conv2d(widths[0], channels * self.PATCH**2, 3, padding=1))

    @classmethod
    def size_of(cls, size: Sequence[int]) -> int:
        """Bytes of the widest feature map of one image (C, *size)."""
        return 4 * cls.WIDTHS[0] * math.prod(size) // cls.PATCH**2

    def forward(self, u: Tensor, images: Tensor, scale: Tensor, t: Tensor) -> Tensor:
        told = self.time(waves(t))
        seen = torch.cat([images, scale.log() - Detail.FAINT, u], dim=1)
        x, passed = self.enter(pixel_unshuffle(seen, self.PATCH)), []
        for block, smaller in zip(self.downwards, self.smaller, strict=False):
            passed.append(block(x, told))
            x = smaller(passed[-1])
        x = self.downwards[-1](x, told)
        for block, larger in zip(reversed(self.upwards), reversed(self.larger), strict=True):
            x = block(pixel_shuffle(larger(x), 2) + passed.pop(), told)
        return pixels(self.leave(silu(x)), self.PATCH)


class Block(nn.Module):
    """x (B, W, H, W) and what is told of the time (B, TOLD) -> the like of x, which at first stays as it is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.told = starting_at_zero(nn.Linear(TOLD, 2 * width))
        starting_at_zero(self.second)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        gain, offset = self.told(told)[..., None, None].chunk(2, dim=1)
        changed: Tensor = self.second(silu(self.first(silu(x)) * (1 + gain) + offset))
        return x + changed


WAVES, TOLD = 8, 32


def waves(t: Tensor) -> Tensor:
    """Times (B,) of [0, 1] as waves (B, 2 WAVES), of 1 to 16 radians."""
    found = t[:, None] * torch.exp(torch.arange(WAVES, device=t.device) * (math.log(16) / (WAVES - 1)))
    return torch.cat([found.cos(), found.sin()], dim=1)
