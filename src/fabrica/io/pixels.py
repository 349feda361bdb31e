"""From the samples of a picture file to an Image: channels first, needless channels dropped, range declared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.image import Array, Image
from fabrica.io.marks import origin_from, place_from

_CUSTOMARY_DPI = (72, 75, 96, 100, 120, 144, 150, 200, 240, 300, 400, 600, 1200)


@dataclass
class Pixels:
    """What a picture decoder found.

    samples  (H, W, C), or (D, H, W, C) for the pages of a TIFF; the file's own number type.
    top      the highest storable value, or None where the format does not say (floating point).
    alpha    the last channel is opacity.
    text     the marks beside the pixels, see `fabrica.io.marks`.
    spacing  mm between rows and between columns where the file declares a physical unit.
    turn     EXIF's Orientation, 1 to 8: how the stored rows and columns are to be shown (CIPA DC-008, 4.6.5).
    """

    samples: Array
    top: int | None
    alpha: bool = False
    text: dict[str, str] = field(default_factory=dict)
    spacing: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)
    turn: int = 1


def to_image(pixels: Pixels, path: Path) -> Image:
    """Pixels -> Image (C, H, W) or (C, D, H, W), format "raster", unit "arbitrary" unless a mark says otherwise."""
    pixels = _upright(pixels)
    place = place_from(pixels.text) if pixels.turn == 1 else {}  # who turned it did not know of the place
    notes = list(pixels.notes)
    samples = _lean(pixels, keep=place.get("channels"), notes=notes)
    if place.get("dimensions") == 3 and samples.ndim == 3:
        samples = samples[None]
    data = np.ascontiguousarray(np.moveaxis(samples, -1, 0), dtype=np.float32)
    origin: dict[str, Any] = {"path": str(path), "format": "raster"}
    origin |= number_range(pixels.samples.dtype, pixels.top) | origin_from(pixels.text)
    affine = place.get("affine")
    if affine is None:
        affine = np.eye(4)
        if pixels.spacing is not None:
            affine[0, 0], affine[1, 1] = pixels.spacing[1], pixels.spacing[0]
            notes.append(f"spacing {pixels.spacing[0]:.4g} x {pixels.spacing[1]:.4g} mm from the resolution tag")
    if notes:
        origin["notes"] = tuple(notes)
    return Image(data, affine, place.get("unit", "arbitrary"), origin)


def _upright(pixels: Pixels) -> Pixels:
    """The samples as every viewer shows them. Masks and images of one camera may be stored in different turns."""
    if not 2 <= pixels.turn <= 8:
        return replace(pixels, turn=1)
    samples, spacing = pixels.samples, pixels.spacing
    if pixels.turn >= 5:  # stored column by column
        samples, spacing = samples.swapaxes(-3, -2), spacing and (spacing[1], spacing[0])
    if pixels.turn in (3, 4, 7, 8):
        samples = samples[..., ::-1, :, :]
    if pixels.turn in (2, 3, 6, 7):
        samples = samples[..., :, ::-1, :]
    note = f"turned upright, as its EXIF orientation {pixels.turn} says"
    return replace(pixels, samples=samples, spacing=spacing, notes=[*pixels.notes, note])


def number_range(dtype: np.dtype[Any], top: int | None = None) -> dict[str, Any]:
    """origin's "range" and "step" for values stored as `dtype`: only 8- and 16-bit integers declare a range.

    Wider integers and floating point are a convenience of whoever wrote the file and say nothing about the values.
    """
    if dtype.kind == "b":
        return {"range": (0.0, 1.0), "step": 1.0}
    if dtype.kind not in "iu":
        return {}
    if dtype.itemsize > 2:
        return {"step": 1.0}
    limits = np.iinfo(dtype)
    return {"range": (float(limits.min), float(limits.max if top is None else top)), "step": 1.0}


def physical_spacing(rows_per_metre: float, columns_per_metre: float) -> tuple[float, float] | None:
    """mm between rows and columns, or None where the figures are a screen's or printer's dots per inch.

    Most programs write their default resolution into every picture; taking 72 dpi for millimetres would give each
    64-pixel thumbnail a patient 2 cm wide.
    """
    for density in (rows_per_metre, columns_per_metre):
        dpi = density * 0.0254
        if not 0 < density < 1e9 or any(abs(dpi - known) < 0.02 for known in _CUSTOMARY_DPI):
            return None
    return 1000.0 / rows_per_metre, 1000.0 / columns_per_metre


def _lean(pixels: Pixels, keep: object, notes: list[str]) -> Array:
    """Drop an opacity that never varies, and two of three equal colour channels (unless `keep` channels are due)."""
    samples = pixels.samples
    if pixels.alpha and samples.shape[-1] in (2, 4) and samples.shape[-1] != keep:
        opacity = samples[..., -1]
        if opacity.size and (opacity == opacity.flat[0]).all():
            samples = samples[..., :-1]
            notes.append("constant alpha channel dropped")
        else:
            notes.append("alpha varies: kept as the last channel")
    if samples.shape[-1] == 3 and keep != 3:
        first = samples[..., 0]
        if np.array_equal(first, samples[..., 1]) and np.array_equal(first, samples[..., 2]):
            samples = samples[..., :1]
            notes.append("three equal colour channels reduced to one")
    return samples
