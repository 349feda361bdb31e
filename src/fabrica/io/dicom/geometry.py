"""Where DICOM slices lie in the patient: position, orientation and spacing to an affine in RAS+ and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from fabrica.image import Float64

SAME_POSITION = 1e-3  # mm: slices nearer than this are one
UNEVEN = 0.05  # of the distance between slices: a slice further off its even place has its own
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_THICKNESSES = ("SpacingBetweenSlices", "SliceThickness")


@dataclass(frozen=True)
class Place:
    """One slice in DICOM's own frame (LPS+: to the Left, Posterior, Superior), in mm.

    position   centre of the first pixel, shape (3,), or None where the file does not say.
    along_w    unit vector of growing column index, along_h of growing row index.
    spacing    (between rows, between columns).
    thickness  distance to the next slice: SpacingBetweenSlices, else SliceThickness, else 1.
    between    SpacingBetweenSlices, 0 where it does not stand.
    """

    position: Float64 | None
    along_w: Float64
    along_h: Float64
    spacing: tuple[float, float]
    thickness: float
    between: float = 0.0

    @cached_property
    def normal(self) -> Float64:
        (a, b, c), (d, e, f) = self.along_w.tolist(), self.along_h.tolist()
        return np.array([b * f - c * e, c * d - a * f, a * e - b * d])  # np.cross takes fifty times as long

    @cached_property
    def depth(self) -> float:
        """The position projected on the normal, in mm: what slices are sorted by."""
        return 0.0 if self.position is None else float(self.position @ self.normal)


def place_of(values: Mapping[str, str], notes: list[str]) -> Place:
    """The place of one frame of which a header says this in text (`fabrica.io.dicom.header.Header.frame`). What is
    missing or nonsensical is noted and replaced by a default."""
    turned = values.get("ImageOrientationPatient", "")
    position = numbers(values.get("ImagePositionPatient", ""), 3)
    spacing = _spacing(values, notes)
    thickness = _thickness(values)
    along = _axes(turned)
    if along is None:
        if turned:
            notes.append("ImageOrientationPatient is not two perpendicular unit vectors and was ignored")
        # No place in the patient is known: the axes of the picture, as for a PNG, with no flip invented.
        along, position = (np.array([-1.0, 0, 0]), np.array([0, -1.0, 0])), None
    between = number(values.get("SpacingBetweenSlices", "")) or 0.0
    return Place(position, along[0], along[1], spacing, thickness, abs(between))


def affine(first: Place, step: Float64 | None = None) -> Float64:
    """Voxel index (w, h, d) to mm in RAS+. `step` (LPS, mm) leads from one slice to the next."""
    rows, columns = first.spacing
    third = first.normal * first.thickness if step is None else step
    matrix = np.eye(4)
    matrix[:3, :3] = LPS_TO_RAS @ np.stack([first.along_w * columns, first.along_h * rows, third], axis=1)
    if first.position is not None:
        matrix[:3, 3] = LPS_TO_RAS @ first.position
    return matrix


def same_plane(a: Place, b: Place) -> bool:
    """Whether two slices are parallel, turned alike and equally spaced in the plane (to 0.1 %)."""
    turned = max(np.abs(a.along_w - b.along_w).max(), np.abs(a.along_h - b.along_h).max())
    return bool(turned < 1e-3 and np.allclose(a.spacing, b.spacing, rtol=1e-3))


@dataclass(frozen=True)
class Stack:
    """How slices lie, sorted along their normal.

    affine     of the first slice, with the mean step from slice to slice; where slices are missing the usual step,
               which a gap does not stretch.
    positions  (D, 3) RAS+ in mm, where the first pixel of each slice lies, if no affine is right for all; else None.
    missing    how many slices seem to be missing between others.
    notes      what is uneven.
    """

    affine: Float64
    positions: Float64 | None = None
    missing: int = 0
    notes: tuple[str, ...] = ()


def stack(places: Sequence[Place]) -> Stack:
    """The geometry of one slice or of sorted slices. A slice off its even place by more than UNEVEN of a step has its
    own."""
    if len(places) < 2 or any(place.position is None for place in places):
        return Stack(affine(places[0]))
    positions = np.array([place.position for place in places], dtype=np.float64)
    steps = np.diff(positions, axis=0)
    mean = (positions[-1] - positions[0]) / (len(places) - 1)
    even = positions[0] + np.arange(len(places))[:, None] * mean
    if np.linalg.norm(positions - even, axis=1).max() <= UNEVEN * np.linalg.norm(mean):
        return Stack(affine(places[0], mean), None, 0, _contradictions(places, float(np.linalg.norm(mean))))
    along = np.abs(steps @ places[0].normal)
    missing, usual = _missing(along, np.array([place.thickness for place in places]))
    step = np.median(steps / np.rint(along / usual)[:, None], axis=0) if missing else mean
    own = positions @ LPS_TO_RAS
    if missing:
        at = int(np.argmax(along > 1.5 * usual))
        note = (
            f"{missing} slices seem to be missing, the first after slice {at + 1}: {along[at]:.4g} mm to the next "
            f"instead of {usual:.4g} mm; each slice keeps its own place"
        )
    else:
        note = f"uneven slices, {along.min():.4g} to {along.max():.4g} mm apart: each keeps its own place"
    return Stack(affine(places[0], step), own, missing, (note,))


def _missing(steps: Float64, thickness: Float64) -> tuple[int, float]:
    """How many slices seem to be missing where the steps along the normal are these (mm), and the usual step: the
    positions say so where all steps are the usual one or a multiple of it, and the wide ones are not how thick slices
    there are, nor how all lie from there on to the end. The usual step is the median, or the least where that is how
    thick slices are."""
    usual, least = float(np.median(steps)), float(steps.min())
    if (
        least
        and abs(np.median(thickness) / least - 1) < 0.1
        and np.abs(steps / least - np.rint(steps / least)).max() < 0.1
    ):
        usual = least
    wide = steps > 1.5 * usual
    if not usual or not wide.any() or np.abs(steps[~wide] / usual - 1).max(initial=0.0) > 0.1:
        return 0, usual
    multiples = steps[wide] / usual
    if np.abs(multiples - np.rint(multiples)).max() > 0.1:
        return 0, usual
    thick = np.maximum(thickness[:-1], thickness[1:])
    if thickness.max() > 1.5 * thickness.min() and (thick[wide] > 0.75 * steps[wide]).all():
        return 0, usual
    runs = np.flatnonzero(wide)
    for side in (runs == np.arange(len(runs)), runs == np.arange(len(steps) - len(runs), len(steps))):
        if len(runs) > 1 and side.all() and np.ptp(steps[wide]) < 0.1 * usual:
            return 0, usual  # another protocol from there on
    return int(np.sum(np.rint(multiples) - 1)), usual


def _contradictions(places: Sequence[Place], step: float) -> tuple[str, ...]:
    """What SpacingBetweenSlices says otherwise than the positions do."""
    said = places[0].between
    if said and abs(said / step - 1) > 0.1:
        return (f"slices lie {step:.4g} mm apart, and SpacingBetweenSlices says {said:.4g}: the positions count",)
    return ()


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


@lru_cache(maxsize=256)  # the slices of a volume say it alike
def _axes(orientation: str) -> tuple[Float64, Float64] | None:
    """The unit vectors along rows and columns of ImageOrientationPatient; None where it is not two of them."""
    found = numbers(orientation, 6)
    if found is None:
        return None
    along_w, along_h = found[:3], found[3:]
    lengths = math.sqrt(float(along_w @ along_w)), math.sqrt(float(along_h @ along_h))
    if min(lengths) < 0.9 or max(lengths) > 1.1 or abs(float(along_w @ along_h)) > 0.01:
        return None
    return along_w / lengths[0], along_h / lengths[1]


def _spacing(values: Mapping[str, str], notes: list[str]) -> tuple[float, float]:
    for keyword in _SPACINGS:
        found = numbers(values.get(keyword, ""), 2)
        if found is not None and found.min() > 0:
            return float(found[0]), float(found[1])
    notes.append("no pixel spacing; 1 mm assumed")
    return 1.0, 1.0


def _thickness(values: Mapping[str, str]) -> float:
    for keyword in _THICKNESSES:
        if found := number(values.get(keyword, "")):
            return abs(found)
    return 1.0


def numbers(text: str, count: int = 0) -> Float64 | None:
    """The finite numbers in the text of an attribute, None where there are none, or not `count` of them."""
    try:
        found = [float(part) for part in text.split("\\")] if text else []
    except ValueError:
        return None
    if not found or (count and len(found) != count) or not all(map(math.isfinite, found)):
        return None
    return np.array(found, dtype=np.float64)


def number(text: str) -> float | None:
    """The one finite number in the text of an attribute, None where it is none."""
    try:
        found = float(text) if text else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) else None
