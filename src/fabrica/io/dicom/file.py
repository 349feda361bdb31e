"""Open a DICOM file without trusting it: bounded reads, bounded inflation, one kind of error.

A header can lie about every length in it, and a deflated file of 100 kB can inflate to gigabytes. What is
here hands on a parsed header and a source that stands at the pixel data.
"""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO, cast

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from fabrica.errors import FabricaError, ReadError
from fabrica.io import budget as memory
from fabrica.io.dicom.header import shown, text_of
from fabrica.io.dicom.mark import KNOWN_VR, PIXEL_KEYWORDS, is_dicom

_HEADER_BYTES = 16 * 2**20  # inflated of a deflated file when only its header is asked for
_MAX_READS = 10_000_000  # one element costs two or three; beyond this a header is an attack on time


class BoundedFile:
    """A seekable binary file whose read() never asks for more than is left.

    Python allocates the bytes asked for before it reads them, so a 60-byte file that declares an element of
    4 GB would allocate 4 GB. Calls are counted for the same reason: millions of empty elements cost minutes.
    `cut_short` tells that a read was answered with a part of what was asked for.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = file.seek(0, os.SEEK_END)
        self._reads = 0
        self.cut_short = False
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise ValueError(f"more than {_MAX_READS:,} header elements")
        left = max(0, self._end - self._file.tell())
        self.cut_short |= 0 < left < size
        return self._file.read(left if size < 0 else min(size, left))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


@dataclass(frozen=True)
class PixelElement:
    """The element that holds the pixels: its keyword, VR ("" for implicit) and length in bytes."""

    keyword: str
    vr: str
    length: int


@dataclass(frozen=True)
class OpenDicom:
    """A parsed header, the source standing at the first byte of the pixels, and the pixel element if any."""

    path: Path
    dataset: Dataset
    source: BoundedFile
    pixels: PixelElement | None


@contextmanager
def guarded(path: Path, notes: list[str] | None = None) -> Iterator[None]:
    """Turn whatever goes wrong inside into one ReadError about `path`, and pydicom's warnings into notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except FabricaError:
            raise
        except OSError as error:
            raise ReadError(f"{path}: cannot be opened: {error.strerror or error}") from error
        except Exception as error:  # pydicom and its decoders raise some twenty different types
            raise ReadError(f"{path}: damaged or unsupported DICOM: {one_line(error)}") from error
    if notes is not None:
        for warning in caught:
            text = one_line(warning.message)
            if text not in notes:
                notes.append(text)


def one_line(message: object, limit: int = 240) -> str:
    """The message on one line, without the line breaks and lists that decoders put into theirs."""
    text = " ".join(str(message).split()) or type(message).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


@contextmanager
def opened(
    path: Path, budget: int, notes: list[str] | None = None, header_only: bool = False, complete: bool = True
) -> Iterator[OpenDicom]:
    """Open `path` and parse its header. Errors raised inside the block become ReadErrors too (`guarded`).

    header_only  inflates no more than the first 16 MB of a deflated file.
    complete     gives what the header lacks of its pixels the usual value, with a note.
    """
    with guarded(path, notes):
        if not is_dicom(path):
            raise ReadError(f"{path}: not a DICOM file (no DICM mark and no readable data set)")
        with path.open("rb") as file:
            dataset, source = _parse(file, path, budget, header_only)
            if not hasattr(dataset, "file_meta"):
                dataset.file_meta = FileMetaDataset()
            pixels = _pixel_element(dataset, source)
            if complete and not header_only and pixels is not None and pixels.keyword == "PixelData":
                _complete(dataset, notes)
            yield OpenDicom(path, dataset, source, pixels)


