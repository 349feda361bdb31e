"""NAFNet, a network without activation functions, for images as large as radiographs.

Chen, Chu, Zhang, Sun: Simple baselines for image restoration (ECCV 2022). What differs from the paper, and why:
pixels of a square are first made channels (`unshuffle`, as in FFDNet, Zhang et al. 2018), so that 1024 x 1024 pixels
cost what 256 x 256 do; batch norm, which folds into the 1 x 1 convolution behind it, takes the place of layer norm; and
there is no channel attention: its mean over the whole image differs between a window and the image it is cut from, so
that seams would show, whereas here an output depends on what lies within `reach` pixels alone. That branches start as
zeros is left to their last convolution; the paper's factors beta and gamma cost a pass over memory each.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import hardtanh, pad, pixel_shuffle, pixel_unshuffle

from fabrica.errors import UsageError, unknown
from fabrica.nets.convolutions import starting_at_zero
from fabrica.nets.framing import middle_of, refuse_more


class Size(NamedTuple):
    """Of each resolution, finest first, each half of the one before: channels, and blocks on the way down and up. The
    coarsest one has blocks on the way down only."""

    widths: tuple[int, ...]
    down: tuple[int, ...]
    up: tuple[int, ...]


# Products of products: what training never showed, such as a burned-in letter, grows from block to block until the
# letter is gone, or all is NaN (layer norm would hold it). In images like those of training few products are larger.
LARGEST = 16.0

# The finest width holds the pixels of a square: 64 rather than 32 gained 0.7 dB in the same time of training.
SIZES = {
    "tiny": Size((32, 64, 96), (1, 1, 2), (1, 1)),
    "small": Size((64, 64, 128, 192), (0, 1, 2, 2), (1, 1, 1)),
    "base": Size((96, 128, 256, 384), (1, 2, 3, 4), (2, 2, 2)),
}


class NAFNet(nn.Module):
    """images (B, C, H, W) -> (B, C2, H, W): their middle C2 channels and a correction.

    size       "tiny", "small" or "base".
    unshuffle  the side of the squares whose pixels become channels: 4, 2 or 1.
    auxiliary  the last so many channels are seen and not corrected: see `fabrica.nets.framing.middle_of`.
    """

    def __init__(
        self, channels: int, out_channels: int, size: str = "small", unshuffle: int = 4, auxiliary: int = 0
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise unknown("size of NAFNet", size, SIZES)
        if unshuffle not in (1, 2, 4):
            raise UsageError(f"method.unshuffle is {unshuffle}; expected 4, 2 or 1")
        refuse_more("NAFNet", channels - auxiliary, out_channels)
        widths, down, up = SIZES[size]
        self.size, self.unshuffle, self.auxiliary = size, unshuffle, auxiliary
        self.stride = unshuffle * 2 ** (len(widths) - 1)
        self.enter = nn.Conv2d(channels * unshuffle**2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(_blocks(width, count) for width, count in zip(widths, down, strict=True))
        self.up = nn.ModuleList(_blocks(width, count) for width, count in zip(widths, up, strict=False))
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in pairwise(widths):
            self.shrink.append(nn.Conv2d(fine, coarse, 2, stride=2))
            self.grow.append(nn.Sequential(nn.Conv2d(coarse, 4 * fine, 1, bias=False), nn.PixelShuffle(2)))
        self.leave = starting_at_zero(nn.Conv2d(widths[0], out_channels * unshuffle**2, 3, padding=1))

    @property
    def reach(self) -> int:
        """The pixels from an output to the furthest input it depends on, along an axis, are at most so many."""
        _, down, up = SIZES[self.size]
        blocks: int = sum(count * 2**k for counts in (down, up) for k, count in enumerate(counts))
        return int(self.unshuffle * (2 + blocks) + self.stride)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        y = x.to(self.enter.weight.dtype)
        if torch.compiler.is_exporting() or height % self.stride or width % self.stride:
            # at the end only: windows that start at multiples of the stride see the squares of the whole image
            y = pad(y, [0, -width % self.stride, 0, -height % self.stride], mode="replicate")
        y = self.enter(pixel_unshuffle(y, self.unshuffle))
        seen: list[Tensor] = []
        for blocks, shrink in zip(self.down, self.shrink, strict=False):
            seen.append(blocks(y))
            y = shrink(seen[-1])
        y = self.down[-1](y)
        for grow, blocks in zip(reversed(self.grow), reversed(self.up), strict=True):
            y = blocks(grow(y).add_(seen.pop()))
        correction = pixel_shuffle(self.leave(y), self.unshuffle)
        corrected = middle_of(x, correction, self.auxiliary)
        restored: Tensor = corrected + correction[..., :height, :width]  # in the precision of x
        return restored


class Gate(nn.Module):
    """(B, 2 C, H, W) -> (B, C, H, W): one half of the channels times the other (SimpleGate, section 3.4), within
    LARGEST."""

    def forward(self, x: Tensor) -> Tensor:
        return product(*x.chunk(2, dim=1))


def product(one: Tensor, other: Tensor) -> Tensor:
    """One times the other, within LARGEST."""
    return hardtanh(one * other, -LARGEST, LARGEST, inplace=True)


class _Block(nn.Module):
    """x plus what each pixel's neighbourhood adds, plus what each pixel adds (figure 3c, without attention)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.around = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.Conv2d(width, 2 * width, 1),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width),
            Gate(),
            starting_at_zero(nn.Conv2d(width, width, 1)),
        )
        self.within = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.Conv2d(width, 2 * width, 1),
            Gate(),
            starting_at_zero(nn.Conv2d(width, width, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.around(x).add_(x)
        total: Tensor = self.within(x).add_(x)
        return total


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(width) for _ in range(count)))
