"""MONAI's layers that double resolution, computed as `fabrica.nets.convolutions.Doubling` computes it: in 4/9 of the
multiplications (8/27 in 3-D), the same to rounding, under the same names."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from monai.networks.blocks.upsample import Upsample
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, conv_transpose3d

from fabrica.nets.convolutions import added_up

SIDE = 4  # of the transposed convolution


class Doubled(Upsample):  # type: ignore[misc]  # MONAI's types are not followed
    """x (B, C, *S) -> (B, C, 2 *S). `emb` is what the denoisers of MONAI hand every layer."""

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        convolution = cast(Any, self.postconv).conv
        transposed = conv_transpose2d if x.ndim == 4 else conv_transpose3d
        weight, bias = added_up(convolution.weight), convolution.bias
        if x.ndim == 5 and x.device.type == "cpu" and min(x.shape[2:]) < SIDE:  # for the reason of `convolutions.Exact`
            with torch.autocast("cpu", enabled=False):
                return transposed(x.to(weight.dtype), weight, bias, stride=2, padding=1)
        return transposed(x, weight, bias, stride=2, padding=1)


def doubled(network: nn.Module) -> None:
    """Make all layers of a network `Doubled` that repeat pixels, then convolve with side 3; weights and names stay."""
    for layer in network.modules():
        if isinstance(layer, Upsample) and _repeats(layer):
            layer.__class__ = Doubled


def _repeats(layer: Upsample) -> bool:
    if list(layer._modules) != ["upsample_non_trainable", "postconv"]:
        return False
    repeated, convolution = cast(nn.Upsample, layer[0]), cast(Any, layer[1]).conv
    scales = np.ravel(cast(Any, repeated.scale_factor))
    same = {*convolution.kernel_size} == {3} and {*convolution.padding} == {1} and {*convolution.stride} == {1}
    return repeated.mode == "nearest" and {*scales} == {2.0} and same and convolution.groups == 1
