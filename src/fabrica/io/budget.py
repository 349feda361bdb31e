"""How much memory one file may ask for: checked before anything is decoded."""

from __future__ import annotations

from pathlib import Path

from fabrica.errors import ReadError

DEFAULT_BUDGET = 2 * 2**30
"""Bytes of decoded data per file. A small file can decode to gigabytes by mistake or by malice."""


def check(nbytes: int, budget: int, what: str, path: Path) -> None:
    """Raise ReadError when `what` ("48 frames of 512 x 512") of `path` needs more than `budget` bytes."""
    if nbytes > budget:
        raise ReadError(
            f"{path}: {what} needs {_size(nbytes)} of memory, more than the budget of {_size(budget)}; "
            "raise the budget if the file can be trusted"
        )


def _size(nbytes: int) -> str:
    """1536 -> "1.5 kB", in steps of 1024."""
    value = float(nbytes)
    for unit in ("bytes", "kB", "MB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:,.1f} GB"
