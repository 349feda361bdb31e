"""From an Image to a picture for people: one slice, upright, windowed to 8 bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fabrica.geometry import upright
from fabrica.image import Array, Image

Uint8 = npt.NDArray[np.uint8]
Window = tuple[float, float]


def to_display(image: Image, window: Window | None = None) -> Uint8:
    """uint8 (H, W), or (H, W, 3) for an image of three or four channels.

    A volume shows its middle slice along the array's first axis, turned as radiologists look at it: anterior at
    the top of an axial slice, head at the top of the others, the patient's right on the left, and anterior on the
    left of a sagittal slice. A plane of a volume format is turned alike. Pictures, 2-D DICOM and whatever has no place
    in a patient (`Image.placed`) stay as stored.

    window  (centre, width) in physical units; by default origin's, else a declared 8-bit range, else the 0.5th to
            99.5th percentile of what is shown.
    """
    colour = image.channels in (3, 4)
    data = image.data[:3] if colour else image.data[:1]
    if data.ndim == 4:
        middle = data[:, data.shape[1] // 2]
        plane = upright(middle, image.affine) if image.placed else middle
    else:
        plane = upright(data, image.affine) if image.placed else data
    low, high = _limits(image, plane, window)
    scaled = np.subtract(plane, low, dtype=np.float64)
    scaled *= 255.0 / (high - low)
    np.clip(scaled, 0, 255, out=scaled)
    scaled[np.isnan(scaled)] = 0
    pixels: Uint8 = np.rint(scaled, out=scaled).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1) if colour else pixels[0])


def tones(values: Array, limits: Window) -> Uint8:
    """Values (C, H, W) from black to white as uint8 (H, W), of three channels (H, W, 3). limits: the lowest and the
    highest; where these are one, that is black."""
    low, high = limits
    tile = np.round(255 * np.clip((values - low) / ((high - low) or 1.0), 0, 1)).astype(np.uint8)
    return tile[0] if len(tile) != 3 else np.moveaxis(tile, 0, -1)


# Blue below 0 and orange above it, black at 0: told apart with any colour vision, and 0 is seen to be nothing.
_BELOW, _ABOVE = ((0, 114, 178), (150, 215, 255)), ((213, 94, 0), (255, 225, 120))


def signed_colours(values: Array) -> Uint8:
    """uint8 (H, W, 3) of values (H, W), black at 0, blue to -1 and orange to 1, beyond which the ends stand."""
    size = np.clip(np.abs(np.nan_to_num(values)), 0, 1)[..., None]
    shades = []
    for half, end in (_BELOW, _ABOVE):
        low = np.multiply(size * 2, half)
        high = np.add(half, (size * 2 - 1) * np.subtract(end, half))
        shades.append(np.where(size < 0.5, low, high))
    pixels: Uint8 = np.rint(np.where(values[..., None] < 0, *shades)).astype(np.uint8)
    return pixels


def _limits(image: Image, plane: Array, window: Window | None) -> tuple[float, float]:
    window = window or image.origin.get("window")
    if window is not None:
        low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
    elif image.unit == "label":
        low, high = 0.0, float(image.data.max(initial=1.0))
    elif "range" in image.origin and image.origin["range"][1] - image.origin["range"][0] <= 255:
        low, high = image.origin["range"]
    else:
        finite = plane[np.isfinite(plane)]
        low, high = (float(v) for v in np.percentile(finite, [0.5, 99.5])) if finite.size else (0.0, 1.0)
    return (low, high) if low < high else (low, low + 1.0)
