"""Every layout that people have on their disks, written small, becomes the right rows."""

import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from fabrica.data.helpers import helpers
from fabrica.data.manifest import Manifest, Row
from fabrica.data.scan import scan
from fabrica.errors import FabricaError, UsageError

Draw = Callable[..., Path]
NO_PATIENTS = "no patient ids"


def by_id(manifest: Manifest) -> dict[str, Row]:
    assert len({row.id for row in manifest.rows}) == len(manifest.rows)
    return {row.id: row for row in manifest.rows}


def dicom(path: Path, patient: str, series: str, z: float | None, modality: str = "CT", size: int = 16) -> Path:
    """A slice at z mm; without z, a picture that has no place in the patient."""
    ds = Dataset()
    ds.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    ds.SeriesInstanceUID, ds.StudyInstanceUID = series, f"{series}.1"
    ds.PatientID, ds.Modality = patient, modality
    ds.Rows = ds.Columns = size
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    if z is not None:
        ds.PixelSpacing, ds.SliceThickness = [1, 1], 2
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, z]
    ds.PixelData = (
        np.random.default_rng(len(str(path)) + int(z or 0)).integers(0, 2000, (size, size), np.uint16).tobytes()
    )
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def test_plain_pictures_are_their_own_patients(tmp_path: Path, draw: Draw) -> None:
    for k in range(12):
        draw(f"x{k}.png", seed=k)
    draw(".hidden/y.png")
    (tmp_path / "notes.txt").write_text("not an image")
    manifest = scan(tmp_path)
    assert list(by_id(manifest)) == sorted(f"x{k}" for k in range(12))
    assert len({row.patient for row in manifest.rows}) == 12
    assert any(NO_PATIENTS in note for note in manifest.notes)
    assert manifest.rejected == []
    manifest.check()


