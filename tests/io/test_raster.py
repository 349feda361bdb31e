"""PNG, JPEG and TIFF: exact against other decoders, whole or ReadError when damaged."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage.io as skimage_io
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageOps

from fabrica import io as fio
from fabrica.errors import ReadError, UsageError
from fabrica.image import Image
from tests.draws import draws
from tests.real import DATA

RNG = np.random.default_rng(0)
AFFINE = np.array([[-0.7, 0.01, 0, 12.3456789], [0.02, -0.8, 0, -7.1], [0, 0, 2.5, 1e-3], [0, 0, 0, 1]])


def real(pattern: str) -> list[Path]:
    found = sorted(DATA.glob(pattern))
    if not found:
        pytest.skip(f"no real images: {pattern} is not in the data folder (set FABRICA_DATA)")
    return found


def noise(*shape: int, dtype: Any = np.uint8) -> npt.NDArray[Any]:
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_file(header: tuple[int, ...], rows: bytes, *extra: bytes) -> bytes:
    """A PNG from its parts: (width, height, bits, colour type) and the filtered rows."""
    ihdr = struct.pack(">IIBBBBB", *header, 0, 0, 0)
    body = [chunk(b"IHDR", ihdr), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


# --- exactness against other programs ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_written_elsewhere_is_read_exactly(tmp_path: Path, dtype: Any) -> None:
    values = noise(37, 53, dtype=dtype)
    path = tmp_path / "x.png"
    Pillow.fromarray(values).save(path)
    image = fio.read(path)
    np.testing.assert_array_equal(image.data, values[None].astype(np.float32))
    assert image.origin["range"] == (0.0, float(np.iinfo(dtype).max))
    assert image.origin["step"] == 1.0
    assert image.unit == "arbitrary"


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_png_written_here_is_read_exactly_elsewhere(tmp_path: Path, bits: int, channels: int) -> None:
    values = noise(channels, 41, 29, dtype=np.uint16 if bits == 16 else np.uint8)
    (path,) = fio.write(Image(values.astype(np.float32)), tmp_path / "x.png", bits=bits)
    back = skimage_io.imread(path) if bits == 8 or channels == 1 else fio.read(path).data.transpose(1, 2, 0)
    np.testing.assert_array_equal(back.reshape(41, 29, channels), values.transpose(1, 2, 0))
    if bits == 16 and channels == 1:
        assert back.dtype == np.uint16


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_16_bit_colour_png_is_not_reduced_to_8_bits(tmp_path: Path, colour: int) -> None:
    """Every row filter in turn, filtered here by the definition, one byte at a time."""
    channels = {2: 3, 4: 2, 6: 4}[colour]
    values = noise(11, 7, channels, dtype=np.uint16)
    raw = values.astype(">u2").view(np.uint8).reshape(11, -1).astype(int)
    pixel, rows = 2 * channels, bytearray()
    for y in range(11):
        kind = y % 5
        rows.append(kind)
        for x in range(raw.shape[1]):
            a = raw[y, x - pixel] if x >= pixel else 0
            b = raw[y - 1, x] if y else 0
            c = raw[y - 1, x - pixel] if y and x >= pixel else 0
            nearest = min((a, b, c), key=lambda v, p=a + b - c: abs(v - p))  # type: ignore[misc]
            rows.append((raw[y, x] - [0, a, b, (a + b) // 2, nearest][kind]) % 256)
    path = tmp_path / "x.png"
    path.write_bytes(png_file((7, 11, 16, colour), bytes(rows)))
    image = fio.read(path)
    np.testing.assert_array_equal(image.data, values.transpose(2, 0, 1).astype(np.float32))
    assert image.origin["range"] == (0.0, 65535.0)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "f4", "f8", ">u2", ">f4"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_written_elsewhere_is_read_exactly(tmp_path: Path, dtype: str, compression: str | None) -> None:
    kind = np.dtype(dtype)
    values = RNG.integers(0, 200, (23, 31)).astype(kind) * (kind.type(1.37) if kind.kind == "f" else kind.type(1))
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, values, compression=compression, byteorder=">" if dtype[0] == ">" else "<")
    image = fio.read(path)
    np.testing.assert_array_equal(image.data[0], values.astype(np.float32))
    assert ("range" in image.origin) == (kind.kind in "iu" and kind.itemsize <= 2)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "raw", "group4", "jpeg"])
def test_tiff_compressions_of_libtiff(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "x.tif"
    values = np.kron(noise(6, 8), np.ones((5, 5), np.uint8))
    picture = Pillow.fromarray(values)
    if compression == "group4":
        values = (values > 127).astype(np.uint8)
        picture = Pillow.fromarray(values.astype(bool))
    picture.save(path, compression=compression)
    image = fio.read(path)
    if compression == "jpeg":
        values = np.asarray(Pillow.open(path))
    np.testing.assert_array_equal(image.data[0], values)
    if compression == "group4":
        assert image.origin["range"] == (0.0, 1.0)


@pytest.mark.parametrize("mode", ["tiff_lzw", None])
def test_16_bit_lzw_tiff(tmp_path: Path, mode: str | None) -> None:
    values = noise(40, 50, dtype=np.uint16)
    Pillow.fromarray(values).save(tmp_path / "x.tif", compression=mode)
    np.testing.assert_array_equal(fio.read(tmp_path / "x.tif").data[0], values)


def test_tiff_layouts(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    colour = noise(20, 33, 3, dtype=np.uint16)
    tifffile.imwrite(path, colour, photometric="rgb", tile=(16, 16), compression="zlib")
    np.testing.assert_array_equal(fio.read(path).data, colour.transpose(2, 0, 1))
    tifffile.imwrite(path, colour.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", rowsperstrip=7)
    np.testing.assert_array_equal(fio.read(path).data, colour.transpose(2, 0, 1))
    grey = noise(20, 33)
    tifffile.imwrite(path, grey, photometric="miniswhite", rowsperstrip=3, compression="zlib", predictor=True)
    image = fio.read(path)
    np.testing.assert_array_equal(image.data[0], 255 - grey)
    assert "inverted" in image.origin["notes"][0]
    table = noise(3, 256).astype(np.uint16) * np.uint16(257)
    tifffile.imwrite(path, grey, photometric="palette", colormap=table)
    np.testing.assert_array_equal(fio.read(path).data, table[:, grey] // 257)
    tifffile.imwrite(path, noise(5, 20, 33, dtype=np.uint16), bigtiff=True)
    assert fio.read(path).data.shape == (1, 5, 20, 33)


def test_pages_of_a_tiff_are_a_volume_and_must_agree(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    pages = noise(4, 12, 9, dtype=np.uint16)
    with tifffile.TiffWriter(path) as writer:
        writer.write(noise(3, 3), subfiletype=1)  # a thumbnail
        for page in pages:
            writer.write(page)
    np.testing.assert_array_equal(fio.read(path).data[0], pages)
    with tifffile.TiffWriter(path) as writer:
        writer.write(pages[0])
        writer.write(pages[0, :5])
    with pytest.raises(ReadError, match="2 sizes or types"):
        fio.read(path)


def test_small_depths_palette_and_alpha(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    mask = noise(19, 21) > 127
    Pillow.fromarray(mask).save(path)
    image = fio.read(path)
    np.testing.assert_array_equal(image.data[0], mask)
    assert image.origin["range"] == (0.0, 1.0)

    nibbles = noise(5, 8) % 16
    packed = (nibbles[:, ::2] << 4 | nibbles[:, 1::2]).astype(np.uint8)
    path.write_bytes(png_file((8, 5, 4, 0), b"".join(b"\0" + row.tobytes() for row in packed)))
    image = fio.read(path)
    np.testing.assert_array_equal(image.data[0], nibbles)
    assert image.origin["range"] == (0.0, 15.0)

    grey = noise(6, 7)
    rgb = np.stack([grey] * 3, -1)
    opaque = np.concatenate([rgb, np.full((6, 7, 1), 255, np.uint8)], -1)
    Pillow.fromarray(opaque).save(path)
    image = fio.read(path)
    np.testing.assert_array_equal(image.data, grey[None])
    assert len(image.origin["notes"]) == 2
    opaque[0, 0, 3] = 17
    Pillow.fromarray(opaque).save(path)
    assert fio.read(path).data.shape == (4, 6, 7)
    Pillow.fromarray(np.stack([grey, np.full_like(grey, 9)], -1)).save(path)
    np.testing.assert_array_equal(fio.read(path).data, grey[None])

    colour = noise(6, 7, 3)
    palette = Pillow.fromarray(colour).quantize(42)
    palette.save(path)
    np.testing.assert_array_equal(fio.read(path).data, np.asarray(palette.convert("RGB")).transpose(2, 0, 1))


def test_jpeg_equals_pillow(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    pictures = [Pillow.fromarray(noise(30, 41)), Pillow.fromarray(noise(30, 41, 3))]
    for picture in [*pictures, Pillow.frombytes("CMYK", (41, 30), noise(30, 41, 4).tobytes())]:
        picture.save(path, progressive=picture.mode == "RGB")
        with Pillow.open(path) as opened:
            expected = np.asarray(opened.convert("RGB") if opened.mode == "CMYK" else opened)
        np.testing.assert_array_equal(fio.read(path).data, np.atleast_3d(expected).transpose(2, 0, 1))


# --- spacing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dpi", [72, 96, 100, 300])
def test_dots_per_inch_are_not_spacing(tmp_path: Path, dpi: int) -> None:
    for suffix in (".png", ".tif", ".jpg"):
        Pillow.fromarray(noise(4, 4)).save(tmp_path / f"x{suffix}", dpi=(dpi, dpi))
        np.testing.assert_array_equal(fio.read(tmp_path / f"x{suffix}").affine, np.eye(4))


def test_a_physical_resolution_is_spacing_and_noted(tmp_path: Path) -> None:
    phys = chunk(b"pHYs", struct.pack(">IIB", 2000, 1250, 1))  # 0.5 mm columns, 0.8 mm rows
    (tmp_path / "x.png").write_bytes(png_file((2, 2, 8, 0), b"\0\1\2\0\3\4", phys))
    image = fio.read(tmp_path / "x.png")
    assert image.spacing == pytest.approx((0.8, 0.5))
    assert "spacing" in image.origin["notes"][0]
    tifffile.imwrite(tmp_path / "x.tif", noise(4, 4), resolution=(20.0, 12.5), resolutionunit="CENTIMETER")
    assert fio.read(tmp_path / "x.tif").spacing == pytest.approx((0.8, 0.5))


# --- write and read back ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=draws(40))
@given(
    suffix=st.sampled_from([".png", ".tif", ".tiff", ".jpg"]),
    bits=st.sampled_from([8, 16]),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**32 - 1),
)
def test_round_trip(suffix: str, bits: int, channels: int, size: tuple[int, int], seed: int) -> None:
    top = 255 if suffix == ".jpg" else 2**bits - 1
    values = (np.random.default_rng(seed).random((channels, *size)) * top).astype(np.float32)
    affine = AFFINE * (1 + seed % 97)
    image = Image(values, affine, "HU", {"range": (0.0, float(top)), "step": 1.0, "window": (40.0, 400.0)})
    with tempfile.TemporaryDirectory() as folder:
        (path,) = fio.write(image, Path(folder) / f"x{suffix}")
        back = fio.read(path)
        again = fio.read(fio.write(back, path)[0])
    assert back.data.shape == values.shape
    if suffix != ".jpg":
        assert np.abs(back.data - values).max() <= 0.5 + 1e-3
        np.testing.assert_array_equal(again.data, back.data)
    np.testing.assert_allclose(back.affine, affine, atol=1e-6)
    assert back.unit == "HU"
    assert back.origin["window"] == (40.0, 400.0)
    assert back.origin["range"] == (0.0, float(top))


@pytest.mark.parametrize(
    "shape", [(1, 5, 6), (2, 5, 6), (3, 5, 6), (1, 4, 5, 6), (1, 1, 5, 6), (3, 4, 5, 6), (2, 4, 5, 6)]
)
def test_floating_point_tiff_keeps_every_bit(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = RNG.normal(0, 1000, shape).astype(np.float32)
    (path,) = fio.write(Image(values, AFFINE, "HU"), tmp_path / "x.tif")
    back = fio.read(path)
    np.testing.assert_array_equal(back.data, values)
    assert "range" not in back.origin
    assert tifffile.imread(path).dtype == np.float32


def test_bits_follow_the_declared_range(tmp_path: Path) -> None:
    small = Image(np.full((1, 4, 4), 200, np.float32), origin={"range": (0.0, 255.0), "step": 1.0})
    large = Image(np.full((1, 4, 4), 200, np.float32), origin={"range": (0.0, 4095.0), "step": 1.0})
    for image, dtype in [(small, np.uint8), (large, np.uint16)]:
        for suffix in (".png", ".tif"):
            (path,) = fio.write(image, tmp_path / f"x{suffix}")
            assert skimage_io.imread(path).dtype == dtype
    labels = Image(np.arange(16, dtype=np.float32).reshape(1, 4, 4), unit="label")
    (path,) = fio.write(labels, tmp_path / "x.png")
    assert skimage_io.imread(path).dtype == np.uint8
    assert fio.read(path).unit == "label"


def test_values_out_of_range_are_refused_unless_clipped(tmp_path: Path) -> None:
    image = Image(np.array([[[-5.0, 300.0]]], np.float32), origin={"range": (0.0, 255.0)})
    path = tmp_path / "x.png"
    with pytest.raises(UsageError, match=r"-5 to 300; 8 bits hold 0 to 255"):
        fio.write(image, path)
    assert not any(tmp_path.iterdir())
    fio.write(image, path, clip=True)
    np.testing.assert_array_equal(fio.read(path).data, [[[0, 255]]])
    with pytest.raises(UsageError, match="rounded to 0 or 1"):
        fio.write(Image(np.array([[[0.25, 0.5]]], np.float32)), path)
    with pytest.raises(UsageError, match="NaN"):
        fio.write(Image(np.array([[[np.nan, 0.5]]], np.float32)), path)


@pytest.mark.parametrize(
    ("shape", "suffix", "options", "message"),
    [
        ((1, 2, 3, 4), ".png", {}, "holds one slice"),
        ((2, 3, 4), ".png", {}, "1 or 3 channels"),
        ((1, 3, 4), ".png", {"bits": 12}, "bits=12"),
        ((1, 3, 4), ".jpg", {"bits": 16}, "bits=16"),
        ((1, 3, 4), ".nii", {"bits": 16}, "for PNG, TIFF and JPEG"),
        ((1, 3, 4), ".gif", {}, "cannot write .gif"),
        ((1, 3, 4), ".png", {"sed": 3}, "does not know 'sed'"),
    ],
)
def test_what_cannot_be_written_is_said(
    tmp_path: Path, shape: tuple[int, ...], suffix: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        fio.write(Image(np.zeros(shape, np.float32)), tmp_path / f"x{suffix}", **options)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_synthetic_images_say_so_and_keep_saying_it(tmp_path: Path, suffix: str) -> None:
    image = Image(noise(1, 8, 8).astype(np.float32), origin={"range": (0.0, 255.0)})
    (path,) = fio.write(image, tmp_path / f"x{suffix}", synthetic=True, model="ddpm-chést", model_hash="ab12", seed=7)
    raw = path.read_bytes()
    assert b"SyntheticData" in raw and b"YES" in raw
    back = fio.read(path)
    assert (back.origin["synthetic"], back.origin["seed"], back.origin["model_hash"]) == (True, 7, "ab12")
    (copy,) = fio.write(back, tmp_path / f"copy{suffix}")
    assert fio.read(copy).origin["synthetic"] is True
    assert "synthetic" not in fio.read(fio.write(image, tmp_path / f"y{suffix}")[0]).origin
    if suffix == ".png":
        with Pillow.open(path) as opened:
            assert opened.info["SyntheticData"] == "YES"


# --- damage and bombs -------------------------------------------------------------------------------------------


def examples() -> dict[str, bytes]:
    """One sound file of each kind."""

    def saved(values: npt.NDArray[Any], **options: Any) -> bytes:
        buffer = io.BytesIO()
        Pillow.fromarray(values).save(buffer, **options)
        return buffer.getvalue()

    def tiff(values: npt.NDArray[Any], **options: Any) -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, values, **options)
        return buffer.getvalue()

    rng = np.random.default_rng(1)
    grey = rng.integers(0, 255, (40, 30), dtype=np.uint8)
    deep = rng.integers(0, 65535, (40, 30), dtype=np.uint16)
    wide = deep[..., None].repeat(3, -1) + np.arange(3, dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    return {
        "png8": saved(grey, format="png"),
        "png16": saved(deep, format="png"),
        "png48": png_file((30, 40, 16, 2), rows),
        "jpeg": saved(grey, format="jpeg"),
        "jpeg-progressive": saved(np.stack([grey, grey // 2, grey], -1), format="jpeg", progressive=True),
        "tiff": tiff(deep, rowsperstrip=7),
        "tiff-deflate": tiff(deep, compression="zlib", rowsperstrip=7),
        "tiff-pages": tiff(np.stack([deep] * 3), photometric="minisblack"),
        "tiff-lzw": saved(grey, format="tiff", compression="tiff_lzw"),
        "tiff-jpeg": saved(grey, format="tiff", compression="jpeg"),
    }


EXAMPLES = examples()


def outcome(path: Path, data: bytes) -> npt.NDArray[Any] | ReadError:
    path.write_bytes(data)
    try:
        return fio.read(path, budget=2**26).data
    except ReadError as error:
        assert "\n" not in str(error)
        return error


@pytest.mark.parametrize("kind", EXAMPLES)
@pytest.mark.parametrize("part", [0.0, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999, -1])
def test_a_truncated_file_is_never_half_read(tmp_path: Path, kind: str, part: float) -> None:
    sound = EXAMPLES[kind]
    keep = len(sound) - 1 if part < 0 else int(part * len(sound))
    result = outcome(tmp_path / "x.bin", sound[:keep])
    if isinstance(result, np.ndarray):  # what was cut off was not needed: the last byte of a tag, say
        np.testing.assert_array_equal(result, outcome(tmp_path / "x.bin", sound))
    if kind.startswith(("png", "jpeg")):
        assert isinstance(result, ReadError)


@pytest.mark.parametrize("kind", ["png8", "png16", "png48"])
def test_a_flipped_bit_in_a_png_is_noticed(tmp_path: Path, kind: str) -> None:
    sound = EXAMPLES[kind]
    for position in range(0, len(sound) - 1, max(1, len(sound) // 60)):
        damaged = bytearray(sound)
        damaged[position] ^= 4
        assert isinstance(outcome(tmp_path / "x.png", bytes(damaged)), ReadError), position


@settings(deadline=None, max_examples=draws(150))
@given(kind=st.sampled_from(sorted(EXAMPLES)), data=st.data())
def test_damage_anywhere_is_a_read_error_and_nothing_else(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(EXAMPLES[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        end = len(damaged) if data.draw(st.booleans()) else min(len(damaged), 300)  # headers break best
        damaged[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        outcome(Path(folder) / "x.bin", bytes(damaged))


def jpeg_header(width: int, height: int) -> bytes:
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0"
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame + b"\xff\xda\0\x08\1\1\0\0\x3f\0\0\xff\xd9"


def test_a_small_file_cannot_ask_for_gigabytes(tmp_path: Path) -> None:
    side = 40_000
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((8, 8), np.uint8))
    tiff = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(tiff))) as opened:
        for tag in ("ImageWidth", "ImageLength"):
            entry = opened.pages[0].tags[tag]
            tiff[entry.valueoffset : entry.valueoffset + 4] = struct.pack("<I", side)
    bombs = {
        "x.png": png_file((side, side, 8, 0), bytes(1000)),
        "y.png": png_file((side, side, 16, 6), bytes(1000)),
        "x.jpg": jpeg_header(side, side),
        "x.tif": bytes(tiff),
    }
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ReadError, match=r"GB of memory, more than the budget"):
            fio.read(tmp_path / name)


def test_strips_cannot_inflate_beyond_the_picture(tmp_path: Path) -> None:
    sound = bytearray(EXAMPLES["tiff-deflate"])
    bomb = zlib.compress(bytes(50_000_000), 9)
    with tifffile.TiffFile(io.BytesIO(bytes(sound))) as opened:
        tags = opened.pages[0].tags
        offsets, counts = tags["StripOffsets"], tags["StripByteCounts"]
        sound[offsets.valueoffset : offsets.valueoffset + 4] = struct.pack("<I", len(sound))
        width = counts.dtype.itemsize if hasattr(counts.dtype, "itemsize") else (4 if counts.dtype == 4 else 2)
        sound[counts.valueoffset : counts.valueoffset + width] = len(bomb).to_bytes(4, "little")[:width]
    (tmp_path / "x.tif").write_bytes(bytes(sound) + bomb)
    with pytest.raises(ReadError, match="inflates to more"):
        fio.read(tmp_path / "x.tif")


def test_pillows_own_limit_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is global to the process; the budget is an argument. (Only libtiff's compressions cannot do without.)"""
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 100)
    for kind, data in EXAMPLES.items():
        if kind in ("tiff-lzw", "tiff-jpeg"):
            continue
        assert isinstance(outcome(tmp_path / "x.bin", data), np.ndarray), kind


