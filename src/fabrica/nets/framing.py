"""What stands around a network: sides that its strides need, values that it works with, the image that it corrects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from fabrica.errors import UsageError

Span = tuple[float, float]
OURS: Span = (-1.0, 1.0)


def padded_to(x: Tensor, multiple: int | Sequence[int]) -> Tensor:
    """(B, C, *S) with sides padded to multiples, one for all axes or one each, half at each end, by repeating the
    border's pixels."""
    each = [multiple] * (x.ndim - 2) if isinstance(multiple, int) else multiple
    after = [-side % n for side, n in zip(x.shape[:1:-1], each[::-1], strict=True)]  # last axis first, as `pad` has it
    if not torch.compiler.is_exporting() and not any(after):  # a graph may meet others, and pads by nothing as well
        return x
    return pad(x, [part for more in after for part in (more // 2, more - more // 2)], mode="replicate")


def cropped_to(y: Tensor, x: Tensor) -> Tensor:
    """The middle of y (B, C2, *T) that `padded_to` left of x (B, C, *S)."""
    return inner(y, x.shape[2:])


def inner(y: Tensor, size: Sequence[int]) -> Tensor:
    """The middle of y (B, C, *T) that `padded_to` made of images of this size."""
    starts = [(large - small) // 2 for large, small in zip(y.shape[2:], size, strict=True)]
    return y[(slice(None), slice(None), *(slice(k, k + side) for k, side in zip(starts, size, strict=True)))]


def moved(x: Tensor, of: Span, to: Span) -> Tensor:
    """x on the line that takes the ends of one span to those of the other."""
    return x if of == to else (x - of[0]) * ((to[1] - to[0]) / (of[1] - of[0])) + to[0]


def middle_of(x: Tensor, like: Tensor, auxiliary: int = 0) -> Tensor:
    """The middle C2 channels of x (B, C, *S), as many as `like` has: of 3 neighbouring slices the second one. The last
    `auxiliary` channels show something else, and do not count."""
    before = (x.shape[1] - auxiliary - like.shape[1]) // 2
    return x[:, before : before + like.shape[1]]


def refuse_more(name: str, channels: int, out_channels: int) -> None:
    """UsageError for a network that corrects its input and shall give more channels than it sees."""
    if out_channels > channels:
        raise UsageError(
            f"{name} corrects the images it sees, {channels} channel(s), and cannot give {out_channels}; "
            "take a translator, e.g. method.name=pix2pix"
        )
