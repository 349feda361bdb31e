"""Real scanners' series, beside what dcm2niix and pydicom alone make of the same files.

`python -m tests.io.dicom.test_scanners` prints a line a series: equal, whole, part, wrong or refused.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest

from fabrica import io as fio
from fabrica.data.manifest import Row
from fabrica.data.scan import scan
from fabrica.errors import FabricaError
from fabrica.image import Image
from tests.real import DATA as REAL

Array = np.ndarray[Any, Any]
DATA = REAL / "dicom_scanners"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no scanners' series at {DATA}; set FABRICA_DATA")
NAMES = sorted(p.name for p in DATA.iterdir() if p.is_dir()) if DATA.is_dir() else []
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])

NO_REFERENCE = {  # dcm2niix lays these evenly, or without the tilt: each slice's own position is the truth
    "ge_ct_head_uneven": "places",
    "siemens_ct_gantry_tilt": "places",
    "philips_ct_captures": "all",
}
KINDS = {  # what is no image of the patient as it was taken, and so has no split unless it is asked for
    "philips_ct_captures": {"localizer", "screen", "derived", "reformat", "dose report", "report"},
    "siemens_xa_adc": {"derived"},
    "philips_enhanced_fieldmap": {"", "derived", "map", "fieldmap"},
    "ge_fieldmap": {"", "derived", "map", "fieldmap"},
}
PADDED = {"ge_ct_head_uneven": -1500.0}  # outside the circle of reconstruction: no values to compare
TILED = ("siemens_mosaic", "uih_vframe")  # many slices are one picture in the file


@dataclass
class Found:
    """What Fabrica makes of one folder."""

    rows: list[Row]
    images: list[Image]
    rejected: list[tuple[str, str]]


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Each series in turn: all tests of one before those of the next, so that it is read once."""
    return str(request.param)


@functools.lru_cache(maxsize=1)
def found(name: str) -> Found:
    """Every row of a scan, read."""
    try:
        manifest = scan(DATA / name / "dicom")
    except FabricaError as error:
        return Found([], [], [("", str(error))])
    images = [fio.read(manifest.file(row), row.frame) for row in manifest.rows]
    return Found(manifest.rows, images, manifest.rejected)


def expected(name: str) -> Iterator[tuple[str, Array, Array]]:
    """(name, values (x, y, z), affine) of each volume that dcm2niix wrote."""
    for path in sorted((DATA / name / "expected").glob("*.nii.gz")):
        nifti = nibabel.load(path)
        if nifti.get_data_dtype().names:
            continue  # colour
        values = np.asarray(nifti.get_fdata(dtype=np.float32))
        for t in range(values.shape[3] if values.ndim == 4 else 1):
            yield f"{path.name} {t}", values[..., t] if values.ndim == 4 else values, nifti.affine


def differs(image: Image, values: Array, affine: Array, places: bool = True, padding: float | None = None) -> str:
    """In which way an image differs from a volume in the world; an empty string where it does not.

    places   compare the affines too.
    padding  what stands in dcm2niix's volume where there are no values.
    """
    if image.channels != 1:
        return "colour"
    data = image.data[0] if image.data.ndim == 4 else image.data
    data = data.transpose(2, 1, 0)
    across = np.linalg.solve(affine[:3, :3], image.affine[:3, :3])
    axes = np.abs(across).argmax(axis=0)
    if not places:  # the direction through the slices is no reference: that within them is
        axes = np.arange(3)
    turn = np.zeros((3, 3))
    turn[axes, range(3)] = np.sign(across[axes, range(3)])
    shape = tuple(int(n) for n in np.abs(turn) @ data.shape)
    if sorted(axes) != [0, 1, 2] or shape != values.shape:
        return f"shape {data.shape}, expected {values.shape}"
    flips = turn.sum(axis=1) < 0
    start = np.where(flips, np.array(shape) - 1, 0)
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = turn, start
    seen = np.flip(np.transpose(data, [int(np.flatnonzero(turn[k])[0]) for k in range(3)]), np.flatnonzero(flips))
    if not _alike(seen, values, padding):
        return "values"
    if places and (off := float(np.abs(affine @ moved - image.affine).max())) > 1e-3:
        return f"affine, {off:.3g}"
    return ""


def _alike(seen: Array, wanted: Array, padding: float | None) -> bool:
    real = np.ones(wanted.shape, bool) if padding is None else wanted != padding
    lowest = wanted[real].min()
    return bool(
        np.allclose(seen[real], wanted[real], rtol=1e-5, atol=1e-3)
        and (seen[~real] <= lowest).all()
        and (seen[~real] > -1024.5).all()
    )


@dataclass
class Plane:
    """One slice or frame by pydicom alone."""

    file: str
    values: Array
    corner: Array
    along: Array


