"""Results as David Clunie's validator sees them: no error that their sources do not have."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fabrica.io.dicom.deidentification import Key, deidentify
from tests.io.dicom.deidentification.test_folder import study
from tests.real import DATA

DCIODVFY = shutil.which("dciodvfy")
KEY = Key(b"a key of sixteen bytes and more")
OPTIONS = [(), ("shifted-dates", "descriptors", "structured-content", "patient", "device", "private")]

TABLE = {
    "Error - Missing attribute Type 1 Required Element=<MetaboliteMapDescription> Module=<MRMetaboliteMapMacro>",
}
"""What Table E.1-1 itself removes (X), and another part of the standard demands."""

pytestmark = pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy (dicom3tools) not installed")


def errors(path: Path) -> set[str]:
    """What the validator calls errors, without UIDs, which are new."""
    done = subprocess.run([str(DCIODVFY), str(path)], capture_output=True, text=True, errors="replace", timeout=60)
    lines = (done.stdout + done.stderr).splitlines()
    return {re.sub(r"[0-9.]{16,}", "UID", line) for line in lines if line.startswith("Error")} - TABLE


def added(source: Path, out: Path, options: tuple[str, ...]) -> set[str]:
    deidentify(source, out, KEY, options=options)
    found = sorted(out.rglob("*.dcm"))
    return errors(found[0]) - errors(source) if found else set()


@pytest.mark.parametrize("options", OPTIONS)
def test_invented_objects_stay_valid(tmp_path: Path, options: tuple[str, ...]) -> None:
    study(tmp_path / "in")
    for number, path in enumerate(sorted((tmp_path / "in").rglob("*.dcm"))[-4:]):
        assert not added(path, tmp_path / str(number), options), path.name


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
def test_real_objects_get_no_error(tmp_path: Path, options: tuple[str, ...]) -> None:
    """One of each scanner's series."""
    series = sorted((DATA / "dicom_scanners").glob("*/dicom"))
    if not series:
        pytest.skip("needs the files of real scanners (FABRICA_DATA)")
    paths = [min(path for path in each.rglob("*") if path.is_file()) for each in series]
    found = {path: more for k, path in enumerate(paths) if (more := added(path, tmp_path / str(k), options))}
    assert not found
