"""Segmentations (SEG): each segment an image, on the grid of all, with the planes that writers leave out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica import io as fio
from fabrica.data.scan import scan
from fabrica.errors import ReadError
from fabrica.image import Image
from fabrica.io.dicom.header import read_header
from fabrica.io.dicom.unusual import by_pydicom
from tests.draws import draws
from tests.io.dicom import series as make
from tests.io.dicom.segmentation import NAMES, frames_of, masks, segmentation
from tests.io.dicom.test_series import QUICK, everything, folder

GRID = make.grid(6)
ALL = [True] * 6
BETWEEN = {"SpacingBetweenSlices": 3.0}


def gap(image: Image) -> list[str]:
    """What the image says of planes that its file leaves out, and of slices that are missing."""
    return [note for note in image.origin["notes"] if "missing" in note or "not in the file" in note]


@st.composite
def drawn(draw: st.DrawFn) -> dict[str, Any]:
    """Segments on planes of their own, some of which no segment is on."""
    depth = draw(st.integers(1, 7))
    count = draw(st.integers(1, 3))
    present = [draw(st.lists(st.booleans(), min_size=depth, max_size=depth)) for _ in range(count)]
    for planes in present:
        planes[draw(st.integers(0, depth - 1))] = True
    said = draw(st.sampled_from(["between", "nothing"]))
    if said == "nothing":  # only two planes that are neighbours can say how far neighbours are apart
        first = draw(st.integers(0, max(0, depth - 2)))
        for k in range(first, min(depth, first + 2)):
            present[k % count][k] = True
    return {
        "present": present,
        "said": said,
        "kind": draw(st.sampled_from(["BINARY", "BINARY", "FRACTIONAL", "LABELMAP"])),
        "size": draw(st.sampled_from([(6, 8), (3, 7), (5, 5), (9, 7)])),
        "omit": draw(st.sampled_from([True, True, False])),
        "order": draw(st.sampled_from([None, 1, 2])),
        "rle": draw(st.booleans()),
        "between": draw(st.sampled_from([3.0, -3.0, 0.7, -5.5])),
        "plane": draw(st.sampled_from(sorted(make.PLANES))),
        "angles": draw(st.sampled_from([(0, 0, 0), (11, 0, 0), (-7.3, 12.9, 31.7), (88, 3, 1)])),
        "tilt": draw(st.sampled_from([0.0, 0.0, 0.25])),
    }


@settings(max_examples=draws(60), **QUICK)
@given(one=drawn())
def test_segments_are_images_on_one_grid(one: dict[str, Any]) -> None:
    present, kind = one["present"], one["kind"]
    depth = len(present[0])
    where = make.grid(depth, one["between"], plane=one["plane"], angles=one["angles"], tilt=one["tilt"])
    parts = masks(present, kind, one["size"])
    frames = frames_of(parts, where, one["omit"], one["order"])
    measures = {"SpacingBetweenSlices": abs(one["between"])} if one["said"] == "between" else {}
    numbers = [*([0] if kind == "LABELMAP" else []), *range(1, len(present) + 1)]
    made = segmentation(frames, kind, numbers, measures)
    there = np.flatnonzero(np.any(present, axis=0)) if one["omit"] else np.arange(depth)
    inside = range(int(there[0]), int(there[-1]) + 1)
    truths = [
        make.Truth(values[list(inside)] / (200 if kind == "FRACTIONAL" else 1), where.at(inside)) for values in parts
    ]
    with folder() as home:
        path = make.save(made, home / "a.dcm", one["rle"] and kind != "BINARY")
        images = everything(path)
        several = kind != "LABELMAP" and len(parts) > 1
        assert list(images) == ([f"segment={k}" for k in range(1, len(parts) + 1)] if several else [""])
        for image, truth, name in zip(images.values(), truths, NAMES, strict=False):
            assert make.equal(image, truth) == ""
            assert image.unit == ("arbitrary" if kind == "FRACTIONAL" else "label") and image.channels == 1
            assert "missing" not in image.origin and "positions" not in image.origin
            absent = int((~truth.values.any((1, 2))).sum()) if one["omit"] else 0
            assert [note.split()[0] for note in gap(image)] == ([str(absent)] if absent else [])
            assert image.origin.get("segment") == (None if kind == "LABELMAP" else name)
            low, high = image.origin["range"]
            assert low == 0 and high == (255 if kind == "LABELMAP" else 1)
        manifest = scan(home, include=["segmentation"])
        assert [row.frame for row in manifest.rows] == list(images)
        for row, image in zip(manifest.rows, images.values(), strict=True):
            again = fio.read(manifest.file(row), row.frame)
            assert np.array_equal(again.data, image.data) and np.array_equal(again.affine, image.affine)
            assert row.unit == image.unit and row.kind == "segmentation" and row.split
            assert set(gap(image)) <= set(row.notes.split("; ")) and row.dims == str(len(image.size))
        quick, slow = read_header(path), by_pydicom(path)
        assert (quick.segments, quick.of_frames, quick.shared) == (slow.segments, slow.of_frames, slow.shared)


# ---------------------------------------------------------------- where planes lie that are not there


def placed(tmp_path: Path, offsets: list[float], measures: dict[str, float]) -> Image:
    where = make.grid(offsets=offsets)
    [values] = masks([[True] * len(offsets)])
    image = fio.read(make.save(segmentation(frames_of([values], where), measures=measures), tmp_path / "a.dcm"))
    found = make.places(image)[:, 2] - where.places[0][2]
    filled = image.data[0].any((1, 2))
    assert found[filled].tolist() == pytest.approx(offsets, abs=0.1 + 1e-6) and "missing" not in image.origin
    assert not any("missing" in note for note in image.origin["notes"])
    return image


@pytest.mark.parametrize(
    ("offsets", "measures", "planes"),
    [
        ([0, 9], BETWEEN, 4),
        ([0, 9], {}, 2),  # nothing says that there is a plane between
        ([0, 6, 15], {"SliceThickness": 3.0}, 6),  # no multiples of the smallest distance
        ([0, 6, 12], {"SliceThickness": 3.0}, 3),
        ([0, 1.5, 6], BETWEEN, 5),  # what is stated cannot be
        ([0, 1.2, 2.5, 3.7, 5.0, 66.3], {}, 54),  # 1.25 mm in tenths: 49 steps of the mean, 51 of the smallest
        ([0, 3.1, 6, 9, 15], {}, 6),
    ],
)
def test_the_step_of_the_grid(tmp_path: Path, offsets: list[float], measures: dict[str, float], planes: int) -> None:
    assert placed(tmp_path, offsets, measures).data.shape[1] == planes


@pytest.mark.parametrize("offsets", [[0, 4, 8, 12, 19, 26], [0, 3, 7.3, 9], [0, 1.9, 3.8, 5.9, 7.8, 9.8, 16]])
def test_planes_that_fit_no_even_grid_keep_their_places(tmp_path: Path, offsets: list[float]) -> None:
    image = placed(tmp_path, offsets, {})
    assert "positions" in image.origin and any("uneven" in note for note in image.origin["notes"])


def test_a_tiny_step_makes_no_huge_grid(tmp_path: Path) -> None:
    image = placed(tmp_path, [0, 3, 6], {"SpacingBetweenSlices": 1e-9})
    assert image.data.shape[1] == 3


def test_frames_of_two_planes_are_grids_of_their_own(tmp_path: Path) -> None:
    other = make.grid(3, plane="sagittal")
    a, b = masks([[True, False, True]])[0], masks([[True, True, True]], seed=1)[0]
    frames = [*frames_of([a], make.grid(3)), *frames_of([b], other)]
    made = make.enhanced(frames, shared_plane=False)
    dataset = segmentation(frames, measures=BETWEEN)
    dataset.PerFrameFunctionalGroupsSequence = made.PerFrameFunctionalGroupsSequence
    del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    images = everything(make.save(dataset, tmp_path / "a.dcm"))
    assert list(images) == ["segment=1,plane=1", "segment=1,plane=2"]
    assert make.compared(images.values(), [make.Truth(a, make.grid(3)), make.Truth(b, other)]) == []


def test_frames_without_a_place_are_pictures(tmp_path: Path) -> None:
    parts = masks([[True], [True]], size=(5, 5))
    frames = frames_of(parts, make.grid(1))
    dataset = segmentation(frames, listed=[1, 2])
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        del groups.PlanePositionSequence
    images = everything(make.save(dataset, tmp_path / "a.dcm"))
    assert list(images) == ["segment=1", "segment=2"]
    assert all(np.array_equal(image.data, part) for image, part in zip(images.values(), parts, strict=True))


# ---------------------------------------------------------------- values


def test_a_palette_is_how_a_label_map_is_shown_not_what_it_says(tmp_path: Path) -> None:
    [labels] = masks([ALL, ALL], "LABELMAP")
    dataset = segmentation(frames_of([labels], GRID), "LABELMAP", [0, 1, 2], PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", bytes(range(255, -1, -1)))
    make.save(dataset, tmp_path / "a.dcm")
    assert make.equal(fio.read(tmp_path / "a.dcm"), make.Truth(labels, GRID)) == ""
    [row] = scan(tmp_path, include=["segmentation"]).rows
    assert (row.channels, row.unit) == ("1", "label")


def test_the_background_of_a_label_map_is_0(tmp_path: Path) -> None:
    [labels] = masks([ALL, ALL], "LABELMAP")
    stored = np.where(labels == 0, 255, labels).astype(np.uint8)
    stored[2] = 255
    labels[2] = 0
    dataset = segmentation(frames_of([stored], GRID), "LABELMAP", [1, 2, 255], PixelPaddingValue=255)
    image = fio.read(make.save(dataset, tmp_path / "a.dcm"))
    assert make.equal(image, make.Truth(labels, GRID)) == ""
    assert any("255" in note for note in image.origin["notes"])
    dataset = segmentation(frames_of([stored], GRID), "LABELMAP", [0, 1, 255], PixelPaddingValue=255)
    with pytest.raises(ReadError, match="segment 0 and background 255"):
        fio.read(make.save(dataset, tmp_path / "b.dcm"))


def test_labels_above_all_background_stay_what_they_are(tmp_path: Path) -> None:
    """No plane has background: padding of other images would become the lowest value."""
    labels = np.random.default_rng(0).integers(1, 700, (6, 5, 5)).astype(np.uint16)
    labels[0, 0, 0] = 0
    image = fio.read(make.save(segmentation(frames_of([labels], GRID), "LABELMAP", range(700)), tmp_path / "a.dcm"))
    assert make.equal(image, make.Truth(labels, GRID)) == "" and image.origin["notes"] == ()


def test_fractions_without_a_maximum(tmp_path: Path) -> None:
    [values] = masks([ALL], "FRACTIONAL")
    dataset = segmentation(frames_of([values], GRID), "FRACTIONAL", MaximumFractionalValue=None)
    image = fio.read(make.save(dataset, tmp_path / "a.dcm"))
    assert make.equal(image, make.Truth(values / 255, GRID)) == ""
    assert any("MaximumFractionalValue" in note for note in image.origin["notes"])


def test_a_segment_goes_out_as_any_volume(tmp_path: Path) -> None:
    [values] = masks([[True, False, True, True, False, True]])
    image = fio.read(make.save(segmentation(frames_of([values], GRID), measures=BETWEEN), tmp_path / "a.dcm"))
    fio.write(image, tmp_path / "out")
    assert make.equal(fio.read(tmp_path / "out"), make.Truth(values, GRID)) == ""
    fio.write(image, tmp_path / "a.nii.gz")
    assert make.equal(fio.read(tmp_path / "a.nii.gz"), make.Truth(values, GRID)) == ""


# ---------------------------------------------------------------- several segments, several files


def test_several_segments_are_listed_with_their_names(tmp_path: Path) -> None:
    frames = frames_of(masks([ALL, ALL]), GRID)
    path = make.save(segmentation(frames, listed=[1, 2]), tmp_path / "a.dcm")
    with pytest.raises(ReadError) as error:
        fio.read(path)
    assert str(error.value).endswith(
        "holds 2 images, expected one; name one as the frame: segment=1 (liver, 6 x 6 x 8); "
        "segment=2 (spleen, 6 x 6 x 8)"
    )
    with pytest.raises(ReadError, match="no image 'segment=3'"):
        fio.read(path, "segment=3")


def test_segments_that_are_listed_and_nowhere_drawn_are_told(tmp_path: Path) -> None:
    frames = frames_of(masks([ALL]), GRID)
    image = fio.read(make.save(segmentation(frames, listed=[1, 2, 3]), tmp_path / "a.dcm"))
    told = "2 segments that its file lists have no frame, and are no image: 2 (spleen), 3 (tumour)"
    assert told in image.origin["notes"]


def test_a_shared_functional_group_may_name_the_segment(tmp_path: Path) -> None:
    [values] = masks([ALL])
    dataset = segmentation(frames_of([values], GRID), listed=[4])
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        del groups.SegmentIdentificationSequence
    without = fio.read(make.save(dataset, tmp_path / "b.dcm"))  # one is listed: it can be no other
    common = dataset.SharedFunctionalGroupsSequence[0]
    common.SegmentIdentificationSequence = make._group({"ReferencedSegmentNumber": 4})
    image = fio.read(make.save(dataset, tmp_path / "a.dcm"))
    for each in (image, without):
        assert make.equal(each, make.Truth(values, GRID)) == "" and each.origin["segment"] == "vessel"


def test_files_of_one_series_are_rows_of_their_own(tmp_path: Path) -> None:
    """Two readers, each of whom drew what the other did: neither is repeats of the other's planes."""
    readers = [masks([[True, True, True, False, False, False], [False, True, True] * 2], seed=k) for k in range(2)]
    for number, parts in enumerate(readers):
        dataset = segmentation(frames_of(parts, GRID), listed=[1, 2], measures=BETWEEN, SeriesNumber=7)
        make.save(dataset, tmp_path / f"{number}.dcm", instance=number)
    manifest = scan(tmp_path, include=["segmentation"])
    assert [(row.path, row.frame) for row in manifest.rows] == [
        (f"{number}.dcm", f"segment={k}") for number in range(2) for k in (1, 2)
    ]
    for row in manifest.rows:
        values = readers[int(row.path[0])][int(row.frame[-1]) - 1]
        assert make.equal(fio.read(manifest.file(row), row.frame), make.Truth(values, GRID)) == ""
    frames = fio.frames(tmp_path)
    assert frames == [f"volume={v},segment={k}" for v in (1, 2) for k in (1, 2)]
    wanted = [make.Truth(values, GRID) for parts in readers for values in parts]
    assert make.compared([fio.read(tmp_path, frame) for frame in frames], wanted) == []


