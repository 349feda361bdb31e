"""The pixels of an object as its new file holds them: carried over byte by byte, or written anew where blanked."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import BinaryIO

import numpy as np
from pydicom.dataset import Dataset

from fabrica.errors import ReadError
from fabrica.image import Array
from fabrica.io.dicom.deidentification.elements import Treatment
from fabrica.io.dicom.file import OpenDicom, as_text
from fabrica.io.dicom.mark import UNDEFINED_LENGTH

_CHUNK = 2**20
_MOST = 2**32 - 2  # bytes of an element of defined length


def describe(dataset: Dataset, frame: Array, space: str) -> None:
    """The Image Pixel module of frames that were decoded."""
    dataset.PhotometricInterpretation = space
    if frame.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * frame.dtype.itemsize
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "EncapsulatedPixelDataValueTotalLength"):
        if keyword in dataset:
            delattr(dataset, keyword)


def write_frames(out: BinaryIO, dataset: Dataset, frames: Iterator[tuple[Array, str]]) -> None:
    begin, total = out.tell(), 0
    kind = b"OB" if dataset.BitsAllocated == 8 else b"OW"
    out.write(Struct("<HH2sHL").pack(0x7FE0, 0x0010, kind, 0, 0))
    for frame, _ in frames:
        data = frame.astype(frame.dtype.newbyteorder("<"), copy=False).tobytes()
        out.write(data)
        total += len(data)
        if total > _MOST:
            raise ReadError("blanked, its pixels are more than an uncompressed element holds (4 GB)")
    out.write(b"\0" * (total % 2))
    out.seek(begin + 8)
    out.write(Struct("<L").pack(total + total % 2))


def embedded_overlay(dataset: Dataset) -> bool:
    """Whether an overlay lies in bits of the pixels that the image does not use (retired, PS3.3 C.9.2)."""
    groups = {tag.group for tag in dataset.keys() if 0x6000 <= tag.group <= 0x60FF}  # noqa: SIM118
    return any((group << 16 | 0x3000) not in dataset and dataset.get((group, 0x0102)) for group in groups)


def copy_pixels(file: OpenDicom, out: BinaryIO, order: str, implicit: bool, embedded: bool, how: Treatment) -> None:
    """Carry the pixels over byte by byte: fragments, or the bytes that the image needs and no more."""
    assert file.pixels is not None
    dataset, pixels = file.dataset, file.pixels
    element = {"PixelData": 0x0010, "FloatPixelData": 0x0008, "DoubleFloatPixelData": 0x0009}[pixels.keyword]
    encapsulated = pixels.length == UNDEFINED_LENGTH
    length = pixels.length if encapsulated else _needed(file)
    head = Struct(order + "HH").pack(0x7FE0, element)
    if not implicit:
        head += (pixels.vr or "OW").encode("ascii") + b"\0\0"
    out.write(head + Struct(order + "L").pack(length + (0 if encapsulated else length % 2)))
    if encapsulated:
        _copy_fragments(file, out, order)
        return
    if length + length % 2 < pixels.length:
        how.done["(7FE0,0010)", pixels.keyword, "cut: bytes beyond the image"] += 1
    mask = _unused(dataset) if embedded else 0
    if mask:
        how.done["(7FE0,0010)", pixels.keyword, "cleaned: overlay in unused bits"] += 1
    for data in _chunks(file, length):
        if mask:
            kind = f"{order}u2"
            data = (np.frombuffer(data, kind) & np.array(mask, kind)).astype(kind).tobytes()
        out.write(data)
    out.write(b"\0" * (length % 2))


def _copy_fragments(file: OpenDicom, out: BinaryIO, order: str) -> None:
    head = Struct(order + "HHL")
    while True:
        begin = file.source.read(8)
        if len(begin) < 8:
            raise ReadError(f"{file.path}: its compressed pixels end within a fragment; the file is cut short")
        group, element, length = head.unpack(begin)
        if (group, element) == (0xFFFE, 0xE0DD):
            out.write(head.pack(group, element, 0))
            return
        if (group, element) != (0xFFFE, 0xE000):
            raise ReadError(f"{file.path}: ({group:04X},{element:04X}) among fragments of pixels; the file is damaged")
        out.write(begin)
        for data in _chunks(file, length):
            out.write(data)


def _chunks(file: OpenDicom, length: int) -> Iterator[bytes]:
    while length:
        data = file.source.read(min(length, _CHUNK))
        if not data or (len(data) < min(length, _CHUNK)):
            raise ReadError(f"{file.path}: its pixels end early; the file is cut short")
        length -= len(data)
        yield data


def _needed(file: OpenDicom) -> int:
    """Bytes of an uncompressed image. ReadError where the header does not say, or where there are fewer: which bytes
    are the image and which are not is then unknown."""
    assert file.pixels is not None
    dataset, there = file.dataset, file.pixels.length
    numbers = {k: dataset.get(k) for k in ("Rows", "Columns", "BitsAllocated")}
    for keyword, number in numbers.items():
        if not number:
            raise ReadError(f"{file.path}: has pixel data but no {keyword}, so that nobody knows what else is in them")
    bits = int(np.prod([int(n) for n in numbers.values()], dtype=object)) * int(dataset.get("NumberOfFrames") or 1)
    bits *= int(dataset.get("SamplesPerPixel") or 1)
    if as_text(dataset.get("PhotometricInterpretation")) == "YBR_FULL_422":
        bits = bits * 2 // 3
    needed = (bits + 7) // 8
    if there < needed:
        raise ReadError(f"{file.path}: {there:,} bytes of pixels, expected {needed:,}; the file is cut short")
    return needed


def _unused(dataset: Dataset) -> int:
    """The mask of the bits that an image of 16 bits uses; 0 where it uses all."""
    high = int(dataset.get("HighBit") or 15)
    return (1 << (high + 1)) - 1 if dataset.get("BitsAllocated") == 16 and high < 15 else 0
