"""A method's networks in operators that every runtime knows and computes fast: the same values by other layers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

from fabrica.methods import Method
from fabrica.nets.convolutions import TRANSPOSED, Doubling, added_up
from fabrica.nets.nafnet import Gate, product
from fabrica.nets.upsampling import Doubled


def plain(method: Method) -> Method:
    """A copy in float32 on the processor, of operators that every runtime knows."""
    twin = copy.deepcopy(method).to("cpu", torch.float32).eval().requires_grad_(False)
    for parent in list(twin.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, Doubling):
                setattr(parent, name, _doubling(layer.convolution))
            if isinstance(layer, Doubled):
                setattr(parent, name, _Untold(_doubling(cast(Any, layer.postconv).conv)))
            if isinstance(layer, nn.Sequential) and any(isinstance(each, Gate) for each in layer):
                setattr(parent, name, _ungated(layer))
    return twin


def _doubling(convolution: Any) -> nn.Module:
    """Repeated pixels and this convolution: in 2-D as a convolution whose channels are then shuffled into pixels, in
    3-D as the transposed convolution that they are; its weights are added up once. It is 4/9 of the multiplications in
    2-D."""
    weight, bias = added_up(convolution.weight).contiguous(), convolution.bias
    channels, out_channels, *sides = weight.shape
    if len(sides) == 2:
        return _Shuffled(weight, bias)
    made: nn.Module = TRANSPOSED[len(sides)](
        channels, out_channels, tuple(sides), stride=2, padding=1, bias=bias is not None
    )
    made.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return made.requires_grad_(False)


class _Shuffled(nn.Module):
    """x (B, C, H, W) -> (B, C2, 2 H, 2 W): a transposed convolution of side 4 and stride 2 as an ordinary one of side
    2, whose outputs are the four pixels of a square, shifted by one.

    weight (C, C2, 4, 4), added up. Along an axis, output 2i is w3 x[i-1] + w1 x[i] of it, output 2i + 1 is w2 x[i] +
    w0 x[i+1]: both of two neighbours, so one convolution gives them all. No multiplication is added, and ONNX Runtime
    has it in INT8, which of transposed ones it has not.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        channels, out_channels = weight.shape[:2]
        taps = ([2, 0], [3, 1])  # of the second and the first pixel: the border of one moves the square by a pixel
        squares = [weight[:, :, rows][:, :, :, columns] for rows in taps for columns in taps]
        self.convolution = nn.Conv2d(channels, 4 * out_channels, 2, padding=1, bias=bias is not None)
        own = torch.stack(squares, 2).transpose(0, 1).transpose(1, 2)  # (C2, 4, C, 2, 2)
        state = {"weight": own.reshape(-1, channels, 2, 2).contiguous()}
        state |= {} if bias is None else {"bias": bias.repeat_interleave(4)}
        self.convolution.load_state_dict(state)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return pixel_shuffle(self.convolution(x), 2)[..., 1:-1, 1:-1]


def _ungated(layers: nn.Sequential) -> nn.Sequential:
    """With each gate and the convolutions before it as a product of two branches, one for each half of the channels: no
    runtime cuts channels in two without copying them, which in INT8 takes as long as the convolutions."""
    found = list(layers)
    for k in [k for k, layer in enumerate(found) if isinstance(layer, Gate)][::-1]:
        first = k
        while first and _is_of_channels(found[first - 1]):
            first -= 1
        before = [cast(nn.Conv2d, layer) for layer in found[first:k]]
        if before and before[0].groups == 1 and all(layer.groups > 1 for layer in before[1:]):
            found[first : k + 1] = [_Product([_half(layer, side) for layer in before] for side in (0, 1))]
    return nn.Sequential(*found)


def _is_of_channels(layer: nn.Module) -> bool:
    """Whether half of what a convolution gives needs half of it: one of all channels, or of each by itself."""
    return isinstance(layer, nn.Conv2d) and layer.groups in (1, layer.out_channels)


def _half(layer: nn.Conv2d, side: int) -> nn.Conv2d:
    """The convolution that gives the first half of its channels, or the second one."""
    out, apart = layer.out_channels // 2, layer.groups > 1
    made = nn.Conv2d(
        out if apart else layer.in_channels, out, cast(Any, layer.kernel_size), cast(Any, layer.stride),
        cast(Any, layer.padding), groups=out if apart else 1, bias=layer.bias is not None,
    )  # fmt: skip
    made.load_state_dict({name: values.chunk(2)[side] for name, values in layer.state_dict().items()})
    return made.requires_grad_(False)


class _Product(nn.Module):
    """What two branches make of the same, one times the other, as a `Gate` gives it."""

    def __init__(self, branches: Iterable[Sequence[nn.Module]]) -> None:
        super().__init__()
        self.one, self.other = (nn.Sequential(*layers) for layers in branches)

    def forward(self, x: Tensor) -> Tensor:
        return product(self.one(x), self.other(x))


class _Untold(nn.Module):
    """One layer of a denoiser whose others are told the time: this one is told, too, and does not listen."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        made: Tensor = self.layer(x)
        return made
