"""Structure sets (RTSTRUCT) as label maps: contours filled on the slices they lie on, whatever way the series lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from fabrica import io as fio
from fabrica.errors import FabricaError, ReadError, UsageError
from fabrica.image import Image
from fabrica.io import mask_labels, read_mask
from tests.draws import draws
from tests.io.dicom import series as make
from tests.io.dicom.structures import Contour, structures
from tests.io.dicom.test_contours import centres, star
from tests.io.dicom.test_series import QUICK, folder
from tests.real import DATA

Array = np.ndarray[Any, Any]
SIZE = (20, 24)
BOX = np.array([[2.5, 3.5], [9.5, 3.5], [9.5, 11.5], [2.5, 11.5]])
HOLE = np.array([[4.5, 5.5], [6.5, 5.5], [6.5, 8.5], [4.5, 8.5]])
ASIDE = BOX + np.array([11, 0])


def box(corners: Array) -> Array:
    """The pixels within a rectangle whose sides lie between pixels."""
    found = np.zeros(SIZE, bool)
    (w0, h0), (w1, h1) = np.ceil(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    found[h0:h1, w0:w1] = True
    return found


def series_of(where: make.Grid, home: Path) -> Image:
    rng = np.random.default_rng(1)
    truth = make.Truth(rng.integers(0, 99, (len(where.places), *SIZE)).astype(np.int16), where)
    make.classic(home / "series", [truth])
    return fio.read(home / "series")


@settings(max_examples=draws(40), **QUICK)
@given(
    seed=st.integers(0, 10**6),
    plane=st.sampled_from(sorted(make.PLANES)),
    angles=st.sampled_from([(0, 0, 0), (11, 0, 0), (-7.3, 12.9, 31.7), (88, 3, 1)]),
    between=st.sampled_from([3.0, -3.0, 1.25]),
    offsets=st.sampled_from([None, None, [0, 3.1, 5, 9.5]]),
    tilt=st.sampled_from([0.0, 0.25]),
    reversed_=st.booleans(),
)
def test_polygons_with_holes_on_series_that_lie_anyhow(
    seed: int, plane: str, angles: tuple[float, ...], between: float, offsets: Any, tilt: float, reversed_: bool
) -> None:
    """Against matplotlib, polygon by polygon, in the pixels of the slice that each was drawn on."""
    where = make.grid(4, between, plane=plane, angles=angles, offsets=offsets, tilt=tilt)
    rng = np.random.default_rng(seed)
    expected = np.zeros((4, *SIZE), int)
    regions: dict[str, list[Contour]] = {"left": [], "right": []}
    for label, name in enumerate(regions, start=1):
        for k in range(4):
            shapes = [star(int(rng.integers(1e9)), 9, SIZE, 0.2) for _ in range(rng.integers(0, 3))]
            inside = np.zeros(SIZE, bool)
            for shape in shapes:
                inside ^= Outline(shape).contains_points(centres(SIZE)).reshape(SIZE)
            if (expected[k][inside] != 0).any():
                continue
            expected[k][inside] = label
            regions[name] += [Contour(k, shape[:: -1 if reversed_ else 1]) for shape in shapes]
    if not any(regions.values()):
        return
    with folder() as home:
        image = series_of(where, home)
        path = make.save(structures(regions, where, decimals=8), home / "rt.dcm")
        found = read_mask(path, grid=image)
        order = np.argsort(where.places @ where.normal, kind="stable")
        assert np.array_equal(found.data[0], expected[order]) and found.unit == "label"
        assert np.array_equal(found.affine, image.affine) and np.array_equal(make.places(found), make.places(image))
        assert found.origin["labels"] == {1: "left", 2: "right"} == mask_labels(path)


def one(
    regions: dict[str, list[Contour]], home: Path, where: make.Grid | None = None, **how: Any
) -> tuple[Path, Image]:
    where = where or make.grid(4)
    return make.save(structures(regions, where, **how), home / "rt.dcm"), series_of(where, home)


def test_contours_of_one_region_on_one_slice_exclude_one_another(tmp_path: Path) -> None:
    path, image = one({"ring": [Contour(1, BOX), Contour(1, HOLE), Contour(2, BOX)]}, tmp_path)
    found = read_mask(path, grid=image).data[0]
    assert np.array_equal(found[1], box(BOX) & ~box(HOLE)) and np.array_equal(found[2], box(BOX))
    assert not found[[0, 3]].any()


def test_numbers_follow_roi_numbers_and_names_stay(tmp_path: Path) -> None:
    """ROI numbers skip and come in any order; a region that nobody has drawn keeps its place."""
    regions = {
        "spleen": [Contour(1, ASIDE)],
        "liver": [Contour(1, BOX)],
        "not drawn": [],
        "ISO": [Contour(2, BOX[:1], "POINT")],
    }
    path, image = one(regions, tmp_path, numbers=[40, 7, 12, 99])
    found = read_mask(path, grid=image)
    assert np.array_equal(found.data[0, 1], box(BOX) * 1 + box(ASIDE) * 3)
    assert found.origin["labels"] == {1: "liver", 2: "not drawn", 3: "spleen", 4: "ISO"} == mask_labels(path)
    assert "2 regions enclose nothing, and have no voxel: not drawn (not drawn), ISO (POINT)" in found.origin["notes"]


@pytest.mark.parametrize("off", [0.05, -0.09])
def test_coordinates_may_be_rounded(tmp_path: Path, off: float) -> None:
    path, image = one({"a": [Contour(1, BOX, lift=off * 3)]}, tmp_path, decimals=2)
    assert np.array_equal(read_mask(path, grid=image).data[0, 1], box(BOX))


TILTED = Contour(1, BOX, lift=np.array([0, 0, 1.4, 1.4]))


@pytest.mark.parametrize(
    ("contours", "reason"),
    [
        ([Contour(1.5, BOX)], r"region a has a contour between slices, 1.5 mm from the nearest slice, .* 3 mm apart"),
        ([Contour(1, BOX), Contour(1.2, BOX)], r"region a has a contour between slices, 0.6 mm"),
        ([Contour(3, BOX, lift=3.0)], r"region a has a contour beyond the image, 3 mm"),
        ([TILTED], r"region a has a contour that is not parallel to the slices: it reaches over 1.4 mm"),
        ([Contour(1, BOX, "POINT")], r"no region encloses anything: a \(POINT\)"),
        ([Contour(1, BOX, "OPEN_PLANAR")], r"no region encloses anything: a \(OPEN_PLANAR\)"),
        (
            [Contour(1, BOX), Contour(2, BOX, "OPEN_NONPLANAR")],
            r"region a has contours of OPEN_NONPLANAR beside closed",
        ),
        ([], "a structure set without a contour; expected regions that are drawn on slices"),
    ],
)
def test_what_says_nothing_of_voxels_is_refused(tmp_path: Path, contours: list[Contour], reason: str) -> None:
    path, image = one({"a": contours}, tmp_path)
    with pytest.raises(ReadError, match=reason) as error:
        read_mask(path, grid=image)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_regions_that_overlap_are_refused_by_name_and_read_one_by_one(tmp_path: Path) -> None:
    path, image = one({"body": [Contour(1, BOX)], "organ, left": [Contour(1, HOLE)]}, tmp_path)
    with pytest.raises(ReadError, match=r"regions body and organ, left overlap.*roi=organ, left") as error:
        read_mask(path, grid=image)
    assert "\n" not in str(error.value)
    assert np.array_equal(read_mask(path, "roi=body", image).data[0, 1], box(BOX))
    for frame in ("roi=organ, left", "roi=2"):
        found = read_mask(path, frame, image)
        assert np.array_equal(found.data[0, 1], box(HOLE) * 2) and found.origin["labels"] == {2: "organ, left"}
    with pytest.raises(ReadError, match="no region 'bodi'; did you mean body"):
        read_mask(path, "roi=bodi", image)
    with pytest.raises(ReadError, match="expected roi=NAME"):
        read_mask(path, "segment=1", image)


def test_regions_that_touch_do_not_overlap(tmp_path: Path) -> None:
    left = np.array([[2, 3], [7, 3], [7, 9], [2, 9]], float)
    path, image = one({"left": [Contour(1, left)], "right": [Contour(1, left + np.array([5, 0]))]}, tmp_path)
    found = read_mask(path, grid=image).data[0, 1]
    assert np.array_equal(found, box(left - 0.5) * 1 + box(left + np.array([4.5, -0.5])) * 2)


def test_a_structure_set_needs_an_image_with_a_place(tmp_path: Path) -> None:
    path, image = one({"a": [Contour(1, BOX)]}, tmp_path)
    with pytest.raises(UsageError, match="have no voxels; give the image that they lie on as the grid"):
        read_mask(path)
    with pytest.raises(UsageError, match="has no place in the patient"):
        read_mask(path, grid=Image(image.data, origin={"path": "a.png"}))
    nifti = Image(image.data, image.affine, origin={"format": "nifti"})  # of which nobody says what it is
    assert np.array_equal(read_mask(path, grid=nifti).data[0, 1], box(BOX))


@pytest.mark.parametrize("series", [True, False])
def test_contours_on_another_image_are_refused(tmp_path: Path, series: bool) -> None:
    dataset = structures({"a": [Contour(1, BOX)]}, make.grid(4))
    holder = dataset.ReferencedFrameOfReferenceSequence[0]
    if series:
        holder.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"
    else:
        dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3"
    path, image = make.save(dataset, tmp_path / "rt.dcm"), series_of(make.grid(4), tmp_path)
    with pytest.raises(UsageError, match="drawn on series 1.2.3" if series else "frame of reference 1.2.3") as error:
        read_mask(path, grid=image)
    assert "\n" not in str(error.value)


def test_a_slice_alone_has_its_contours(tmp_path: Path) -> None:
    where = make.grid(4, angles=(10, 20, 30))
    path, image = one({"a": [Contour(1, BOX)]}, tmp_path, where)
    affine = image.affine.copy()
    affine[:3, 3] = make.places(image)[1]
    plane = Image(image.data[:, 1], affine, origin={"format": "nifti"})
    found = read_mask(path, grid=plane)
    assert found.size == SIZE and np.array_equal(found.data[0], box(BOX))


def test_damage_is_one_line(tmp_path: Path) -> None:
    path, image = one({"a": [Contour(1, BOX)]}, tmp_path)
    whole = path.read_bytes()
    for k, broken in enumerate((whole[:-40], whole.replace(b"CLOSED_PLANAR", b"\0" * 13), whole[: len(whole) // 2])):
        other = tmp_path / f"{k}.dcm"
        other.write_bytes(broken)
        try:
            read_mask(other, grid=image)
        except FabricaError as error:
            assert "\n" not in str(error) and str(other) in str(error)
    dataset = structures({"a": [Contour(1, BOX)]}, make.grid(4))
    dataset.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2", "3", "4"]
    with pytest.raises(ReadError, match="a contour of 4 coordinates"):
        read_mask(make.save(dataset, tmp_path / "four.dcm"), grid=image)


@pytest.mark.skipif(not (DATA / "dicom_pydicom").is_dir(), reason=f"no DICOM collection at {DATA}; set FABRICA_DATA")
def test_a_planning_systems_own_file_is_read() -> None:
    """A box of 400 x 300 mm on three slices, and two isocentres, which are points."""
    path = DATA / "dicom_pydicom" / "test_files" / "rtstruct.dcm"
    assert mask_labels(path) == {1: "patient", 2: "Isocenter 1", 3: "Isocenter 2"}
    affine = np.array([[-5.0, 0, 0, 247.5], [0, -5.0, 0, 247.5], [0, 0, 10.0, -220], [0, 0, 0, 1]])
    found = read_mask(path, grid=Image(np.zeros((1, 7, 100, 100), np.float32), affine, origin={"format": "nifti"}))
    assert [int(plane.sum()) for plane in found.data[0]] == [0, 0, 80 * 60, 80 * 60, 80 * 60, 0, 0]
    assert any("2 regions enclose nothing" in note for note in found.origin["notes"])
    between = affine.copy()
    between[2, 3] += 4
    with pytest.raises(ReadError, match="region patient has a contour between slices, 4 mm"):
        read_mask(path, grid=Image(np.zeros((1, 7, 100, 100), np.float32), between, origin={"format": "nifti"}))
