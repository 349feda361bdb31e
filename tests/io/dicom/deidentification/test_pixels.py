"""Pixels: carried over as they are, blanked outside regions, and looked at for text."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless, UltrasoundImageStorage, UltrasoundMultiFrameImageStorage

from fabrica.io.dicom.deidentification import Key, deidentify
from fabrica.io.dicom.deidentification.burned_in import risks, text_like
from tests.io.dicom import series

KEY = Key(b"a key of sixteen bytes and more")
Array = np.ndarray[Any, Any]


def ultrasound(pixels: Array, *regions: tuple[int, int, int, int], **attributes: Any) -> Dataset:
    """(H, W), (F, H, W) or (H, W, 3) of 8 bits, and its regions (left, top, right, bottom), ends included."""
    made = series.plane(pixels, series.grid(1), 0, "US", **attributes)
    made.SOPClassUID = UltrasoundImageStorage
    if pixels.ndim == 3 and pixels.shape[-1] != 3:
        made.SOPClassUID, made.NumberOfFrames = UltrasoundMultiFrameImageStorage, len(pixels)
    items = []
    for left, top, right, bottom in regions:
        item = Dataset()
        item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
        item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
        items.append(item)
    if items:
        made.SequenceOfUltrasoundRegions = Sequence(items)
    return made


def through(dataset: Dataset, tmp_path: Path, rle: bool = False, **how: Any) -> pydicom.FileDataset:
    series.save(dataset, tmp_path / "in" / "a.dcm", rle)
    account = deidentify(tmp_path / "in", tmp_path / "out", KEY, **how)
    assert account.written == 1, account
    (found,) = (tmp_path / "out").rglob("*.dcm")
    return pydicom.dcmread(found)


@pytest.mark.parametrize("rle", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("shape", [(20, 30), (3, 20, 30), (20, 30, 3)], ids=["grey", "frames", "colour"])
def test_pixels_outside_the_regions_are_blanked_and_no_other(shape: tuple[int, ...], rle: bool, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, shape).astype(np.uint8)
    found = through(ultrasound(pixels, (2, 4, 9, 12), (15, 0, 99, 6)), tmp_path, rle, blank_outside_regions=True)
    inside = np.zeros((20, 30), bool)
    inside[4:13, 2:10] = inside[0:7, 15:] = True
    wanted = np.where(inside[..., None] if shape[-1] == 3 else inside, pixels, 0)
    assert np.array_equal(found.pixel_array, wanted)
    assert "blanked outside" in (tmp_path / "out" / "audit.csv").read_text()


def test_without_regions_nothing_is_blanked(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (20, 30)).astype(np.uint8)
    assert np.array_equal(through(ultrasound(pixels), tmp_path, blank_outside_regions=True).pixel_array, pixels)


def test_compressed_pixels_stay_as_they_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (3, 20, 30)).astype(np.uint8)
    dataset = ultrasound(pixels, (2, 4, 9, 12))
    found = through(dataset, tmp_path, rle=True)
    assert found.file_meta.TransferSyntaxUID == RLELossless and found.PixelData == dataset.PixelData


def test_bytes_beyond_the_image_and_overlays_in_unused_bits_go(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (10, 12)).astype(np.uint16)
    dataset = series.plane(pixels | 0x8000, series.grid(1))
    dataset.BitsStored, dataset.HighBit = 12, 11
    for element, vr, value in ((0x0010, "US", 10), (0x0011, "US", 12), (0x0100, "US", 16), (0x0102, "US", 15)):
        dataset.add_new(0x60000000 + element, vr, value)
    dataset.PixelData += b"MEYER^ANNA"
    found = through(dataset, tmp_path)
    assert np.frombuffer(found.PixelData, "<u2").reshape(10, 12).tolist() == pixels.tolist()


def test_a_large_object_is_carried_over_in_little_memory(tmp_path: Path) -> None:
    dataset = series.plane(np.zeros((64, 512, 512), np.uint16), series.grid(1), 0, "MR", NumberOfFrames=64)
    series.save(dataset, tmp_path / "in" / "a.dcm", instance="large")
    tracemalloc.start()
    account = deidentify(tmp_path / "in", tmp_path / "out", KEY)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert account.written == 1 and most < 16e6, f"{most / 1e6:.0f} MB of 33"


def lettered(size: int, text: str = "DOE^JANE 1961", dark: bool = False, middle: bool = False) -> Array:
    """A smooth grey field with a line of text at its top, or in its middle."""
    field = np.hypot(*np.mgrid[-1:1:256j, -1:1:256j]) * 60 + 40
    drawn = Pillow.new("L", (256, 256))
    font = ImageFont.load_default(size)
    ImageDraw.Draw(drawn).text((90, 110) if middle else (20, 8), text, font=font, fill=255)
    field[np.asarray(drawn) > 127] = 0 if dark else 255
    return field.astype(np.uint8)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [10, 14, 20, 28])
def test_lines_of_text_near_the_border_are_found(size: int, dark: bool) -> None:
    assert text_like(lettered(size, dark=dark))
    assert text_like(np.repeat(lettered(size, dark=dark)[..., None], 3, axis=2))


def test_what_is_no_line_of_text_near_the_border_is_not() -> None:
    rng = np.random.default_rng(0)
    assert not text_like(lettered(14, "L"))
    assert not text_like(lettered(14, "DOE^JANE", middle=True))
    assert not text_like(rng.normal(100, 20, (256, 256)))
    assert not text_like(np.full((256, 256), 7, np.uint16))
    assert not text_like(np.zeros((4, 4)))
    grid = np.zeros((256, 256))
    grid[::8] = 255
    assert not text_like(grid)


def test_kinds_and_headers_that_speak_of_text_are_told() -> None:
    plain = series.plane(np.zeros((4, 4), np.uint16), series.grid(1))
    assert risks(plain) == []
    assert risks(ultrasound(np.zeros((4, 4), np.uint8))) == ["modality US"]
    assert risks(ultrasound(np.zeros((4, 4), np.uint8), BurnedInAnnotation="NO")) == []
    plain.BurnedInAnnotation, plain.ImageType = "YES", ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    assert risks(plain) == ["BurnedInAnnotation is YES", "its ImageType says screen"]
