"""Training for INT8: a network learns while its convolutions see what 8 bits leave of values and weights.

Jacob et al. 2018 (Quantization and training of neural networks for efficient integer-arithmetic-only inference, CVPR),
section 3: values are rounded in the forward pass to the numbers that INT8 has, as eq. 12 says, and gradients go through
as if they were not (straight-through estimator; none of what lies beyond the range). Ranges of what convolutions see
are moving averages of each batch's smallest and largest value, at first observed alone, then used, at last frozen.
Weights have a scale a channel. A batch norm is rounded as part of the convolution that it will be folded into (section
3.2): behind one it only scales channels, each of which has a scale of its own, and so changes nothing; before a 1 x 1
convolution its factors multiply the weights that are rounded, and it is its input that is.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, conv_transpose3d

from fabrica.nets.convolutions import Doubling, added_up, exact

QUANTISED, FROZEN = 0.4, 0.75  # shares of a run from which values are rounded, and from which ranges no longer move
SMOOTHING = 0.98  # of the moving averages: what a batch adds is forgotten in some fifty steps
LEVELS, LARGEST = 255, 127  # of values, from 0 on; of weights, on either side of 0


def values_in_8_bits(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x, float32 of any shape, rounded to 256 numbers from low <= 0 to high >= 0, of which 0 is one (eq. 12, section
    3.1). The gradient is that of x within the range, and 0 beyond it."""
    scale = ((high - low) / LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
    zero = (-low / scale).round().clamp(0, LEVELS).int()
    rounded: Tensor = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, LEVELS)
    return rounded


def weights_in_8_bits(weight: Tensor, axis: int = 0) -> Tensor:
    """Weights, float32, rounded to 255 numbers around 0, whose scale is that of their output channel, along `axis`."""
    others = [k for k in range(weight.ndim) if k != axis]
    scale = (weight.detach().abs().amax(others) / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    rounded: Tensor = torch.fake_quantize_per_channel_affine(weight, scale, zero, axis, -LARGEST, LARGEST)
    return rounded


class Range(nn.Module):
    """What one tensor of a network ranges over; the tensor rounded to it, once that has begun."""

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.rounds = self.frozen = False

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not self.frozen:
            self._observe(x.detach())
        return values_in_8_bits(x.float(), self.low, self.high) if self.rounds and bool(self.seen) else x

    @torch.no_grad()
    def _observe(self, x: Tensor) -> None:
        low, high = (each.float() for each in x.aminmax())
        share = SMOOTHING if bool(self.seen) else 0.0
        self.low.mul_(share).add_((1 - share) * low.clamp(max=0))
        self.high.mul_(share).add_((1 - share) * high.clamp(min=0))
        self.seen.add_(1)


def prepare(network: nn.Module) -> nn.ModuleList:
    """Have the convolutions of a network see what INT8 leaves; weights and their names stay. The last one stays float
    when it is exported: of it only what it sees is rounded. Returns the ranges, to be kept with what is trained."""
    exact(network)
    norms = _before(network)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d)]
    doubled = {id(layer.convolution): layer for layer in network.modules() if isinstance(layer, Doubling)}
    ranges = nn.ModuleList()
    for layer in layers:
        own: nn.Module = doubled.get(id(layer), layer)
        norm = norms.get(id(layer))
        ranges.append(Range())
        _become(own, _Doubling if own is not layer else _Convolution, range=None if norm else ranges[-1], norm=norm)
        if norm is not None:
            _become(norm, _Norm, range=ranges[-1])
    layers[-1].__dict__["last"] = True
    return ranges


def pace(ranges: nn.Module, done: float) -> None:
    """Tell ranges how much of a run is done, 0 to 1."""
    for each in ranges.modules():
        if isinstance(each, Range):
            each.rounds, each.frozen = done >= QUANTISED, done >= FROZEN


def settled(ranges: nn.Module) -> bool:
    """Whether the ranges no longer move: what is judged from here on is what will be exported."""
    return all(each.frozen for each in ranges.modules() if isinstance(each, Range))


class _Convolution(nn.Module):
    """What a convolution becomes; `range` is of what it sees, `norm` a batch norm before it."""

    range: Range | None
    norm: nn.BatchNorm2d | nn.BatchNorm3d | None
    last: bool = False

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.range is not None:
            x = self.range(x)
        made: Tensor = super()._conv_forward(x, self._rounded(weight), bias)  # type: ignore[misc]
        return made

    def _rounded(self, weight: Tensor) -> Tensor:
        if self.last or not _of(self).rounds:
            return weight
        if self.norm is None or self.norm.running_var is None:
            return weights_in_8_bits(weight)
        factor = self.norm.weight.detach() * torch.rsqrt(self.norm.running_var + self.norm.eps)
        factor = torch.where(factor.abs() < 1e-6, 1e-6, factor).view(1, -1, *[1] * (weight.ndim - 2))
        return weights_in_8_bits(weight * factor) / factor


class _Doubling(nn.Module):
    convolution: nn.Conv2d | nn.Conv3d
    range: Range

    def forward(self, x: Tensor) -> Tensor:
        weight = added_up(self.convolution.weight)
        if self.range.rounds:
            weight = weights_in_8_bits(weight, axis=1)
        transposed = conv_transpose2d if x.ndim == 4 else conv_transpose3d
        made: Tensor = transposed(self.range(x), weight, self.convolution.bias, stride=2, padding=1)
        return made


class _Norm(nn.Module):
    range: Range

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = super().forward(self.range(x))
        return made


def _of(layer: _Convolution) -> Range:
    found = layer.range if layer.range is not None else layer.norm.__dict__["range"]
    assert isinstance(found, Range)
    return found


def _become(layer: nn.Module, kind: type[nn.Module], **parts: Any) -> None:
    """Have a layer do as `kind` does, over what it is. Its parts are no children: it owns no more weights than before,
    and a copy of the network shares what the method keeps beside it."""
    layer.__class__ = type(kind.__name__, (kind, type(layer)), {})
    layer.__dict__.update(parts)


def _before(network: nn.Module) -> dict[int, Any]:
    """Convolutions of side 1, by id, with the norm that `fabrica.nets.fusing.fused` folds into them."""
    found: dict[int, Any] = {}
    for part in network.modules():
        layers = list(part) if isinstance(part, nn.Sequential) else []
        for k, (norm, layer) in enumerate(pairwise(layers)):
            behind = k > 0 and isinstance(layers[k - 1], nn.Conv2d | nn.Conv3d | Doubling)
            if (
                isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d)
                and isinstance(layer, nn.Conv2d | nn.Conv3d)
                and max(layer.kernel_size) == layer.groups == 1
                and not behind
            ):
                found[id(layer)] = norm
    return found