def test_the_result_depends_on_the_files_alone(tmp_path: Path, draw: Draw) -> None:
    for k in range(20):
        draw(f"x{k}.png", seed=k)
    calls: list[tuple[int, int]] = []
    once = scan(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert scan(tmp_path).rows == once.rows and calls[-1] == (20, 20)
    assert [row.split for row in scan(tmp_path, seed=1).rows] != [row.split for row in once.rows]


def test_several_processes_find_the_same(tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabrica.data.helpers.FILES", 40)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1}, raising=False)
    for k in range(40):
        draw(f"x{k}.png", seed=k)
    for k in range(60):
        dicom(tmp_path / f"{k % 3}/{k}.dcm", f"p{k % 3}", f"1.2.{k % 3}", k // 3)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")
    (tmp_path / "0/bad.dcm").write_bytes((tmp_path / "0/0.dcm").read_bytes()[:-9])
    alone = scan(tmp_path)
    assert len(alone.rows) == 43 and len(alone.rejected) == 2
    with helpers(tmp_path) as pool:
        assert pool is not None
        together = scan(tmp_path, helpers=pool)
    assert together.rows == alone.rows and together.rejected == alone.rejected
    assert together.notes == alone.notes and together.files == alone.files


def test_little_to_read_is_read_alone(tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1}, raising=False)
    draw("a.png")
    with helpers(tmp_path) as pool:
        assert pool is None
    monkeypatch.setattr("fabrica.data.helpers.BYTES", 10)  # one large file, an archive for one, is much
    with helpers(tmp_path / "a.png") as pool:
        assert pool is not None


def test_a_table_beside_the_images_is_found(tmp_path: Path, draw: Draw) -> None:
    lines = ["Image ID,patient_id,class,repo_split,patient_split,projection,caption"]
    for k in range(12):
        draw(f"images/x{k}.png", seed=k)
        lines.append(f'x{k},p{k % 4},{"ill" if k % 2 else "well"},test,{"train" if k % 4 else "val"},PA,"one, two"')
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    for folder in (tmp_path, tmp_path / "images"):
        manifest = scan(folder)
        row = manifest.rows[1]
        assert (row.patient, row.label, row.split, row.domain, row.text) == ("p1", "ill", "train", "PA", "one, two")
        assert {row.split for row in manifest.rows if row.patient == "p0"} == {"val"}
        assert not any(NO_PATIENTS in note for note in manifest.notes)
        assert any("labels.csv knows 12 of 12 images" in note for note in manifest.notes)


def test_a_table_of_other_files_is_passed_over(tmp_path: Path, draw: Draw) -> None:
    draw("a.png")
    (tmp_path / "prices.csv").write_text("name,patient\nmilk,1\nbread,2\n")
    assert scan(tmp_path).rows[0].patient == "a"


def test_labels_that_are_named_come_before_all_else(tmp_path: Path, draw: Draw) -> None:
    dicom(tmp_path / "a.dcm", "HEADER", "1.2.3", None, "CR")
    table = tmp_path / "mine.csv"
    table.write_text("file,patient,label\na.dcm,TABLE,ill\n")
    assert scan(tmp_path).rows[0].patient == "HEADER"
    row = scan(tmp_path, labels=table).rows[0]
    assert (row.patient, row.label) == ("TABLE", "ill")
    table.write_text("file,patient\nnobody.dcm,TABLE\n")
    with pytest.raises(UsageError, match="names none of the 1 images"):
        scan(tmp_path, labels=table)


def test_a_manifest_is_no_source_of_labels(tmp_path: Path, draw: Draw) -> None:
    draw("a.png")
    scan(tmp_path, fractions=(0.0, 0.0, 1.0)).save(tmp_path / "manifest.csv")
    assert scan(tmp_path, fractions=(1.0, 0.0, 0.0)).rows[0].split == "train"


def test_a_pattern_names_patients(tmp_path: Path, draw: Draw) -> None:
    for k in range(6):
        draw(f"person{k // 2}_{k}.png", seed=k)
    assert [row.patient for row in scan(tmp_path, patient_regex=r"person(\d+)_").rows] == list("001122")
    for pattern, words in (("person", "no group"), ("(", "not a regular expression")):
        with pytest.raises(UsageError, match=words):
            scan(tmp_path, patient_regex=pattern)


def test_folders_of_unpaired_domains(tmp_path: Path, draw: Draw) -> None:
    for f, folder in enumerate(("trainA", "trainB", "testA", "testB")):
        for k in range(4):
            draw(f"{folder}/{k}.png", seed=10 * f + k)
    manifest = scan(tmp_path)
    assert {(row.domain, row.split) for row in manifest.rows} == {
        (d, s) for d in "ab" for s in ("train", "val", "test")
    }
    assert all(row.split == "test" for row in manifest.rows if row.path.startswith("test"))


def test_images_with_masks_beside_them(tmp_path: Path, draw: Draw) -> None:
    for k in range(3):
        draw(f"images/x{k}.png", seed=k)
        draw(f"masks/x{k}.png", seed=9)
    manifest = scan(tmp_path)
    assert [row.path for row in manifest.rows] == [f"images/x{k}.png" for k in range(3)]
    assert [row.mask for row in manifest.rows] == [f"masks/x{k}.png" for k in range(3)]


def test_imagestr_with_labelstr_and_channels(tmp_path: Path, draw: Draw) -> None:
    for case in range(4):
        for channel in range(2):
            draw(f"imagesTr/case_{case:03}_{channel:04}.png", seed=10 * case + channel)
        draw(f"labelsTr/case_{case:03}.png", seed=99 + case)
    manifest = scan(tmp_path)
    assert len(manifest.rows) == 8
    first = by_id(manifest)["imagesTr/case_000_0001"]
    assert (first.mask, first.domain, first.patient) == ("labelsTr/case_000.png", "0001", "case_000")
    manifest.check()


def test_input_target_masks(tmp_path: Path, draw: Draw) -> None:
    for k, folder in enumerate(("INPUT", "TARGET", "MASKS")):
        for case in range(3):
            draw(f"{folder}/c{case}.png", seed=10 * k + case)
    rows = by_id(scan(tmp_path))
    assert set(rows) == {f"{folder}/c{case}" for folder in ("INPUT", "TARGET") for case in range(3)}
    one = rows["INPUT/c1"]
    assert (one.pair, one.mask, one.domain, one.patient) == ("TARGET/c1.png", "MASKS/c1.png", "input", "c1")
    assert rows["TARGET/c1"].pair == "INPUT/c1.png" and rows["TARGET/c1"].split == one.split


def test_class_folders_in_split_folders(tmp_path: Path, draw: Draw) -> None:
    for s, split in enumerate(("train", "validation", "test")):
        for c, name in enumerate(("NORMAL", "PNEUMONIA")):
            for k in range(3):
                draw(f"chest/{split}/{name}/{k}.png", seed=100 * s + 10 * c + k)
    manifest = scan(tmp_path)
    assert {(row.split, row.label) for row in manifest.rows} == {
        (split, name) for split in ("train", "val", "test") for name in ("NORMAL", "PNEUMONIA")
    }
    assert len({row.patient for row in manifest.rows}) == 18


def test_patient_folders_are_no_classes(tmp_path: Path, draw: Draw) -> None:
    for patient in range(3):
        for k in range(4):
            draw(f"sub-{patient:02}/scan{k}.png", seed=10 * patient + k)
    manifest = scan(tmp_path)
    assert {(row.patient, row.label) for row in manifest.rows} == {(f"sub-{p:02}", "") for p in range(3)}


def test_a_folder_a_case_keeps_its_contrasts_together(tmp_path: Path, draw: Draw) -> None:
    for case in ("1BA001", "1BA002", "1BB003"):
        for k, name in enumerate(("ct", "mr", "mask")):
            draw(f"{case}/{case}_{name}.png", seed=k + 7 * int(case[-1]))
    rows = by_id(scan(tmp_path))
    assert len(rows) == 6
    ct = rows["1BA002/1BA002_ct"]
    assert (ct.patient, ct.domain, ct.label) == ("1BA002", "ct", "")
    assert (ct.mask, ct.pair) == ("1BA002/1BA002_mask.png", "1BA002/1BA002_mr.png")


def test_npz_with_presets_and_copies_across_splits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"{split}_images": rng.integers(0, 255, (6, 12, 12), np.uint8) for split in ("train", "val", "test")}
    arrays["val_images"][0] = arrays["train_images"][3]
    labels = {f"{split}_labels": np.arange(6).reshape(6, 1) % 2 for split in ("train", "val", "test")}
    np.savez(tmp_path / "toy.npz", **arrays, **labels)  # type: ignore[arg-type]
    manifest = scan(tmp_path)
    rows = by_id(manifest)
    assert (rows["toy/val_images/1"].split, rows["toy/val_images/1"].label) == ("val", "1")
    assert rows["toy/train_images/3"].split == "" and rows["toy/val_images/0"].split == "val"
    assert any("1 exact duplicate, 1 of them across splits" in note for note in manifest.notes)


def test_several_findings_of_one_npz_row(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (3, 12, 12), np.uint8)
    np.savez(tmp_path / "toy.npz", train_images=images, train_labels=[[0, 1, 1], [0, 0, 0], [1, 0, 0]])
    assert [row.label for row in scan(tmp_path).rows] == ["1|2", "", "0"]


def test_members_of_zips(tmp_path: Path, draw: Draw) -> None:
    for name in ("Hand", "CXR"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for k in range(3):
                archive.write(draw(f".pictures/{name}{k}.png", seed=10 * len(name) + k), f"{name}/{k}.png")
    manifest = scan(tmp_path)
    assert {(row.domain, row.label, row.frame) for row in manifest.rows} == {
        (name, name, f"{name}/{k}.png") for name in ("Hand", "CXR") for k in range(3)
    }
    single = scan(tmp_path / "CXR.zip")
    assert [row.path for row in single.rows] == ["CXR.zip"] * 3 and single.rows[0].label == ""


def test_series_become_volumes(tmp_path: Path) -> None:
    for k in range(4):
        dicom(tmp_path / "alone" / f"{k}", "ann", "1.2.3", 2.0 * k)
        dicom(tmp_path / "mixed" / f"a{k}.dcm", "bob", "1.2.4", 2.0 * k)
        dicom(tmp_path / "mixed" / f"b{k}.dcm", "bob", "1.2.5", 2.0 * k)
    dicom(tmp_path / "mixed" / "radiograph.dcm", "cyd", "1.2.6", None, "CR")
    found = [(row.path, row.frame, row.patient, row.modality) for row in scan(tmp_path).rows]
    assert found == [
        ("alone", "", "ann", "CT"),
        ("mixed", "1.2.4", "bob", "CT"),
        ("mixed", "1.2.5", "bob", "CT"),
        ("mixed/radiograph.dcm", "", "cyd", "CR"),
    ]


def test_slices_that_do_not_stack_are_a_row_each_of_one_patient(tmp_path: Path) -> None:
    for k in range(3):
        dicom(tmp_path / f"{k}.dcm", "", "1.2.3", 2.0 * k, size=16 + 4 * k)
    manifest = scan(tmp_path)
    assert [row.path for row in manifest.rows] == ["0.dcm", "1.dcm", "2.dcm"]
    assert {row.patient for row in manifest.rows} == {"1.2.3.1"}
    assert any("name no patient" in note for note in manifest.notes)


def test_damaged_files_are_listed_and_never_fatal(tmp_path: Path, draw: Draw) -> None:
    whole = draw("whole.png", size=(64, 64))
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:700])
    (tmp_path / "fake.dcm").write_text("hello")
    (tmp_path / "fake.npz").write_bytes(b"PK\3\4 no")
    (tmp_path / "empty.nii.gz").touch()
    manifest = scan(tmp_path)
    assert [row.id for row in manifest.rows] == ["whole"]
    assert [path for path, _ in manifest.rejected] == ["empty.nii.gz", "fake.dcm", "fake.npz", "half.png"]
    assert all(reason and "\n" not in reason and str(tmp_path) not in reason for _, reason in manifest.rejected)


