"""The bytes of voxels as they were before packing: plain, gzip, zlib, bzip2, or numbers written as text.

Each is read a piece at a time from where its header says it begins, so that no file, however small, unpacks to more
than what is asked for.
"""

from __future__ import annotations

import bz2
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from fabrica.errors import ReadError
from fabrica.io.members import Stamp, stamp_of

_PIECE = 1 << 16  # bytes in hand at a time
_LARGEST_TAIL = 1 << 24  # bytes after the voxels, where some programs pad
_DENSEST = {"plain": 1, "gzip": 1032, "zlib": 1032, "bzip2": 1 << 24}  # bytes that a packed byte can become
PACKED = ("gzip", "zlib")


class Stream(Protocol):
    def read(self, n: int, /) -> bytes: ...

    def skip(self, n: int, /) -> None: ...


@dataclass(frozen=True)
class Bytes:
    """Where the voxels of a file are.

    offset    bytes of the file before they, or what they are packed in, begin; counted from its end where negative.
    encoding  "plain", "gzip", "zlib", "bzip2" or "text".
    skipped   bytes before the voxels once they are unpacked.
    dtype     of numbers in a text.
    """

    path: Path
    offset: int = 0
    encoding: str = "plain"
    skipped: int = 0
    dtype: str = ""

    def check(self, nbytes: int, numbers: int) -> None:
        """Raise ReadError where the file cannot hold as many bytes, or numbers, as its header promises."""
        size = self.path.stat().st_size
        there = size - self.offset if self.offset >= 0 else -self.offset
        if self.encoding == "text":
            enough = there >= 2 * numbers - 1
        else:
            enough = there * _DENSEST[self.encoding] >= nbytes + self.skipped
        if self.offset < 0:
            enough = enough and size >= -self.offset
        if not enough:
            raise ReadError(
                f"{self.path}: {max(there, 0):,} bytes of voxels, and its header promises {nbytes:,}: "
                "the file is cut short; fetch or export it again"
            )


class Inflated:
    """gzip or zlib, one member after another, their checksums verified.

    Raises EOFError where the file ends too early, ValueError for what is neither.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.position = file, 0
        self._inflater, self._given = zlib.decompressobj(32 + zlib.MAX_WBITS), b""

    def read(self, n: int) -> bytes:
        parts, wanted = [], n
        while wanted and not (self._inflater.eof and not self._next()):
            packed = self._inflater.unconsumed_tail or self._given or self.file.read(_PIECE)
            self._given = b""
            part = self._inflater.decompress(packed, wanted)
            if not packed and not part and not self._inflater.eof:
                raise EOFError("the compressed data are cut short")
            parts.append(part)
            wanted -= len(part)
        self.position += n - wanted
        return b"".join(parts)

    def skip(self, n: int) -> None:
        _run_through(self, n)

    def bookmark(self) -> Inflated:
        """A copy that goes on from here with `at` the file, without what lies before."""
        copy = Inflated(self.file)
        copy.position, copy._inflater, copy._given = self.position, self._inflater.copy(), self._given
        return copy

    def _next(self) -> bool:
        """Begin the next member, if there is one."""
        rest = self._inflater.unused_data.lstrip(b"\0")  # tapes pad with zeros
        while len(rest) < 2 and (more := self.file.read(_PIECE)):
            rest = (rest + more).lstrip(b"\0")
        if rest[:2] != b"\x1f\x8b":
            return False
        self._inflater, self._given = zlib.decompressobj(32 + zlib.MAX_WBITS), rest
        return True


class _Plain:
    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, n: int) -> bytes:
        return self.file.read(n)

    def skip(self, n: int) -> None:
        self.file.seek(n, os.SEEK_CUR)


class _Unzipped2:
    def __init__(self, file: BinaryIO) -> None:
        self.file = bz2.BZ2File(file)

    def read(self, n: int) -> bytes:
        return self.file.read(n)

    def skip(self, n: int) -> None:
        _run_through(self, n)


class _Numbers:
    """Numbers apart by white space, as the bytes of an array of them."""

    def __init__(self, file: BinaryIO, dtype: np.dtype[Any]) -> None:
        self.file, self.dtype, self.ready, self.word = file, dtype, b"", b""

    def read(self, n: int) -> bytes:
        while len(self.ready) < n and (text := self.file.read(_PIECE)):
            words = (self.word + text + b"|").split()  # the last may go on in the next piece
            self.word = words.pop()[:-1]
            self._take(words)
        if len(self.ready) < n and self.word:
            self._take([self.word])
            self.word = b""
        taken, self.ready = self.ready[:n], self.ready[n:]
        return taken

    def skip(self, n: int) -> None:
        _run_through(self, n)

    def _take(self, words: list[bytes]) -> None:
        whole = self.dtype.kind in "iu"
        numbers = [int(word) for word in words] if whole else [float(word) for word in words]
        self.ready += np.array(numbers, self.dtype).tobytes()


@contextmanager
def opened(where: Bytes, at: int = 0) -> Iterator[Stream]:
    """The voxels' bytes from byte `at` of them on."""
    with where.path.open("rb") as file:
        file.seek(where.offset, os.SEEK_SET if where.offset >= 0 else os.SEEK_END)
        stream: Stream
        if where.encoding in PACKED:
            stream = _resumed(Inflated(file), where, where.skipped + at)
        else:
            numbers = _Numbers(file, np.dtype(where.dtype)) if where.encoding == "text" else None
            stream = numbers or (_Unzipped2(file) if where.encoding == "bzip2" else _Plain(file))
            stream.skip(where.skipped + at)
        yield stream


