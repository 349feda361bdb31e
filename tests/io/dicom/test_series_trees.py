"""Series in trees of folders and archives: what a scan lists is what reading gives, wherever the files lie."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica import io as fio
from fabrica.data.manifest import Manifest
from fabrica.data.scan import scan
from fabrica.errors import ReadError
from fabrica.image import Image
from tests.draws import draws
from tests.io.dicom import series as make
from tests.io.dicom.test_series import QUICK, folder

TOLD = ("echo", "acquisition", "image type", "trigger time", "acquisition time", "instance alone")


def listed(manifest: Manifest) -> list[Image]:
    """Every row of a scan, read."""
    return [fio.read(manifest.file(row), row.frame) for row in manifest.rows]


@settings(max_examples=draws(40), **QUICK)
@given(
    tell=st.sampled_from(TOLD),
    count=st.integers(2, 4),
    layout=st.sampled_from(["a folder each", "the second deeper", "the first above", "slices over folders"]),
    other=st.booleans(),
)
def test_volumes_of_one_series_in_several_folders(tell: str, count: int, layout: str, other: bool) -> None:
    """Each volume is found again below its own folder, by the name that it has there, or below all of them."""

    def name(v: int, k: int) -> str:
        home = {
            "a folder each": f"t{v}",
            "the second deeper": "t/x" if v == 1 else f"t{v}",
            "the first above": f"t/{v}" if v else "t",
            "slices over folders": f"t{(v + k) % 2}",
        }[layout]
        return f"{home}/{make.hashed(v, k)}.dcm"

    truths = make.truths(count, make.grid())
    with folder() as home:
        make.classic(home, truths, tell=tell, name=name)
        if other:
            beside = make.truths(1, make.grid(), (5, 9))
            make.classic(home, beside, SeriesInstanceUID="1.2.3", name=lambda v, k: f"t0/other{k}.dcm")
            truths = truths + beside
        assert make.compared(listed(scan(home)), truths) == []


def test_copies_in_folders_that_nothing_else_tells_apart(tmp_path: Path) -> None:
    truths = make.truths(2, make.grid())
    make.classic(tmp_path, truths, numbering="restarting", name=lambda v, k: f"{'ab'[v]}/{make.hashed(v, k)}")
    assert make.compared(listed(scan(tmp_path)), truths) == []


@settings(max_examples=draws(30), **QUICK)
@given(
    tell=st.sampled_from(TOLD),
    lost=st.sets(st.integers(0, 11), min_size=1, max_size=9),
)
def test_files_cut_short_never_make_a_row_mean_another_volume(tell: str, lost: set[int]) -> None:
    """Three volumes of four slices: whatever is cut short, the rest of each is read as what it is."""
    truths = make.truths(3, make.grid())
    with folder() as home:
        paths = make.classic(home, truths, tell=tell)
        for number in lost:
            paths[number].write_bytes(paths[number].read_bytes()[:-20])
        kept = [[k for k in range(4) if v * 4 + k not in lost] for v in range(3)]
        wanted = [make.Truth(t.values[ks], t.grid.at(ks)) for t, ks in zip(truths, kept, strict=True) if ks]
        manifest = scan(home)
        assert make.compared(listed(manifest), wanted) == []
        assert len(manifest.rejected) == len(lost)


def test_a_file_whose_header_is_damaged_leaves_the_others_readable(tmp_path: Path) -> None:
    [truth] = make.truths(1, make.grid())
    paths = make.classic(tmp_path, [truth], name=lambda v, k: f"{k}.dcm")
    for k, junk in enumerate((b"\xff" * 300, b"\x08\0\x05\0CS\xff\xff", b"")):
        (tmp_path / f"junk{k}.dcm").write_bytes(bytes(128) + b"DICM" + junk)
    manifest = scan(tmp_path)
    assert make.compared(listed(manifest), [truth]) == []
    assert len(manifest.rejected) == 3
    for path in paths:
        path.unlink()
    with pytest.raises(ReadError) as error:
        fio.read(tmp_path)
    assert "junk" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("names", [("1.2.3", "1.2.4"), ("", ""), ("1.2.3", ""), ("x:y", "x"), ("a=b:c", "a")])
@pytest.mark.parametrize("packed", [False, True])
def test_series_by_whatever_name_are_found_again(tmp_path: Path, names: tuple[str, str], packed: bool) -> None:
    truths = make.truths(4, make.grid())
    home = tmp_path / "in"
    for k, uid in enumerate(names):
        made: dict[str, Any] = {"SeriesInstanceUID": uid, "tell": "echo"}
        make.classic(home / f"p/{k}", truths[2 * k : 2 * k + 2], **made)
    if packed:
        with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
            for path in sorted(home.rglob("*.dcm")):
                archive.write(path, path.relative_to(home))
                path.unlink()
    assert make.compared(listed(scan(tmp_path)), truths) == []


@pytest.mark.parametrize("place", ["beside", "in another folder"])
def test_an_instance_in_two_encodings_is_one(tmp_path: Path, place: str) -> None:
    [truth] = make.truths(1, make.grid(), (32, 32))
    make.classic(tmp_path, [truth], name=lambda v, k: f"{k}.dcm")
    make.classic(tmp_path, [truth], rle=True, name=lambda v, k: f"rle{k}.dcm" if place == "beside" else f"b/{k}.dcm")
    manifest = scan(tmp_path)
    assert make.compared(listed(manifest), [truth]) == []
    assert manifest.files == {"used": 4, "set apart": 0, "left out": 4, "unread": 0}


def test_of_two_copies_the_whole_one_is_read(tmp_path: Path) -> None:
    [truth] = make.truths(1, make.grid())
    for path in make.classic(tmp_path, [truth], name=lambda v, k: f"z{k}.dcm"):
        path.with_name(f"a{path.name}").write_bytes(path.read_bytes()[:-20])
    assert make.compared(listed(scan(tmp_path)), [truth]) == []
    assert np.array_equal(fio.read(tmp_path).data[0], truth.values)


@pytest.mark.parametrize(
    "suffix", ["", ".1", ".img", ".hdr", ".v", ".rec", ".txt", ".log", ".gz", ".h5", ".mat", ".IMA"]
)
def test_dicom_is_found_under_any_suffix(tmp_path: Path, suffix: str) -> None:
    """And what is none is counted, not looked into."""
    truths = make.truths(2, make.grid())
    make.classic(tmp_path, truths, tell="echo", name=lambda v, k: f"i{v}{k}{suffix}")
    (tmp_path / "other.img").write_bytes(bytes(400))
    (tmp_path / "notes.txt").write_text("12 slices\n")
    manifest = scan(tmp_path)
    assert make.compared(listed(manifest), truths) == []
    assert manifest.files == {"used": 8, "set apart": 0, "left out": 0, "unread": 2}
