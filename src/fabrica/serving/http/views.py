"""Images as the page draws them: slices turned as radiologists look at them, as 16-bit numbers that say what they mean
in physical units."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fabrica.geometry import as_seen, turn, upright
from fabrica.image import Float32, Image
from fabrica.inference.preview import CT_WINDOW
from fabrica.io.palette import colours, hexed

MOST = 48 * 2**20  # voxels of a view: more and the page would need a gigabyte
LEVELS = 65535


def view(image: Image) -> tuple[dict[str, Any], bytes]:
    """What the page needs to know of an image, and its values as little-endian uint16 (D, H, W, C).

    A volume's D slices are axial, from feet to head, with the patient's right on the left and the front at the top; a
    plane is turned where it says how it lies. Of more than MOST voxels each n-th row and column is left in.
    value = number * step + low, in the image's unit; C is 1, or 3 for colours.
    """
    data, spacing = image.data[:3] if image.channels in (3, 4) else image.data[:1], [1.0, 1.0, 1.0]
    if data.ndim == 4:
        turned = as_seen(data, image.affine, "LPS") if image.placed else data
        spacing = _turned_spacing(image) if image.placed else list(image.spacing)
    else:
        turned = (upright(data, image.affine) if image.placed else data)[:, None]
        spacing[1:] = image.spacing
    stride = max(1, math.ceil(math.sqrt(turned.size / MOST)))
    turned = turned[:, :, ::stride, ::stride]
    low, high = float(np.nanmin(turned)), float(np.nanmax(turned))
    whole = high - low <= LEVELS and bool(np.equal(np.rint(turned), turned).all())
    step = 1.0 if whole else (high - low) / LEVELS or 1.0
    numbers = np.empty((*turned.shape[1:], len(turned)), "<u2")
    for k in range(turned.shape[1]):  # a slice at a time: no second volume of floats
        plane = np.nan_to_num((turned[:, k] - np.float32(low)) / np.float32(step))
        numbers[k] = np.moveaxis(np.clip(np.rint(plane), 0, LEVELS), 0, -1)
    centre, width = _window(image, turned, low, high)
    meta: dict[str, Any] = {
        "shape": list(numbers.shape),
        "spacing": [spacing[0], spacing[1] * stride, spacing[2] * stride],
        "low": low,
        "step": step,
        "unit": image.unit,
        "window": [centre, width],
        "stride": stride,
    }
    if image.unit == "label":
        names = image.origin.get("labels", {}) or {int(n): str(int(n)) for n in np.unique(turned) if n}
        meta["labels"] = {str(n): [names[n], hexed(colour)] for n, colour in colours(names).items()}
    return meta, numbers.tobytes()


def _turned_spacing(image: Image) -> list[float]:
    """mm of the turned volume (D, H, W)."""
    axes, _ = turn(image.affine, "LPS")
    return [image.spacing[axis - 1] for axis in axes]


def _window(image: Image, values: Float32, low: float, high: float) -> tuple[float, float]:
    """Centre and width in physical units: the image's own, else what holds nearly all of its values."""
    if "window" in image.origin:
        centre, width = image.origin["window"]
        return float(centre), float(width)
    if image.unit == "HU":
        return CT_WINDOW
    sample = values[:, :: max(1, values.shape[1] // 16)]
    low, high = (float(v) for v in np.nanpercentile(sample, [0.5, 99.5]))
    return (low + high) / 2, max(high - low, 1e-6)
