"""From stored integers to physical values: rescale, inversion, palettes and windows, frame by frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

from fabrica.image import Array, Float32
from fabrica.io.dicom_file import attribute
from fabrica.io.dicom_pixels import value_range

_COLOUR_SPACES = {"RGB", "YBR_ICT", "YBR_RCT"}  # as decoders return them: the last two are already RGB
_RESCALE = "PixelValueTransformationSequence"


@dataclass(frozen=True)
class Physical:
    """One frame in physical units.

    data    (C, H, W).
    low, high, step  the storable range and the difference of neighbouring values (0 for floating point).
    window  (centre, width) or None.
    """

    data: Float32
    low: float
    high: float
    step: float
    window: tuple[float, float] | None


def physical(raw: Array, space: str, dataset: Dataset, frame: int, notes: list[str]) -> Physical:
    """One decoded frame, (H, W) or (H, W, 3) in colour space `space`, as physical values."""
    if space.startswith("PALETTE"):
        colours = apply_color_lut(raw, dataset)[..., :3]
        return _colour(colours, float(np.iinfo(colours.dtype).max))
    if raw.ndim == 3:
        if space not in _COLOUR_SPACES:
            raise ValueError(f"colour space {space} is not supported; expected RGB, YBR or a palette")
        return _colour(raw, max(2.0 ** int(dataset.BitsStored) - 1, float(raw.max())))
    if raw.dtype.kind == "f":
        data = raw.astype(np.float32)[None]
        return Physical(data, float(np.nanmin(data)), float(np.nanmax(data)), 0.0, _window(dataset, frame))
    return _grey(raw, space, dataset, frame, notes)


def is_hounsfield(dataset: Dataset) -> bool:
    """CT with a rescale to HU, or to a unit the file does not name (PS3.3 C.8.2.1: HU is then implied)."""
    slope = attribute(dataset, 0, _RESCALE, "RescaleSlope")
    kind = attribute(dataset, 0, _RESCALE, "RescaleType")
    return dataset.get("Modality") == "CT" and slope is not None and kind in (None, "", "HU")


def _colour(raw: Array, high: float) -> Physical:
    return Physical(np.moveaxis(raw, -1, 0).astype(np.float32), 0.0, high, 1.0, None)


def _grey(raw: Array, space: str, dataset: Dataset, frame: int, notes: list[str]) -> Physical:
    if int(dataset.BitsStored) > 24:
        _note(notes, f"{dataset.BitsStored}-bit values are rounded to the 24 bits of float32")
    if dataset.get("ModalityLUTSequence"):
        _note(notes, "a modality LUT was applied")
        values = apply_modality_lut(raw, dataset).astype(np.float64)
        low, high, step = float(values.min()), float(values.max()), 1.0
    else:
        slope, intercept = rescale(dataset, frame, notes)
        ends = sorted(v * slope + intercept for v in value_range(dataset, raw))
        values, (low, high), step = raw.astype(np.float64) * slope + intercept, ends, abs(slope)
    window = _window(dataset, frame)
    if space == "MONOCHROME1":  # bigger must mean brighter, whatever the detector stored
        _note(notes, "MONOCHROME1 was inverted: bigger values are brighter")
        values = (low + high) - values
        window = None if window is None else (low + high - window[0], window[1])
    return Physical(values.astype(np.float32)[None], low, high, step, window)


def rescale(dataset: Dataset, frame: int, notes: list[str]) -> tuple[float, float]:
    """(slope, intercept) of a frame; (1, 0) where they are absent or useless."""
    slope = _number(attribute(dataset, frame, _RESCALE, "RescaleSlope"), 1.0)
    intercept = _number(attribute(dataset, frame, _RESCALE, "RescaleIntercept"), 0.0)
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        _note(notes, f"rescale slope {slope:g} and intercept {intercept:g} are useless and were ignored")
        return 1.0, 0.0
    return slope, intercept


def _window(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    """The first VOI window (centre, width), in units after the rescale."""
    centre = _number(attribute(dataset, frame, "FrameVOILUTSequence", "WindowCenter"), math.nan)
    width = _number(attribute(dataset, frame, "FrameVOILUTSequence", "WindowWidth"), math.nan)
    return (centre, width) if math.isfinite(centre) and math.isfinite(width) and width > 0 else None


def _number(value: Any, default: float) -> float:
    """The first number of a single or multiple value, `default` where there is none."""
    if isinstance(value, str) or value is None:
        return default
    try:
        return float(value)
    except TypeError:
        return float(value[0]) if len(value) else default


def _note(notes: list[str], text: str) -> None:
    if text not in notes:
        notes.append(text)
