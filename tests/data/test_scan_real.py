"""Scans of real sets, against what their own documents say of them."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fabrica.data.manifest import Manifest
from fabrica.data.scan import scan

Real = Callable[[str], Path]


def checked(manifest: Manifest) -> Manifest:
    manifest.check()
    return manifest


def test_kermany_keeps_its_patient_split(real: Real) -> None:
    folder = real("cxr_kermany_960")
    manifest = checked(scan(folder / "images"))
    with (folder / "labels.csv").open() as file:
        told = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    assert len(manifest.rows) == 960 and manifest.rejected == []
    for row in manifest.rows:
        facts = told[row.path]
        assert (row.patient, row.label) == (facts["patient_id"], facts["label"])
        assert row.split == facts["patient_split"]
    assert Counter(row.label for row in manifest.rows) == dict.fromkeys(
        ("normal", "bacterial_pneumonia", "viral_pneumonia"), 320
    )


def test_nih_has_patients_findings_and_captions(real: Real) -> None:
    manifest = checked(scan(real("cxr_nih1000_64")))
    assert len(manifest.rows) == 1000 and len({row.patient for row in manifest.rows}) == 264
    assert Counter(row.domain for row in manifest.rows) == {"PA": 637, "AP": 363}
    assert all(row.text.endswith(".") for row in manifest.rows)


def test_hannover_is_split_by_its_71_patients(real: Real) -> None:
    manifest = checked(scan(real("cxr_hannover_243") / "images"))
    assert len(manifest.rows) == 243 and len({row.patient for row in manifest.rows}) == 71
    assert {row.split for row in manifest.rows} == {"train", "val", "test"}


def test_lung_masks_belong_to_their_images(real: Real) -> None:
    folder = real("cxr_hannover_lung_masks")
    manifest = checked(scan(folder))
    assert len(manifest.rows) == 77 and len({row.patient for row in manifest.rows}) == 43
    assert all((folder / row.mask).is_file() and Path(row.mask).stem == Path(row.path).stem for row in manifest.rows)


def test_hippocampus_labels_are_masks(real: Real) -> None:
    manifest = checked(scan(real("mri_hippocampus_msd")))
    assert len(manifest.rows) == 200 and len({row.patient for row in manifest.rows}) == 200
    assert all(row.mask == row.path.replace("images/", "labels/") for row in manifest.rows)


def test_hippocampus_as_the_decathlon_publishes_it(real: Real, tmp_path: Path) -> None:
    """Under the original names, and under those of nnU-Net."""
    folder = real("mri_hippocampus_msd")
    cases = sorted(path.name for path in (folder / "images").glob("*.nii.gz"))[:24]
    for k, name in enumerate(cases):
        image = "imagesTr" if k < 16 else "imagesTs"
        channel = name.replace(".nii.gz", "_0000.nii.gz")
        for home, kind, own in (
            ("msd", "images", name),
            ("nnunet", "images", channel),
            ("msd", "labels", name),
            ("nnunet", "labels", name),
        ):
            if kind == "images" or k < 16:
                link = tmp_path / home / (image if kind == "images" else "labelsTr") / own
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(folder / kind / name)
    named: dict[str, dict[str, object]] = {
        "msd": {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "Anterior", "2": "Posterior"}},
        "nnunet": {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "Anterior": 1, "Posterior": 2}},
    }
    for home, said in named.items():
        (tmp_path / home / "dataset.json").write_text(json.dumps(said))
        manifest = checked(scan(tmp_path / home))
        assert len(manifest.rows) == 24 and {(row.domain, row.modality) for row in manifest.rows} == {("MRI", "MR")}
        labelled = [row for row in manifest.rows if row.mask]
        assert len(labelled) == 16 and {row.mask_labels for row in labelled} == {"1=Anterior|2=Posterior"}
        assert {row.split for row in labelled} == {"train", "val", "test"}
        assert not any("names" in note and "label" in note for note in manifest.notes)  # both are held by the masks


def test_totalsegmentator_as_it_writes_its_masks(real: Real, tmp_path: Path) -> None:
    folder = real("ct_mr_totalsegmentator")
    wanted = {1: "spleen", 2: "kidney_right", 5: "liver"}
    for case, (image, labels) in {
        "s0001": ("example_ct.nii.gz", "example_seg_fast_force_split.nii.gz"),
        "s0002": ("example_ct_sm.nii.gz", "example_seg.nii.gz"),
    }.items():
        home = tmp_path / case / "segmentations"
        home.mkdir(parents=True)
        (home.parent / "ct.nii.gz").symlink_to(folder / image)
        whole = nib.load(folder / labels)  # type: ignore[attr-defined]
        for number, name in wanted.items():
            one = (np.asarray(whole.dataobj) == number).astype(np.uint8)
            nib.save(nib.Nifti1Image(one, whole.affine), home / f"{name}.nii.gz")  # type: ignore[no-untyped-call]
    manifest = checked(scan(tmp_path))
    assert {(row.path, row.mask) for row in manifest.rows} == {
        (f"{case}/ct.nii.gz", f"{case}/segmentations") for case in ("s0001", "s0002")
    }
    assert {row.mask_labels for row in manifest.rows} == {"1=kidney_right|2=liver|3=spleen"}


def test_masks_beside_volumes_of_totalsegmentator(real: Real) -> None:
    folder = real("ct_mr_totalsegmentator")
    manifest = checked(scan(folder))
    masks = {row.path: row.mask for row in manifest.rows}
    assert masks["ct_aorta_cropped_1p5mm.nii.gz"] == "ct_aorta_cropped_1p5mm_aorta_mask.nii.gz"
    assert not any("seg" in path for path in masks) and "example_ct_dicom" in masks


def test_segmentations_of_series_that_are_not_here_say_so(real: Real) -> None:
    manifest = checked(scan(real("dicom_pydicom")))
    drawn = [row for row in manifest.rows if row.kind in ("segmentation", "structures")]
    here = {row.series for row in manifest.rows if not row.kind}
    assert drawn and all("no mask: " in row.notes for row in drawn if row.refers not in here)
    assert any("SEG or RTSTRUCT not used as mask" in note for note in manifest.notes)


def test_pneumoniamnist_copies_across_splits_are_found(real: Real) -> None:
    folder = real("pneumoniamnist_28")
    manifest = checked(scan(folder))
    arrays = np.load(next(folder.glob("*.npz")))
    homes: dict[bytes, Counter[str]] = {}
    for split in ("train", "val", "test"):
        for image in arrays[f"{split}_images"]:
            homes.setdefault(image.tobytes(), Counter())[split] += 1
    torn = [found for found in homes.values() if len(found) > 1]
    assert torn
    copies = sum(found.total() - 1 for found in homes.values())
    assert any(f"{copies} exact duplicates, {len(torn)} of them across splits" in note for note in manifest.notes)
    assert len({row.sha256 for row in manifest.rows}) == len(homes)
    for digest in {row.sha256 for row in manifest.rows if not row.split}:
        assert len({row.split for row in manifest.rows if row.sha256 == digest and row.split}) == 1
    labels = np.concatenate([arrays[f"{split}_labels"].ravel() for split in ("train", "val", "test")])
    assert [int(row.label) for row in manifest.rows] == labels.tolist()


@pytest.mark.slow
def test_mednist_has_one_copy(real: Real) -> None:
    manifest = checked(scan(real("mednist_64") / "CXR.zip"))
    assert len(manifest.rows) == 10_000 and len({row.sha256 for row in manifest.rows}) == 9_999
    assert any(note.startswith("1 exact duplicate,") for note in manifest.notes)
    assert {row.domain for row in manifest.rows} == {"CXR"}


def test_hard_dicom_files_are_listed_with_a_reason(real: Real) -> None:
    manifest = checked(scan(real("dicom_pydicom")))
    assert len(manifest.rows) > 100
    reasons = {Path(path).name: reason for path, reason in manifest.rejected}
    assert any("files set apart as raw" in note for note in manifest.notes)  # plans and waveforms
    assert all(reason and "\n" not in reason for reason in reasons.values())
    series = [row for row in manifest.rows if row.frame]
    assert series and {row.modality for row in series} >= {"MR", "US"}  # frames of one place are images of their own
