"""Generators that turn an image into another of the same size, and the critic of their patches.

The networks of pix2pix (Isola et al. 2017) and CycleGAN (Zhu et al. 2017), and a residual U-Net. Any size will do:
images are padded to what strides need and cropped back. Resolution is doubled without a checkerboard (`Doubling`).

Shapes are (B, C, *S) with S = H, W or D, H, W where a network takes `dims`, else H, W; values are in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError
from fabrica.nets.convolutions import BATCH_NORMS, CONVOLUTIONS, Doubling, Narrowing
from fabrica.nets.framing import cropped_to, padded_to

SLOPE = 0.2
WIDEST = 8  # times the first layer's width, of U-Nets and critic
INSTANCE_NORMS = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class ResNetGenerator(nn.Module):
    """images (B, C, H, W) -> (B, C2, H, W): c7s1-64, d128, d256, R256 x blocks, u128, u64, c7s1-C2 (Johnson et al.
    2016; Zhu et al. 2017, appendix 7.2). The paper has 6 blocks for 128 pixels, 9 for more.

    residual  what it draws is added to the images, and is nothing at first: for C = C2.
    """

    def __init__(
        self, channels: int, out_channels: int, width: int = 64, blocks: int = 9, residual: bool = False
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise UsageError(f"method.blocks is {blocks}; expected at least 1")
        down = [nn.Conv2d(channels, width, 7, padding=3, padding_mode="reflect", bias=False), *_normed(width)]
        self.widths = [width] * 3  # of each layer of `encode`
        for k in (1, 2):
            down += [nn.Conv2d(width * k, width * 2 * k, 3, stride=2, padding=1, bias=False), *_normed(width * 2 * k)]
            self.widths += [width * 2 * k] * 3
        self.widths += [4 * width] * blocks
        up: list[nn.Module] = []
        for k in (2, 1):
            up += [Doubling(width * 2 * k, width * k, bias=False), *_normed(width * k)]
        last = Narrowing(width, out_channels, 7)
        self.encode = nn.Sequential(*down, *(ResidualBlock(4 * width) for _ in range(blocks)))
        self.decode = nn.Sequential(*up, last, nn.Tanh())
        self.residual = residual
        self.apply(initialise)
        if residual:
            nn.init.zeros_(last.convolution.weight)

    def forward(self, x: Tensor, taps: Sequence[int] = (), decode: bool = True) -> Tensor | list[Tensor]:
        """The translated image; with taps, [image, what these layers of the encoder give ...]; these alone without
        `decode`."""
        y = padded_to(x, 4)
        found = []
        for k, layer in enumerate(list(self.encode)[: None if decode else max(taps) + 1]):
            y = layer(y)
            if k in taps:
                found.append(y)
        if not decode:
            return found
        image = cropped_to(self.decode(y), x)
        image = x + image if self.residual else image
        return [image, *found] if taps else image


class ResidualBlock(nn.Module):
    """x + two convolutions with instance norm, no ReLU behind the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()

        def convolution() -> nn.Conv2d:
            return nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect", bias=False)

        self.layers = nn.Sequential(convolution(), *_normed(width), convolution(), nn.InstanceNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = x + self.layers(x)
        return total


class UNetGenerator(nn.Module):
    """images (B, C, *S) -> (B, C2, *S): an encoder of strided convolutions of side 4 and a decoder that sees each of
    its resolutions again (Isola et al. 2017, section 6.1.1; 8 levels for 256 pixels), here the image itself, too: the
    paper draws pixels from half the resolution, and what was doubled last stays visible as a plaid of two pixels.

    dropout  in the three innermost levels of the decoder: the paper's only noise; 0: none.
    """

    def __init__(
        self, channels: int, out_channels: int, width: int = 64, levels: int = 7, dropout: float = 0.5, dims: int = 2
    ) -> None:
        super().__init__()
        if levels < 2:
            raise UsageError(f"method.levels is {levels}; expected at least 2")
        convolution, norm = CONVOLUTIONS[dims], INSTANCE_NORMS[dims]
        widths = _widths(width, levels)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for k, (before, after) in enumerate(pairwise([channels, *widths])):
            outer, inner = k == 0, k == levels - 1  # no norm at the ends: of one pixel it leaves nothing
            entry: list[nn.Module] = [] if outer else [nn.LeakyReLU(SLOPE)]
            last: list[nn.Module] = [] if outer or inner else [norm(after)]
            self.down.append(nn.Sequential(*entry, convolution(before, after, 4, stride=2, padding=1), *last))
        for k in range(levels - 1, -1, -1):
            before = widths[k] * (1 if k == levels - 1 else 2)
            after = widths[max(k - 1, 0)]
            layers = [nn.ReLU(), Doubling(before, after, dims), norm(after)]
            layers += [nn.Dropout(dropout)] if dropout and max(1, levels - 4) <= k < levels - 1 else []
            layers += [nn.ReLU()] if k == 0 else []
            self.up.append(nn.Sequential(*layers))
        self.leave = nn.Sequential(
            convolution(width + channels, width, 3, padding=1),
            nn.ReLU(),
            convolution(width, out_channels, 3, padding=1),
            nn.Tanh(),
        )
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        y = padded_to(x, 2 ** len(self.down))
        seen = [y]
        for level in self.down:
            y = level(y)
            seen.append(y)
        y = seen.pop()
        for level in self.up:
            y = torch.cat([level(y), seen.pop()], dim=1)
        return cropped_to(self.leave(y), x)


class ResidualUNet(nn.Module):
    """images (B, C, *S) -> (B, C2, *S): a U-Net of residual blocks (He et al. 2016) with batch norm, which at work is
    the same at every place, so that windows agree where they overlap; instance norm has other statistics in each.

    The last layer is linear: air at -1 is within reach, as it is not behind a tanh.
    """

    def __init__(self, channels: int, out_channels: int, width: int = 32, levels: int = 4, dims: int = 2) -> None:
        super().__init__()
        if levels < 2:
            raise UsageError(f"method.levels is {levels}; expected at least 2")
        convolution = CONVOLUTIONS[dims]
        widths = _widths(width, levels)
        self.enter = convolution(channels, width, 3, padding=1)
        self.down, self.shrink, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        for before, after in pairwise(widths):
            self.down.append(_Block(before, before, dims))
            self.shrink.append(convolution(before, after, 3, stride=2, padding=1))
            self.grow.append(Doubling(after, before, dims))
            self.up.append(_Block(2 * before, before, dims))
        self.bottom = nn.Sequential(_Block(widths[-1], widths[-1], dims), _Block(widths[-1], widths[-1], dims))
        self.leave = convolution(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(padded_to(x, 2 ** len(self.down)))
        seen: list[Tensor] = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            seen.append(block(y))
            y = shrink(seen[-1])
        y = self.bottom(y)
        for grow, block in zip(reversed(self.grow), reversed(self.up), strict=True):
            y = block(torch.cat([grow(y), seen.pop()], dim=1))
        return cropped_to(self.leave(y), x)


class _Block(nn.Module):
    """Two convolutions with batch norm, added to their input."""

    def __init__(self, before: int, after: int, dims: int) -> None:
        super().__init__()
        convolution, norm = CONVOLUTIONS[dims], BATCH_NORMS[dims]
        self.layers = nn.Sequential(
            convolution(before, after, 3, padding=1, bias=False),
            norm(after),
            nn.ReLU(inplace=True),
            convolution(after, after, 3, padding=1, bias=False),
            norm(after),
        )
        self.past: nn.Module = nn.Identity() if before == after else convolution(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.past(x) + self.layers(x))


class PatchCritic(nn.Module):
    """images (B, C, *S) -> scores (B, 1, *s), one of each overlapping patch of 70 pixels a side: C64-C128-C256-C512
    (Isola et al. 2017, section 6.1.2). Sides from 24 pixels."""

    def __init__(self, channels: int, width: int = 64, layers: int = 3, dims: int = 2) -> None:
        super().__init__()
        convolution, norm = CONVOLUTIONS[dims], INSTANCE_NORMS[dims]
        found: list[nn.Module] = [convolution(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        before = width
        for k in range(1, layers + 1):
            after = width * min(2**k, WIDEST)
            stride = 2 if k < layers else 1
            found += [convolution(before, after, 4, stride=stride, padding=1, bias=False), norm(after)]
            found.append(nn.LeakyReLU(SLOPE))
            before = after
        self.layers = nn.Sequential(*found, convolution(before, 1, 4, padding=1))
        self.apply(initialise)

    def forward(self, images: Tensor, features: bool = False) -> Tensor | list[Tensor]:
        """The scores; with `features` a list of them and of what each layer finds, (B, C_k, *s_k)."""
        found = []
        for layer in self.layers:
            images = layer(images)
            if isinstance(layer, nn.LeakyReLU):
                found.append(images)
        return [images, *found] if features else images


def initialise(layer: nn.Module) -> None:
    """Weights from a normal distribution of standard deviation 0.02, biases 0 (both papers)."""
    if isinstance(layer, nn.Conv2d | nn.Conv3d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _widths(width: int, levels: int) -> list[int]:
    return [width * min(2**k, WIDEST) for k in range(levels)]


def _normed(width: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(width), nn.ReLU(inplace=True)]
