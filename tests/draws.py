"""How many examples a property is tried on: as many as its test says, or in `make test` a share of them, TEST_SHARE."""

from __future__ import annotations

import os

SHARE = float(os.environ.get("TEST_SHARE", "1"))


def draws(count: int) -> int:
    return max(5, round(SHARE * count))
