"""Scans of real sets, against what their own documents say of them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

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
