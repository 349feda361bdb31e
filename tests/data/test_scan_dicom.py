"""Scans of folders of DICOM as they lie: every file accounted for, every row readable, what is no image set apart."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.data
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from fabrica import io as fio
from fabrica.data.manifest import Manifest
from fabrica.data.scan import scan
from fabrica.image import Image
from tests.draws import draws
from tests.io.dicom import series as make

GRID = make.grid()
SEG, LABELMAP, STRUCTURES, DOSE = (
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.66.7",
    "1.2.840.10008.5.1.4.1.1.481.3",
    "1.2.840.10008.5.1.4.1.1.481.2",
)
PRESENTATION, REPORT, CAPTURE = (
    "1.2.840.10008.5.1.4.1.1.11.1",
    "1.2.840.10008.5.1.4.1.1.88.67",
    "1.2.840.10008.5.1.4.1.1.7",
)


@contextmanager
def folder() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="scan"))
    try:
        yield home
    finally:
        shutil.rmtree(home)


def read(manifest: Manifest) -> list[Image]:
    """Every row that holds pixels."""
    return [fio.read(manifest.file(row), row.frame) for row in manifest.rows if row.kind not in WITHOUT_PIXELS]


WITHOUT_PIXELS = ("structures", "presentation", "report", "raw")


def unaccounted(home: Path, manifest: Manifest) -> list[str]:
    """The files below `home` that are in no row's image, in no row without pixels and not among those left out."""
    seen: Counter[str] = Counter()
    for row in manifest.rows:
        if row.kind in WITHOUT_PIXELS:
            seen[str(pydicom.dcmread(manifest.file(row)).SOPInstanceUID)] += 1
        else:
            image = fio.read(manifest.file(row), row.frame)
            seen.update({str(dataset.SOPInstanceUID) for dataset in image.origin["dicom"]})
    left_out = {Path(path).name for path, _ in manifest.rejected}
    files = [path for path in sorted(home.rglob("*")) if path.is_file() and path.name not in left_out]
    return [path.name for path in files if str(pydicom.dcmread(path).SOPInstanceUID) not in seen]


# ---------------------------------------------------------------- whole trees


