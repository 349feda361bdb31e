"""A folder de-identified: references among objects, the same bytes each time, what is left out, and full disks."""

import csv
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import BasicTextSRStorage, EncapsulatedPDFStorage, KeyObjectSelectionDocumentStorage

from fabrica import io
from fabrica.errors import FabricaError, UsageError
from fabrica.io.dicom.deidentification import Account, Key, check, deidentify
from fabrica.io.dicom.references import series_referred
from tests.command import full_disk
from tests.io.dicom import segmentation, series, structures

KEY = Key(b"a key of sixteen bytes and more")
WHERE = series.grid(4)


def study(folder: Path, **attributes: object) -> Path:
    """A CT series, a SEG, an RTSTRUCT and a key object of it."""
    volume = series.truths(1, WHERE)[0]
    series.classic(folder, [volume], modality="CT", StudyDate="20240301", AcquisitionDate="20240304", **attributes)
    parts = segmentation.masks([[True] * 4])
    series.save(segmentation.segmentation(segmentation.frames_of(parts, WHERE)), folder / "seg.dcm")
    square = structures.Contour(1, ((1, 1), (4, 1), (4, 3)))
    series.save(structures.structures({"Heart": [square]}, WHERE), folder / "rt.dcm")
    series.save(report(KeyObjectSelectionDocumentStorage, "KO"), folder / "ko.dcm")
    return folder


def report(kind: str, modality: str) -> Dataset:
    """A document that refers to the first slice of the series."""
    made, content, image = Dataset(), Dataset(), Dataset()
    made.SOPClassUID, made.Modality, made.PatientID, made.PatientName = kind, modality, "P1", "Sample^Anna"
    made.StudyInstanceUID, made.SeriesInstanceUID = series.uid("study"), series.uid(modality)
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = series.CLASSES["CT"], series.uid((0, 0, "CT"))
    content.ValueType, content.ReferencedSOPSequence = "IMAGE", Sequence([image])
    said = Dataset()
    said.ValueType, said.TextValue = "TEXT", "seen by Doctor Brown"
    made.ContentSequence = Sequence([content, said])
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(folder: Path) -> dict[str, list[pydicom.FileDataset]]:
    """By modality, the slices of the series in their order."""
    found: dict[str, list[pydicom.FileDataset]] = {}
    for path in sorted(folder.rglob("*.dcm")):
        dataset = pydicom.dcmread(path)
        found.setdefault(dataset.Modality, []).append(dataset)
    found["CT"].sort(key=lambda each: int(each.InstanceNumber))
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Account]:
    home = tmp_path_factory.mktemp("study")
    options = ["shifted-dates", "descriptors", "structured-content"]
    return study(home / "in"), home / "out", deidentify(home / "in", home / "out", KEY, options=options)


