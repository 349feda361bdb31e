"""DICOM SEG and RTSTRUCT as masks of the series that they were drawn on, wherever they lie."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from fabrica.data.label_names import labels_in
from fabrica.data.manifest import Manifest, Row
from fabrica.data.scan import scan
from tests.data.test_scan_dicom import GRID, LABELMAP, SEG, segmentation, structures
from tests.data.test_scan_masks import volume
from tests.io.dicom import series as make


def images(home: Path, *series: str) -> None:
    """A volume of each of these series, of a patient each."""
    for number, uid in enumerate(series):
        [truth] = make.truths(1, GRID, seed=number)
        make.classic(home / f"P{number}" / "ct", [truth], SeriesInstanceUID=uid, PatientID=f"P{number}",
                     StudyInstanceUID=f"{uid}.9", name=lambda v, k: f"{k}.dcm")  # fmt: skip


def named_seg(of: str, names: dict[int, str], number: int = 9, kind: str = SEG) -> Dataset:
    """A SEG, or a label map, of these segments."""
    dataset = segmentation(of, kind)
    masks = np.zeros((len(names), 4, 6, 8), np.uint8)
    for k, segment in enumerate(names):
        masks[k, :, k, 2:5] = 1 if kind == SEG else segment
    if kind == SEG:
        frames = [make.Frame(masks[s, k], GRID, k) for s in range(len(names)) for k in range(4)]
        dataset = make.enhanced(frames, Modality="SEG", SegmentationType="BINARY")
        dataset.SOPClassUID, dataset.ImageType = SEG, ["DERIVED", "PRIMARY"]
        dataset.BitsAllocated = dataset.BitsStored = 1
        dataset.HighBit = 0
        packed = np.packbits(masks.ravel(), bitorder="little").tobytes()
        dataset.PixelData = packed + b"\0" * (len(packed) % 2)
        dataset.ReferencedSeriesSequence = segmentation(of).ReferencedSeriesSequence
        for k, item in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            shown = Dataset()
            shown.ReferencedSegmentNumber = list(names)[k // 4]
            item.SegmentIdentificationSequence = Items([shown])
    dataset.SegmentSequence = Items([_segment(k, name) for k, name in names.items()])
    dataset.SeriesNumber, dataset.SeriesInstanceUID = number, make.uid("seg", of, number, kind, str(names))
    return dataset


def _segment(number: int, label: str) -> Dataset:
    segment = Dataset()
    segment.SegmentNumber, segment.SegmentLabel, segment.SegmentAlgorithmType = number, label, "MANUAL"
    return segment


def named_structures(of: str, names: dict[int, str]) -> Dataset:
    dataset = structures(of)
    regions = []
    for number, name in names.items():
        region = Dataset()
        region.ROINumber, region.ROIName = number, name
        regions.append(region)
    dataset.StructureSetROISequence = Items(regions)
    dataset.SeriesInstanceUID = make.uid("rt", of, str(names))
    return dataset


def masks_of(manifest: Manifest) -> dict[str, tuple[str, dict[int, str]]]:
    manifest.check()
    return {row.series: (row.mask, labels_in(row.mask_labels)) for row in manifest.rows if not row.kind}


def apart(manifest: Manifest) -> list[Row]:
    return [row for row in manifest.rows if row.kind]


@pytest.mark.parametrize("where", ["P0/seg.dcm", "segmentations/a/b.dcm", "x", "P1/other.dcm"])
@pytest.mark.parametrize("kind", [SEG, LABELMAP])
def test_a_seg_anywhere_is_the_mask_of_its_series(tmp_path: Path, where: str, kind: str) -> None:
    images(tmp_path, "1.2.1", "1.2.2", "1.2.3")
    make.save(named_seg("1.2.2", {1: "liver", 4: "left kidney"}, kind=kind), tmp_path / where)
    manifest = scan(tmp_path)
    nothing: tuple[str, dict[int, str]] = ("", {})
    assert masks_of(manifest) == {"1.2.1": nothing, "1.2.2": (where, {1: "liver", 4: "left kidney"}), "1.2.3": nothing}
    assert {row.kind for row in apart(manifest)} == {"segmentation"} and not any(row.split for row in apart(manifest))
    assert any("1 of 3 images have a mask" in note and "4 left kidney" in note for note in manifest.notes)


def test_regions_of_a_structure_set_are_numbered_anew(tmp_path: Path) -> None:
    images(tmp_path, "1.2.1")
    make.save(named_structures("1.2.1", {12: "GTV", 3: "BODY", 7: ""}), tmp_path / "plans" / "rt.dcm")
    assert masks_of(scan(tmp_path)) == {"1.2.1": ("plans/rt.dcm", {1: "BODY", 3: "GTV"})}


def test_of_several_one_is_used_by_the_rule_that_is_said(tmp_path: Path) -> None:
    images(tmp_path, "1.2.1")
    make.save(named_structures("1.2.1", {1: "heart"}), tmp_path / "a" / "rt.dcm")
    make.save(named_seg("1.2.1", {1: "liver"}, number=7), tmp_path / "b" / "seg.dcm")
    make.save(named_seg("1.2.1", {1: "spleen"}, number=5), tmp_path / "z" / "seg.dcm")
    manifest = scan(tmp_path)
    assert masks_of(manifest) == {"1.2.1": ("z/seg.dcm", {1: "spleen"})}
    assert any("1 series have several SEG or RTSTRUCT" in note and "z/seg.dcm" in note for note in manifest.notes)
    (tmp_path / "z/seg.dcm").unlink()
    (tmp_path / "b/seg.dcm").unlink()
    manifest = scan(tmp_path)
    assert masks_of(manifest) == {"1.2.1": ("a/rt.dcm", {1: "heart"})}
    assert not any("several SEG" in note for note in manifest.notes)


def test_segs_in_one_series_and_folder_are_files_of_their_own(tmp_path: Path) -> None:
    images(tmp_path, "1.2.1", "1.2.2")
    for k, of in enumerate(("1.2.1", "1.2.2")):
        dataset = named_seg(of, {1: f"organ {k}", 2: "x"})
        dataset.SeriesInstanceUID = "1.2.99"
        make.save(dataset, tmp_path / "segs" / f"{k}.dcm", instance=k)
    manifest = scan(tmp_path)
    assert {uid: mask for uid, (mask, _) in masks_of(manifest).items()} == {
        "1.2.1": "segs/0.dcm",
        "1.2.2": "segs/1.dcm",
    }
    assert masks_of(manifest)["1.2.2"][1] == {1: "organ 1", 2: "x"}


def _without_reference(dataset: Dataset) -> Dataset:
    for keyword in ("ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence"):
        if keyword in dataset:
            delattr(dataset, keyword)
    return dataset


@pytest.mark.parametrize(
    ("dataset", "why"),
    [
        (named_seg("9.9.9", {1: "liver"}), "is not here, or is set apart"),
        (named_structures("9.9.9", {1: "liver"}), "is not here, or is set apart"),
        (_without_reference(named_seg("1.2.1", {1: "liver"})), "does not say which series"),
        (_without_reference(named_structures("1.2.1", {1: "liver"})), "does not say which series"),
    ],
)
def test_what_is_not_used_is_listed_with_the_reason(tmp_path: Path, dataset: Any, why: str) -> None:
    images(tmp_path, "1.2.1")
    make.save(dataset, tmp_path / "object.dcm")
    manifest = scan(tmp_path)
    assert masks_of(manifest) == {"1.2.1": ("", {})}
    [row] = apart(manifest)
    assert why in row.notes and not row.split
    assert sum("1 SEG or RTSTRUCT not used as mask, object.dcm for one" in note for note in manifest.notes) == 1
    assert manifest.files == {"used": 4, "set apart": 1, "left out": 0, "unread": 0}


def test_a_seg_in_an_archive_has_to_be_unpacked(tmp_path: Path) -> None:
    images(tmp_path, "1.2.1")
    make.save(named_seg("1.2.1", {1: "liver"}), tmp_path / "more" / "seg.dcm")
    shutil.make_archive(str(tmp_path / "more"), "zip", tmp_path / "more")
    shutil.rmtree(tmp_path / "more")
    manifest = scan(tmp_path)
    assert masks_of(manifest) == {"1.2.1": ("", {})} and any("unpack" in note for note in manifest.notes)


def test_a_seg_goes_before_what_a_name_suggests(tmp_path: Path) -> None:
    images(tmp_path, "1.2.1", "1.2.2")
    for k in range(2):
        volume(tmp_path / f"P{k}" / "ct_mask.nii.gz", k, (0, 1))
    make.save(named_seg("1.2.2", {1: "liver"}), tmp_path / "seg.dcm")
    manifest = scan(tmp_path)
    assert masks_of(manifest) == {"1.2.1": ("P0/ct_mask.nii.gz", {}), "1.2.2": ("seg.dcm", {1: "liver"})}
    assert len(manifest.rows) == 3


def test_images_of_a_series_that_are_several_share_its_seg(tmp_path: Path) -> None:
    truths = make.truths(2, GRID)
    make.classic(tmp_path / "mr", truths, tell="echo", modality="MR", SeriesInstanceUID="1.2.1")
    make.save(named_seg("1.2.1", {1: "liver"}), tmp_path / "seg.dcm")
    rows = [row for row in scan(tmp_path).rows if not row.kind]
    assert len(rows) == 2 and {(row.mask, row.mask_labels) for row in rows} == {("seg.dcm", "1=liver")}
