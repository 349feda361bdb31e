"""Does a map light up where something is? Of maps and areas on the same grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter

from fabrica.image import Bools, Float32, Float64
from fabrica.metrics.roc import area_under_curve

SMOOTHED = 3  # pixels of the mean in which the highest place is looked for: noise has peaks of one


@dataclass(frozen=True)
class Located:
    """How well one map (*S) says where an area is.

    area_under_curve  the chance that a pixel of the area is brighter in the map than one outside, ties half: 0.5 knows
                      nothing of it.
    hit               whether the highest place lies in the area or next to it (the pointing game: Zhang et al. 2018,
                      IJCV 126, section 5.1).
    chance            the share of all places that would be such a hit.
    """

    area_under_curve: float
    hit: bool
    chance: float


def located(values: Float32 | Float64, area: Bools) -> Located:
    """How well a map of values (*S), all 0 or more, says where the area (*S) is, which is neither empty nor all."""
    smooth = uniform_filter(np.asarray(values, dtype=np.float64), SMOOTHED, mode="nearest")
    near = uniform_filter(area.astype(np.float64), SMOOTHED, mode="constant") > 1e-9
    hit = bool(near[np.unravel_index(int(smooth.argmax()), smooth.shape)])
    return Located(area_under_curve(values[area], values[~area]), hit, float(near.mean()))