def finish(stream: Stream, where: Bytes) -> None:
    """Run through what follows the voxels: a checksum is verified at the very end."""
    if where.encoding != "plain":
        _run_through(stream, _LARGEST_TAIL)


def sound(where: Bytes, nbytes: int) -> None:
    """Verify a packed file to its end without keeping it: once a process, since one of many volumes is read at a time.

    Raises ValueError or EOFError where it is damaged, or holds less than these bytes.
    """
    if where.encoding != "plain" and (found := _length(stamp_of(where.path), where)) < nbytes:
        raise ValueError(f"{found} bytes of voxels, expected {nbytes}: the file is cut short")


@lru_cache(maxsize=256)
def _length(stamp: Stamp, where: Bytes) -> int:
    """How many bytes of voxels there are, padding and all."""
    with opened(where) as stream:
        return _run_through(stream, None)


def _run_through(stream: Any, n: int | None) -> int:
    """Read up to n bytes (None: all) and drop them; how many there were."""
    done = 0
    while n is None or done < n:
        piece = len(stream.read(_PIECE if n is None else min(_PIECE, n - done)))
        done += piece
        if not piece:
            break
    return done


_left: tuple[Stamp, Bytes, int, Inflated] | None = None  # where the last reading of one volume of many stopped


def leave(stream: Stream, where: Bytes) -> None:
    """Remember where reading stopped, so that the next volume of the file need not be reached from its beginning."""
    global _left
    if isinstance(stream, Inflated):
        _left = stamp_of(where.path), where, stream.file.tell(), stream.bookmark()


def _resumed(stream: Inflated, where: Bytes, at: int) -> Inflated:
    """The stream at unpacked byte `at`: from the beginning, or from where reading stopped if that lies before."""
    if _left and _left[:2] == (stamp_of(where.path), where) and _left[3].position <= at:
        file, (_, _, position, mark) = stream.file, _left
        file.seek(position)
        stream = mark.bookmark()
        stream.file = file
    stream.skip(at - stream.position)
    return stream


def beside(path: Path, name: str) -> Path:
    """The file of voxels that the header at `path` names: in its folder or below it. Raises ReadError for others."""
    home = path.absolute().parent
    found = Path(os.path.normpath(home / name))
    if not found.is_relative_to(os.path.normpath(home)):
        raise ReadError(f"{path}: its voxels are said to lie in {name}, outside its folder; copy that file beside it")
    if not found.is_file():
        raise ReadError(f"{path}: its voxels are said to lie in {name}, which is not there; fetch or export it again")
    return found
