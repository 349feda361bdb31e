"""DICOM objects that are damaged while a benchmark runs: bits flipped, ends cut off, sizes that lie.

Sources are the real objects of $FABRICA_DATA below 300 kB, in every transfer syntax that they have, JPEG, JPEG-LS,
JPEG 2000 and RLE among them, and slices of an invented CT. Each object is of a series of its own before it is damaged,
and damaged differently each time this runs; nothing of it is kept.
"""

from __future__ import annotations

import os
import random
import time
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import takewhile
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from fabrica.io.dicom.mark import is_dicom
from tests.dicom_network import ct, uid

DATA = Path(os.environ.get("FABRICA_DATA", "shared/data"))
FOLDERS = ("dicom_pydicom", "dicom_scanners")
OBJECTS = int(os.environ.get("MUTATED", 10_000))
SECONDS = float(os.environ.get("MUTATED_SECONDS", "inf"))  # after which no more are made: what came until then counts
LARGEST = 300_000  # bytes of a source: the smaller it is, the more of it is hit
HEAD = 256  # bytes at the start of pixel data, where streams say their sizes
SIZES = ("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel", "NumberOfFrames", "PixelRepresentation")
LIES = (0, 1, 3, 7, 12, 17, 255, 4096, 32767, 65535)


def sources() -> dict[str, list[Path | None]]:
    """By transfer syntax, the objects with pixels that can be damaged; None: a slice of the invented CT."""
    found: dict[str, list[Path | None]] = {"invented": [None]}
    for path in sorted(path for name in FOLDERS for path in (DATA / name).rglob("*") if path.is_file()):
        if path.stat().st_size > LARGEST or not is_dicom(path):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset = pydicom.dcmread(path)
                usable = "PixelData" in dataset and bool(dataset.SOPClassUID) and bool(written(dataset))
        except Exception:  # damaged as it is: pydicom's test files hold such
            continue
        if usable:
            found.setdefault(str(dataset.file_meta.TransferSyntaxUID), []).append(path)
    return found


def written(dataset: Dataset) -> bytes:
    """A file of it."""
    file = BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def numbers() -> Iterator[int]:
    """Of the objects that are to be made."""
    end = time.monotonic() + SECONDS
    return takewhile(lambda number: time.monotonic() < end, range(OBJECTS))


def maker(chance: random.Random) -> Callable[[int], bytes]:
    """What makes the file of a number. Its file meta are sound, since they are the sender's; its data set is not."""
    found = sources()
    kinds = sorted(found)

    def made(number: int) -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = chance.choice(found[chance.choice(kinds)])
            dataset = pydicom.dcmread(path) if path else ct("m", 1)
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid("m", number, "object")
            dataset.SeriesInstanceUID, dataset.StudyInstanceUID = uid("m", number), uid("m", number, "study")
            if chance.random() < 0.3:
                setattr(dataset, chance.choice(SIZES), chance.choice(LIES))
            return damaged(written(dataset), chance)

    return made


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Up to five bytes changed, in the header, where the pixels begin, or anywhere; sometimes a lie of a length, or the
    end cut off."""
    data = bytearray(content)
    begin = 144 + int.from_bytes(data[140:144], "little")
    pixels = max(data.rfind(b"\xe0\x7f\x10\x00"), begin + 1)
    regions = (begin, pixels), (pixels, min(pixels + HEAD, len(data))), (begin, len(data))
    region = chance.choice(regions)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(*region)
        data[at] = data[at] ^ 1 << chance.randrange(8) if chance.random() < 0.5 else chance.randrange(256)
    if chance.random() < 0.3:
        at = chance.randrange(region[0], max(region[0] + 1, region[1] - 4))
        data[at : at + 4] = chance.choice([2**32 - 1, 2**31, 2**24, 65535]).to_bytes(4, "little")
    return bytes(data[: chance.randrange(begin + 1, len(data))] if chance.random() < 0.3 else data)