@st.composite
def trees(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Series of a few patients, in folders by patient, by study, or all in one."""
    count = draw(st.integers(1, 4))
    layout = draw(st.sampled_from(["flat", "by patient", "deep"]))
    made = []
    for number in range(count):
        tell = draw(st.sampled_from(sorted(make.TELLERS)))
        volumes = draw(st.integers(1, 3))
        patient = f"Q{draw(st.integers(0, 2))}"
        where = {"flat": ".", "by patient": patient, "deep": f"{patient}/study/{number}"}[layout]
        made.append(
            {
                "where": where,
                "tell": tell,
                "volumes": volumes,
                "patient": patient,
                "numbering": draw(
                    st.sampled_from(make.RANKED if tell == "instance alone" else ["restarting", "blank"])
                ),
                "modality": "CT" if tell in make.CT_ONLY else "MR",
                "copy": draw(st.booleans()),
                "named": draw(st.booleans()),
            }
        )
    return made


@settings(
    max_examples=draws(12), deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)
@given(tree=trees())
def test_every_volume_of_a_tree_is_a_row_and_every_file_is_accounted_for(tree: list[dict[str, Any]]) -> None:
    with folder() as home:
        wanted = []
        for number, one in enumerate(tree):
            truths = make.truths(one["volumes"], make.grid(3), seed=number)
            wanted += truths
            paths = make.classic(
                home / one["where"],
                truths,
                tell=one["tell"],
                numbering=one["numbering"],
                modality=one["modality"],
                name=lambda v, k, number=number: make.hashed(number, v, k),
                SeriesInstanceUID=make.uid("series", number),
                StudyInstanceUID=make.uid("study", one["patient"]),
                PatientID=one["patient"],
                SeriesNumber=number + 1,
                SeriesDescription=f"description {number}",
                ProtocolName="x",
            )
            for k, path in enumerate(paths):  # `save` numbers the instances of each call alike
                dataset = pydicom.dcmread(path)
                make.save(dataset, path, instance=(number, k))
            if one["copy"]:
                make.copied(paths[0], f"copy{number}")
        manifest = scan(home)
        manifest.check()
        assert make.compared(read(manifest), wanted) == []
        assert unaccounted(home, manifest) == []
        files = sum(1 for path in home.rglob("*") if path.is_file())
        copies = sum(one["copy"] for one in tree)
        assert manifest.files == {"used": files - copies, "set apart": 0, "left out": copies, "unread": 0}
        for row in manifest.rows:
            image = fio.read(manifest.file(row), row.frame)
            number = int(image.origin["dicom"][0].SeriesNumber) - 1
            assert (row.series, row.series_number) == (make.uid("series", number), str(number + 1))
            assert row.description == f"description {number}" and row.patient == tree[number]["patient"]
            assert row.modality == tree[number]["modality"] and row.kind == "" and row.split
            assert row.image_type == "\\".join(image.origin["dicom"][0].ImageType)
        splits: dict[str, set[str]] = {}
        for row in manifest.rows:
            splits.setdefault(row.patient, set()).add(row.split)
        assert all(len(found) == 1 for found in splits.values())
        saved = home / "manifest.csv"
        manifest.save(saved)
        assert make.compared(read(Manifest.load(saved)), wanted) == []


def test_a_series_flat_in_the_scanned_folder(tmp_path: Path) -> None:
    [truth] = make.truths(1, GRID)
    make.classic(tmp_path, [truth], name=lambda v, k: f"IM{k}")
    manifest = scan(tmp_path)
    assert make.compared(read(manifest), [truth]) == [] and len(manifest.rows) == 1


def test_a_series_in_two_folders_is_one_row(tmp_path: Path) -> None:
    [truth] = make.truths(1, make.grid(6))
    make.classic(tmp_path, [truth], folders=2)
    manifest = scan(tmp_path)
    assert make.compared(read(manifest), [truth]) == []


def test_names_play_no_part(tmp_path: Path) -> None:
    truths = make.truths(3, GRID)
    paths = make.classic(tmp_path / "a", truths, tell="acquisition", numbering="restarting")
    before = scan(tmp_path)
    for k, path in enumerate(sorted(paths, reverse=True)):
        path.rename(path.with_name(f"{k:03d}.ima"))
    after = scan(tmp_path)
    assert [(row.frame, row.sha256, row.split) for row in after.rows] == [
        (row.frame, row.sha256, row.split) for row in before.rows
    ]


def test_volumes_that_nothing_tells_apart_are_left_out_with_the_reason(tmp_path: Path) -> None:
    make.classic(tmp_path / "bad", make.truths(2, GRID), numbering="restarting")
    [truth] = make.truths(1, GRID, seed=4)
    make.classic(tmp_path / "good", [truth], SeriesInstanceUID="1.2.3", PatientID="P2")
    manifest = scan(tmp_path)
    whole = [image for image in read(manifest) if image.data.shape == (1, 4, 6, 8)]
    assert make.compared(whole, [truth]) == []
    pictures = [row for row in manifest.rows if row.path.startswith("bad") and row.split]
    assert pictures == [] and len(manifest.rejected) == 8
    assert all("\n" not in reason and "tell" in reason for _, reason in manifest.rejected)


def test_notes_of_the_reader_stand_in_the_manifest_and_are_summed_up(tmp_path: Path) -> None:
    for number in range(3):
        [truth] = make.truths(1, make.grid(offsets=[0, 4, 8, 12, 19]), seed=number)
        make.classic(
            tmp_path / f"P{number}",
            [truth],
            modality="CT",
            PatientID=f"P{number}",
            SeriesInstanceUID=make.uid(number),
            name=lambda v, k: f"{k}",
        )
    manifest = scan(tmp_path)
    assert all("uneven" in row.notes for row in manifest.rows)
    assert any("uneven" in note and "3" in note for note in manifest.notes), manifest.notes


# ---------------------------------------------------------------- what is no image of the patient


def object_of(sop_class: str, modality: str, pixels: Any = None, **attributes: Any) -> Dataset:
    """An object of any class, with or without pixels."""
    dataset = make.plane(np.zeros((6, 8), np.uint16) if pixels is None else pixels, GRID, 0, "MR")
    if pixels is None:
        for keyword in ("PixelData", "Rows", "Columns", "ImageType", "ImagePositionPatient", "BitsAllocated"):
            delattr(dataset, keyword)
    dataset.SOPClassUID, dataset.Modality = sop_class, modality
    dataset.SeriesInstanceUID, dataset.SeriesNumber = make.uid(sop_class, modality, str(attributes)), 9
    return make.put(dataset, attributes)


def series_reference(uid: str) -> Items:
    item = Dataset()
    item.SeriesInstanceUID = uid
    return Items([item])


def segmentation(of: str, sop_class: str = SEG) -> Dataset:
    mask = np.zeros((4, 6, 8), np.uint8)
    mask[:, 2:4, 2:5] = 1
    frames = [make.Frame(mask[k], GRID, k) for k in range(4)]
    dataset = make.enhanced(frames, Modality="SEG", SegmentationType="BINARY" if sop_class == SEG else "LABELMAP")
    dataset.SOPClassUID, dataset.SeriesInstanceUID = sop_class, make.uid("seg", sop_class)
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    if sop_class == SEG:
        dataset.BitsAllocated = dataset.BitsStored = 1
        dataset.HighBit = 0
        packed = np.packbits(mask.ravel(), bitorder="little").tobytes()
        dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    dataset.ReferencedSeriesSequence = series_reference(of)
    segment = Dataset()
    segment.SegmentNumber, segment.SegmentLabel, segment.SegmentAlgorithmType = 1, "liver", "MANUAL"
    dataset.SegmentSequence = Items([segment])
    return dataset


def structures(of: str) -> Dataset:
    dataset = object_of(STRUCTURES, "RTSTRUCT", StructureSetLabel="s")
    frame, study = Dataset(), Dataset()
    study.RTReferencedSeriesSequence = series_reference(of)
    study.ReferencedSOPInstanceUID = make.uid("study")
    frame.RTReferencedStudySequence = Items([study])
    dataset.ReferencedFrameOfReferenceSequence = Items([frame])
    return dataset


PICTURE = np.random.default_rng(1).integers(0, 4000, (6, 8)).astype(np.uint16)
COLOUR = np.random.default_rng(1).integers(0, 255, (6, 8, 3)).astype(np.uint8)
_MR, _CT = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2"
KINDS: dict[str, tuple[str, Dataset]] = {
    "localizer": ("localizer", object_of(_CT, "CT", PICTURE, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
    "surview as capture": (
        "not an image",
        object_of(CAPTURE, "CT", PICTURE, ImageType=["DERIVED", "SECONDARY", "REF_SURVIEW"]),
    ),
    "screen capture": (
        "screen",
        object_of(CAPTURE, "CT", COLOUR, ImageType=["DERIVED", "SECONDARY", "OTHER"], ImagePositionPatient=None),
    ),
    "grey screen capture": (
        "screen",
        object_of(CAPTURE, "CT", PICTURE, ImageType=["DERIVED", "SECONDARY", "OTHER"], ImagePositionPatient=None,
                  ImageOrientationPatient=None),
    ),
    "adc": ("derived", object_of(_MR, "MR", PICTURE, ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"])),
    "fa": ("derived", object_of(_MR, "MR", PICTURE, ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "FA", "ND"])),
    "colour fa": ("derived", object_of(_MR, "MR", COLOUR, ImageType=["DERIVED", "SECONDARY", "OTHER", "FA"])),
    "mip": (
        "derived",
        object_of(_MR, "MR", PICTURE, ImageType=["DERIVED", "SECONDARY", "PROJECTION IMAGE", "MIP"]),
    ),
    "mpr": ("reformat", object_of(_CT, "CT", PICTURE, ImageType=["DERIVED", "SECONDARY", "MPR"])),
    "dose": (
        "dose",
        object_of(DOSE, "RTDOSE", PICTURE, DoseGridScaling=1e-3, DoseUnits="GY", ImageType=None),
    ),
    "segmentation": ("segmentation", segmentation("1.2.3")),
    "label map": ("segmentation", segmentation("1.2.3", LABELMAP)),
    "structures": ("structures", structures("1.2.3")),
    "presentation state": ("presentation", object_of(PRESENTATION, "PR")),
    "dose report": ("report", object_of(REPORT, "SR")),
    "spectroscopy": ("raw", object_of("1.2.840.10008.5.1.4.1.1.4.2", "MR")),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(KINDS))
def test_what_is_no_image_of_the_patient_is_set_apart_with_its_kind(tmp_path: Path, name: str) -> None:
    kind, dataset = KINDS[name]
    [truth] = make.truths(1, GRID)
    make.classic(tmp_path / "a", [truth], SeriesInstanceUID="1.2.3", name=lambda v, k: str(k))
    make.save(dataset, tmp_path / "b" / "object")
    manifest = scan(tmp_path)
    images = [row for row in manifest.rows if row.split]
    assert len(images) == 1 and images[0].kind == "" and images[0].series == "1.2.3"
    others = [row for row in manifest.rows if not row.split]
    if others:
        assert [row.kind for row in others] == [kind] or (kind == "not an image" and others[0].kind)
    else:
        assert kind in WITHOUT_PIXELS
    if kind in ("segmentation", "structures"):
        assert others[0].refers == "1.2.3"
    assert manifest.files == {"used": 4, "set apart": 1, "left out": 0, "unread": 0}
    assert any(kind in note for note in manifest.notes) or kind == "not an image", manifest.notes


@pytest.mark.parametrize("name", ["localizer", "adc", "mpr", "dose"])
def test_what_is_asked_for_is_an_image(tmp_path: Path, name: str) -> None:
    kind, dataset = KINDS[name]
    [truth] = make.truths(1, GRID)
    make.classic(tmp_path / "a", [truth], SeriesInstanceUID="1.2.3", name=lambda v, k: str(k))
    make.save(dataset, tmp_path / "b" / "object")
    manifest = scan(tmp_path, include=[kind])
    assert sorted((row.kind, bool(row.split)) for row in manifest.rows) == [("", True), (kind, True)]


def test_a_localizer_within_a_series_leaves_it_a_volume(tmp_path: Path) -> None:
    where = make.grid(7)
    [truth] = make.truths(1, where)
    make.classic(tmp_path, [truth], name=lambda v, k: str(k))
    scout = make.plane(truth.values[0], make.grid(1, plane="sagittal"), InstanceNumber=99)
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    make.save(scout, tmp_path / "scout")
    plain = make.plane(truth.values[1], make.grid(1, plane="coronal"), InstanceNumber=98)
    make.save(plain, tmp_path / "plain")
    manifest = scan(tmp_path)
    rows = {row.kind: row for row in manifest.rows}
    assert set(rows) == {"", "localizer", "stray"} and len(manifest.rows) == 3
    assert make.equal(fio.read(manifest.file(rows[""]), rows[""].frame), truth) == ""
    assert "plain" in rows[""].notes
    assert unaccounted(tmp_path, manifest) == []


def test_a_segmentation_of_another_series_and_of_none(tmp_path: Path) -> None:
    [truth] = make.truths(1, GRID)
    make.classic(tmp_path / "a", [truth], SeriesInstanceUID="1.2.3", name=lambda v, k: str(k))
    make.save(segmentation("9.9.9"), tmp_path / "b" / "seg")
    lost = structures("1.2.3")
    del lost.ReferencedFrameOfReferenceSequence
    make.save(lost, tmp_path / "b" / "rt")
    manifest = scan(tmp_path)
    found = {row.kind: row.refers for row in manifest.rows}
    assert found == {"": "", "segmentation": "9.9.9", "structures": ""}


def test_half_a_file_is_left_out_and_the_rest_goes_on(tmp_path: Path) -> None:
    [truth] = make.truths(1, make.grid(6))
    paths = make.classic(tmp_path, [truth], name=lambda v, k: f"{k}.dcm")
    paths[3].write_bytes(paths[3].read_bytes()[:-40])
    manifest = scan(tmp_path)
    told = [path for path, _ in manifest.rejected] + [row.notes for row in manifest.rows]
    assert any("3.dcm" in text for text in told), told
    for row in manifest.rows:  # whatever stays can be read, and no slice stands in another's place
        image = fio.read(manifest.file(row), row.frame)
        assert image.data.shape[-2:] == (6, 8)


def test_usual_files_are_scanned_without_pydicom(tmp_path: Path) -> None:
    """It takes longer to import than a thousand files to be looked at."""
    image = fio.read(Path(pydicom.data.get_testdata_file("CT_small.dcm")))  # type: ignore[attr-defined]
    fio.write(image, tmp_path / "ct.dcm")
    code = (
        "import sys; from fabrica.data.scan import scan; print(len(scan(sys.argv[1]).rows), 'pydicom' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]
