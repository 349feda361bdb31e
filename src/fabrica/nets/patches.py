"""Patches of pixels as channels, so that a network sees a smaller image: pixel unshuffle in 2-D and 3-D."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor


def folded(x: Tensor, patch: int) -> Tensor:
    """(B, C, *S) -> (B, C * patch**dims, *S / patch): each patch of pixels becomes channels (pixel unshuffle)."""
    apart, together, sides = patterns(x.ndim - 2, patch)
    return rearrange(x, f"b c {apart} -> b (c {together}", **sides)


def unfolded(x: Tensor, patch: int) -> Tensor:
    """The inverse of `folded`."""
    apart, together, sides = patterns(x.ndim - 2, patch)
    return rearrange(x, f"b (c {together} -> b c {apart}", **sides)


def patterns(dims: int, patch: int) -> tuple[str, str, dict[str, int]]:
    """The einops patterns of pixels in space, "(h ph) (w pw)", and in channels, "ph pw) h w", and the sides."""
    axes = "hwd"[:dims]
    apart = " ".join(f"({a} p{a})" for a in axes)
    together = " ".join(f"p{a}" for a in axes) + ") " + " ".join(axes)
    return apart, together, {f"p{a}": patch for a in axes}