def test_objects_of_a_study_still_refer_to_one_another(done: tuple[Path, Path, Account]) -> None:
    found = read(done[1])
    slices = found["CT"]
    assert len({d.SeriesInstanceUID for d in slices}) == 1 and len({d.StudyInstanceUID for d in slices}) == 1
    assert series_referred(found["SEG"][0]) == [slices[0].SeriesInstanceUID]
    assert series_referred(found["RTSTRUCT"][0]) == [slices[0].SeriesInstanceUID]
    assert found["RTSTRUCT"][0].StructureSetROISequence[0].ROIName == "Heart"
    key_object = found["KO"][0].ContentSequence
    assert key_object[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == slices[0].SOPInstanceUID
    assert key_object[1].TextValue != "seen by Doctor Brown"
    assert {d.SOPInstanceUID for d in slices}.isdisjoint({series.uid((0, k, "CT")) for k in range(4)})


def test_masks_lie_on_the_image_as_before(done: tuple[Path, Path, Account]) -> None:
    before, after = done[0], done[1]
    seg = next(p for p in after.rglob("*.dcm") if pydicom.dcmread(p).Modality == "SEG")
    image = next(p for p in after.rglob("*.dcm") if pydicom.dcmread(p).Modality == "CT").parent
    made = before.parent / "ct"
    series.classic(made, [series.truths(1, WHERE)[0]], modality="CT")
    wanted = io.read_mask(before / "seg.dcm", grid=io.read(made))
    found = io.read_mask(seg, grid=io.read(image))
    assert np.array_equal(found.data, wanted.data) and np.array_equal(found.affine, wanted.affine)


def test_dates_of_a_patient_are_shifted_alike(done: tuple[Path, Path, Account]) -> None:
    slices = read(done[1])["CT"]
    assert {int(d.AcquisitionDate) - int(d.StudyDate) for d in slices} <= {3, 3 + 69, 3 + 70, 3 + 71, 3 + 72, 3 + 8869}
    assert {d.StudyDate for d in slices}.isdisjoint({"20240301", "", None})
    assert {d.LongitudinalTemporalInformationModified for d in slices} == {"MODIFIED"}


def test_objects_say_how_they_were_treated(done: tuple[Path, Path, Account]) -> None:
    for dataset in (d for several in read(done[1]).values() for d in several):
        codes = [item.CodeValue for item in dataset.DeidentificationMethodCodeSequence]
        assert dataset.PatientIdentityRemoved == "YES" and set(codes) == {"113100", "113104", "113105", "113107"}
        assert dataset.PatientID == dataset.PatientName == KEY.pseudonym("P1")


def test_the_audit_names_what_was_done_and_no_value(done: tuple[Path, Path, Account]) -> None:
    assert done[2].audit is not None
    text = done[2].audit.read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert {"file", "tag", "keyword", "action", "count"} == set(rows[0])
    shifted = [row for row in rows if row["keyword"] == "StudyDate"]
    assert {row["action"] for row in shifted} == {"shifted"} and len(shifted) == 4
    assert all((done[1] / row["file"]).is_file() for row in rows)
    assert not any(word in text for word in ("Sample", "Anna", "P1,", "20240301", "Brown"))


def test_the_same_key_gives_the_same_bytes_and_another_key_others(tmp_path: Path) -> None:
    study(tmp_path / "in")
    for name, key in (("a", KEY), ("b", KEY), ("c", Key(b"another key of many bytes"))):
        deidentify(tmp_path / "in", tmp_path / name, key)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a").keys() & contents(tmp_path / "c").keys() == {"audit.csv"}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    study(tmp_path / "in")
    deidentify(tmp_path / "in", tmp_path / "out", KEY)
    before = contents(tmp_path / "out")
    again = deidentify(tmp_path / "in", tmp_path / "out", KEY)
    assert again.written == 0 and again.again == 6
    for path in (tmp_path / "in").glob("*.dcm"):  # the same objects, changed
        dataset = pydicom.dcmread(path)
        dataset.SeriesNumber = 77
        dataset.save_as(path)
    changed = deidentify(tmp_path / "in", tmp_path / "out", KEY)
    assert changed.written == 6
    after = contents(tmp_path / "out")
    assert before.items() <= after.items() and {"audit-2.csv", "audit-3.csv"} <= after.keys()


def test_what_cannot_be_cleaned_or_read_is_left_out_and_the_rest_is_not(tmp_path: Path) -> None:
    home = study(tmp_path / "in")
    series.save(report(BasicTextSRStorage, "SR"), home / "sr.dcm")
    document = report(EncapsulatedPDFStorage, "DOC")
    document.EncapsulatedDocument = b"%PDF"
    series.save(document, home / "pdf.dcm")
    (home / "short.dcm").write_bytes((home / "seg.dcm").read_bytes()[:-4])
    (home / "notes.txt").write_text("of Anna Sample")
    account = deidentify(home, tmp_path / "out", KEY)
    reasons = {path.name: reason for path, reason in account.left_out}
    assert account.written == 6 and account.others == [home / "notes.txt"]
    assert reasons.keys() == {"sr.dcm", "pdf.dcm", "short.dcm", "ko.dcm"}
    assert "--clean structured-content" in reasons["sr.dcm"] and "document" in reasons["pdf.dcm"]
    assert "cut short" in reasons["short.dcm"]
    assert all("\n" not in reason for reason in reasons.values())


def test_folders_that_lie_in_one_another_are_refused(tmp_path: Path) -> None:
    home = study(tmp_path / "in")
    for out in (home, home / "out", tmp_path):
        with pytest.raises(UsageError, match="apart"):
            deidentify(home, out, KEY)
    with pytest.raises(UsageError, match="no such file"):
        deidentify(tmp_path / "none", tmp_path / "out", KEY)


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path: Path) -> None:
    home = tmp_path / "in"
    big = np.zeros((400, 400), np.uint16)
    series.save(series.plane(big, WHERE), home / "a.dcm")
    with full_disk(100_000), pytest.raises(FabricaError, match="cannot be written"):
        deidentify(home, tmp_path / "out", KEY)
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["audit.csv"]


def test_zip_archives_are_looked_into(tmp_path: Path) -> None:
    """The same objects come of an archive, alone or in a folder, as of its files; what cannot be opened is said."""
    study(tmp_path / "plain")
    with zipfile.ZipFile(tmp_path / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((tmp_path / "plain").rglob("*.dcm")):
            archive.write(path, path.relative_to(tmp_path / "plain"))
        archive.writestr("notes.txt", "seen by Doctor Brown")
    deidentify(tmp_path / "plain", tmp_path / "wanted", KEY)
    wanted = contents(tmp_path / "wanted")
    alone = deidentify(tmp_path / "study.zip", tmp_path / "alone", KEY)
    assert contents(tmp_path / "alone") == wanted and [path.name for path in alone.others] == ["notes.txt"]
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "study.zip").rename(tmp_path / "folder" / "sub" / "study.ZIP")
    (tmp_path / "folder" / "damaged.zip").write_bytes(b"PK no archive")
    with zipfile.ZipFile(tmp_path / "folder" / "outer.zip", "w") as archive:
        archive.write(tmp_path / "folder" / "sub" / "study.ZIP", "inner.zip")
    found = deidentify(tmp_path / "folder", tmp_path / "out", KEY)
    assert contents(tmp_path / "out") == wanted
    closed = {path.name: why for path, why in found.left_out if "archive" in why}
    assert set(closed) == {"damaged.zip", "inner.zip"} and all("unpack it first" in why for why in closed.values())
    problems = {finding.file.name: finding.problem for finding in check(tmp_path / "folder")}
    assert "cannot be looked into" in problems["damaged.zip"] and "cannot be looked into" in problems["inner.zip"]
    assert any(name.endswith(".dcm") for name in problems)
