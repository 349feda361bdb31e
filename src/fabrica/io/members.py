"""The members of a zip archive: listed once, then each reached by seeking.

zipfile would read the whole directory again for every member, or keep the archive open, which forked workers could
not share.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from fabrica.errors import ReadError

STORED, _DEFLATED, _ENCRYPTED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, -1
_LOCAL_HEADER = 30  # bytes before a member's name

Stamp = tuple[str, int, int]
"""Path, modification time in ns and size: what the caches go by."""


@dataclass(frozen=True)
class Member:
    """One member of a zip archive: its name, where its local header is, and its sizes in bytes."""

    name: str
    position: int
    packed: int
    size: int
    method: int
    crc: int


def stamp_of(path: Path) -> Stamp:
    status = path.stat()
    return str(path.absolute()), status.st_mtime_ns, status.st_size


@lru_cache(maxsize=8)
def directory(stamp: Stamp) -> dict[str, Member]:
    """The members of a zip archive; reading the directory of 10,000 for each of them would take minutes."""
    with zipfile.ZipFile(stamp[0]) as archive:
        return {
            info.filename: Member(
                info.filename,
                info.header_offset,
                info.compress_size,
                info.file_size,
                _ENCRYPTED if info.flag_bits & 1 else info.compress_type,
                info.CRC,
            )
            for info in archive.infolist()
            if not info.is_dir()
        }


def is_hidden(name: str) -> bool:
    """Whether a member, or a folder that it lies in, is hidden, or what macOS adds to archives."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def unpack(path: Path, member: Member, first: int | None = None) -> bytes:
    """The bytes of a member, checksum verified; or its `first` ones, unverified."""
    if member.method == _ENCRYPTED:
        raise ReadError(f"{path}: member {member.name} is encrypted; unpack the archive with its password first")
    if member.method not in (STORED, _DEFLATED):
        raise ReadError(f"{path}: member {member.name} is of a rare compression; unpack it, or pack it with deflate")
    size = member.size if first is None else min(first, member.size)
    with path.open("rb") as file:
        file.seek(data_begins(file, member))
        if member.method == STORED:
            raw = file.read(size)
        else:
            inflater, parts, found = zlib.decompressobj(-zlib.MAX_WBITS), [], 0
            while found < size and not inflater.eof:
                packed = inflater.unconsumed_tail or file.read(min(1 << 20, member.packed))
                if not packed:
                    break
                parts.append(inflater.decompress(packed, size - found))
                found += len(parts[-1])
            raw = b"".join(parts)
    if len(raw) != size:
        raise ValueError(f"member {member.name} holds {len(raw)} bytes, expected {size}")
    if first is None and zlib.crc32(raw) != member.crc:
        raise ValueError(f"the checksum of member {member.name} is wrong")
    return raw


def data_begins(file: BinaryIO, member: Member) -> int:
    """Where a member's bytes begin: after its local header, name and extra field."""
    file.seek(member.position)
    head = file.read(_LOCAL_HEADER)
    if len(head) < _LOCAL_HEADER or head[:4] != b"PK\3\4":
        raise ValueError(f"member {member.name} is not where the directory says")
    name, extra = struct.unpack("<HH", head[26:30])
    return member.position + _LOCAL_HEADER + int(name) + int(extra)
