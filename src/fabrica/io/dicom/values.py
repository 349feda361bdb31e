"""From stored integers to physical values: rescale, inversion, palettes and windows, frame by frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

from fabrica.image import Array, Float32
from fabrica.io.dicom.file import attribute
from fabrica.io.dicom.kinds import LABEL_MAP, SEGMENTATIONS
from fabrica.io.dicom.padding import padding
from fabrica.io.dicom.pixels import value_range
from fabrica.io.dicom.suv import factor, is_suv

_COLOUR_SPACES = {"RGB", "YBR_ICT", "YBR_RCT"}  # as decoders return them: the last two are already RGB
_RESCALE = "PixelValueTransformationSequence"


@dataclass(frozen=True)
class Physical:
    """One frame in physical units.

    data    (C, H, W); NaN where there is padding, which is no value.
    padded  how many pixels that is, and `padding` the value that stood there; None where it says nothing.
    low, high, step  the storable range and the difference of neighbouring values (0 for floating point).
    window  (centre, width) or None.
    """

    data: Float32
    low: float
    high: float
    step: float
    window: tuple[float, float] | None
    padded: int = 0
    padding: float | None = None


def physical(raw: Array, space: str, dataset: Dataset, frame: int, notes: list[str], factor: float = 1.0) -> Physical:
    """One decoded frame, (H, W) or (H, W, 3) in colour space `space`, as physical values.

    factor  what rescaled values are multiplied by, of an object whose unit needs more than its rescale: PET, dose.
    """
    if _is_segmentation(dataset):
        return _segmented(raw, dataset, notes)
    if space.startswith("PALETTE"):
        colours = apply_color_lut(raw, dataset)[..., :3]
        if colours.dtype.itemsize == 2:  # tables of 16 bits hold the same colours as ones of 8, in their upper byte
            colours = colours >> 8
        return _colour(colours, 255.0)
    if raw.ndim == 3:
        if space not in _COLOUR_SPACES:
            raise ValueError(f"colour space {space} is not supported; expected RGB, YBR or a palette")
        return _colour(raw, max(2.0 ** int(dataset.BitsStored) - 1, float(raw.max())))
    if raw.dtype.kind == "f":
        data = raw.astype(np.float32)[None]
        return Physical(data, float(np.nanmin(data)), float(np.nanmax(data)), 0.0, _window(dataset, frame))
    return _grey(raw, space, dataset, frame, notes, factor)


def unit_and_factor(dataset: Dataset, path: Path, earliest: str = "") -> tuple[str, float]:
    """The unit of an object's values, one of `fabrica.image.UNITS`, and what its rescaled values are multiplied by to
    be in it; `earliest` is that of `fabrica.io.dicom.suv.factor`. Raises ReadError for PET whose SUV cannot be
    computed."""
    if is_suv(dataset):
        return "SUV", factor(dataset, path, earliest)
    if dataset.get("Modality") == "RTDOSE" and dataset.get("DoseGridScaling") is not None:
        grays = str(dataset.get("DoseUnits") or "GY").strip().upper() == "GY"
        return "Gy" if grays else "arbitrary", float(dataset.DoseGridScaling)
    if is_hounsfield(dataset):
        return "HU", 1.0
    return ("label" if _is_segmentation(dataset) and not _is_fractional(dataset) else "arbitrary"), 1.0


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """`fabrica.io.dicom.padding.padding` of this object. Of a label map it is the background, and a value."""
    if _is_segmentation(dataset) or str(dataset.get("PhotometricInterpretation", "")).startswith(("RGB", "YBR", "PAL")):
        return None
    several = (dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit"))
    first, last = (value if isinstance(value, int) else None for value in several)
    bits, signed = int(dataset.get("BitsAllocated") or 16), bool(dataset.get("PixelRepresentation"))
    return padding(first, last, bits, signed, dataset.PhotometricInterpretation == "MONOCHROME1")


def is_hounsfield(dataset: Dataset) -> bool:
    """CT with a rescale to HU, or to a unit the file does not name (PS3.3 C.8.2.1: HU is then implied)."""
    if dataset.get("Modality") != "CT":
        return False
    slope = attribute(dataset, 0, _RESCALE, "RescaleSlope")
    kind = attribute(dataset, 0, _RESCALE, "RescaleType")
    return slope is not None and kind in (None, "", "HU")


def _colour(raw: Array, high: float) -> Physical:
    return Physical(np.moveaxis(raw, -1, 0).astype(np.float32), 0.0, high, 1.0, None)


def _is_segmentation(dataset: Dataset) -> bool:
    return str(dataset.get("SOPClassUID")) in SEGMENTATIONS


def _is_fractional(dataset: Dataset) -> bool:
    return str(dataset.get("SegmentationType")) == "FRACTIONAL"


def _segmented(raw: Array, dataset: Dataset, notes: list[str]) -> Physical:
    """A plane of a segment, 0 and 1 or what lies between, or of a label map: the stored numbers, whatever colours a
    palette has for them, with 0 for the background."""
    if _is_fractional(dataset):
        one = dataset.get("MaximumFractionalValue")
        if not one:
            _note(notes, "fractions do not say what is whole (MaximumFractionalValue); 255 assumed")
        data = (raw / int(one or 255)).astype(np.float32)[None]
        return Physical(data, 0.0, max(1.0, float(data.max())), 1 / int(one or 255), None)
    background = dataset.get("PixelPaddingValue")
    if isinstance(background, int) and background and dataset.SOPClassUID == LABEL_MAP:
        _note(notes, f"the background of the label map is {background} (PixelPaddingValue): set to 0")
        raw = np.where(raw == background, 0, raw)
    low, high = value_range(dataset, raw)
    return Physical(raw.astype(np.float32)[None], low, high, 1.0, None)


def _grey(raw: Array, space: str, dataset: Dataset, frame: int, notes: list[str], factor: float) -> Physical:
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
    if factor != 1.0:
        values, low, high, step = values * factor, low * factor, high * factor, step * factor
        window = None if window is None else (window[0] * factor, window[1] * factor)
    pad, padded, stood = _padding(dataset), 0, None
    if pad is not None:
        empty = (raw >= pad[0]) & (raw <= pad[1])
        padded = int(empty.sum())
        if padded and pad == (0, 0) and space != "MONOCHROME1":
            stood = float(values[empty][0])
    if space == "MONOCHROME1":  # bigger must mean brighter, whatever the detector stored
        _note(notes, "MONOCHROME1 was inverted: bigger values are brighter")
        values = (low + high) - values
        window = None if window is None else (low + high - window[0], window[1])
    data = values.astype(np.float32)[None]
    if padded:
        data[0, empty] = np.nan
    return Physical(data, low, high, step, window, padded, stood)


def rescale(dataset: Dataset, frame: int, notes: list[str]) -> tuple[float, float]:
    """(slope, intercept) of a frame; where no rescale stands, of its map to real world values (PS3.3 C.7.6.16.2.11);
    (1, 0) where they are absent or useless."""
    if attribute(dataset, frame, _RESCALE, "RescaleSlope") is None:
        real = _real_world(dataset, frame)
        if real is not None:
            unit = "".join(
                str(item.get("CodeValue") or "") for item in (real.get("MeasurementUnitsCodeSequence") or [])[:1]
            )
            _note(notes, f"no rescale stands, and the map to real world values was taken (unit {unit or 'not said'})")
            return float(real.RealWorldValueSlope), float(real.RealWorldValueIntercept)
    slope = _number(attribute(dataset, frame, _RESCALE, "RescaleSlope"), 1.0)
    intercept = _number(attribute(dataset, frame, _RESCALE, "RescaleIntercept"), 0.0)
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        _note(notes, f"rescale slope {slope:g} and intercept {intercept:g} are useless and were ignored")
        return 1.0, 0.0
    return slope, intercept


def _real_world(dataset: Dataset, frame: int) -> Dataset | None:
    """The first linear map to real world values of a frame, or of the object."""
    holders = [
        *(dataset.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1],
        *(dataset.get("SharedFunctionalGroupsSequence") or [])[:1],
        dataset,
    ]
    for holder in holders:
        for item in holder.get("RealWorldValueMappingSequence") or []:
            slope, intercept = item.get("RealWorldValueSlope"), item.get("RealWorldValueIntercept")
            if slope and intercept is not None and math.isfinite(slope) and math.isfinite(intercept):
                return Dataset(item)
    return None


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
