"""Networks without their norms, for work: what a norm does to each channel goes into the convolution beside it.

Batch norm at work multiplies each channel by a number and adds another. A convolution before it, or a 1 x 1 convolution
behind it, can do so itself: fewer passes over memory, and only operators that INT8 knows.
"""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from fabrica.nets.convolutions import Doubling

N = TypeVar("N", bound=nn.Module)
Convolution = nn.Conv2d | nn.Conv3d
Norm = nn.BatchNorm2d | nn.BatchNorm3d


@torch.no_grad()
def fused(net: N) -> N:
    """The same network, for work from here on: equal to rounding, its norms are part of its convolutions.

    Folded is what stands side by side in an nn.Sequential: a norm behind a convolution, or before one of side 1 (a
    larger one pads with zeros that the norm would have moved).
    """
    net.eval().requires_grad_(False)
    for part in [module for module in net.modules() if isinstance(module, nn.Sequential)]:
        layers = list(part)
        k = 0
        while k + 1 < len(layers):
            first, second = layers[k], layers[k + 1]
            if isinstance(second, nn.BatchNorm2d | nn.BatchNorm3d) and (convolution := _convolution(first)):
                _behind(convolution, *_numbers(second))
                del layers[k + 1]
            elif (
                isinstance(first, nn.BatchNorm2d | nn.BatchNorm3d)
                and (convolution := _convolution(second))
                and _pointwise(convolution)
            ):
                _before(convolution, *_numbers(first))
                del layers[k]
            else:
                k += 1
        if len(layers) < len(part):  # else its layers keep their names, by which weights are known
            part._modules.clear()
            part.extend(layers)
    return net


def _convolution(layer: nn.Module) -> Convolution | None:
    layer = layer.convolution if isinstance(layer, Doubling) else layer
    return layer if isinstance(layer, nn.Conv2d | nn.Conv3d) else None


def _pointwise(convolution: Convolution) -> bool:
    return max(convolution.kernel_size) == 1 and convolution.groups == 1


def _numbers(norm: Norm) -> tuple[Tensor, Tensor]:
    """What a channel is multiplied by, and what is then added, each (C,)."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    factor = norm.weight * torch.rsqrt(variance + norm.eps)
    return factor, norm.bias - factor * mean


def _behind(convolution: Convolution, factor: Tensor, added: Tensor) -> None:
    bias = torch.zeros_like(added) if convolution.bias is None else convolution.bias
    convolution.weight.mul_(factor.view(-1, *[1] * (convolution.weight.ndim - 1)))
    convolution.bias = nn.Parameter(factor * bias + added, requires_grad=False)


def _before(convolution: Convolution, factor: Tensor, added: Tensor) -> None:
    more = convolution.weight.flatten(1) @ added
    bias = torch.zeros_like(more) if convolution.bias is None else convolution.bias
    convolution.bias = nn.Parameter(bias + more, requires_grad=False)
    convolution.weight.mul_(factor.view(1, -1, *[1] * (convolution.weight.ndim - 2)))
