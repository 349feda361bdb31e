"""What is broken, shut, empty or beside the point is named, stops nothing, and is counted once."""

import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fabrica import io
from fabrica.data.manifest import Manifest
from fabrica.data.scan import scan
from fabrica.errors import FabricaError, ReadError
from fabrica.image import Image

Draw = Callable[..., Path]


def packed(path: Path, *files: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, file.name)
    return path


def noise(count: int) -> bytes:
    return bytes(np.random.default_rng(count).integers(0, 256, count, np.uint8))


def shut(path: Path) -> Path:
    """Set the flag of encryption on every member."""
    data = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        at = data.find(mark)
        while at >= 0:
            data[at + flags] |= 1
            at = data.find(mark, at + 4)
    path.write_bytes(data)
    return path


def adds_up(folder: Path, manifest: Manifest) -> bool:
    return sum(manifest.files.values()) == sum(len(names) for _, _, names in os.walk(folder))


@pytest.fixture
def few(tmp_path: Path, draw: Draw) -> Path:
    for k in range(4):
        draw(f"d/{k}.png", seed=k)
    return tmp_path / "d"


def test_archives_that_cannot_be_opened_are_named_and_counted_once(tmp_path: Path, few: Path, draw: Draw) -> None:
    pictures = [draw(f"other/{k}.png", seed=10 + k) for k in range(3)]
    (few / "none.zip").write_bytes(b"no archive")
    whole = packed(tmp_path / "whole.zip", *pictures)
    (few / "cut.zip").write_bytes(whole.read_bytes()[:300])
    packed(few / "nested.zip", whole)
    shut(packed(few / "shut.zip", *pictures))
    manifest = scan(few)
    reasons = dict(manifest.rejected)
    assert "not a zip file" in reasons["none.zip"] and "not a zip file" in reasons["cut.zip"]
    assert "found 1 .zip: unpack it first" in reasons["nested.zip"]
    assert sum("encrypted; unpack the archive with its password" in why for why in reasons.values()) == 3
    assert manifest.files == {"used": 4, "set apart": 0, "left out": 4, "unread": 0} and adds_up(few, manifest)


def test_members_that_cannot_be_read_stop_nothing(tmp_path: Path, few: Path, draw: Draw) -> None:
    notes, other = tmp_path / "IM0001", tmp_path / "v.nii.gz"
    notes.write_bytes(noise(3000))
    other.write_bytes(b"\x1f\x8b" + noise(500))
    archive = packed(few / "some.zip", draw("other/a.png", seed=20), other, notes)
    with zipfile.ZipFile(archive) as found:
        at = found.getinfo("IM0001").header_offset + 40
    data = bytearray(archive.read_bytes())
    data[at : at + 20] = noise(20)
    archive.write_bytes(data)
    manifest = scan(few)
    assert len(manifest.rows) == 5 and [path for path, _ in manifest.rejected] == ["some.zip/IM0001"]
    assert "fetch or export it again" in manifest.rejected[0][1]
    assert "1 member of zip archives not read: 1 .gz; unpack them first" in manifest.notes
    assert manifest.files["used"] == 5 and adds_up(few, manifest)


def test_read_says_what_an_archive_holds_instead(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(ReadError, match=r"no picture and no DICOM, found 1 \.txt: unpack it first"):
        io.read(packed(tmp_path / "a.zip", tmp_path / "a.txt"))
    with pytest.raises(ReadError, match=r"a\.txt is encrypted; unpack the archive with its password"):
        io.read(shut(packed(tmp_path / "b.zip", tmp_path / "a.txt")))


def test_empty_files_are_said_to_be_empty(few: Path) -> None:
    for name in ("a.dcm", "b.png", "c.nii.gz", "d.zip", "e", "f.csv"):
        (few / name).touch()
    manifest = scan(few)
    reasons = dict(manifest.rejected)
    assert reasons["a.dcm"] == "the file is empty" and reasons["b.png"].startswith("the file is empty")
    assert set(reasons) == {"a.dcm", "b.png", "c.nii.gz", "d.zip"} and adds_up(few, manifest)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_pipes_are_not_waited_for(few: Path) -> None:
    os.mkfifo(few / "pipe.png")
    manifest = scan(few)
    assert manifest.files["unread"] == 1 and adds_up(few, manifest)
    assert "1 file not looked into: 1 neither files nor folders" in manifest.notes
    with pytest.raises(FabricaError, match="no folder"):
        scan(few / "pipe.png")


def test_links_are_followed_once(tmp_path: Path, few: Path, draw: Draw) -> None:
    draw("outside/a.png", seed=30)
    for name, to in {
        "again.png": "0.png", "loop": ".", "b": "a", "a": "b", "nothing.png": "nowhere",
        "out": tmp_path / "outside", "twice": tmp_path / "outside", "within.png": tmp_path / "outside" / "a.png",
    }.items():  # fmt: skip
        (few / name).symlink_to(to)
    (tmp_path / "outside" / "same.png").symlink_to("a.png")
    (tmp_path / "outside" / "back").symlink_to(few)
    manifest = scan(few)
    assert len(manifest.rows) == 5 and len({row.sha256 for row in manifest.rows}) == 5
    assert manifest.files == {"used": 5, "set apart": 0, "left out": 0, "unread": 9}
    assert any("6 links to what is in the folder anyway, 3 links to nothing" in note for note in manifest.notes)


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_voxels_beside_a_header_are_a_part_of_its_image(tmp_path: Path, suffix: str) -> None:
    """Headers may be alike to the byte, and their images are not."""
    for k in range(3):
        (tmp_path / "d" / f"p{k}").mkdir(parents=True)
        image = Image(np.random.default_rng(k).integers(0, 99, (1, 4, 5, 6)).astype(np.float32))
        io.write(image, tmp_path / "d" / f"p{k}" / f"image{suffix}")
    headers = {re.sub(rb"CompressedDataSize.*", b"", path.read_bytes()) for path in tmp_path.rglob(f"*{suffix}")}
    assert len(headers) == 1
    shutil.copytree(tmp_path / "d" / "p0", tmp_path / "d" / "copy")
    manifest = scan(tmp_path / "d")
    hashes = [row.sha256 for row in manifest.rows]
    assert len(hashes) == 4 and len(set(hashes)) == 3
    assert manifest.files["unread"] == 0 and adds_up(tmp_path / "d", manifest)
    assert not any("not looked into" in note for note in manifest.notes)
