"""`fabrica deidentify` as a stranger uses it."""

import json
from pathlib import Path

import pytest

from tests.command import call
from tests.io.dicom import series


@pytest.fixture
def home(tmp_path: Path) -> Path:
    series.classic(tmp_path / "in", series.truths(1, series.grid(2)), modality="CT")
    (tmp_path / "key").write_bytes(b"k" * 32)
    (tmp_path / "key").chmod(0o600)
    return tmp_path


def test_a_folder_is_deidentified_and_checked(home: Path) -> None:
    found = call("deidentify", home / "in", "--check")
    assert found.returncode == 1 and "PatientName" in found.stdout and "2 files" in found.stderr
    assert "Sample" not in found.stdout + found.stderr
    done = call("deidentify", home / "in", "-o", home / "out", "--key-file", home / "key", "--retain", "shifted-dates")
    assert done.returncode == 0 and "2 objects of 1 patients" in done.stdout, done.stderr
    assert call("deidentify", home / "out", "--check").returncode == 0
    again = call("deidentify", home / "in", "-o", home / "b", "--key-file", home / "key", "--json")
    assert json.loads(again.stdout)["written"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["in"], 2, "-o is missing"),
        (["in", "-o", "out"], 2, "--key-file is missing"),
        (["in", "-o", "out", "--key-file", "none"], 2, "cannot be read"),
        (["in", "-o", "out", "--key-file", "key", "--retain", "uid"], 2, "did you mean uids?"),
        (["in", "-o", "out", "--key-file", "key", "--retain", "graphics"], 2, "--clean"),
        (["in", "-o", "in/out", "--key-file", "key"], 2, "apart"),
        (["in", "--check", "-o", "out"], 2, "--check writes nothing"),
        (["none", "--check"], 2, "no such"),
        (["key", "-o", "out", "--key-file", "key"], 1, "no DICOM file"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str], code: int, words: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    done = call("deidentify", *arguments)
    assert done.returncode == code and words in done.stderr and done.stderr.count("fabrica: ") == 1, done.stderr
