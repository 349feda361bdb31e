"""Padding: stored values that are no measurement, which scanners put where nothing was measured."""

from __future__ import annotations


def padding(first: int | None, last: int | None, bits: int, signed: bool, inverted: bool) -> tuple[int, int] | None:
    """The lowest and the highest of them (PS3.3 C.7.5.1.1.2); None without, and where that is 0 and nothing lower can
    be stored.

    first, last    PixelPaddingValue, and PixelPaddingRangeLimit where a header has one.
    bits, signed   of stored values (BitsAllocated, PixelRepresentation).
    inverted       whether low values are shown bright (MONOCHROME1).
    """
    if first is None:
        return None
    low, high = sorted(_as_stored(value, bits, signed) for value in (first, first if last is None else last))
    return None if (low, high) == (0, 0) and not signed and not inverted else (low, high)


def _as_stored(value: int, bits: int, signed: bool) -> int:
    """A value that was written with the other signedness than the pixels have."""
    if signed and value >= 2 ** (bits - 1):
        return value - int(2**bits)
    return value + int(2**bits) if value < 0 and not signed else value
