"""TIFF: 1-, 8-, 16- and 32-bit integers and floating point, grey or colour; several pages are one volume."""

from __future__ import annotations

import logging
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from fabrica.errors import ReadError
from fabrica.image import Array, Image
from fabrica.io.budget import check
from fabrica.io.marks import from_text
from fabrica.io.pixels import Pixels, physical_spacing

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# tifffile logs each oddity of a damaged file; without a handler of the application's these would go to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_NONE, _DEFLATE = (1,), (8, 32946)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = 0, 1, 2, 3
_CENTIMETRE = 3
ORIENTATION = 274


def decode_tiff(stream: BinaryIO, path: Path, budget: int) -> Pixels:
    """The pages of an open TIFF as Pixels (H, W, C), or (D, H, W, C) for several of one size.

    Thumbnails and masks beside the pages are passed over. Raises ReadError for pages of unequal size or type and
    for more than `budget` bytes; other exceptions mean damage.
    """
    import tifffile

    directories = _count_pages(stream)
    with tifffile.TiffFile(stream) as tiff:
        pages: list[Any] = []
        needed = 0
        for page in tiff.pages:
            pages.append(page)
            needed += int(page.size) * max(4, page.dtype.itemsize if page.dtype else 4)
            check(needed, budget, f"{len(pages)} pages of {page.imagewidth} x {page.imagelength} pixels", path)
        if len(pages) != directories:
            raise ValueError(f"{len(pages)} of {directories} pages could be found")
        shown = [page for page in pages if not (page.is_reduced or page.is_mask)] or pages[:1]
        kinds = {(page.shape, page.dtype, page.photometric) for page in shown}
        if len(kinds) > 1:
            raise ReadError(
                f"{path}: {len(shown)} pages of {len(kinds)} sizes or types; expected one volume of equal pages"
            )
        return _assemble(shown[0], [_samples(page, stream) for page in shown])


def write_tiff(image: Image, path: Path, bits: int, text: str) -> None:
    """uint8, uint16 (already checked to fit) or float32 pages, deflated, with `text` as the ImageDescription."""
    import tifffile

    dtype = {8: np.uint8, 16: np.uint16, 32: np.float32}[bits]
    whole = image.data if bits == 32 else np.rint(image.data)
    samples = np.moveaxis(whole, 0, -1).astype(dtype)
    colour = image.channels == 3
    if image.channels == 1:
        samples = samples[..., 0]
    tifffile.imwrite(
        path,
        samples,
        photometric="rgb" if colour else "minisblack",
        planarconfig="contig" if image.channels > 1 else None,
        extrasamples=["unspecified"] * (image.channels - 1) if image.channels > 1 and not colour else None,
        compression="zlib",
        description=text,
        metadata=None,
        software=False,
    )


def _count_pages(stream: BinaryIO) -> int:
    """The length of the chain of image file directories (TIFF 6.0, section 2; BigTIFF has wider fields).

    tifffile ends the chain without a word where it leads out of a file that was cut short, or back into itself.
    """
    stream.seek(0)
    head = stream.read(16)
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    big = 43 in head[2:4]
    start, wide, counter, entry = (8, 8, 8, 20) if big else (4, 4, 2, 12)
    offset, seen = int.from_bytes(head[start : start + wide], order), set[int]()
    while offset:
        if offset in seen:
            raise ValueError("its pages lead in a circle")
        seen.add(offset)
        stream.seek(offset)
        entries = int.from_bytes(stream.read(counter), order)
        stream.seek(offset + counter + entry * entries)
        following = stream.read(wide)
        if len(following) < wide:
            raise ValueError("the file is cut short")
        offset = int.from_bytes(following, order)
    stream.seek(0)
    return len(seen)


