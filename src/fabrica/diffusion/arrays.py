"""What mathematics that PyTorch and NumPy share asks of arrays beyond arithmetic: exported models draw where PyTorch is
not installed. Both know the functions used there under the same names."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

Array = Any
"""A NumPy array or a PyTorch tensor; of what one function is given, all are of one kind."""


def namespace(x: Array) -> Any:
    """The package whose functions take x."""
    return np if isinstance(x, np.ndarray | np.generic) else sys.modules["torch"]


def like(x: Array, values: Any) -> Array:
    """NumPy's values as an array of the kind of x, where x lies."""
    return values if namespace(x) is np else sys.modules["torch"].from_numpy(values).to(x.device)


def full(count: int, value: float, x: Array) -> Array:
    """(count,) float32, all of one value, where x lies."""
    return like(x, np.full(count, value, dtype=np.float32))


def parts(x: Array, axis: int, count: int) -> list[Array]:
    """What lies in each of `count` places of one size along an axis; where these are no whole numbers of values,
    neighbours share some."""
    side, before = x.shape[axis], (slice(None),) * axis
    return [x[(*before, slice(k * side // count, -(-(k + 1) * side // count)))] for k in range(count)]