@functools.lru_cache(maxsize=1)
def planes(name: str) -> list[Plane]:
    """Every grey slice or frame of the files of a folder, with its corner in RAS+."""
    made: list[Plane] = []
    for path in sorted(p for p in (DATA / name / "dicom").rglob("*") if p.is_file()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            if "PixelData" not in dataset or dataset.SamplesPerPixel != 1:
                continue
            pixels = dataset.pixel_array.astype(np.float64)
        frames = dataset.get("PerFrameFunctionalGroupsSequence")
        for k, frame in enumerate(frames or [dataset]):
            shared = dataset.SharedFunctionalGroupsSequence[0] if frames else dataset
            place = _group(frame, shared, "PlanePositionSequence")
            orientation = _group(frame, shared, "PlaneOrientationSequence").ImageOrientationPatient
            scale = _group(frame, shared, "PixelValueTransformationSequence")
            values = pixels[k] if frames else pixels
            values = values * float(scale.get("RescaleSlope", 1)) + float(scale.get("RescaleIntercept", 0))
            corner = LPS_TO_RAS @ np.array(place.ImagePositionPatient, float)
            along = np.array(orientation, float).reshape(2, 3) @ LPS_TO_RAS
            made.append(Plane(path.name, values, corner, along))
    return made


def _group(frame: Any, shared: Any, sequence: str) -> Any:
    for holder in (frame, shared):
        if holder.get(sequence):
            return holder[sequence][0]
    return frame


def laid(image: Image) -> Iterator[tuple[Array, Array, Array]]:
    """(values, corner, directions) of each slice of an image."""
    slices = image.data if image.data.ndim == 4 else image.data[:, None]
    for k in range(slices.shape[1]):
        corner = image.origin["positions"][k] if "positions" in image.origin else (image.affine @ [0, 0, k, 1])[:3]
        along = image.affine[:3, :2].T
        yield slices[0, k], corner, along / np.linalg.norm(along, axis=1, keepdims=True)


def test_each_volume_of_dcm2niix_is_one_row(name: str) -> None:
    reference = NO_REFERENCE.get(name)
    if name == "siemens_phoenix_sr":
        result = found(name)
        assert not result.rows or all(row.kind and not row.split for row in result.rows)
        said = " ".join(reason for _, reason in result.rejected)
        assert result.rows or "no image" in said or "report" in said
        return
    result = found(name)
    assert result.rejected == []
    left = list(result.images)
    for label, values, affine in expected(name) if reference != "all" else ():
        said = [differs(image, values, affine, reference is None, PADDED.get(name)) for image in left]
        assert "" in said, f"{label}: {said}"
        del left[said.index("")]
    assert reference == "all" or not left, f"{len(left)} rows more than dcm2niix has volumes"


def test_each_slice_of_the_files_is_in_one_image_and_in_its_place(name: str) -> None:
    """By pydicom alone: whatever a reader makes of a series, every slice is somewhere, once."""
    if name.startswith(TILED):
        pytest.skip("tiles are not slices to pydicom; dcm2niix is the reference")
    wanted = planes(name)
    slices = [part for image in found(name).images if image.channels == 1 for part in laid(image)]
    assert len(slices) == len(wanted)
    for plane in wanted:
        same = [
            k
            for k, (values, corner, along) in enumerate(slices)
            if values.shape == plane.values.shape
            and np.linalg.norm(corner - plane.corner) < 1e-3
            and np.abs(along - plane.along).max() < 1e-4
            and _alike(values, plane.values, PADDED.get(name))
        ]
        assert same, f"{plane.file}: no slice of these values at {plane.corner}"
        del slices[same[0]]


def test_what_is_no_image_of_the_patient_is_set_apart(name: str) -> None:
    kinds = Counter(row.kind for row in found(name).rows)
    assert set(kinds) <= KINDS.get(name, {""}), kinds
    if name in ("philips_ct_captures", "siemens_xa_adc"):
        assert kinds and "" not in kinds
    rows = found(name).rows
    assert not any(row.split for row in rows if row.kind)
    copies = {row.sha256 for row in rows if row.split}  # the time points of ge_fmri are alike, voxel by voxel
    assert all(row.split or row.sha256 in copies for row in rows if not row.kind)


def test_slices_are_not_missing_where_positions_do_not_say_so(name: str) -> None:
    """None of these series lacks a slice between two others."""
    result = found(name)
    assert not any("missing" in image.origin for image in result.images)
    assert not any("missing" in row.notes for row in result.rows)


def table() -> None:
    """A line a series: what becomes of the volumes of dcm2niix."""
    total: Counter[str] = Counter()
    for name in NAMES:
        try:
            result = found(name)
        except FabricaError as error:
            verdict, said = "refused", str(error)
        else:
            volumes = (
                list(expected(name)) if NO_REFERENCE.get(name) != "all" and (DATA / name / "expected").is_dir() else []
            )
            left, missed, said = list(result.images), [], ""
            for label, values, affine in volumes:
                differences = [
                    differs(image, values, affine, name not in NO_REFERENCE, PADDED.get(name)) for image in left
                ]
                if "" in differences:
                    del left[differences.index("")]
                else:
                    missed.append(f"{label}: {differences}")
            if not result.images:
                verdict, said = "refused", result.rejected[0][1]
            elif not volumes:
                verdict, said = "whole", f"kinds {sorted({row.kind for row in result.rows})}"
            elif not missed and not left:
                verdict = "equal"
            elif not missed:
                verdict, said = "whole", f"{len(left)} images more"
            else:
                verdict = "wrong" if left else "part"
                said = missed[0]
        total[verdict] += 1
        print(f"{name:<32}{verdict:<9}{len(found(name).rows):>3} rows  {said[:110]}")
    print(dict(total))


if __name__ == "__main__":
    DATA = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    table()