def test_a_scan_sets_segments_apart_with_what_they_are_called_and_refer_to(tmp_path: Path) -> None:
    [truth] = make.truths(1, GRID)
    make.classic(tmp_path / "images", [truth], name=lambda v, k: f"{k}")
    parts = masks([[True, False, True, False, False, False], [False, False, True, False, False, True]])
    dataset = segmentation(frames_of(parts, GRID), listed=[1, 2], measures=BETWEEN)
    make.save(dataset, tmp_path / "drawn" / "a.dcm")
    manifest = scan(tmp_path)
    assert manifest.files == {"used": 6, "set apart": 1, "left out": 0, "unread": 0}
    [image] = [row for row in manifest.rows if not row.kind]
    apart = [row for row in manifest.rows if row.kind == "segmentation"]
    assert [row.frame for row in apart] == ["segment=1", "segment=2"] and not any(row.split for row in apart)
    assert [row.description for row in apart] == ["drawn by hand; liver", "drawn by hand; spleen"]
    assert {row.refers for row in apart} == {image.series} and len({row.sha256 for row in apart}) == 2
    assert all("4 of 6 planes are not in the file" in row.notes for row in apart)
    quick = scan(tmp_path, verify=False)
    assert [(row.path, row.frame) for row in quick.rows] == [(row.path, row.frame) for row in manifest.rows]


