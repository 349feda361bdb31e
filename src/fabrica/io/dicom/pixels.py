"""Decode the frames of an opened DICOM file, one after another, within a memory budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate, generate_frames, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    RLELossless,
)

from fabrica.errors import ReadError
from fabrica.image import Array
from fabrica.io import budget as memory
from fabrica.io.dicom.file import OpenDicom, inflate

DEFLATED_FRAME = UID("1.2.840.10008.1.2.8.1")  # Deflated Image Frame Compression, unknown to pydicom 3.0
_JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
_JPEG_SIZE_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 and JPEG-LS's SOF55

Frame = tuple[Array, str]


def frame_count(opened: OpenDicom) -> int:
    """NumberOfFrames, at least 1."""
    return int(as_pixel_options(opened.dataset)["number_of_frames"])


def check_budget(opened: OpenDicom, frames: int, budget: int) -> tuple[int, int, int]:
    """(channels, rows, columns) of the decoded image; ReadError when `frames` of them exceed the budget."""
    dataset = opened.dataset
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    channels = 3 if dataset.PhotometricInterpretation == "PALETTE COLOR" else int(dataset.SamplesPerPixel)
    if rows < 1 or columns < 1 or channels not in (1, 3) or frames < 1:
        raise ReadError(
            f"{opened.path}: the header declares {frames} frames of {rows} x {columns} pixels of {channels} "
            "samples; expected at least one pixel of 1 or 3 samples"
        )
    what = f"{frames} x {rows} x {columns} pixels of {channels} samples"
    memory.check(4 * frames * rows * columns * channels, budget, what, opened.path)
    return channels, rows, columns


def decode_frames(opened: OpenDicom, wanted: Sequence[int], budget: int) -> Iterator[Frame]:
    """The frames numbered `wanted` (from 0), (rows, columns) or (rows, columns, 3), and their colour space.

    Values are the stored ones (before any rescale), YBR already converted to RGB. Where one frame is wanted
    of many, the others are neither read nor decoded.
    """
    assert opened.pixels is not None
    options = as_pixel_options(opened.dataset)
    options.update(pixel_keyword=opened.pixels.keyword, allow_excess_frames=False)
    syntax = transfer_syntax(opened)
    if syntax == DEFLATED_FRAME or syntax.is_encapsulated:
        yield from _encapsulated(opened, syntax, options, wanted, budget)
    elif options["bits_allocated"] == 1 and options["samples_per_pixel"] == 1:
        yield from _bits(opened, syntax, options, wanted)
    else:
        yield from _native(opened, syntax, options, wanted, budget)


def transfer_syntax(opened: OpenDicom) -> UID:
    """The declared transfer syntax, or for a file without one the syntax its header turned out to have."""
    declared = opened.dataset.file_meta.get("TransferSyntaxUID")
    if declared:
        return UID(declared)
    implicit, little = opened.dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _native(
    opened: OpenDicom, syntax: UID, options: dict[str, Any], wanted: Sequence[int], budget: int
) -> Iterator[Frame]:
    assert opened.pixels is not None
    if opened.pixels.vr:
        options["pixel_vr"] = opened.pixels.vr
    source: Any = opened.source
    length = opened.pixels.length
    if len(wanted) == options["number_of_frames"]:
        memory.check(min(length, opened.path.stat().st_size), budget, "the pixel data", opened.path)
        source = source.read(length)  # as bytes, pydicom checks the length against the header
    else:
        samples = options["rows"] * options["columns"] * options["samples_per_pixel"]
        frame_bits = samples * options["bits_allocated"]
        if options.get("photometric_interpretation") == "YBR_FULL_422":
            frame_bits = frame_bits * 2 // 3
        if (max(wanted) + 1) * frame_bits > 8 * length:
            raise ReadError(f"{opened.path}: the pixel data end before frame {max(wanted) + 1}; the file is cut short")
    for array, properties in get_decoder(syntax).iter_array(source, indices=wanted, **options):
        yield _native_order(array), str(properties["photometric_interpretation"])


def _bits(opened: OpenDicom, syntax: UID, options: dict[str, Any], wanted: Sequence[int]) -> Iterator[Frame]:
    """Frames of single bits, one behind the other: each begins and ends anywhere in a byte. Of some whose first and
    last byte are shared with others, pydicom 3.0 reads a byte too few."""
    assert opened.pixels is not None
    swapped = not syntax.is_little_endian and opened.pixels.vr == "OW"
    size = options["rows"] * options["columns"]
    begin, there = opened.source.tell(), opened.pixels.length
    for number in wanted:
        first = number * size // 16 * 2  # whole words, which may be swapped
        last = min(-(-(number + 1) * size // 16) * 2, there)
        opened.source.seek(begin + first)
        data = np.frombuffer(opened.source.read(last - first), np.uint8)
        if swapped and len(data) % 2 == 0:
            data = data.reshape(-1, 2)[:, ::-1].ravel()
        bits = np.unpackbits(data, bitorder="little")[number * size - 8 * first :][:size]
        if len(bits) < size:
            raise ReadError(f"{opened.path}: the pixel data end before frame {number + 1} does; the file is cut short")
        yield bits.reshape(options["rows"], options["columns"]), str(options["photometric_interpretation"])


def _native_order(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _encapsulated(
    opened: OpenDicom, syntax: UID, options: dict[str, Any], wanted: Sequence[int], budget: int
) -> Iterator[Frame]:
    count = options["number_of_frames"]
    place = {"number_of_frames": count, "extended_offsets": options.pop("extended_offsets", None)}
    source: Any = opened.source
    source.cut_short = False
    if len(wanted) == count:
        coded: Iterator[bytes] = islice(generate_frames(source, **place), count)
    else:
        coded = (get_frame(source, index, **place) for index in wanted)
    options = {**options, "number_of_frames": 1, "bits_stored": bits_stored(options, syntax, opened.path)}
    found = 0
    for code in coded:
        if source.cut_short:  # decoders would fill the rest of the frame with whatever
            break
        found += 1
        if syntax == DEFLATED_FRAME:
            decoder, data = get_decoder(ExplicitVRLittleEndian), _inflated_frame(code, options, opened.path)
        else:
            if syntax != RLELossless:
                check_codestream(code, options, budget, opened.path)
            decoder, data = get_decoder(syntax), encapsulate([code], has_bot=False)
        # pydicom's own decoder alone for RLE: the other one leaves Python's errors behind where a frame is damaged
        plugin = "pydicom" if syntax == RLELossless else ""
        array, properties = decoder.as_array(data, index=0, decoding_plugin=plugin, **options)
        yield array, str(properties["photometric_interpretation"])
    if found < len(wanted):
        raise ReadError(f"{opened.path}: the pixel data end before frame {wanted[found] + 1}; the file is cut short")


def _inflated_frame(code: bytes, options: dict[str, Any], path: Path) -> bytes:
    """One frame of PS3.5 A.4.14: its native bytes deflated; frames of single bits end on a full byte."""
    bits = options["rows"] * options["columns"] * options["samples_per_pixel"] * options["bits_allocated"]
    return bytes(inflate(code, (bits + 7) // 8 + 1, path))


def check_codestream(code: bytes, options: dict[str, Any], budget: int, path: Path) -> None:
    """Compare the size that the compressed frame itself declares with the header and the budget.

    Decoders allocate by the former: 1.3 kB of JPEG 2000 can ask for 200 MB behind a header of 16 x 16.
    """
    size = codestream_size(code)
    if size is None:
        raise ReadError(f"{path}: a compressed frame does not start with a JPEG or JPEG 2000 header")
    rows, columns, components = size
    what = f"a compressed frame of {rows} x {columns} with {components} components"
    memory.check(4 * rows * columns * components, budget, what, path)
    if (rows, columns) != (options["rows"], options["columns"]):
        raise ReadError(
            f"{path}: a compressed frame is {rows} x {columns}, the header says "
            f"{options['rows']} x {options['columns']}; the file contradicts itself"
        )
    space, samples = str(options["photometric_interpretation"]), options["samples_per_pixel"]
    if not components == samples == (3 if space.startswith(("RGB", "YBR")) else 1):
        raise ReadError(
            f"{path}: a compressed frame has {components} channels, the header says {samples} of {space}; "
            "the file contradicts itself"
        )


def bits_stored(options: dict[str, Any], syntax: UID, path: Path) -> int:
    """BitsStored as decoders of JPEG take it: samples of 8 bits use all of them."""
    allocated, stored = int(options["bits_allocated"]), int(options["bits_stored"])
    if syntax not in _JPEG:
        return stored
    if allocated not in (8, 16):
        raise ReadError(f"{path}: JPEG of {allocated} bits a sample, expected 8 or 16; the file contradicts itself")
    return 8 if allocated == 8 else stored


def codestream_size(code: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, components) from the SIZ of a JPEG 2000 or the SOF of a JPEG or JPEG-LS stream."""
    start = _codestream_start(code)
    if code[start : start + 4] == b"\xff\x4f\xff\x51":
        return _siz(code[start + 4 : start + 42])
    if code[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 10 <= len(code) and code[position] == 0xFF:
        marker = code[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in _JPEG_SIZE_MARKERS:
            rows, columns = (int.from_bytes(code[position + k : position + k + 2]) for k in (5, 7))
            return rows, columns, code[position + 9]
        else:
            position += 2 + int.from_bytes(code[position + 2 : position + 4])
    return None


def _siz(segment: bytes) -> tuple[int, int, int] | None:
    """ISO/IEC 15444-1 A.5.1: Lsiz Rsiz Xsiz Ysiz XOsiz YOsiz XTsiz YTsiz XTOsiz YTOsiz Csiz."""
    if len(segment) < 38:
        return None
    x, y, x_offset, y_offset = (int.from_bytes(segment[k : k + 4]) for k in (4, 8, 12, 16))
    components = int.from_bytes(segment[36:38])
    return max(0, y - y_offset), max(0, x - x_offset), components


def _codestream_start(code: bytes) -> int:
    """0, or where the codestream box of a JP2 file starts: wrongly, some writers keep the boxes."""
    if code[4:8] != b"jP  ":
        return 0
    position = 0
    while (kind := code[position + 4 : position + 8]) != b"jp2c":
        length = int.from_bytes(code[position : position + 4])
        if length < 8 or not kind:
            return 0
        position += length
    return position + 8


def value_range(dataset: Any, values: Array) -> tuple[float, float]:
    """The lowest and highest storable value, widened where a damaged file stores others."""
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return min(float(low), float(np.min(values))), max(float(high), float(np.max(values)))
