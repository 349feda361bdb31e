"""Two rates measured in turn, so that the machine's mood cancels out."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def told(pairs: Sequence[tuple[float, float]], digits: int) -> str:
    """The median ratio of pairs of images/s, and in brackets the median of each side."""
    ratio = median(a / b for a, b in pairs)
    ours, theirs = median(a for a, _ in pairs), median(b for _, b in pairs)
    return f"{ratio:.2f} x ({ours:.{digits}f} / {theirs:.{digits}f} images/s)"
