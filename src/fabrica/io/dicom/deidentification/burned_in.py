"""Whether the pixels of an object may show who it is of: by its kind, by its header, and by a look at them."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from scipy.ndimage import minimum_filter1d, uniform_filter1d

from fabrica.errors import ReadError
from fabrica.image import Array, Float32
from fabrica.io.dicom.file import OpenDicom, as_text
from fabrica.io.dicom.pixels import decode_frames, frame_count

_DRAWN = {"US", "IVUS", "ES", "XC", "GM", "SM", "OP", "XA", "RF", "OT", "DG", "HC", "DOC", "BMD", "SC"}
"""Modalities whose devices often write names into the image."""
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # secondary capture; its multi-frame classes begin like it
BORDER = 0.2  # of height and width: the part of an image that is looked at on each side
_STEP = 0.35  # of the image's range: least height of an edge of a letter
_STROKE = 6  # pixels: widest stroke of a letter
_LEVEL = 0.05  # of the image's range: steps within a letter, and between letters
_EVEN = 0.4  # of the steps along a line of text
_LINE = 64  # pixels: length of text in which strokes are counted
_STROKES = 5  # in each row of it, at least
_ROWS = 5  # rows that follow one another, at least


def risks(dataset: Dataset) -> list[str]:
    """What the header says of burned-in identity, a reason each."""
    found = []
    said = as_text(dataset.get("BurnedInAnnotation")).upper()
    if said == "YES":
        found.append("BurnedInAnnotation is YES")
    if as_text(dataset.get("RecognizableVisualFeatures")).upper() == "YES":
        found.append("RecognizableVisualFeatures is YES")
    if said == "NO":
        return found
    modality = as_text(dataset.get("Modality")).upper()
    if as_text(dataset.get("SOPClassUID")).startswith(_CAPTURE):
        found.append("a secondary capture")
    elif modality in _DRAWN:
        found.append(f"modality {modality}")
    if any(word in as_text(dataset.get("ImageType")).upper() for word in ("SCREEN", "CAPTURE")):
        found.append("its ImageType says screen")
    return found


def looks(file: OpenDicom, budget: int) -> list[str]:
    """What a look at the first frame finds; where it cannot be decoded, that is said. The source stays where it was."""
    if file.pixels is None or file.pixels.keyword != "PixelData":
        return []
    place = file.source.tell()
    try:
        if frame_count(file) < 1:
            return []
        raw, _ = next(iter(decode_frames(file, [0], budget)))
        return ["what looks like text near its border"] if text_like(raw) else []
    except (ReadError, StopIteration):
        return ["pixels that could not be looked at"]
    except Exception:  # of decoders there is no telling what they raise
        return ["pixels that could not be looked at"]
    finally:
        file.source.seek(place)
        file.source.cut_short = False


def text_like(frame: Array) -> bool:
    """Whether a frame, (H, W) or (H, W, 3) of any range, has something like a line of text within a fifth of its
    border: rows that follow one another, in each of which many narrow strokes of high contrast stand within 64 pixels.

    It finds lines of about five letters and more that are drawn brighter or darker than all around them; it misses
    single letters, handwriting, faint, slanted and very large text, text on noise, and whatever stands in the middle.
    """
    grey: Float32 = (frame.mean(axis=2) if frame.ndim == 3 else frame).astype(np.float32)
    if min(grey.shape) < 2 * _STROKE:
        return False
    low, high = np.percentile(grey, (0.1, 99.9)) if grey.size > 10_000 else (grey.min(), grey.max())
    low, high = min(low, float(np.median(grey))), max(high, float(grey.max()) * 0.5 + high * 0.5)
    if high <= low:
        return False
    step = np.diff(grey, axis=1) / (high - low)
    rise, fall = step > _STEP, step < -_STEP
    flat = (np.abs(step) < _LEVEL).astype(np.float32)
    return any(_lines(found, flat) for found in (_pairs(rise, fall), _pairs(fall, rise)))


def _pairs(first: Array, second: Array) -> Float32:
    """1 where an edge is followed by one of the other kind within a stroke's width."""
    near = np.zeros_like(second)
    for k in range(1, _STROKE + 1):
        near[:, :-k] |= second[:, k:]
    return (first & near).astype(np.float32)


def _lines(strokes: Float32, flat: Float32) -> bool:
    """Whether strokes stand close to one another, over several rows, on and between what is flat, as noise is not."""
    counted, even = (uniform_filter1d(each, _LINE, axis=1, mode="nearest") for each in (strokes, flat))
    dense = ((counted * _LINE > _STROKES - 0.5) & (even > _EVEN)).astype(np.uint8)
    lines = minimum_filter1d(dense, _ROWS, axis=0)
    height, width = lines.shape
    top, side = int(np.ceil(BORDER * height)), int(np.ceil(BORDER * width))
    lines[top : height - top, side : width - side] = 0
    return bool(lines.any())
