"""What identity a folder holds is found, and nothing is found in what was de-identified."""

from pathlib import Path

import pydicom
import pytest

from fabrica.errors import UsageError
from fabrica.io.dicom.deidentification import Key, check, deidentify
from fabrica.io.dicom.deidentification.profile import CLEANABLE, RETAINABLE
from tests.io.dicom import series
from tests.io.dicom.deidentification.planted import plant

KEY = Key(b"a key of sixteen bytes and more")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("planted")
    plant(series.classic(home / "made", series.truths(1, series.grid(1)), modality="CT")[0], home / "in")
    return home / "in"


@pytest.fixture(scope="module")
def done(planted: Path) -> Path:
    deidentify(planted, planted.parent / "out", KEY)
    return planted.parent / "out"


RETAINED = [(), ("dates", "uids"), (*CLEANABLE, *(option for option in RETAINABLE if option != "dates"))]


@pytest.mark.parametrize("options", RETAINED, ids=["basic", "dates", "all"])
def test_nothing_is_found_in_what_was_deidentified(options: tuple[str, ...], planted: Path, tmp_path: Path) -> None:
    account = deidentify(planted, tmp_path / "out", KEY, options=options)
    assert account.written == 1
    assert list(check(tmp_path / "out")) == []


def test_identity_is_found_wherever_it_is(planted: Path) -> None:
    found = list(check(planted))
    problems = {(f.keyword, f.problem) for f in found}
    assert ("PatientName", "would be replaced by the pseudonym") in problems
    assert ("StudyDate", "would be emptied") in problems
    assert ("StudyInstanceUID", "would be replaced by a new UID") in problems
    assert ("private", "would be removed") in problems
    assert ("SourceApplicationEntityTitle", "file meta of an earlier place") in problems
    assert {f.problem for f in found if not f.tag} == {
        "a preamble that is not empty",
        "a name or number of the patient or staff in the file's name",
        "a date in the file's name",
    }
    assert any(f.tag.count(">") >= 1 for f in found)
    assert not any("QZWANDERER" in f.problem + f.tag for f in found)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientID", "4711"), ("StudyDate", "20240301"), ("SOPInstanceUID", "1.2.3"), ("InstitutionName", "Clinic")],
)
def test_one_value_put_back_is_found(keyword: str, value: str, done: Path, tmp_path: Path) -> None:
    (path,) = done.rglob("*.dcm")
    dataset = pydicom.dcmread(path)
    setattr(dataset, keyword, value)
    dataset.save_as(tmp_path / "a.dcm")
    assert keyword in (found := {finding.keyword for finding in check(tmp_path)})
    assert found <= {keyword, "PatientName"}  # an ID that is no pseudonym leaves nothing to hold the name against


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such"):
        list(check(tmp_path / "none"))
