"""Patches of pixels as channels, so that a network sees a smaller image: pixel unshuffle in 2-D and 3-D."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor


def pixel_unshuffle(x: Tensor, patch: int) -> Tensor:
    """(B, C, *S) -> (B, C * patch**dims, *S / patch): each patch of pixels becomes channels (pixel unshuffle)."""
    image, channels, sides = patterns(x.ndim - 2, patch)
    return rearrange(x, f"{image} -> {channels}", **sides)


def pixel_shuffle(x: Tensor, patch: int) -> Tensor:
    """The inverse of `pixel_unshuffle`."""
    image, channels, sides = patterns(x.ndim - 2, patch)
    return rearrange(x, f"{channels} -> {image}", **sides)


def patterns(dims: int, patch: int) -> tuple[str, str, dict[str, int]]:
    """The einops patterns of pixels in space, "b c (h ph) (w pw)", in channels, "b (c ph pw) h w", and the sides."""
    axes, within = "hwd"[:dims], [f"p{a}" for a in "hwd"[:dims]]
    image = " ".join(f"({a} {p})" for a, p in zip(axes, within, strict=True))
    return f"b c {image}", f"b (c {' '.join(within)}) {' '.join(axes)}", dict.fromkeys(within, patch)