def test_nothing_to_read_says_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(FabricaError, match="the folder is empty"):
        scan(tmp_path)
    for k in range(3):
        (tmp_path / f"{k}.txt").touch()
    (tmp_path / "README.md").touch()
    with pytest.raises(FabricaError, match=r"found 4 files \(\.txt 3, \.md 1\).*expected DICOM"):
        scan(tmp_path)
    (tmp_path / "x.png").write_text("nothing")
    with pytest.raises(FabricaError, match=r"x\.png cannot be read"):
        scan(tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        scan(tmp_path / "gone")


def test_unverified_scans_decode_nothing(tmp_path: Path, draw: Draw) -> None:
    draw("a.png")
    (tmp_path / "half.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    manifest = scan(tmp_path, verify=False)
    assert len(manifest.rows) == 2 and manifest.rows[0].sha256 == ""
    assert any("not verified" in note for note in manifest.notes)


def test_same_names_with_other_suffixes_keep_ids_apart(tmp_path: Path, draw: Draw) -> None:
    draw("a.png", seed=1)
    draw("a.tif", seed=2)
    assert set(by_id(scan(tmp_path))) == {"a.png", "a.tif"}


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_file_without_permission_is_listed(tmp_path: Path, draw: Draw) -> None:
    draw("a.png")
    draw("b.png", seed=1).chmod(0)
    manifest = scan(tmp_path)
    assert len(manifest.rows) == 1 and manifest.rejected[0][0] == "b.png"
