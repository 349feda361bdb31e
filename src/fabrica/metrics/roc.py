"""How well a score tells two groups apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata


def area_under_curve(positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """The area under the ROC curve of scores (P,) and (N,): the chance that a positive one is the higher, ties counting
    half (Hanley and McNeil 1982). NaN where either group is empty."""
    one, other = np.asarray(positive), np.asarray(negative)
    if not len(one) or not len(other):
        return float("nan")
    ranks = rankdata(np.concatenate([one, other]))[: len(one)].sum()
    return float((ranks - len(one) * (len(one) + 1) / 2) / (len(one) * len(other)))
