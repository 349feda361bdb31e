"""Convolutions computed otherwise than they are written: two in less than half of the time, one because it is wrong.

Shapes are (B, C, *S) with S = H, W or D, H, W where a layer takes `dims`, else H, W. Results differ from what is
written by rounding alone.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, conv_transpose3d, fold, pad

Layer = TypeVar("Layer", bound=nn.Module)

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def starting_at_zero(layer: Layer) -> Layer:
    """The layer, its weights and biases 0: at first nothing comes of it, and what it is added to stays as it is."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    return layer


class Doubling(nn.Module):
    """x (B, C, *S) -> (B, C2, 2 *S): Upsample(scale_factor=2), then `convolution`, of side 3 with a border of zeros.

    A transposed convolution whose weights learn freely leaves a checkerboard; repeated pixels do not (Odena et al.
    2016). But both neighbours of most outputs are then the same pixel, so that two of three weights along an axis are
    only ever added up. Added up beforehand, what is left is a transposed convolution of side 4 and stride 2: along an
    axis, output 2i is w0 x[i-1] + (w1 + w2) x[i], output 2i + 1 is (w0 + w1) x[i] + w2 x[i+1]. That takes (2/3)^2 of
    the multiplications in 2-D, (2/3)^3 in 3-D, and no large image is written first.
    """

    def __init__(self, channels: int, out_channels: int, dims: int = 2, bias: bool = True) -> None:
        super().__init__()
        self.convolution = CONVOLUTIONS[dims](channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        transposed = conv_transpose2d if x.ndim == 4 else conv_transpose3d
        y: Tensor = transposed(x, added_up(self.convolution.weight), self.convolution.bias, stride=2, padding=1)
        return y


def added_up(weight: Tensor) -> Tensor:
    """Weights (C2, C, 3, 3[, 3]) of the convolution -> (C, C2, 4, 4[, 4]) of the transposed one: w2, w1 + w2, w0 + w1,
    w0 along each axis."""
    w = weight.movedim(1, -1)  # channels innermost, so that whole rows of them are added
    for axis in range(1, w.ndim - 1):
        w0, w1, w2 = w.unbind(axis)
        w = torch.stack([w2, w1 + w2, w0 + w1, w0], axis)
    return w.movedim(-1, 0)


class Narrowing(nn.Module):
    """x (B, C, H, W) -> (B, C2, H, W) with few channels C2: `convolution`, of odd side with a reflected border.

    One output channel uses one lane of a processor's sixteen. In training the products with each of side^2 weights are
    therefore channels of their own, made by a 1 x 1 convolution, then shifted and added. At work it is the convolution
    itself, an operator that every exported format knows.
    """

    def __init__(self, channels: int, out_channels: int, side: int) -> None:
        super().__init__()
        border = side // 2
        self.convolution = nn.Conv2d(channels, out_channels, side, padding=border, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            narrow: Tensor = self.convolution(x)
            return narrow
        weight = self.convolution.weight
        side, (height, width) = weight.shape[-1], x.shape[2:]
        each = weight.flip(2, 3).permute(0, 2, 3, 1).reshape(-1, x.shape[1], 1, 1)  # `fold` shifts the other way
        products = pad(conv2d(x, each), [side // 2] * 4, mode="reflect").flatten(2).float()
        added = fold(products, (height + 2 * side - 2, width + 2 * side - 2), side)
        return (
            added[:, :, side - 1 : 1 - side, side - 1 : 1 - side]
            + self.convolution.get_parameter("bias")[:, None, None]
        )


class Exact(nn.Conv3d):
    """A convolution of volumes (B, C, D, H, W) that learns what it should where a side is shorter than the kernel.

    On processors, PyTorch's bfloat16 (oneDNN, as of 2.13) leaves parts of the gradient of such weights unwritten:
    finite garbage, or NaN. Maps that small cost nothing in float32.
    """

    def forward(self, input: Tensor) -> Tensor:
        short = any(side < kernel for side, kernel in zip(input.shape[2:], self.kernel_size, strict=True))
        if not short or input.device.type != "cpu":
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


def exact(network: nn.Module) -> None:
    """Make all 3-D convolutions of a network `Exact`; weights and names stay."""
    for layer in network.modules():
        if type(layer) is nn.Conv3d:
            layer.__class__ = Exact
