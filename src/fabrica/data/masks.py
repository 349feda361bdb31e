"""The masks that images are told: label maps, from files of several habits to what a network is shown."""

from __future__ import annotations

import numpy as np

from fabrica.errors import UsageError
from fabrica.image import Image, name

CLASSES = 64  # label maps have fewer


def as_labels(mask: Image) -> Image:
    """A mask as a label map (1, *S): whole numbers below CLASSES as they are; 0 and one larger number, 255 in pictures
    of black and white, as 0 and 1. Raises UsageError for anything else."""
    values = np.rint(mask.data)
    if mask.channels != 1 or not np.isfinite(values).all() or values.min() < 0:
        found = f"{mask.channels} channels" if mask.channels != 1 else "values below 0, or none at all"
        raise UsageError(f"mask {name(mask)} has {found}; expected a label map: one channel of whole numbers from 0")
    if values.max() >= CLASSES:
        if not np.isin(values, (0, values.max())).all():
            raise UsageError(
                f"mask {name(mask)} has values up to {values.max():g}; expected a label map of whole numbers below "
                f"{CLASSES}, or black and white: number its labels anew"
            )
        values = np.minimum(values, 1)
    return Image(values.astype(np.float32), mask.affine, "label", mask.origin)