def _assemble(page: Any, decoded: list[Array]) -> Pixels:
    samples = decoded[0] if len(decoded) == 1 else np.stack(decoded)
    top = 2**page.bitspersample - 1 if samples.dtype.kind == "u" and page.bitspersample <= 16 else None
    notes = []
    if page.photometric == _PALETTE:
        samples = np.moveaxis(page.colormap, 0, -1)[samples[..., 0]]
        eight_bit = not (page.colormap % 257).any()  # the map holds 16-bit values; most are 8-bit ones, stretched
        samples, top = ((samples // 257).astype(np.uint8), 255) if eight_bit else (samples, 65535)
    elif page.photometric == _WHITE_IS_ZERO:
        if top is None:
            raise ValueError("white is zero, which is defined for up to 16 bits without sign only")
        samples = (top - samples.astype(np.int32)).astype(samples.dtype)
        notes.append("stored with white as zero: inverted so that bigger is brighter")
    alpha = any(extra in (1, 2) for extra in page.extrasamples)
    text = from_text(page.description or "")
    tag = page.tags.get(ORIENTATION)
    turn = tag.value if tag is not None and isinstance(tag.value, int) else 1
    return Pixels(samples, top, alpha, text, _spacing(page), notes, turn)


def _samples(page: Any, stream: BinaryIO) -> Array:
    """One page as (H, W, C), in the file's number type."""
    if page.dtype is None or page.dtype.kind not in "buif" or page.imagedepth != 1:
        raise ValueError(f"{page.bitspersample}-bit samples of an unsupported kind")
    size = stream.seek(0, os.SEEK_END)
    expected = int(np.prod(page.chunked))
    sound = all(
        offset > 0 and count > 0 and offset + count <= size
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    )
    if len(page.dataoffsets) != expected or not sound:
        raise ValueError("the file is cut short")
    if page.compression in (*_NONE, *_DEFLATE) and page.predictor in (1, 2):
        if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE):
            raise ValueError(f"photometric interpretation {page.photometric} is not supported")
        _check_segments(page, stream)
        samples: Array = np.asarray(page.asarray(maxworkers=1))
    else:
        samples = _by_pillow(page, stream)
    if page.axes == "SYX":
        samples = np.moveaxis(samples, 0, -1)
    return samples.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)


def _check_segments(page: Any, stream: BinaryIO) -> None:
    """Each strip or tile must hold as many bytes as its part of the picture: a short one would come back as zeros,
    and a deflated one could inflate without bound."""
    row_samples = page.chunks[-2] * page.chunks[-1] if page.axes == "YXS" else page.chunks[-1]
    row_bytes = -(-row_samples * page.bitspersample // 8)
    rows = page.chunks[-3] if page.axes == "YXS" else page.chunks[-2]
    per_plane = -(-page.imagelength // rows)
    last_rows = rows if page.is_tiled else page.imagelength - (per_plane - 1) * rows
    for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        least = row_bytes * (last_rows if index % per_plane == per_plane - 1 else rows)
        found = count
        if page.compression in _DEFLATE:
            stream.seek(offset)
            found = len(zlib.decompressobj().decompress(stream.read(count), row_bytes * rows + 1))
            if found > row_bytes * rows:
                raise ValueError(f"strip {index} inflates to more than its {row_bytes * rows} bytes")
        if found < least:
            raise ValueError(f"strip {index} holds {found} bytes, expected {least}")


def _by_pillow(page: Any, stream: BinaryIO) -> Array:
    """LZW, JPEG, CCITT, PackBits and other compressions, through libtiff, where Pillow keeps the values as they are."""
    from PIL import TiffImagePlugin

    if page.photometric == _WHITE_IS_ZERO and page.bitspersample > 8:
        raise ValueError("white is zero with this compression is supported up to 8 bits")
    stream.seek(0)
    picture = TiffImagePlugin.TiffImageFile(stream)
    picture.seek(page.index)
    samples = np.asarray(picture)
    if picture.mode not in ("1", "L", "P", "I;16", "I;16B", "F", "LA", "RGB", "RGBA") or (
        samples.dtype.itemsize * 8 != max(8, page.bitspersample)
    ):
        raise ValueError(f"{page.bitspersample}-bit samples are not supported with compression {page.compression}")
    if page.photometric == _WHITE_IS_ZERO and picture.mode in ("1", "L"):  # Pillow has inverted them already
        samples = ~samples
    native: Array = samples.astype(samples.dtype.newbyteorder("="))
    return native


def _spacing(page: Any) -> tuple[float, float] | None:
    """mm from pixels per centimetre; dots per inch are a printer's, not a scanner's."""
    if int(page.resolutionunit) != _CENTIMETRE:
        return None
    per_column, per_row = page.resolution
    return physical_spacing(per_row * 100.0, per_column * 100.0)
