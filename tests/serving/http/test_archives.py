"""Uploaded archives: unpacked under numbers, or refused before anything leaves its folder."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from fabrica.serving.http.archives import numbered, outside, packed, unpacked
from fabrica.serving.http.tasks import Refused


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def refused(path: Path, folder: Path, largest: int = 10_000, most: int = 10) -> Refused:
    with pytest.raises(Refused) as found:
        unpacked(path, folder, largest=largest, most=most)
    assert not [each for each in folder.parent.iterdir() if each not in (path, folder)]
    return found.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def test_files_are_kept_under_numbers_in_order(tmp_path: Path, folder: Path) -> None:
    names = {"b/2.dcm": b"2", "a/1.DCM": b"1", "c/volume.nii.gz": b"3", ".hidden": b"x", "__MACOSX/a": b"x", "d": b"4"}
    unpacked(archive(tmp_path / "a.zip", **names), folder, largest=99)
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == {
        "00001.dcm": b"1",
        "00002.dcm": b"2",
        "00003.nii.gz": b"3",
        "00004": b"4",
    }


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/a", "\\a", "..\\a", "a\\..\\..\\b", "C:a", "c:\\a", "a/.."])
def test_names_that_lead_outside_are_refused(tmp_path: Path, folder: Path, name: str) -> None:
    assert outside(name)
    found = refused(archive(tmp_path / "a.zip", **{"good.dcm": b"1", name: b"2"}), folder)
    assert found.status == 422 and "leads out" in found.line and name not in found.line
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["a", "a/b.dcm", "a..b", "...a", "1.2.840/3"])
def test_plain_names_stay_inside(name: str) -> None:
    assert not outside(name)


def test_limits_hold_for_what_is_said_and_for_what_comes(tmp_path: Path, folder: Path) -> None:
    full = archive(tmp_path / "a.zip", **{f"{k}.dcm": bytes(2000) for k in range(6)})
    assert refused(full, folder).status == 413 and not list(folder.iterdir())
    assert "holds 6 files; at most 5" in refused(full, folder, most=5).line
    raw = bytearray(archive(tmp_path / "a.zip", **{"a.dcm": bytes(9000)}).read_bytes())
    at = raw.rindex(b"PK\1\2") + 24  # of the directory: the size that it says
    raw[at : at + 4] = (10).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(raw)
    assert refused(tmp_path / "a.zip", folder, largest=5000).status in (413, 422)
    assert sum(each.stat().st_size for each in folder.iterdir()) <= 5000


def test_links_passwords_archives_and_damage_are_refused(tmp_path: Path, folder: Path) -> None:
    link = zipfile.ZipInfo("a.dcm")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(link, "/etc/hostname")
    assert "a link" in refused(tmp_path / "a.zip", folder).line
    assert "another archive" in refused(archive(tmp_path / "a.zip", **{"b.zip": b"PK"}), folder).line
    sound = archive(tmp_path / "a.zip", **{"a.dcm": bytes(range(256)) * 9}).read_bytes()
    for cut in (len(sound) // 2, 0):
        (tmp_path / "a.zip").write_bytes(sound[:cut])
        assert refused(tmp_path / "a.zip", folder).status == 422
    locked = bytearray(sound)
    locked[sound.rindex(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(locked)
    assert "password" in refused(tmp_path / "a.zip", folder).line


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("scan.NII.GZ", "00007.nii.gz"),
        ("a/b/../IM.dcm", "00007.dcm"),
        ("1.2.840.113/..", "00007"),
        ("video.mp4", "00007"),
        ("x.dcm\0.png", "00007.png"),
        ("", "00007"),
    ],
)
def test_of_a_client_s_name_a_suffix_is_kept(name: str, kept: str) -> None:
    assert numbered(7, name) == kept


def test_results_are_packed_under_their_names(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    made = packed([("a/b.dcm", tmp_path / "x")], tmp_path / "out.zip")
    with zipfile.ZipFile(made) as opened:
        assert opened.namelist() == ["a/b.dcm"] and opened.read("a/b.dcm") == b"content"
