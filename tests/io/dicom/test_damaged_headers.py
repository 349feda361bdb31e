"""Objects whose headers hold one element that cannot be parsed: read and written again, or refused in words."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import fabrica
from fabrica.errors import FabricaError
from fabrica.phantoms.head.head import head

UNKNOWN = b"FS"  # no value representation, in any edition
LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR")


def elements(content: bytes) -> Iterator[tuple[int, int]]:
    """Of a file in Explicit VR Little Endian: where each element before the pixels lies, and its tag."""
    at = 144 + int.from_bytes(content[140:144], "little")
    while at < len(content):
        group, number, kind = struct.unpack("<HH2s", content[at : at + 6])
        if (group, number) == (0x7FE0, 0x0010):
            return
        yield at, group << 16 | number
        if kind in LONG:
            at += 12 + struct.unpack("<L", content[at + 8 : at + 12])[0]
        else:
            at += 8 + struct.unpack("<H", content[at + 6 : at + 8])[0]


@pytest.mark.parametrize("modality", ["CT", "MR"], ids=["a copy", "a new object"])
def test_an_element_that_cannot_be_parsed_is_one_line(tmp_path: Path, modality: str) -> None:
    """Each in turn: reading may refuse it, and else writing, which takes elements that reading never looked at."""
    image = head(3, 16, contrasts=["CT"]).images["CT"]
    content = fabrica.write(image, tmp_path / "whole.dcm")[0].read_bytes()
    became: Counter[str] = Counter()
    for at, tag in elements(content):
        (tmp_path / "odd.dcm").write_bytes(content[: at + 4] + UNKNOWN + content[at + 6 :])
        try:
            found = fabrica.read(tmp_path / "odd.dcm")
        except FabricaError:
            became["not read"] += 1
            continue
        found = replace(found, origin={**found.origin, "modality": modality})
        try:
            fabrica.write(found, tmp_path / "again.dcm", translated=True)
            became["written"] += 1
        except FabricaError as error:
            became["not written"] += 1
            assert "header is damaged" in str(error) and "\n" not in str(error), f"{tag:08X}"
    assert min(became[name] for name in ("not read", "written", "not written")), became
