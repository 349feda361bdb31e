"""Segmentations (SEG) as one label map: all segments, whatever is left out, on the slices they were drawn on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from fabrica import io as fio
from fabrica.errors import FabricaError, ReadError, UsageError
from fabrica.image import Image
from fabrica.io import mask_labels, read_mask
from tests.draws import draws
from tests.io.dicom import series as make
from tests.io.dicom.segmentation import NAMES, frames_of, segmentation
from tests.io.dicom.test_series import QUICK, folder

Array = np.ndarray[Any, Any]
BETWEEN = {"SpacingBetweenSlices": 3.0}
CALLED = dict(enumerate(NAMES, start=1))


def labels_of(shape: tuple[int, ...], numbers: list[int], seed: int = 0, empty: tuple[int, ...] = ()) -> Array:
    """A label map (D, H, W) in which each number has a voxel, but on the planes that are `empty`."""
    rng = np.random.default_rng(seed)
    found = rng.choice([0, 0, *numbers], shape).astype(np.uint16)
    found[list(empty)] = 0
    full = [k for k in range(shape[0]) if k not in empty]
    for place, number in enumerate(numbers):
        found[full[place % len(full)]].flat[place] = number
    return found


def drawn(labels: Array, where: make.Grid, numbers: list[int], kind: str = "BINARY", **how: Any) -> Dataset:
    """The SEG of a label map; `order` shuffles its frames, `omit` leaves empty ones out."""
    order, omit, measures = how.pop("order", None), how.pop("omit", True), how.pop("measures", None)
    if kind == "LABELMAP":
        stored = labels.astype(np.uint8 if max(numbers) < 256 else np.uint16)
        frames = frames_of([stored], where, omit, order)
        return segmentation(frames, kind, [0, *numbers], measures, **how)
    parts = []
    for number in range(1, max(numbers) + 1):
        part = (labels == number).astype(np.uint8)
        if kind == "FRACTIONAL":  # from half of 200 on it belongs
            rng = np.random.default_rng(number)
            part = np.where(part > 0, rng.integers(100, 201, part.shape), rng.integers(0, 100, part.shape))
            part = (part * (part >= 100) if omit else part).astype(np.uint8)
        parts.append(part)
    frames = [f for f in frames_of(parts, where, omit, order) if f.index[0] in numbers]
    return segmentation(frames, kind, numbers, measures, **how)


def image_of(where: make.Grid, size: tuple[int, int], home: Path, modality: str = "MR") -> Image:
    """The series that was drawn on."""
    depth = len(where.places)
    truth = make.Truth(np.random.default_rng(1).integers(0, 99, (depth, *size)).astype(np.int16), where)
    make.classic(home / "series", [truth], modality=modality)
    return fio.read(home / "series")


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    depth = draw(st.integers(1, 7))
    kind = draw(st.sampled_from(["BINARY", "BINARY", "FRACTIONAL", "LABELMAP"]))
    numbers = draw(
        st.sampled_from([[1], [1, 2], [1, 2, 3, 4], [2, 4], [3], *([[5, 300]] if kind == "LABELMAP" else [])])
    )
    empty = draw(st.sets(st.integers(0, depth - 1), max_size=depth - 1))
    offsets = None
    if draw(st.booleans()):  # uneven slices
        offsets = [
            0.0,
            *np.cumsum(draw(st.lists(st.sampled_from([1.5, 3.0, 4.2, 7.0]), min_size=depth, max_size=depth))),
        ]
    return {
        "kind": kind,
        "numbers": numbers,
        "empty": tuple(empty),
        "size": draw(st.sampled_from([(6, 8), (3, 7), (9, 5)])),
        "omit": draw(st.sampled_from([True, True, False])),
        "order": draw(st.sampled_from([None, 1])),
        "grid": {
            "depth": depth,
            "offsets": None if offsets is None else offsets[:depth],
            "between": draw(st.sampled_from([3.0, -3.0, 0.7])),
            "plane": draw(st.sampled_from(sorted(make.PLANES))),
            "angles": draw(st.sampled_from([(0, 0, 0), (11, 0, 0), (-7.3, 12.9, 31.7)])),
            "tilt": draw(st.sampled_from([0.0, 0.25])),
        },
    }


@settings(max_examples=draws(60), **QUICK)
@given(one=cases())
def test_a_label_map_comes_back_on_the_slices_it_was_drawn_on(one: dict[str, Any]) -> None:
    where = make.grid(**one["grid"])
    depth = len(where.places)
    labels = labels_of((depth, *one["size"]), one["numbers"], empty=one["empty"])
    made = drawn(labels, where, one["numbers"], one["kind"], omit=one["omit"], order=one["order"])
    with folder() as home:
        image = image_of(where, one["size"], home)
        path = make.save(made, home / "drawn" / "a.dcm", one["order"] == 1 and one["kind"] != "BINARY")
        found = read_mask(path, grid=image)
        assert found.unit == "label" and found.data.shape == image.data.shape
        assert np.array_equal(found.affine, image.affine)
        assert np.array_equal(make.places(found), make.places(image))
        # a reader sorts slices along their normal
        order = np.argsort(where.places @ where.normal, kind="stable")
        assert np.array_equal(found.data.reshape(labels.shape), labels[order])
        assert found.origin["labels"] == {n: NAMES[(n - 1) % 4] for n in one["numbers"]} == mask_labels(path)
        assert not any("resampled" in key for key in found.origin)


@settings(max_examples=draws(30), **QUICK)
@given(one=cases())
def test_without_a_grid_it_lies_where_it_lies(one: dict[str, Any]) -> None:
    """Planes that a writer left out between others are there again, where slices are even."""
    where = make.grid(**{**one["grid"], "offsets": None})
    depth, between = len(where.places), abs(one["grid"]["between"])
    labels = labels_of((depth, *one["size"]), one["numbers"], empty=one["empty"])
    measures = {"SpacingBetweenSlices": between}
    made = drawn(labels, where, one["numbers"], one["kind"], omit=one["omit"], order=one["order"], measures=measures)
    there = np.flatnonzero(labels.any((1, 2))) if one["omit"] else np.arange(depth)
    inside = list(range(int(there[0]), int(there[-1]) + 1))
    with folder() as home:
        found = read_mask(make.save(made, home / "a.dcm"))
    assert make.equal(found, make.Truth(labels[inside], where.at(inside))) == ""


# ---------------------------------------------------------------- other grids


def coarse_and_fine(factor: int = 2) -> tuple[make.Grid, make.Grid]:
    coarse = make.grid(5, angles=(5, 10, 20), spacing=(2.0, 2.0))
    fine = make.grid(5, angles=(5, 10, 20), spacing=(2.0 / factor, 2.0 / factor))
    shift = -(factor - 1) / (2 * factor) * 2.0
    return coarse, fine.moved(shift * (fine.along_w + fine.along_h))


@pytest.mark.parametrize("empty", [(), (1,), (0, 2, 3)])
def test_on_finer_pixels_of_the_same_slices_planes_that_are_left_out_stay_empty(
    tmp_path: Path, empty: tuple[int, ...]
) -> None:
    """Without a distance in the header, two planes far from one another would else be taken for thick ones."""
    coarse, fine = coarse_and_fine()
    labels = labels_of((5, 6, 8), [1, 2, 3], empty=empty)
    path = make.save(drawn(labels, coarse, [1, 2, 3]), tmp_path / "a.dcm")
    found = read_mask(path, grid=image_of(fine, (12, 16), tmp_path))
    assert np.array_equal(found.data[0], labels.repeat(2, 1).repeat(2, 2)) and found.origin["resampled"]


def test_uneven_planes_that_are_no_slices_of_the_image_are_refused(tmp_path: Path) -> None:
    where = make.grid(offsets=[0, 3, 7.3, 9])
    path = make.save(drawn(labels_of((4, 6, 8), [1, 2]), where, [1, 2]), tmp_path / "a.dcm")
    with pytest.raises(UsageError, match="its planes are uneven, and are not the slices of") as error:
        read_mask(path, grid=image_of(make.grid(4, 2.5), (6, 8), tmp_path))
    assert "\n" not in str(error.value)


def test_planes_between_slices_go_to_the_nearest(tmp_path: Path) -> None:
    labels = labels_of((8, 6, 8), [1, 2])
    path = make.save(
        drawn(labels, make.grid(8, 1.5), [1, 2], measures={"SpacingBetweenSlices": 1.5}), tmp_path / "a.dcm"
    )
    found = read_mask(path, grid=image_of(make.grid(4, 3.0).moved((0, 0, 0.1)), (6, 8), tmp_path))
    assert np.array_equal(found.data[0], labels[::2])


def test_a_mask_elsewhere_in_the_patient_is_refused(tmp_path: Path) -> None:
    path = make.save(drawn(labels_of((4, 6, 8), [1]), make.grid(4), [1], measures=BETWEEN), tmp_path / "a.dcm")
    with pytest.raises(UsageError, match="lie apart"):
        read_mask(path, grid=image_of(make.grid(4).moved((0, 0, 400)), (6, 8), tmp_path))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"FrameOfReferenceUID": "1.2.3"}, "drawn in the frame of reference 1.2.3"),
        ({"series": "1.2.3"}, "drawn on series 1.2.3"),
        ({"FrameOfReferenceUID": None}, ""),
        ({"series": ""}, ""),
    ],
)
def test_what_says_that_it_was_drawn_on_another_image_is_refused(
    tmp_path: Path, attributes: dict[str, Any], reason: str
) -> None:
    where = make.grid(4)
    dataset = drawn(labels_of((4, 6, 8), [1]), where, [1], measures=BETWEEN)
    if "series" in attributes:
        dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = attributes["series"]
    else:
        make.put(dataset, attributes)
    path = make.save(dataset, tmp_path / "a.dcm")
    image = image_of(where, (6, 8), tmp_path)
    plain = Image(image.data, image.affine, origin={"format": "nifti"})
    assert read_mask(path, grid=plain).data.any()  # which says nothing
    if not reason:
        assert read_mask(path, grid=image).data.any()
        return
    with pytest.raises(UsageError, match=reason) as error:
        read_mask(path, grid=image)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- pictures


def pictures(size: tuple[int, int] = (6, 8), **attributes: Any) -> tuple[Dataset, Array]:
    labels = labels_of((1, *size), [1, 2])
    dataset = drawn(labels, make.grid(1), [1, 2], **attributes)
    for groups in (*dataset.PerFrameFunctionalGroupsSequence, *dataset.SharedFunctionalGroupsSequence):
        for keyword in ("PlanePositionSequence", "PlaneOrientationSequence"):
            if keyword in groups:
                delattr(groups, keyword)
    return dataset, labels


def test_a_mask_without_a_place_lies_on_a_picture_of_its_size(tmp_path: Path) -> None:
    dataset, labels = pictures()
    path = make.save(dataset, tmp_path / "a.dcm")
    found = read_mask(path)
    assert found.data.shape == (1, 6, 8) and np.array_equal(found.data, labels)
    where = make.grid(1, angles=(1, 2, 3))
    image = image_of(where, (6, 8), tmp_path)
    laid = read_mask(path, grid=image)
    assert np.array_equal(laid.data, labels) and np.array_equal(laid.affine, image.affine)
    with pytest.raises(UsageError, match=r"6 x 8 pixels that does not say where it lies, and .* is 7 x 8"):
        read_mask(path, grid=image_of(where, (7, 8), tmp_path / "other"))


# ---------------------------------------------------------------- what is asked for, what is refused


def overlapping() -> tuple[Array, Array]:
    a, b = np.zeros((4, 6, 8), np.uint8), np.zeros((4, 6, 8), np.uint8)
    a[1, 2:5, 2:5], b[1, 4:6, 4:6] = 1, 1
    return a, b


def test_segments_that_overlap_are_refused_by_name_and_read_one_by_one(tmp_path: Path) -> None:
    a, b = overlapping()
    dataset = segmentation(frames_of([a, b], make.grid(4)), listed=[1, 2], measures=BETWEEN)
    path = make.save(dataset, tmp_path / "a.dcm")
    image = image_of(make.grid(4), (6, 8), tmp_path)
    with pytest.raises(ReadError, match=r"segments 1 \(liver\) and 2 \(spleen\) overlap.*segment=2") as error:
        read_mask(path)
    assert "\n" not in str(error.value)
    for number, part in ((1, a), (2, b)):
        found = read_mask(path, f"segment={number}", image)
        assert np.array_equal(found.data[0], part * number)
        assert found.origin["labels"] == {number: CALLED[number]}


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_some_segments_may_be_asked_for(tmp_path: Path, kind: str) -> None:
    labels = labels_of((4, 6, 8), [1, 2, 3, 4])
    path = make.save(drawn(labels, make.grid(4), [1, 2, 3, 4], kind), tmp_path / "a.dcm")
    found = read_mask(path, "segment=2,segment=4", image_of(make.grid(4), (6, 8), tmp_path))
    assert np.array_equal(found.data[0], np.where(np.isin(labels, (2, 4)), labels, 0))
    assert found.origin["labels"] == {2: "spleen", 4: "vessel"} and found.origin["range"] == (0, 4)
    with pytest.raises(ReadError, match="no 'segment=7'"):
        read_mask(path, "segment=7")


def test_segments_without_a_voxel_keep_their_name_and_number(tmp_path: Path) -> None:
    labels = labels_of((4, 6, 8), [2])
    path = make.save(drawn(labels, make.grid(4), [1, 2, 3], measures=BETWEEN), tmp_path / "a.dcm")
    found = read_mask(path)
    assert set(np.unique(found.data)) == {0, 2}
    assert found.origin["labels"] == {1: "liver", 2: "spleen", 3: "tumour"}
    assert "2 segments that its file lists have no voxel: 1 (liver), 3 (tumour)" in found.origin["notes"]


def test_planes_that_are_not_parallel_are_named_one_by_one(tmp_path: Path) -> None:
    a = np.ones((3, 6, 8), np.uint8)
    frames = [*frames_of([a], make.grid(3)), *frames_of([a[:2]], make.grid(2, plane="sagittal"))]
    made = make.enhanced(frames, shared_plane=False)
    dataset = segmentation(frames, measures=BETWEEN)
    dataset.PerFrameFunctionalGroupsSequence = made.PerFrameFunctionalGroupsSequence
    del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    path = make.save(dataset, tmp_path / "a.dcm")
    with pytest.raises(ReadError, match=r"2 stacks of planes, .*plane=1; plane=2"):
        read_mask(path)
    assert read_mask(path, "plane=1").size == (3, 6, 8) and read_mask(path, "plane=2").size == (2, 6, 8)


def test_the_background_of_a_label_map_is_0_and_no_label(tmp_path: Path) -> None:
    labels = labels_of((4, 6, 8), [1, 2])
    stored = np.where(labels == 0, 255, labels).astype(np.uint8)
    frames = frames_of([stored], make.grid(4))
    dataset = segmentation(frames, "LABELMAP", [1, 2, 255], BETWEEN, PixelPaddingValue=255)
    found = read_mask(make.save(dataset, tmp_path / "a.dcm"))
    assert np.array_equal(found.data[0], labels) and found.origin["labels"] == {1: "liver", 2: "spleen"}


def test_a_file_that_contradicts_itself_is_one_line(tmp_path: Path) -> None:
    labels = labels_of((4, 6, 8), [1, 2])
    for kind, spoil in (("BINARY", "ReferencedSegmentNumber"), ("FRACTIONAL", "Rows"), ("LABELMAP", "Rows")):
        dataset = drawn(labels, make.grid(4), [1, 2], kind)
        if spoil == "Rows":
            dataset.Rows = 600
        else:
            dataset.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9
        path = make.save(dataset, tmp_path / f"{kind}.dcm")
        with pytest.raises(FabricaError) as error:
            read_mask(path)
        assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_segment_read_alone_is_called_1(tmp_path: Path) -> None:
    labels = labels_of((4, 6, 8), [1, 2])
    path = make.save(drawn(labels, make.grid(4), [1, 2], measures=BETWEEN), tmp_path / "a.dcm")
    assert fio.read(path, "segment=2").origin["labels"] == {1: "spleen"}
    whole = make.save(drawn(labels, make.grid(4), [1, 2], "LABELMAP"), tmp_path / "b.dcm")
    assert fio.read(whole).origin["labels"] == {1: "liver", 2: "spleen"}
