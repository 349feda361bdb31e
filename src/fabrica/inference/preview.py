"""A result at a glance, beside its source."""

from __future__ import annotations

import numpy as np

from fabrica import io
from fabrica.image import Image
from fabrica.inference.translator import Applied
from fabrica.io.contact_sheet import Uint8, reduced

CT_WINDOW = (250.0, 2500.0)  # centre and width in HU: air to dense bone, for previews
LONGEST = 512  # pixels of a side: at a glance no more is seen, and a PNG takes longer than the network


def preview(image: Image, found: Applied) -> Uint8:
    """The middle slices of source, result and maps side by side, at most LONGEST pixels a side each, maps from 0 to
    nearly their largest value; CT made of CT in one window, the source's own."""
    own = image.origin.get("window") if image.unit == "HU" else None
    window = (own or CT_WINDOW) if found.result.unit == "HU" else None
    tiles = [io.to_display(image, window if image.unit == "HU" else None), io.to_display(found.result, window)]
    for each in (found.uncertainty, found.round_trip):
        if each is not None:
            brightest = float(np.quantile(each.data, 0.999)) or 1.0
            tiles.append(io.to_display(each, (brightest / 2, brightest)))
    finer = len(tiles[1]) // len(tiles[0])  # of a model that adds resolution
    tiles[0] = tiles[0].repeat(finer, 0).repeat(finer, 1)
    return np.concatenate([reduced(tile, LONGEST) for tile in tiles], axis=1)
