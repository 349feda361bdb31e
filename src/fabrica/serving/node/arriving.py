"""One object on its way from the network into a file: the bytes of its data set as they come, behind file meta."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from struct import pack

from pydicom.uid import PYDICOM_IMPLEMENTATION_UID

from fabrica import __version__
from fabrica.io.atomic import flush

PART, WHOLE, DONE = ".part", ".whole", ".dcm"
"""How names of files end that are being written; that are complete, with their size before it, and about to be flushed;
and that are safe on the disk."""


def file_meta(class_uid: str, instance_uid: str, syntax: str, sender: str) -> bytes:
    """Preamble, mark and file meta (PS3.10 table 7.1-1), with the AE title of who sent the object."""
    elements = [
        (1, b"OB", b"\0\1"),
        (2, b"UI", _uid(class_uid)),
        (3, b"UI", _uid(instance_uid)),
        (0x10, b"UI", _uid(syntax)),
        (0x12, b"UI", _uid(PYDICOM_IMPLEMENTATION_UID)),
        (0x13, b"SH", _even(f"FABRICA_{__version__}".encode("ascii")[:16], b" ")),
        (0x16, b"AE", _even(sender.encode("ascii", "replace")[:16], b" ")),
    ]
    body = b"".join(_element(*element) for element in elements)
    return b"\0" * 128 + b"DICM" + _element(0, b"UL", pack("<L", len(body))) + body


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    if vr == b"OB":
        return pack("<HH2sHL", 2, number, vr, 0, len(value)) + value
    return pack("<HH2sH", 2, number, vr, len(value)) + value


def _uid(text: str) -> bytes:
    return _even(text.encode("ascii", "replace")[:64], b"\0")


def _even(value: bytes, filler: bytes) -> bytes:
    return value + filler * (len(value) % 2)


class Arriving:
    """An object that becomes a file, fragment by fragment, beside the one that is to be. What the disk refuses and what
    is beyond a limit is remembered, and the rest of the object is read and dropped, so that the sender gets its status.

    meta     the bytes before the data set.
    limit    bytes that a data set may have; spare: bytes of the disk that stay free.
    size     bytes of data set so far. refused: why nothing is kept, "" as long as it is.
    """

    def __init__(self, folder: Path, name: str, meta: bytes, limit: int, spare: int = 0) -> None:
        self.folder, self.name, self.size, self.refused = folder, name, 0, ""
        self._meta, self._limit, self._spare, self._file = meta, limit, spare, -1

    def write(self, data: bytes | memoryview) -> None:
        """A fragment of the data set."""
        if self.refused:
            return
        try:
            self._put(data)
        except OSError as error:
            self._refuse(error.strerror or type(error).__name__)

    def keep(self) -> None:
        """Make it safe on the disk under its name, unless it is `refused` by then.

        Named as whole before it is flushed: a flush of the file then brings its name along, which saves the disk
        another one, and what is whole can be told from what is not after a power cut.
        """
        if self.refused:
            return
        try:
            whole = self.folder / f"{self.name}-{len(self._meta) + self.size}{WHOLE}"
            self._part.rename(whole)
            os.fsync(self._file)
            flush(self.folder)
            whole.rename(self.folder / (self.name + DONE))
        except OSError as error:
            self._refuse(error.strerror or type(error).__name__)
        self.close()

    def drop(self) -> None:
        """Close and remove the file, if there is one."""
        if self._file >= 0:
            self.close()
            for path in (self._part, *self.folder.glob(f"{self.name}-*{WHOLE}")):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @property
    def _part(self) -> Path:
        return self.folder / (self.name + PART)

    def _put(self, data: bytes | memoryview) -> None:
        if self._file < 0:
            if shutil.disk_usage(self.folder).free < self._spare:
                return self._refuse(os.strerror(errno.ENOSPC))
            self._file = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            _write(self._file, self._meta)
        self.size += len(data)
        if self.size > self._limit:
            return self._refuse(f"more than {self._limit:,} bytes")
        return _write(self._file, data)

    def _refuse(self, why: str) -> None:
        self.refused = why
        self.drop()


def _write(file: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while len(view):
        view = view[os.write(file, view) :]


def recovered(folder: Path) -> int:
    """Finish what a node that was killed has left in the folder: what is whole gets its name, the rest goes, since
    nobody was told that it is kept. Returns how many were whole."""
    count = 0
    for path in sorted(folder.iterdir()):
        if path.name.endswith(WHOLE):
            name, _, size = path.name.removesuffix(WHOLE).rpartition("-")
            if size.isdigit() and path.stat().st_size == int(size):
                path.rename(folder / (name + DONE))
                count += 1
            else:
                path.unlink()
        elif path.name.endswith(PART):
            path.unlink()
    return count