# --- real images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        "cxr_nih1000_64/images/*.png",
        "cxr_hannover_243/original_png/*.png",
        "cxr_kermany_960/images/**/*.jp*g",
        "cxr_hannover_lung_masks/masks/*.png",
    ],
)
def test_real_pictures_agree_with_pillow(pattern: str) -> None:
    for path in real(pattern)[:40]:
        image = fio.read(path)
        with Pillow.open(path) as opened:
            expected = np.asarray(opened.convert("RGB")).transpose(2, 0, 1)
        np.testing.assert_array_equal(np.broadcast_to(image.data, expected.shape), expected, err_msg=str(path))
        assert image.channels == 1


# --- EXIF -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", "16.png", "colour16.png"])
def test_pictures_are_turned_upright_as_every_viewer_does(tmp_path: Path, turn: int, suffix: str) -> None:
    """Against Pillow's own `exif_transpose`, in all eight orientations."""
    wide = suffix.startswith(("16", "colour16"))
    values = np.kron(noise(3, 5, dtype=np.uint16 if wide else np.uint8), np.ones((8, 8), np.uint8))
    path = tmp_path / f"x{suffix}"
    exif = Pillow.Exif()
    exif[274] = turn
    if suffix == "colour16.png":
        rows = np.stack([values, values // 2, values // 3], -1).astype(">u2").view(np.uint8).reshape(24, -1)
        block = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
        raw = np.concatenate([np.zeros((24, 1), np.uint8), rows], 1).tobytes()
        path.write_bytes(png_file((40, 24, 16, 2), raw, block))
        expected = np.asarray(ImageOps.exif_transpose(_tagged(values, turn))).astype(np.float32)
    elif suffix == ".tif":
        tifffile.imwrite(path, values, extratags=[(274, 3, 1, turn, True)])
        expected = np.asarray(ImageOps.exif_transpose(_tagged(values, turn)))
    else:
        Pillow.fromarray(values).save(path, exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Pillow.open(path)))
    image = fio.read(path)
    np.testing.assert_array_equal(image.data[0], expected)
    assert image.size == ((40, 24) if turn >= 5 else (24, 40))
    assert any("EXIF" in note for note in image.origin.get("notes", ())) == (turn > 1)


def _tagged(values: npt.NDArray[Any], turn: int) -> Pillow.Image:
    picture = Pillow.fromarray(values)
    picture.getexif()[274] = turn
    return picture


def test_spacing_turns_with_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(
        path, noise(6, 9), resolution=(50, 20), resolutionunit="CENTIMETER", extratags=[(274, 3, 1, 6, True)]
    )
    image = fio.read(path)  # columns 0.2 mm and rows 0.5 mm apart as stored; what were columns are rows now
    assert image.size == (9, 6)
    np.testing.assert_allclose(image.spacing, (0.2, 0.5))


@pytest.mark.parametrize("block", [b"", b"II*\0", b"Exif\0\0garbage", b"MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_exif_turns_nothing(tmp_path: Path, block: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png_file((2, 1, 8, 0), b"\0\1\2", chunk(b"eXIf", block)))
    assert fio.read(path).data.tolist() == [[[1.0, 2.0]]]
