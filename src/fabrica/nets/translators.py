"""Generators that turn an image into another of the same size, and the critic of their patches.

The networks of pix2pix (Isola et al. 2017) and CycleGAN (Zhu et al. 2017), with two departures. Any size will do:
images are padded to what strides need and cropped back. And resolution is doubled by repeating pixels before a
convolution instead of by transposed ones, which leave a checkerboard (Odena et al. 2016).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from fabrica.errors import UsageError
from fabrica.nets import dcgan

SLOPE = 0.2
WIDEST = 8  # times the first layer's width, of U-Net and critic


class ResNetGenerator(nn.Module):
    """images (B, C, H, W) in [-1, 1] -> (B, C2, H, W) in [-1, 1]: c7s1-64, d128, d256, R256 x blocks, u128, u64,
    c7s1-C2 (Johnson et al. 2016; Zhu et al. 2017, appendix 7.2). The paper has 6 blocks for 128 pixels, 9 for more."""

    def __init__(self, channels: int, out_channels: int, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        down = [nn.Conv2d(channels, width, 7, padding=3, padding_mode="reflect", bias=False), *_normed(width)]
        for k in (1, 2):
            down += [nn.Conv2d(width * k, width * 2 * k, 3, stride=2, padding=1, bias=False), *_normed(width * 2 * k)]
        up: list[nn.Module] = []
        for k in (2, 1):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(width * 2 * k, width * k, 3, padding=1, bias=False)]
            up += _normed(width * k)
        last = nn.Conv2d(width, out_channels, 7, padding=3, padding_mode="reflect")
        self.encode = nn.Sequential(*down, *(ResidualBlock(4 * width) for _ in range(blocks)))
        self.decode = nn.Sequential(*up, last, nn.Tanh())
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        padded = padded_to(x, 4)
        return cropped_to(self.decode(self.encode(padded)), x)


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
    """images (B, C, H, W) in [-1, 1] -> (B, C2, H, W) in [-1, 1]: an encoder of strided 4 x 4 convolutions and a
    decoder that sees each of its resolutions again (Isola et al. 2017, section 6.1.1; 8 levels for 256 pixels).

    dropout  in the three innermost levels of the decoder: the paper's only noise; 0: none.
    """

    def __init__(
        self, channels: int, out_channels: int, width: int = 64, levels: int = 7, dropout: float = 0.5
    ) -> None:
        super().__init__()
        if levels < 2:
            raise UsageError(f"method.levels is {levels}; expected at least 2")
        widths = [width * min(2**k, WIDEST) for k in range(levels)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for k, (before, after) in enumerate(zip([channels, *widths[:-1]], widths, strict=True)):
            outer, inner = k == 0, k == levels - 1  # no norm at the ends: of one pixel it leaves nothing
            entry: list[nn.Module] = [] if outer else [nn.LeakyReLU(SLOPE)]
            norm: list[nn.Module] = [] if outer or inner else [nn.InstanceNorm2d(after)]
            self.down.append(nn.Sequential(*entry, nn.Conv2d(before, after, 4, stride=2, padding=1), *norm))
        for k in range(levels - 1, -1, -1):
            before = widths[k] * (1 if k == levels - 1 else 2)
            after = widths[k - 1] if k else out_channels
            layers: list[nn.Module] = [nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1)]
            layers += [nn.InstanceNorm2d(after)] if k else [nn.Tanh()]
            layers += [nn.Dropout(dropout)] if dropout and max(1, levels - 4) <= k < levels - 1 else []
            self.up.append(nn.Sequential(*layers))
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        y = padded_to(x, 2 ** len(self.down))
        seen: list[Tensor] = []
        for level in self.down:
            y = level(y)
            seen.append(y)
        y = self.up[0](seen.pop())
        for level in self.up[1:]:
            y = level(torch.cat([y, seen.pop()], dim=1))
        return cropped_to(y, x)


class PatchCritic(nn.Module):
    """images (B, C, H, W) -> scores (B, 1, h, w), one of each overlapping patch of 70 x 70 pixels: C64-C128-C256-C512
    (Isola et al. 2017, section 6.1.2). H and W from 24 pixels."""

    def __init__(self, channels: int, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        found: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        before = width
        for k in range(1, layers + 1):
            after = width * min(2**k, WIDEST)
            stride = 2 if k < layers else 1
            found += [nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False), nn.InstanceNorm2d(after)]
            found.append(nn.LeakyReLU(SLOPE))
            before = after
        self.layers = nn.Sequential(*found, nn.Conv2d(before, 1, 4, padding=1))
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.layers(images)
        return scores


def padded_to(x: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) with H and W padded to multiples, half on each side, by repeating the border's pixels."""
    after = [-side % multiple for side in x.shape[:1:-1]]  # W, H: the order of `pad`
    if not any(after):
        return x
    return pad(x, [part for more in after for part in (more // 2, more - more // 2)], mode="replicate")


def cropped_to(y: Tensor, x: Tensor) -> Tensor:
    """The middle of y (B, C2, H, W) that `padded_to` left of x."""
    top, left = ((large - small) // 2 for large, small in zip(y.shape[2:], x.shape[2:], strict=True))
    return y[:, :, top : top + x.shape[2], left : left + x.shape[3]]


def initialise(layer: nn.Module) -> None:
    """Weights from a normal distribution of standard deviation 0.02, biases 0 (both papers)."""
    dcgan.initialise(layer)
    if isinstance(layer, nn.Conv2d) and layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _normed(width: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(width), nn.ReLU(inplace=True)]
