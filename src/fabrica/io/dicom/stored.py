"""From physical values to the integers a DICOM file stores, and the attributes that describe them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from fabrica.errors import UsageError
from fabrica.image import Array, Float32, Image
from fabrica.io.dicom.values import rescale

_SAMPLE = 2**22  # voxels are enough for a percentile
_LEVELS = 65534  # steps of the full 16-bit range, one kept in hand for the rounding of the slope's 16 characters


@dataclass(frozen=True)
class Grid:
    """Storable values: physical = stored * slope + intercept, of `bits` bits."""

    slope: float
    intercept: float
    bits: int = 16
    signed: bool = False

    @property
    def ends(self) -> tuple[int, int]:
        half = 2 ** (self.bits - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)


@dataclass(frozen=True)
class Stored:
    """One slice as it will stand in the file: values (H, W) or (H, W, 3)."""

    values: Array
    grid: Grid


def number(value: float) -> DSfloat:
    """A decimal string: at most 16 characters, as near as they can come."""
    return DSfloat(value, auto_format=True)


def source_grid(dataset: Dataset) -> Grid | None:
    """The grid of a source slice, or None where it cannot be kept (LUT, colour, 1- or 32-bit pixels)."""
    stored, allocated = dataset.get("BitsStored"), dataset.get("BitsAllocated")
    if dataset.get("ModalityLUTSequence") or allocated not in (8, 16) or not stored:
        return None
    if not str(dataset.get("PhotometricInterpretation")).startswith("MONOCHROME"):
        return None
    slope, intercept = rescale(dataset, 0, [])
    return Grid(slope, intercept, int(stored), bool(dataset.get("PixelRepresentation")))


def grids(image: Image, low: float, high: float) -> list[Grid]:
    """Grids to try for an image of values from `low` to `high`, the most natural first, one that fits last."""
    step = float(image.origin.get("step") or 0)
    candidates = []
    if image.unit == "HU":
        candidates += [Grid(min(1.0, step or 1.0), -1024.0), Grid(1.0, float(np.floor(low)))]
    elif _whole(image.data):
        candidates += [Grid(1.0, 0.0), Grid(1.0, 0.0, signed=True)]
    elif step > 0:
        start = float(image.origin.get("range", (np.floor(low / step) * step,))[0])
        candidates.append(Grid(step, start))
    return [*candidates, Grid((high - low) / _LEVELS or 1.0, low)]


def fitting(low: float, high: float, candidates: Iterable[Grid]) -> Grid:
    """The first grid that holds `low` to `high`, with slope and intercept as the file will have them."""
    for grid in candidates:
        slope, intercept = float(number(grid.slope)), float(number(grid.intercept))
        first, last = sorted(np.rint((np.array([low, high]) - intercept) / slope))
        if first >= grid.ends[0] and last <= grid.ends[1]:
            return Grid(slope, intercept, grid.bits, grid.signed)
    raise UsageError(f"values from {low:g} to {high:g} do not fit 16 bits; rescale them first")


def fitting_colour(low: float, high: float) -> Grid:
    """8 bits where colours from `low` to `high` allow it, else 16."""
    if np.rint(low) < 0 or np.rint(high) > 65535:
        raise UsageError(f"colours span {low:g} to {high:g}; expected 0 to 255 (or 65535)")
    return Grid(1.0, 0.0, 8 if np.rint(high) <= 255 else 16)


def store(data: Float32, grid: Grid) -> Stored:
    """Round a slice, (1, H, W) or RGB (3, H, W), to a grid that holds its values (see `fitting`)."""
    values = data[0] if len(data) == 1 else data.transpose(1, 2, 0)
    kind = f"{'i' if grid.signed else 'u'}{1 if grid.bits <= 8 else 2}"
    rounded = np.subtract(values, grid.intercept, dtype=np.float64)
    rounded /= grid.slope
    np.rint(rounded, out=rounded)
    return Stored(np.ascontiguousarray(rounded, dtype=kind), grid)


def set_pixels(dataset: Dataset, stored: Stored, always_rescale: bool, rescale_type: str) -> None:
    """Write the Image Pixel module, and the rescale where the grid is not the stored integers themselves."""
    values, grid = stored.values, stored.grid
    colour = values.ndim == 3
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.BitsAllocated = 8 * values.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = grid.bits, grid.bits - 1
    dataset.PixelRepresentation = int(grid.signed)
    if colour:
        dataset.PlanarConfiguration = 0
    elif always_rescale or (grid.slope, grid.intercept) != (1.0, 0.0):
        dataset.RescaleIntercept, dataset.RescaleSlope = number(grid.intercept), number(grid.slope)
        dataset.RescaleType = rescale_type
    data = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"


def window_of(image: Image) -> tuple[float, float] | None:
    """A VOI window in physical units: the source's, for CT soft tissue, else the middle 99 % of the values."""
    if image.channels != 1:
        return None
    window: tuple[float, float] | None = image.origin.get("window")
    if window is None and image.unit == "HU":
        window = 40.0, 400.0
    if window is None:
        stride = image.data.size // _SAMPLE | 1  # odd: never the same few columns of every row
        low, high = (float(v) for v in np.percentile(image.data.reshape(-1)[::stride], (0.5, 99.5)))
        window = (low + high) / 2, high - low
    return window if window[1] >= 1 else None  # PS3.3 C.11.2.1.2: a linear window is at least 1 wide


def set_window(dataset: Dataset, window: tuple[float, float] | None) -> None:
    """Write the first VOI window, if there is one."""
    if window is not None:
        dataset.WindowCenter, dataset.WindowWidth = number(window[0]), number(window[1])


def _whole(data: Float32) -> bool:
    """Whether all values are whole numbers; slice by slice, for the sake of memory."""
    slices = (data[index] for index in np.ndindex(data.shape[: data.ndim - 2]))
    return all(np.array_equal(values, np.rint(values)) for values in slices)
