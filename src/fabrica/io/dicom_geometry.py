"""Where DICOM slices lie in the patient: position, orientation and spacing to an affine in RAS+ and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from fabrica.image import Float64
from fabrica.io.dicom_file import attribute

SAME_POSITION = 1e-3  # mm: slices nearer than this are one
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


@dataclass(frozen=True)
class Place:
    """One slice in DICOM's own frame (LPS+: to the Left, Posterior, Superior), in mm.

    position   centre of the first pixel, shape (3,), or None where the file does not say.
    along_w    unit vector of growing column index, along_h of growing row index.
    spacing    (between rows, between columns).
    thickness  distance to the next slice: SpacingBetweenSlices, else SliceThickness, else 1.
    """

    position: Float64 | None
    along_w: Float64
    along_h: Float64
    spacing: tuple[float, float]
    thickness: float

    @property
    def normal(self) -> Float64:
        return np.cross(self.along_w, self.along_h)

    @property
    def depth(self) -> float:
        """The position projected on the normal, in mm: what slices are sorted by."""
        return 0.0 if self.position is None else float(self.position @ self.normal)


def place(dataset: Dataset, frame: int, notes: list[str]) -> Place:
    """The place of one frame (from 0). What is missing or nonsensical is noted and replaced by a default."""
    orientation = _numbers(attribute(dataset, frame, "PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    position = _numbers(attribute(dataset, frame, "PlanePositionSequence", "ImagePositionPatient"), 3)
    spacing = _spacing(dataset, frame, notes)
    thickness = _thickness(dataset, frame)
    along = None if orientation is None else _orthonormal(orientation)
    if along is None:
        if orientation is not None:
            notes.append("ImageOrientationPatient is not two perpendicular unit vectors and was ignored")
        # No place in the patient is known: the axes of the picture, as for a PNG, with no flip invented.
        along, position = (np.array([-1.0, 0, 0]), np.array([0, -1.0, 0])), None
    return Place(position, along[0], along[1], spacing, thickness)


def affine(first: Place, step: Float64 | None = None) -> Float64:
    """Voxel index (w, h, d) to mm in RAS+. `step` (LPS, mm) leads from one slice to the next."""
    rows, columns = first.spacing
    third = first.normal * first.thickness if step is None else step
    matrix = np.eye(4)
    matrix[:3, :3] = LPS_TO_RAS @ np.stack([first.along_w * columns, first.along_h * rows, third], axis=1)
    if first.position is not None:
        matrix[:3, 3] = LPS_TO_RAS @ first.position
    return matrix


def stack_step(places: Sequence[Place], strays: int = 0) -> Float64 | None:
    """The vector from one slice to the next (LPS, mm) of two or more sorted slices.

    The mean of all steps, or where `strays` slices are missing their median, which a gap does not stretch.
    """
    if len(places) < 2 or any(p.position is None for p in places):
        return None
    positions = np.array([p.position for p in places], dtype=np.float64)
    if strays:
        return np.asarray(np.median(np.diff(positions, axis=0), axis=0), dtype=np.float64)
    return np.asarray((positions[-1] - positions[0]) / (len(places) - 1), dtype=np.float64)


def same_plane(a: Place, b: Place) -> bool:
    """Whether two slices are parallel, turned alike and equally spaced in the plane (to 0.1 %)."""
    turned = max(np.abs(a.along_w - b.along_w).max(), np.abs(a.along_h - b.along_h).max())
    return bool(turned < 1e-3 and np.allclose(a.spacing, b.spacing, rtol=1e-3))


def frame_geometry(dataset: Dataset, wanted: list[int], notes: list[str]) -> tuple[list[int], Float64, int]:
    """The order in which decoded frames are stacked, the affine of the result, and how many slices are missing."""
    places = [place(dataset, index, notes) for index in wanted]
    notes[:] = dict.fromkeys(notes)
    plain = list(range(len(wanted)))
    offsets = dataset.get("GridFrameOffsetVector")  # RT dose: one position, and offsets along the normal
    if offsets is not None and len(wanted) > 1 and len(offsets) >= len(wanted):
        step = places[0].normal * (float(offsets[len(wanted) - 1]) - float(offsets[0])) / (len(wanted) - 1)
        return plain, affine(places[0], step if step.any() else None), 0
    depths = np.array([p.depth for p in places])
    parallel = all(same_plane(places[0], p) and p.position is not None for p in places)
    steps = np.diff(np.sort(depths))
    if len(wanted) < 2 or not parallel or steps.min() < SAME_POSITION:
        if len(wanted) > 1:
            notes.append("the frames are not the slices of one volume; kept in the order of the file")
        return plain, affine(places[0]), 0
    order = plain
    if not (np.all(np.diff(depths) > 0) or np.all(np.diff(depths) < 0)):
        order = [int(k) for k in np.argsort(depths)]
        notes.append("frames were put in spatial order")
    stacked = [places[k] for k in order]
    gap_notes, missing = gaps(stacked)
    notes.extend(gap_notes)
    return order, affine(stacked[0], stack_step(stacked, missing)), missing


def gaps(places: Sequence[Place]) -> tuple[list[str], int]:
    """What is uneven in sorted slices: notes, and how many slices seem to be missing."""
    if len(places) < 3:
        return [], 0
    steps = np.abs(np.diff([p.depth for p in places]))
    usual = float(np.median(steps))
    missing = int(np.sum(np.maximum(np.rint(steps / usual) - 1, 0)[steps > 1.5 * usual]))
    if missing:
        at = int(np.argmax(steps > 1.5 * usual))
        return [
            f"{missing} slices seem to be missing, the first after slice {at + 1}: "
            f"{steps[at]:.4g} mm to the next instead of {usual:.4g} mm"
        ], missing
    if np.ptp(steps) > 0.1 * usual:
        return [f"uneven slice spacing, {steps.min():.4g} to {steps.max():.4g} mm"], 0
    return [], 0


def orientation_of(matrix: Float64) -> tuple[Float64, Float64, tuple[float, float]] | None:
    """(along_w, along_h, (between rows, between columns)) in LPS; None when the slice plane is sheared."""
    axes = LPS_TO_RAS @ matrix[:3, :2]
    columns, rows = (float(n) for n in np.linalg.norm(axes, axis=0))
    if min(columns, rows) <= 0 or abs(axes[:, 0] @ axes[:, 1]) > 1e-4 * columns * rows:
        return None
    return axes[:, 0] / columns, axes[:, 1] / rows, (rows, columns)


def position_of(matrix: Float64, index: int) -> Float64:
    """ImagePositionPatient (LPS, mm) of slice `index` of an affine."""
    return np.asarray(LPS_TO_RAS @ (matrix[:3, 3] + index * matrix[:3, 2]), dtype=np.float64)


def _orthonormal(orientation: Float64) -> tuple[Float64, Float64] | None:
    along_w, along_h = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(along_w), np.linalg.norm(along_h)
    if min(lengths) < 0.9 or max(lengths) > 1.1 or abs(along_w @ along_h) > 0.01:
        return None
    return along_w / lengths[0], along_h / lengths[1]


def _spacing(dataset: Dataset, frame: int, notes: list[str]) -> tuple[float, float]:
    for keyword in _SPACINGS:
        values = _numbers(attribute(dataset, frame, "PixelMeasuresSequence", keyword), 2)
        if values is not None and values.min() > 0:
            return float(values[0]), float(values[1])
    notes.append("no pixel spacing; 1 mm assumed")
    return 1.0, 1.0


def _thickness(dataset: Dataset, frame: int) -> float:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        values = _numbers(attribute(dataset, frame, "PixelMeasuresSequence", keyword), 1)
        if values is not None and abs(values[0]) > 0:
            return float(abs(values[0]))
    return 1.0


def _numbers(value: Any, count: int) -> Float64 | None:
    """The `count` finite numbers of an attribute, or None."""
    if value is None or value == "":
        return None
    try:
        numbers = np.atleast_1d(np.array(value, dtype=np.float64))
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None
