"""Contours on an image (RTSTRUCT) as a label map of it.

Every contour must lie on a slice: what is between slices, askew, or open says nothing of voxels, and is refused.
Regions are numbered from 1 in the order of ROINumber, those that nobody has drawn, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from fabrica.errors import ReadError, UsageError, did_you_mean
from fabrica.geometry import places
from fabrica.image import MOST_LABELS, Float64, Image, name
from fabrica.io.budget import DEFAULT_BUDGET
from fabrica.io.dicom.contours import filled
from fabrica.io.dicom.file import opened
from fabrica.io.dicom.geometry import LPS_TO_RAS
from fabrica.io.dicom.label_maps import asked
from fabrica.io.dicom.references import check_drawn_on

OFF = 0.1  # of the distance between slices: how far a contour may be off one, as coordinates that are rounded are
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "")
_CONTOUR_DATA = 0x30060050


def read_structures(path: Path, frame: str, budget: int, grid: Image) -> Image:
    """The regions of an RTSTRUCT as Image (1, *S) on the voxels of `grid`, (1, D, H, W) or (1, H, W) with its place in
    the patient; unit "label". A voxel belongs to a region when its centre lies inside an odd number of the region's
    contours on its slice (see `fabrica.io.dicom.contours.filled`).

    frame  "roi=Liver,roi=7": these regions alone, by name or label. "": all.

    Regions that are points or open lines alone have no voxel, and are left out with a note. Raises ReadError for files
    without a contour, for contours that lie between slices or are not parallel to them, and for regions that overlap;
    UsageError where the file was drawn on another series than the grid.
    """
    if not grid.measured:
        raise UsageError(f"{path}: contours in mm, and {name(grid)} has no place in the patient; give the image itself")
    notes: list[str] = []
    with opened(path, budget, notes) as file:
        dataset = file.dataset
        check_drawn_on(dataset, grid, path)
        called = regions(dataset)
        chosen = _chosen(path, called, frame)
        labels = _drawn(path, dataset, called, chosen, grid, notes)
        patient = str(dataset.get("PatientID") or "").strip()
    kept = {number: name for number, (_, name) in called.items() if number in chosen and name}
    origin: dict[str, Any] = {"path": str(path), "format": "dicom", "modality": "RTSTRUCT", "patient": patient}
    origin |= {"step": 1.0, "range": (0.0, float(labels.max(initial=0))), "labels": kept}
    origin["notes"] = tuple(dict.fromkeys(notes))
    if "positions" in grid.origin:
        origin["positions"] = grid.origin["positions"]
    data = labels[None].astype(np.float32)
    return Image(data.reshape(1, *grid.size), grid.affine, "label", origin)


def regions(dataset: Dataset) -> dict[int, tuple[str, str]]:
    """Label -> (ROINumber, ROIName) of the regions of an RTSTRUCT, from 1 in the order of ROINumber."""
    listed = [item for item in dataset.get("StructureSetROISequence") or [] if item.get("ROINumber") is not None]
    ordered = sorted(listed, key=lambda item: int(item.ROINumber))
    return {k: (str(item.ROINumber), str(item.get("ROIName") or "").strip()) for k, item in enumerate(ordered, start=1)}


def region_names(path: Path) -> dict[int, str]:
    """Label -> name of the regions of an RTSTRUCT."""
    with opened(path, DEFAULT_BUDGET, header_only=True) as file:
        return {label: called for label, (_, called) in regions(file.dataset).items() if called}


def _chosen(path: Path, called: Mapping[int, tuple[str, str]], frame: str) -> set[int]:
    wanted = asked(frame)
    if wanted.keys() - {"roi"} or len(called) > MOST_LABELS:
        raise ReadError(f"{path}: {len(called)} regions, and the frame {frame!r}; expected roi=NAME, or none")
    if not frame:
        return set(called)
    found = set()
    for value in wanted["roi"]:
        hits = {label for label, (_, name) in called.items() if value in (name, str(label))}
        if not hits:
            names = [name for _, name in called.values()]
            raise ReadError(f"{path}: no region {value!r}{did_you_mean(value, names)}")
        found |= hits
    return found


def _drawn(
    path: Path,
    dataset: Dataset,
    called: Mapping[int, tuple[str, str]],
    chosen: set[int],
    grid: Image,
    notes: list[str],
) -> npt.NDArray[Any]:
    """Labels (D, H, W) on the grid."""
    slices = _Slices.of(grid)
    height, width = grid.size[-2:]
    labels = np.zeros((len(slices.depths), height, width), np.uint8 if len(called) < 256 else np.uint16)
    contours = _contours(dataset)
    if not any(contours.get(number) for number, _ in called.values()):
        raise ReadError(f"{path}: a structure set without a contour; expected regions that are drawn on slices")
    without: list[str] = []
    for label in sorted(chosen):
        number, called_so = called[label]
        what = f"{path}: region {called_so or number}"
        closed = [points for kind, points in contours.get(number, ()) if kind in _CLOSED]
        open_ = [kind for kind, _ in contours.get(number, ()) if kind not in _CLOSED]
        if open_ and closed:
            raise ReadError(f"{what} has contours of {open_[0]} beside closed ones; expected CLOSED_PLANAR alone")
        if not closed:
            without.append(f"{called_so or number} ({open_[0] if open_ else 'not drawn'})")
            continue
        on: dict[int, list[Float64]] = defaultdict(list)
        for points in closed:
            k, corners = slices.corners(points, what)
            on[k].append(corners)
        for k, several in on.items():
            inside = filled(several, (height, width))
            if (taken := labels[k][inside]).any():
                other = called[int(taken.max())]
                raise ReadError(
                    f"{path}: regions {other[1] or other[0]} and {called_so or number} overlap, and a voxel of a label "
                    f"map has one label; name those that are wanted as the frame, such as roi={called_so or label}"
                )
            labels[k][inside] = label
    if without and len(without) == len(chosen):
        raise ReadError(f"{path}: no region encloses anything: {', '.join(without[:4])}; expected closed contours")
    if without:
        shown = ", ".join(without[:4]) + (", ..." if len(without) > 4 else "")
        notes.append(f"{len(without)} regions enclose nothing, and have no voxel: {shown}")
    return labels


def _contours(dataset: Dataset) -> dict[str, list[tuple[str, Float64]]]:
    """ROINumber -> its contours: (ContourGeometricType, corners (N, 3) in RAS+ mm)."""
    found: dict[str, list[tuple[str, Float64]]] = defaultdict(list)
    for item in dataset.get("ROIContourSequence") or []:
        number = str(item.get("ReferencedROINumber"))
        for contour in item.get("ContourSequence") or []:
            numbers = _numbers(contour)
            if len(numbers) % 3:
                raise ValueError(f"a contour of {len(numbers)} coordinates, expected three a point")
            if len(numbers):
                points = numbers.reshape(-1, 3) @ LPS_TO_RAS
                found[number].append((str(contour.get("ContourGeometricType") or "").strip().upper(), points))
    return found


def _numbers(contour: Dataset) -> Float64:
    """ContourData, by numpy where pydicom has not made an object of each number yet."""
    raw: Any = contour.get_item(_CONTOUR_DATA) if _CONTOUR_DATA in contour else None
    if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes):
        return np.array([float(part) for part in raw.value.split(b"\\") if part.strip(b" \0")], np.float64)
    return np.array([float(part) for part in contour.get("ContourData") or []], np.float64)


@dataclass(frozen=True)
class _Slices:
    """The slices of a grid: their depths along the normal (D,), in mm, and what leads from mm to pixels in them."""

    first: Float64
    depths: Float64
    normal: Float64
    plane: Float64
    thickness: float

    @staticmethod
    def of(grid: Image) -> _Slices:
        columns, rows, third = grid.affine[:3, :3].T
        normal = np.cross(columns, rows)
        normal /= np.linalg.norm(normal)
        first = places(grid)
        plane = np.linalg.pinv(np.stack([columns, rows], axis=1))
        return _Slices(first, first @ normal, normal, plane, abs(float(third @ normal)) or 1.0)

    def corners(self, points: Float64, what: str) -> tuple[int, Float64]:
        """The slice that a contour (N, 3) lies on, and its corners (N, 2) there, (w, h) in pixels. Raises ReadError
        where it lies on none."""
        depths = points @ self.normal
        k = int(np.abs(self.depths - depths.mean()).argmin())
        between = np.abs(np.delete(self.depths, k) - self.depths[k]).min(initial=np.inf)
        step = self.thickness if not np.isfinite(between) else float(between)
        if not np.isfinite(depths).all() or np.ptp(depths) > 2 * OFF * step:
            raise ReadError(
                f"{what} has a contour that is not parallel to the slices: it reaches over {np.ptp(depths):.3g} mm "
                f"across them, and they lie {step:.3g} mm apart; give the image that it was drawn on"
            )
        off = float(np.abs(depths - self.depths[k]).max())
        if off > OFF * step:
            inside = self.depths.min() <= depths.mean() <= self.depths.max()
            where = "between slices" if inside else "beyond the image"
            raise ReadError(
                f"{what} has a contour {where}, {off:.3g} mm from the nearest slice, and they lie {step:.3g} mm apart; "
                "give the image that it was drawn on"
            )
        return k, (points - self.first[k]) @ self.plane.T