def _complete(dataset: Dataset, notes: list[str] | None) -> None:
    """Give what a header should say of its pixels, and old or careless writers leave out, the value that it has in
    nearly all files, with a note."""
    samples = dataset.get("SamplesPerPixel") or 1
    space = str(dataset.get("PhotometricInterpretation") or "")
    usual = {
        "SamplesPerPixel": 3 if space.startswith(("RGB", "YBR")) else 1,
        "PhotometricInterpretation": "MONOCHROME2" if samples == 1 else "RGB",
        "BitsStored": dataset.get("BitsAllocated"),
        "PixelRepresentation": 0,
    }
    for keyword, value in usual.items():
        if value is None or dataset.get(keyword) not in (None, ""):
            continue
        setattr(dataset, keyword, value)
        if notes is not None:
            notes.append(f"{keyword} is missing: taken as {value}")


def _parse(file: BinaryIO, path: Path, budget: int, header_only: bool) -> tuple[Dataset, BoundedFile]:
    source = BoundedFile(file)
    stream = cast(BinaryIO, source)
    preamble = read_preamble(stream, force=True)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        source.seek(0)
        return dcmread(stream, stop_before_pixels=True, force=True), source
    inflated = inflate(source.read(), budget, path, _HEADER_BYTES if header_only else None)
    source = BoundedFile(BytesIO(inflated))
    body = read_dataset(cast(BinaryIO, source), False, True, stop_when=lambda tag, vr, length: tag in PIXEL_KEYWORDS)
    dataset = FileDataset(str(path), body, preamble, FileMetaDataset(meta), False, True)
    dataset.set_original_encoding(False, True, body._character_set)
    return dataset, source


def inflate(data: bytes, budget: int, path: Path, enough: int | None = None) -> bytearray:
    """Inflate a raw deflate stream (RFC 1951) up to about `enough` bytes; ReadError above `budget` bytes."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    limit = budget if enough is None else min(budget, enough)
    result = bytearray()
    rest = data
    while not stream.eof:
        piece = stream.decompress(rest, min(2**24, limit + 1 - len(result)))
        result += piece
        rest = stream.unconsumed_tail
        if len(result) > limit:
            if enough is not None:
                break
            memory.check(len(result), budget, "the deflated data set", path)
        if not piece and not rest:
            break  # the stream ends early; what there is may still hold a header
    return result


def _pixel_element(dataset: Dataset, source: BoundedFile) -> PixelElement | None:
    """Read the head of the element the parser stopped at; None when the file has ended instead."""
    implicit, little = cast(FileDataset, dataset).original_encoding
    order = "<" if little else ">"
    head = source.read(8)
    if len(head) < 8:
        return None
    if implicit or head[4:6] not in KNOWN_VR:  # some writers change to implicit VR half way
        group, element, length = Struct(order + "HHL").unpack(head)
        vr = b""
    else:
        group, element, vr, _ = Struct(order + "HH2sH").unpack(head)
        tail = source.read(4)
        length = Struct(order + "L").unpack(tail)[0] if len(tail) == 4 else 0
    keyword = PIXEL_KEYWORDS.get(group << 16 | element)
    return PixelElement(keyword, vr.decode("ascii", "replace"), length) if keyword else None


def attribute(dataset: Dataset, frame: int, group: str, keyword: str) -> Any:
    """An attribute of one frame (from 0): from its functional group, the shared one, or the top level.

    None when it is absent or empty.
    """
    for holder in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        items = dataset.get(holder) or []
        index = frame if holder.startswith("Per") else 0
        macro = items[index].get(group) if index < len(items) else None
        if macro and macro[0].get(keyword) is not None:
            return macro[0].get(keyword)
    return dataset.get(keyword)


def as_text(value: Any, kind: str = "") -> str:
    """A pydicom value as text, several joined by a backslash."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return text_of(value, kind, b"") if kind else value.decode("latin-1")
    if kind == "AT":
        several = [value] if isinstance(value, int) else list(value)
        return "\\".join(f"{int(v):08X}" for v in several)
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        original = getattr(value, "original_string", None)  # of a decimal or integer string
        plain = original if isinstance(original, str) else value
        return shown(plain) if isinstance(plain, float) else str(plain).strip(" \0\r\n\t")
    return "\\".join(as_text(v) for v in value).strip("\\ ")
