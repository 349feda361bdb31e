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
    scaled = np.clip((plane.astype(np.float64) - low) * (255.0 / (high - low)), 0, 255)
    pixels: Uint8 = np.rint(np.nan_to_num(scaled)).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1) if colour else pixels[0])


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