# ---------------------------------------------------------------- files that contradict themselves


def contradicting(what: str) -> tuple[Any, str]:
    parts = masks([ALL, ALL])
    frames = frames_of(parts, GRID)
    if what == "unlisted":
        return segmentation(frames, listed=[1]), "frame 7 shows segment 2, expected one that SegmentSequence lists"
    if what == "not said":
        dataset = segmentation(frames, listed=[1, 2])
        del dataset.PerFrameFunctionalGroupsSequence[3].SegmentIdentificationSequence
        return dataset, "frame 4 shows segment (not said)"
    if what == "fewer groups":
        dataset = segmentation(frames, listed=[1, 2])
        del dataset.PerFrameFunctionalGroupsSequence[-1]
        return dataset, "12 frames, and functional groups for only 11 of them"
    if what == "twice":
        return segmentation([*frames, frames[2]], listed=[1, 2]), "frames 3 and 13 show segment 1 at one place"
    labels = frames_of(masks([ALL], "LABELMAP"), GRID)
    return segmentation([*labels, labels[2]], "LABELMAP", [0, 1]), "frames 3 and 7 show the label map at one place"


@pytest.mark.parametrize("what", ["unlisted", "not said", "fewer groups", "twice", "label map twice"])
def test_what_contradicts_itself_is_refused_and_the_rest_stays(tmp_path: Path, what: str) -> None:
    dataset, reason = contradicting(what)
    path = make.save(dataset, tmp_path / "b.dcm", instance="bad")
    [values] = masks([ALL])
    make.save(segmentation(frames_of([values], GRID)), tmp_path / "a.dcm", instance="good")  # of the same series
    with pytest.raises(ReadError) as error:
        fio.read(path)
    assert reason in str(error.value) and "\n" not in str(error.value) and str(error.value).count(str(path)) == 1
    manifest = scan(tmp_path, include=["segmentation"])
    [row] = manifest.rows
    assert make.equal(fio.read(manifest.file(row), row.frame), make.Truth(values, GRID)) == ""
    [(name, why)] = manifest.rejected
    assert name == "b.dcm" and why.startswith(reason)
