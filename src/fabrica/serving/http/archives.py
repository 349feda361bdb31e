"""Zip archives in and out: an uploaded one unpacked within limits, and results packed."""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from fabrica import io
from fabrica.io.members import is_hidden
from fabrica.serving.http.tasks import Refused

MOST = 20_000  # files of an archive or an upload
KEPT = (".dcm", *io.VOLUME_SUFFIXES, ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npz", ".zip")
_AT_ONCE = 2**20


def numbered(k: int, name: str) -> str:
    """What the k-th file of a client is kept as: nothing of its name but a suffix that is known."""
    suffix = next((each for each in sorted(KEPT, key=len, reverse=True) if name.lower().endswith(each)), "")
    return f"{k:05d}{suffix}"


def outside(name: str) -> bool:
    """Whether the name of a member leads out of the folder that an archive is unpacked into."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or bool(re.match(r"[A-Za-z]:", name)) or "\0" in name


def unpacked(archive: Path, folder: Path, *, largest: int, most: int = MOST) -> int:
    """Write the files of an archive into a folder, in the order of their names and under numbers; gives their bytes.

    largest   bytes that all of them may have together; most: how many there may be. Both are looked at before anything
              is written, and bytes again as they come.

    Raises Refused: 413 for one above a limit, 422 for one that is damaged or encrypted, or whose names lead outside.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _checked(opened.infolist(), largest, most)
            left = largest
            for k, each in enumerate(sorted(members, key=lambda member: member.filename), start=1):
                with opened.open(each) as source, (folder / numbered(k, each.filename)).open("wb") as target:
                    while block := source.read(_AT_ONCE):
                        left -= len(block)
                        if left < 0:
                            raise Refused(413, f"the archive unpacks to more than {largest} bytes")
                        target.write(block)
            return largest - left
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise Refused(422, "the zip archive is damaged, or packed by a rare method; pack it again") from error


def _checked(found: list[zipfile.ZipInfo], largest: int, most: int) -> list[zipfile.ZipInfo]:
    """The files that are looked into, of what the directory of an archive says."""
    if len(found) > most:
        raise Refused(413, f"the archive holds {len(found)} files; at most {most} are taken")
    for each in found:
        if outside(each.filename) or stat.S_ISLNK(each.external_attr >> 16):
            raise Refused(422, "the archive holds a link, or a name that leads out of it; pack the series itself again")
        if each.flag_bits & 1:
            raise Refused(422, "the archive is encrypted; unpack it with its password first")
        if each.filename.lower().endswith(".zip"):
            raise Refused(422, "the archive holds another archive; send that one")
    members = [each for each in found if not each.is_dir() and not is_hidden(each.filename)]
    total = sum(each.file_size for each in members)
    if total > largest:
        raise Refused(413, f"the archive unpacks to {total} bytes; at most {largest} are taken")
    return members


def packed(files: Iterable[tuple[str, Path]], archive: Path) -> Path:
    """An archive of files under these names. Not deflated: images hardly shrink, and the page reads it as it is."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as opened:
        for name, path in files:
            opened.write(path, name)
    return archive
