"""The parts of PNG that Pillow leaves out: integrity, 16-bit colour, and writing both (ISO/IEC 15948)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fabrica.image import Array

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type: grey, RGB, palette, grey + alpha, RGBA


@dataclass
class Png:
    """The structure of a PNG file, its pixels still deflated. `density` is pixels per metre (x, y)."""

    width: int
    height: int
    bits: int
    colour: int
    interlaced: bool
    text: dict[str, str] = field(default_factory=dict)
    density: tuple[int, int] | None = None
    deflated: list[bytes] = field(default_factory=list)
    exif: bytes = b""

    @property
    def channels(self) -> int:
        return _CHANNELS[self.colour]


def parse_header(data: bytes) -> Png:
    """Width, height and pixel type from the first 33 bytes; ValueError where they are not a PNG's."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise ValueError("the header is cut short")
    width, height, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if not width or not height or colour not in _CHANNELS or bits not in (1, 2, 4, 8, 16):
        raise ValueError(f"the header declares {width} x {height}, {bits} bits, colour type {colour}")
    return Png(width, height, bits, colour, bool(interlace))


def parse(data: bytes) -> Png:
    """The structure of a whole file, every checksum verified.

    Decoders stop as soon as they have enough bytes for the picture, so a file that was cut or has flipped bits can
    pass for a sound one; here it is a ValueError.
    """
    png = parse_header(data)
    view, position = memoryview(data), len(SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        kind, body = bytes(view[position + 4 : position + 8]), view[position + 8 : end - 4]
        if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise ValueError(f"the checksum of its {kind.decode('latin-1')} chunk is wrong")
        if kind == b"IDAT":
            png.deflated.append(bytes(body))
        elif kind == b"tEXt":
            keyword, _, value = bytes(body).partition(b"\0")
            png.text[keyword.decode("latin-1")] = value.decode("latin-1")
        elif kind == b"pHYs" and length == 9 and body[8] == 1:
            png.density = struct.unpack(">II", body[:8])
        elif kind == b"eXIf":
            png.exif = bytes(body)
        elif kind == b"IEND":
            return png
        position = end
    raise ValueError("the file is cut short")


def decode_16_bit(png: Png) -> Array:
    """uint16 (H, W, C) of a 16-bit file. Pillow reduces 16-bit colour, and 16-bit alpha, to 8 bits without a word."""
    if png.interlaced:
        raise ValueError("16-bit colour with interlacing is not supported: save it without interlacing")
    pixel = 2 * png.channels
    expected = png.height * (1 + png.width * pixel)
    raw = zlib.decompressobj().decompress(b"".join(png.deflated), expected + 1)
    if len(raw) != expected:
        raise ValueError(f"{len(raw)} bytes of pixels, expected {expected}")
    rows = np.frombuffer(raw, np.uint8).reshape(png.height, -1)
    unfiltered = _unfilter(rows[:, 1:].reshape(png.height, png.width, pixel), rows[:, 0])
    return unfiltered.reshape(png.height, -1).view(">u2").reshape(png.height, png.width, -1).astype(np.uint16)


def encode(pixels: Array, text: Mapping[str, str]) -> bytes:
    """A PNG file of uint8 or uint16 (H, W, 1) or (H, W, 3), with ASCII `text` chunks."""
    height, width, channels = pixels.shape
    bits = 8 * pixels.dtype.itemsize
    samples = np.ascontiguousarray(pixels, dtype=">u2" if bits == 16 else np.uint8)
    rows = samples.view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = 2  # every row as its difference from the row above ("Up"), modulo 256
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, bits, 0 if channels == 1 else 2, 0, 0, 0)
    texts = [_chunk(b"tEXt", f"{key}\0{value}".encode("latin-1")) for key, value in text.items()]
    body = _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6))
    return b"".join([SIGNATURE, _chunk(b"IHDR", header), *texts, body, _chunk(b"IEND", b"")])


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _unfilter(filtered: Array, kinds: Array) -> Array:
    """Undo the row filters (ISO/IEC 15948, clause 9) of uint8 (H, W, bytes a pixel); `kinds` (H,) says which.

    A pixel needs its left, upper and upper left neighbours, so all pixels of one anti-diagonal come at once.
    """
    if kinds.max() > 4:
        raise ValueError(f"unknown row filter {kinds.max()}")
    height, width, pixel = filtered.shape
    out = np.zeros((height + 1, width + 1, pixel), np.int16)  # a margin of zeros above and to the left
    for diagonal in range(height + width - 1):
        row = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        column = diagonal - row
        left, up, corner = out[row + 1, column], out[row, column + 1], out[row, column]
        kind = kinds[row, None]
        guess = left + up - corner
        to_left, to_up, to_corner = abs(guess - left), abs(guess - up), abs(guess - corner)
        paeth = np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))
        choices = [kind == 1, kind == 2, kind == 3, kind == 4]
        predicted = np.select(choices, [left, up, (left + up) >> 1, paeth], 0)
        out[row + 1, column + 1] = (filtered[row, column] + predicted) & 255
    return np.ascontiguousarray(out[1:, 1:].astype(np.uint8))
