"""Objects that become files: whole or not there, whatever the disk says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pynetdicom")

import pydicom
from pydicom.uid import CTImageStorage, JPEG2000Lossless

from fabrica.serving.node.arriving import Arriving, file_meta, recovered
from tests.command import full_disk

META = file_meta(CTImageStorage, "1.2.3", JPEG2000Lossless, "SCANNER")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@settings(max_examples=15, deadline=None)
@given(st.from_regex(r"[12](\.[1-9][0-9]{0,8}){1,6}", fullmatch=True), st.text("ABC_1", min_size=1, max_size=16))
def test_file_meta_is_what_pydicom_reads(tmp_path_factory: pytest.TempPathFactory, instance: str, sender: str) -> None:
    path = tmp_path_factory.mktemp("meta") / "a.dcm"
    path.write_bytes(file_meta(CTImageStorage, instance, JPEG2000Lossless, sender))
    meta = pydicom.dcmread(path).file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CTImageStorage, instance)
    assert (meta.TransferSyntaxUID, meta.SourceApplicationEntityTitle) == (JPEG2000Lossless, sender)
    assert meta.FileMetaInformationGroupLength == path.stat().st_size - 128 - 4 - 12


@settings(max_examples=15, deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6), st.integers(0, 600))
def test_fragments_are_joined_and_limits_kept(
    tmp_path_factory: pytest.TempPathFactory, fragments: list[bytes], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("in")
    arriving = Arriving(folder, "a", META, limit)
    for fragment in fragments:
        arriving.write(fragment)
    arriving.keep()
    whole = b"".join(fragments)
    if len(whole) <= limit:
        assert (folder / "a.dcm").read_bytes() == META + whole
        assert names(folder) == ["a.dcm"]
    else:
        assert f"more than {limit:,} bytes" in arriving.refused
        assert names(folder) == []


def test_what_the_disk_refuses_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    arriving = Arriving(tmp_path, "a", META, 10**6)
    with full_disk(10_000):
        for _ in range(4):
            arriving.write(b"x" * 5000)
        arriving.keep()
    assert arriving.refused == "File too large"
    assert names(tmp_path) == []
    arriving = Arriving(tmp_path / "gone", "a", META, 10**6)
    arriving.write(b"x")
    assert arriving.refused == "No such file or directory"
    arriving = Arriving(tmp_path, "a", META, 10**6, spare=2**60)
    arriving.write(b"x")
    assert arriving.refused == "No space left on device"


@pytest.mark.parametrize("cut", [0, 1, 5])
def test_what_a_kill_has_left_is_finished_or_removed(tmp_path: Path, cut: int) -> None:
    data = META + b"abcdef"
    (tmp_path / "1-2-3.part").write_bytes(data)
    (tmp_path / f"4-5-6-{len(data)}.whole").write_bytes(data[: len(data) - cut])
    (tmp_path / "7-8-9.dcm").write_bytes(data)
    assert recovered(tmp_path) == (cut == 0)
    assert names(tmp_path) == (["4-5-6.dcm"] if cut == 0 else []) + ["7-8-9.dcm"]
