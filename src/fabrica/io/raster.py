"""Pictures: PNG, JPEG and TIFF, 8 and 16 bit (TIFF: floating point too), grey or colour.

PNG and JPEG are decoded by Pillow's plugin classes rather than `PIL.Image.open`, whose own limit on the number of
pixels is global to the process; `budget` takes its place.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fabrica.errors import ReadError, UsageError
from fabrica.image import Array, Image
from fabrica.io import png, tiff
from fabrica.io.atomic import atomic
from fabrica.io.budget import DEFAULT_BUDGET, check
from fabrica.io.guard import decoding
from fabrica.io.marks import from_text, to_text
from fabrica.io.pixels import Pixels, physical_spacing, to_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
JPEG_SIGNATURE = b"\xff\xd8\xff"


def raster_kind(head: bytes) -> str:
    """ "PNG", "JPEG" or "TIFF" by the first bytes of a file; "" for anything else."""
    if head.startswith(png.SIGNATURE):
        return "PNG"
    if head.startswith(JPEG_SIGNATURE):
        return "JPEG"
    return "TIFF" if head.startswith(tiff.SIGNATURES) else ""


def read_raster(path: str | Path, budget: int = DEFAULT_BUDGET) -> Image:
    """A PNG, JPEG or TIFF file -> Image (C, H, W); a TIFF of several pages -> (C, D, H, W).

    Values are the stored ones (0..255, 0..65535, ...). A constant alpha channel is dropped, colour that is grey becomes
    one channel, and what EXIF's Orientation says is turned upright, all noted in origin. Raises ReadError for damage
    and for more than `budget` bytes.
    """
    path = Path(path)
    with decoding(path, "a picture"), path.open("rb") as stream:
        return decode_raster(stream, path, budget)


def decode_raster(stream: BinaryIO, path: Path, budget: int = DEFAULT_BUDGET) -> Image:
    """Like `read_raster`, of an open stream; `path` serves the messages and origin["path"]."""
    kind = raster_kind(stream.read(8))
    if not kind:
        raise ReadError(f"{path}: not a picture; expected the first bytes of a PNG, JPEG or TIFF")
    with decoding(path, f"a {kind}"):
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        if kind == "TIFF":
            return to_image(tiff.decode_tiff(stream, path, budget), path)
        check(size, budget, "the file itself", path)
        decode = _decode_png if kind == "PNG" else _decode_jpeg
        return to_image(decode(stream.read(), path, budget), path)


def write_raster(
    image: Image,
    path: Path,
    kind: str,
    marks: dict[str, str],
    *,
    bits: int | None = None,
    clip: bool = False,
) -> None:
    """Write `kind` "PNG", "JPEG" or "TIFF", whole or not at all; `marks` go beside the pixels.

    bits  8, 16, or 32 (floating point, TIFF only); by default the fewest that hold origin's declared range.
    Raises UsageError where the format cannot hold the image: a volume in PNG, values out of range unless `clip`.
    """
    if kind != "TIFF" and len(image.size) == 3:
        raise UsageError(f"{path}: a {kind} holds one slice, found a volume; write .nii.gz, .tif or DICOM instead")
    if kind != "TIFF" and image.channels not in (1, 3):
        raise UsageError(f"{path}: a {kind} holds 1 or 3 channels, found {image.channels}; write .tif or .npz instead")
    bits = _choose_bits(image, kind, bits)
    if bits < 32:
        image = _whole_numbers(image, bits, clip, path)
    with atomic(path) as temporary:
        if kind == "TIFF":
            tiff.write_tiff(image, temporary, bits, to_text(marks))
            return
        pixels = np.rint(np.moveaxis(image.data, 0, -1)).astype(np.uint16 if bits == 16 else np.uint8)
        if kind == "PNG":
            temporary.write_bytes(png.encode(pixels, marks))
        else:
            _write_jpeg(pixels, temporary, to_text(marks))


def _decode_png(data: bytes, path: Path, budget: int) -> Pixels:
    from PIL import PngImagePlugin

    header = png.parse_header(data)
    check(
        header.width * header.height * max(4, 4 * header.channels),
        budget,
        f"{header.width} x {header.height} pixels of {header.channels} channels",
        path,
    )
    structure = png.parse(data)
    alpha, top = structure.colour in (4, 6), 2**structure.bits - 1
    if structure.bits == 16 and structure.channels > 1:
        samples = png.decode_16_bit(structure)
    else:
        picture = PngImagePlugin.PngImageFile(io.BytesIO(data))
        if structure.colour == 3:
            alpha, top = "transparency" in picture.info, 255
            samples = np.asarray(picture.convert("RGBA" if alpha else "RGB"))
        else:
            samples = np.asarray(picture)
            if structure.bits in (2, 4):  # Pillow stretches them to 0..255
                samples = samples // np.uint8(255 // top)
    samples = samples.reshape(structure.height, structure.width, -1)
    spacing = None
    if structure.density is not None:
        spacing = physical_spacing(structure.density[1], structure.density[0])
    return Pixels(samples, top, alpha, structure.text, spacing, turn=_turn(structure.exif))


def _decode_jpeg(data: bytes, path: Path, budget: int) -> Pixels:
    from PIL import JpegImagePlugin

    height, width, channels = _parse_jpeg(data)
    check(height * width * channels * 4, budget, f"{width} x {height} pixels of {channels} channels", path)
    picture = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    notes = []
    if picture.mode == "CMYK":
        notes.append("CMYK converted to RGB")
        samples = np.asarray(picture.convert("RGB"))
    else:
        samples = np.asarray(picture)
    comment = picture.info.get("comment", b"")
    text = from_text(comment.decode("ascii", "replace") if isinstance(comment, bytes) else str(comment))
    turn = _turn(picture.info.get("exif", b""))
    return Pixels(samples.reshape(height, width, -1), 255, text=text, notes=notes, turn=turn)


def _turn(block: bytes) -> int:
    """The Orientation in a block of EXIF; 1, upright, where there is none or it is damaged."""
    from PIL.Image import Exif

    exif = Exif()
    try:
        exif.load(block)
        found = exif.get(tiff.ORIENTATION, 1)
    except (SyntaxError, ValueError, OSError, struct.error, KeyError, IndexError, OverflowError):
        return 1
    return int(found) if isinstance(found, int) else 1


def _parse_jpeg(data: bytes) -> tuple[int, int, int]:
    """Height, width and channels from the frame header (ITU-T T.81, B.2.2), and that the picture has an end.

    Without the end marker libjpeg paints what is missing grey.
    """
    position, size = 2, None
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise ValueError(f"byte {position} should begin a marker")
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)):
            body = data[position + 4 : position + 10]
            size = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), body[5]
            if not all(size):
                raise ValueError(f"the header declares {size[1]} x {size[0]} pixels, {size[2]} channels")
        if marker == 0xDA:  # start of scan: the compressed picture follows
            if size is None:
                raise ValueError("its picture comes before its header")
            if data.rfind(b"\xff\xd9") <= position:
                break
            return size
        position += 2 + length
    raise ValueError("the file is cut short")


def _write_jpeg(pixels: Array, path: Path, comment: str) -> None:
    from PIL import Image as Pillow

    picture = Pillow.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.save(path, format="jpeg", quality=95, subsampling=0, comment=comment)


def _choose_bits(image: Image, kind: str, bits: int | None) -> int:
    allowed = {"PNG": (8, 16), "TIFF": (8, 16, 32), "JPEG": (8,)}[kind]
    if bits is not None:
        if bits not in allowed:
            raise UsageError(f"a {kind} is written with {' or '.join(map(str, allowed))} bits, found bits={bits}")
        return bits
    low, high = image.origin.get("range", (0.0, np.inf))
    whole = image.unit == "label" or ("range" in image.origin and image.origin.get("step", 1.0) >= 1)
    if image.unit == "label":
        low, high = 0.0, max(float(image.data.max(initial=0.0)), 0.0)
    for candidate in allowed:
        if candidate == 32 or (whole and low >= 0 and high < 2**candidate):
            return candidate
    return allowed[-1]


def _whole_numbers(image: Image, bits: int, clip: bool, path: Path) -> Image:
    """The image with every value storable in `bits` without sign, or UsageError."""
    low, high = float(image.data.min(initial=0.0)), float(image.data.max(initial=0.0))
    top = 2**bits - 1
    hint = "clip=True cuts them off; .tif with bits=32, .nii.gz and .npz hold any value"
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UsageError(f"{path}: NaN or infinite values; {bits} bits hold 0 to {top}")
    if not clip and (low < -0.5 or high > top + 0.5):
        raise UsageError(f"{path}: values span {low:.6g} to {high:.6g}; {bits} bits hold 0 to {top}; {hint}")
    if "range" not in image.origin and high <= 1 and not np.array_equal(image.data, np.rint(image.data)):
        raise UsageError(
            f"{path}: fractions up to {high:.6g} would all be rounded to 0 or 1; multiply them by {top}, or write .tif"
        )
    return image.with_data(np.clip(image.data, 0, top))
