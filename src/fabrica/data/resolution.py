"""How many times smaller than its grid a degraded image is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

FACTORS = (2, 4)  # of the step "downsample"; the first unless it says another


def scale(steps: Sequence[Mapping[str, Any]]) -> int:
    """Along each axis: the product of all factors of a degradation's steps (see `fabrica.data.degrade`)."""
    return math.prod(int(step.get("factor", FACTORS[0])) for step in steps if step["name"] == "downsample")
