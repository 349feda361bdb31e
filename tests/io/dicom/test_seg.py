"""Label maps as DICOM segmentations: voxel for voxel in their place, with names, codes and a record, for any reader."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica import io as fio
from fabrica.errors import FabricaError, ReadError, UsageError
from fabrica.image import Image
from fabrica.io import read_mask
from tests.draws import draws
from tests.io.dicom import series as make
from tests.io.dicom.test_label_maps import labels_of
from tests.io.dicom.test_series import QUICK, folder
from tests.real import DATA

Array = np.ndarray[Any, Any]
DCIODVFY = shutil.which("dciodvfy")
# what the validator does not know: SyntheticData, and label maps (PS3.3 A.51, Label Map Segmentation)
UNKNOWN = ("(0x0008,0x001c)", "Information Object Not found", "SegmentNumber of 0")
MODEL: dict[str, Any] = {
    "model": "organs",
    "model_hash": "ab12",
    "version": "1.2",
    "description": "organs of the chest",
}
NAMES = {1: "liver", 2: "left lung", 3: "Lung tumour", 4: "Knochen, größer"}
KINDS = ("seg", "seg-labelmap")


def complaints(path: Path) -> set[str]:
    if DCIODVFY is None:
        return set()
    done = subprocess.run([DCIODVFY, str(path)], capture_output=True, text=True, timeout=20, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return {line for line in lines if line.startswith("Error") and not any(known in line for known in UNKNOWN)}


def on(image: Image, labels: Array, names: dict[int, str] | None = None) -> Image:
    """The result of a model that segments: labels (D, H, W) on the voxels of an image."""
    data = labels.astype(np.float32).reshape(1, *image.size)
    origin = {**image.origin, "labels": NAMES if names is None else names}
    return image.with_data(data, unit="label", origin=origin)


def scanned(home: Path, where: make.Grid, size: tuple[int, int] = (6, 8), **attributes: Any) -> Image:
    rng = np.random.default_rng(0)
    truth = make.Truth(rng.integers(0, 900, (len(where.places), *size)).astype(np.int16), where)
    make.classic(home / "series", [truth], **attributes)
    return fio.read(home / "series")


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    depth = draw(st.integers(1, 6))
    return {
        "kind": draw(st.sampled_from(KINDS)),
        "numbers": draw(st.sampled_from([[1], [1, 2, 3], [4, 2], [3], [], [1, 9, 300]])),
        "empty": tuple(draw(st.sets(st.integers(0, depth - 1), max_size=depth - 1))),
        "size": draw(st.sampled_from([(6, 8), (3, 7), (9, 5)])),
        "grid": {
            "depth": depth,
            "offsets": draw(st.sampled_from([None, None, np.cumsum([0, 3, 4.1, 1.2, 7, 3])[:depth]])),
            "between": draw(st.sampled_from([3.0, -3.0, 0.7])),
            "plane": draw(st.sampled_from(sorted(make.PLANES))),
            "angles": draw(st.sampled_from([(0, 0, 0), (11, 0, 0), (-7.3, 12.9, 31.7)])),
            "tilt": draw(st.sampled_from([0.0, 0.25])),
        },
    }


@settings(max_examples=draws(25), **QUICK)
@given(one=cases())
def test_labels_come_back_voxel_for_voxel(one: dict[str, Any]) -> None:
    where, kind, numbers = make.grid(**one["grid"]), one["kind"], sorted(one["numbers"])
    shape = (len(where.places), *one["size"])
    labels = labels_of(shape, numbers, empty=one["empty"]) if numbers else np.zeros(shape)
    with folder() as home:
        image = scanned(home, where, one["size"])
        [path] = fio.write(on(image, labels), home / "a.dcm", as_=kind, **MODEL)
        found = read_mask(path, grid=image)
        assert np.array_equal(found.data.reshape(shape), labels) and "resampled" not in found.origin
        assert np.array_equal(make.places(found), make.places(image)) and np.array_equal(found.affine, image.affine)
        alone = read_mask(path)
        if kind == "seg-labelmap":  # which keeps all slices
            assert np.array_equal(alone.data.reshape(shape), labels)
            assert np.allclose(make.places(alone), make.places(image), atol=1e-6)
        named = {1, 2, 3, 4}
        listed = range(1, max([*named, *numbers]) + 1) if kind == "seg" else sorted({*named, *numbers})
        assert found.origin["labels"] == {n: NAMES.get(n, f"label {n}") for n in listed}
        assert complaints(path) == set()
        by_others(path, labels, where, kind)


def by_others(path: Path, labels: Array, where: make.Grid, kind: str) -> None:
    """The same by highdicom: frames by the slice that they were made of, and where they lie."""
    seg = highdicom.seg.segread(path)
    dataset = pydicom.dcmread(path)
    sources = [
        str(item.ReferencedSOPInstanceUID) for item in dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    ]
    found = seg.get_pixels_by_source_instance(
        sources, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(found, labels)
    assert dataset.SegmentsOverlap == "NO" and dataset.SegmentationType == {"seg": "BINARY"}.get(kind, "LABELMAP")
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        assert np.abs(where.places - position).sum(axis=1).min() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_the_header(tmp_path: Path, kind: str) -> None:
    image = scanned(tmp_path, make.grid(5), AccessionNumber="A7", PatientPosition="FFP", Manufacturer="ACME")
    labels = labels_of((5, 6, 8), [1, 2, 3, 4])
    [path] = fio.write(on(image, labels), tmp_path / "a.dcm", as_=kind, **MODEL)
    dataset, source = pydicom.dcmread(path), image.origin["dicom"][0]
    for kept in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "AccessionNumber"):
        assert dataset[kept].value == source[kept].value, kept
    assert dataset.Modality == "SEG" and dataset.SeriesInstanceUID != source.SeriesInstanceUID
    assert dataset.SeriesDescription == "organs of the chest" and dataset.ContentLabel == "SEGMENTATION"
    [reference] = dataset.ReferencedSeriesSequence
    assert reference.SeriesInstanceUID == source.SeriesInstanceUID
    uids = [d.SOPInstanceUID for d in image.origin["dicom"]]
    assert [item.ReferencedSOPInstanceUID for item in reference.ReferencedInstanceSequence] == uids
    assert {item.ReferencedSOPInstanceUID for item in dataset.SourceImageSequence} == set(uids)
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        [made_of] = groups.DerivationImageSequence[0].SourceImageSequence
        k = uids.index(made_of.ReferencedSOPInstanceUID)
        assert made_of.ReferencedSOPClassUID == source.SOPClassUID and "ReferencedFrameNumber" not in made_of
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        assert position == image.origin["dicom"][k].ImagePositionPatient
    segments = {int(item.SegmentNumber): item for item in dataset.SegmentSequence}
    assert {n: item.SegmentLabel for n, item in segments.items() if n} == NAMES
    codes = {n: item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for n, item in segments.items() if n}
    assert codes == {1: "Liver", 2: "Lung", 3: "Neoplasm", 4: "Tissue"}
    side = segments[2].SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert side.CodeMeaning == "Left" and segments[3].AnatomicRegionSequence[0].CodeMeaning == "Lung"
    assert len({tuple(segments[n].RecommendedDisplayCIELabValue) for n in NAMES}) == 4
    for number in NAMES:
        item = segments[number]
        assert (item.SegmentAlgorithmType, item.SegmentAlgorithmName) == ("AUTOMATIC", "organs")
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("organs", "ab12")
    makers = [item.Manufacturer for item in dataset.ContributingEquipmentSequence]
    assert makers[-1] == "Fabrica" and "organs of the chest" in dataset.DerivationDescription
    assert dataset.get("SyntheticData") is None and dataset.PatientName == "Sample^Anna"
    [marked] = fio.write(on(image, labels), tmp_path / "b.dcm", as_=kind, translated=True, **MODEL)
    assert pydicom.dcmread(marked).SyntheticData == "YES"


def test_a_label_map_of_a_dicom_image_is_a_segmentation_unless_asked_otherwise(tmp_path: Path) -> None:
    """And never an MR object of modality SEG."""
    image = scanned(tmp_path, make.grid(4))
    labels = labels_of((4, 6, 8), [1, 2])
    result = on(image, labels).with_data(labels[None], origin={**image.origin, "modality": "SEG"})
    assert fio.write(result, tmp_path / "a.dcm") == [tmp_path / "a.dcm"]
    assert fio.write(result, tmp_path / "home") == [tmp_path / "home" / "0001.dcm"]
    assert fio.write(result, tmp_path / "b", as_="dicom") == [tmp_path / "b" / "0001.dcm"]
    for path in (tmp_path / "a.dcm", tmp_path / "home" / "0001.dcm", tmp_path / "b" / "0001.dcm"):
        assert pydicom.dcmread(path).SOPClassUID.name == "Segmentation Storage"
        assert np.array_equal(read_mask(path, grid=image).data[0], labels)
    assert np.array_equal(read_mask(tmp_path / "home", grid=image).data[0], labels)
    shutil.copy(tmp_path / "a.dcm", tmp_path / "series" / "seg.dcm")  # beside the images it was drawn on
    assert np.array_equal(read_mask(tmp_path / "series", grid=image).data[0], labels)
    shutil.copy(tmp_path / "a.dcm", tmp_path / "series" / "again.dcm")
    with pytest.raises(ReadError, match=r"2 segmentations or structure sets, expected one; .*again.dcm, seg.dcm"):
        read_mask(tmp_path / "series")
    fio.write(result, tmp_path / "a.nii.gz")
    found = fio.read(tmp_path / "a.nii.gz")
    assert np.dtype(found.origin["stored"]["dtype"]) == np.uint8 and np.array_equal(found.data[0], labels)


def test_uids_repeat_for_the_same_image_and_model_alone(tmp_path: Path) -> None:
    image = scanned(tmp_path, make.grid(4))
    other = scanned(tmp_path / "other", make.grid(4), PatientID="P2")
    nothing = np.zeros((4, 6, 8))

    def uids(of: Image, kind: str, **maker: Any) -> set[str]:
        [path] = fio.write(on(of, nothing), tmp_path / "a.dcm", as_=kind, **maker)
        dataset = pydicom.dcmread(path)
        return {str(dataset.SOPInstanceUID), str(dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID)}

    for source in other.origin["dicom"]:
        source.SOPInstanceUID = f"{source.SOPInstanceUID}.1"
    first = uids(image, "seg", **MODEL)
    assert uids(image, "seg", **MODEL) == first and not uids(other, "seg", **MODEL) & first
    assert not uids(image, "seg", **{**MODEL, "model_hash": "cd"}) & first
    assert len(uids(image, "seg-labelmap", **MODEL) & first) == 1  # frames are indexed alike; the object is another


def test_a_segmentation_that_is_made_again_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    image = scanned(tmp_path, make.grid(4))
    files = []
    for second in ("05", "05", "06"):
        made = {**MODEL, "uid_content": "1", "created": f"202601020304{second}"}
        [path] = fio.write(on(image, np.ones((4, 6, 8))), tmp_path / "a.dcm", as_="seg", **made)
        files.append(path.read_bytes())
    assert files[0] == files[1] != files[2]
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    assert (dataset.ContentDate, dataset.ContentTime) == ("20260102", "030406")


def test_an_empty_label_map_needs_few_frames(tmp_path: Path) -> None:
    image = scanned(tmp_path, make.grid(5))
    for names in (NAMES, {}):
        [path] = fio.write(on(image, np.zeros((5, 6, 8)), names), tmp_path / "a.dcm")
        assert pydicom.dcmread(path).NumberOfFrames == max(1, len(names))
        found = read_mask(path, grid=image)
        assert found.data.shape == (1, 5, 6, 8) and not found.data.any()
        assert found.origin["labels"] == (names or {1: "label 1"})


def test_one_slice_and_a_radiograph(tmp_path: Path) -> None:
    plane = scanned(tmp_path / "a", make.grid(1, angles=(3, 4, 5)))
    radiograph = make.plane(np.ones((6, 8), np.uint16), make.grid(1), modality="MR")
    radiograph.SOPClassUID, radiograph.Modality = "1.2.840.10008.5.1.4.1.1.1", "CR"
    spacing = {"PixelSpacing": None, "ImagerPixelSpacing": [0.2, 0.3]}
    gone = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "SliceThickness"))
    make.put(radiograph, {**spacing, **gone, "PatientOrientation": ["L", "F"]})
    picture = fio.read(make.save(radiograph, tmp_path / "x.dcm"))
    for image in (plane, picture):
        for kind in KINDS:
            labels = labels_of((1, 6, 8), [1, 2])
            [path] = fio.write(on(image, labels), tmp_path / "seg.dcm", as_=kind, **MODEL)
            for found in (read_mask(path, grid=image), read_mask(path)):
                assert np.array_equal(found.data, labels) and np.allclose(found.affine, image.affine, atol=1e-6)
            dataset = pydicom.dcmread(path)
            assert ("FrameOfReferenceUID" in dataset) == (image is plane)
            assert dataset.get("PatientOrientation") == (None if image is plane else ["L", "F"])
            assert complaints(path) == set()


def test_frames_of_a_multi_frame_source_are_named(tmp_path: Path) -> None:
    """Two volumes in one file, slice by slice: a label map of the second refers to its frames alone."""
    where = make.grid(4, angles=(5, 6, 7))
    volumes = make.truths(2, where)
    frames = make.frames_of(volumes, "echo", order="backwards")
    path = make.save(make.enhanced(frames, **make.dimensions("echo")), tmp_path / "source.dcm")
    image = fio.read(path, fio.frames(path)[1])
    labels = labels_of((4, 6, 8), [1, 2])
    order = np.argsort(where.places @ where.normal, kind="stable")
    for kind in KINDS:
        [made] = fio.write(on(image, labels[order]), tmp_path / "seg.dcm", as_=kind, **MODEL)
        assert np.array_equal(read_mask(made, grid=image).data[0], labels[order])
        for groups in pydicom.dcmread(made).PerFrameFunctionalGroupsSequence:
            [made_of] = groups.DerivationImageSequence[0].SourceImageSequence
            frame = frames[made_of.ReferencedFrameNumber - 1]
            position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
            assert np.allclose(where.places[frame.k], position) and np.array_equal(
                frame.pixels, volumes[1].values[frame.k]
            )


def test_labels_on_another_grid_than_their_source_lie_where_they_lie(tmp_path: Path) -> None:
    image = scanned(tmp_path, make.grid(4, angles=(5, 6, 7)))
    affine = image.affine @ np.diag([0.5, 0.5, 1, 1])
    finer = Image(np.zeros((1, 4, 12, 16), np.float32), affine, "label", {**image.origin, "labels": NAMES})
    labels = labels_of((4, 12, 16), [1, 2])
    for kind in KINDS:
        [path] = fio.write(finer.with_data(labels[None]), tmp_path / "seg.dcm", as_=kind, **MODEL)
        found = read_mask(path, grid=finer.with_data(labels[None], origin={"format": "nifti"}))
        assert np.array_equal(found.data[0], labels) and np.allclose(read_mask(path).affine, affine, atol=1e-6)
        assert pydicom.dcmread(path).ReferencedSeriesSequence and complaints(path) == set()


def test_without_a_source_it_is_of_nobody_known(tmp_path: Path) -> None:
    """Of a NIfTI, or drawn: with a place, and without references to images that are not there."""
    labels = labels_of((4, 6, 8), [1, 2])
    affine = np.array([[-1.5, 0, 0, 40], [0, -1.2, 0, 50], [0, 0, 3.0, -20], [0, 0, 0, 1.0]])
    image = Image(labels[None].astype(np.float32), affine, "label", {"format": "nifti", "labels": NAMES})
    for kind in KINDS:
        [path] = fio.write(image, tmp_path / "a.dcm", as_=kind, **MODEL)
        assert np.array_equal(read_mask(path, grid=image).data, image.data) and complaints(path) == set()
        dataset = pydicom.dcmread(path)
        assert "ReferencedSeriesSequence" not in dataset and "SourceImageSequence" not in dataset
        assert not any("DerivationImageSequence" in groups for groups in dataset.PerFrameFunctionalGroupsSequence)
        [path] = fio.write(image, tmp_path / "b.dcm", as_=kind, synthetic=True, seed=3)
        assert pydicom.dcmread(path).PatientName == "SYNTHETIC^FABRICA" and pydicom.dcmread(path).SyntheticData == "YES"


def test_headers_that_de_identification_has_emptied(tmp_path: Path) -> None:
    """highdicom alone refuses most of these."""
    gone = ("PatientName", "PatientID", "FrameOfReferenceUID", "SliceThickness", "PatientSex", "StudyInstanceUID")
    bad: dict[str, Any] = {"PatientSex": "U", "PatientBirthDate": "", "StudyDate": "1999.01.02", "StudyTime": "x"}
    image = scanned(tmp_path, make.grid(3), **dict.fromkeys(gone))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odd = scanned(
            tmp_path / "odd", make.grid(3), SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg", **bad
        )
    labels = labels_of((3, 6, 8), [1, 2])
    for source in (image, odd):
        [path] = fio.write(on(source, labels), tmp_path / "a.dcm", **MODEL)
        assert np.array_equal(read_mask(path, grid=source).data[0], labels)
        dataset = pydicom.dcmread(path)
        assert dataset.StudyInstanceUID and dataset.FrameOfReferenceUID
        if source is odd:
            assert dataset.PatientName == "Müller^Jörg" and dataset.PatientSex == "U"
            assert dataset.SegmentSequence[3].SegmentLabel == "Knochen, größer"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unit": "HU"}, "expected a label map|of a label map of one channel, found 1 in HU"),
        ({"labels": {0: "background", 1: "a"}}, "labels named 0 to 1; expected 1 to 65535"),
        ({"values": 0.5}, "labels between whole numbers"),
        ({"values": -1}, "labels from -1 to"),
        ({"values": 70000}, "labels from 0 to 70000"),
        ({"values": 5000}, "labels up to 5000, .* without gaps: write it as seg-labelmap"),
        ({"shear": True}, "the affine shears the slice plane"),
    ],
)
def test_what_a_segmentation_cannot_hold_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    data, affine = np.zeros((1, 4, 6, 8), np.float32), np.diag([-1.0, -1.0, 2.0, 1.0])
    data[0, 1, 2, 3] = change.get("values", 1)
    if change.get("shear"):
        affine[0, 1] = 0.5
    image = Image(data, affine, change.get("unit", "label"), {"labels": change.get("labels", {})})
    with pytest.raises(UsageError, match=reason) as error:
        fio.write(image, tmp_path / "a.dcm", as_="seg")
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
    if change.get("values") == 5000:
        assert read_mask(*fio.write(image, tmp_path / "a.dcm", as_="seg-labelmap")).data.max() == 5000


@pytest.mark.parametrize("size", [(1, 8), (3, 3), (1, 9), (5, 5)])
def test_small_slices_that_end_within_a_byte(tmp_path: Path, size: tuple[int, int]) -> None:
    labels = labels_of((3, *size), [1, 2])
    image = Image(labels[None].astype(np.float32), np.diag([-1.0, -1.0, 2.0, 1.0]), "label", {"format": "nifti"})
    for kind in KINDS:
        [path] = fio.write(image, tmp_path / f"{kind}.dcm", as_=kind)
        assert np.array_equal(read_mask(path, grid=image).data, image.data)
    tiny = image.with_data(image.data[..., :1, :1])
    with pytest.raises(UsageError, match=r"slices of 1 pixels; .* use seg-labelmap"):
        fio.write(tiny, tmp_path / "tiny.dcm")
    assert np.array_equal(read_mask(*fio.write(tiny, tmp_path / "t.dcm", as_="seg-labelmap")).data, tiny.data)


def test_formats_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"as_='sge'; expected one of .*seg, seg-labelmap"):
        fio.write(Image(np.zeros((1, 6, 8), np.float32), unit="label"), tmp_path / "a.dcm", as_="sge")
    assert fio.suffix_of("seg", 3, labels=True) == fio.suffix_of("dicom", 3, labels=True) == ".dcm"
    with pytest.raises(UsageError, match="seg is for label maps"):
        fio.suffix_of("seg")


SCANNERS = DATA / "dicom_scanners"
SERIES = sorted(p.name for p in SCANNERS.iterdir() if p.is_dir()) if SCANNERS.is_dir() else []


@pytest.mark.skipif(not SERIES, reason=f"no scanners' series at {SCANNERS}; set FABRICA_DATA")
@pytest.mark.parametrize("name", SERIES)
def test_on_the_series_of_real_scanners(tmp_path: Path, name: str) -> None:
    """Mosaics, enhanced objects, tilted and uneven CT, several volumes in a series, captures."""
    home = SCANNERS / name / "dicom"
    try:
        frames = fio.frames(home)
    except FabricaError:  # reports, which hold no image
        return
    there = set.union(*(complaints(path) for path in sorted(home.iterdir())[:4]))
    for number, frame in enumerate(frames[:2]):
        image = fio.read(home, frame)
        labels = labels_of((int(np.prod(image.size[:-2])), *image.size[-2:]), [1, 3], seed=number)
        labels[1:3] = 0
        for kind in KINDS:
            [path] = fio.write(on(image, labels), tmp_path / "a.dcm", as_=kind, **MODEL)
            found = read_mask(path, grid=image)
            assert np.array_equal(found.data.reshape(labels.shape), labels), (name, frame, kind)
            assert np.array_equal(found.affine, image.affine)
            assert np.allclose(make.places(found), make.places(image), atol=1e-3)
            assert complaints(path) <= there
            assert highdicom.seg.segread(path).segment_numbers == [1, 2, 3, 4]
