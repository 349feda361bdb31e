"""What a model may cost: a time, or a size."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fabrica.errors import UsageError

UNITS = {"ms": ("ms", 1.0), "s": ("ms", 1000.0), "kb": ("MB", 0.001), "mb": ("MB", 1.0), "gb": ("MB", 1000.0)}


@dataclass(frozen=True)
class Budget:
    """At most so many ms for an image from file to file, or MB of a network's files. said: as it was asked."""

    said: str
    unit: str
    most: float

    def holds(self, milliseconds: float, megabytes: float) -> bool:
        """Whether this is within it."""
        return (milliseconds if self.unit == "ms" else megabytes) <= self.most


def parsed(text: str) -> Budget:
    """ "200ms", "0.2s" or "20MB" (kB and GB, too); UsageError for anything else, and for nothing."""
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(ms|s|kB|MB|GB)\s*", text, re.IGNORECASE | re.ASCII)
    number = float(found[1]) if found else 0.0
    if not found or not number:
        raise UsageError(f"budget {text!r}; expected a time for an image or a size above 0, e.g. 200ms, 0.2s or 20MB")
    unit, factor = UNITS[found[2].lower()]
    return Budget(text.strip(), unit, number * factor)
