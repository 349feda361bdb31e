"""Pictures of a report: grey values, errors and uncertainty as PNG, with legends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from scipy.ndimage import binary_erosion

from fabrica.codec import Codec, Limits
from fabrica.geometry import oriented
from fabrica.image import Bools, Float32, Float64, Image
from fabrica.io.contact_sheet import PLANES, planes
from fabrica.io.display import tones
from fabrica.report.charts import png_uri, shown
from fabrica.report.scores import ScoreRow

Bytes = npt.NDArray[np.uint8]


SIDE = 320  # pixels of a picture's longer side


WIDE, SOFT = (-1000.0, 1500.0), (-160.0, 240.0)  # HU: bone with air, soft tissue


ERROR_COLOURS, UNCERTAINTY_COLOURS = (
    "berlin",
    "inferno",
)  # black where there is nothing to see, told apart by the colour-blind


OUTLINE = (120, 120, 120)


@dataclass(frozen=True)
class Picture:
    """A data: URI, what it shows, and its column on the page, from 1."""

    uri: str
    caption: str
    column: int


@dataclass(frozen=True)
class Legend:
    """A colour scale: data: URI of the gradient, and the values at its ends."""

    name: str
    uri: str
    low: str
    high: str


def grey(image: Image, like: Image, caption: str, column: int, window: Limits, view: str = "axial") -> Picture:
    """A picture on the scale of another image: see `shades`; of volumes one of PLANES."""
    plane = middle_plane(image, view)
    return Picture(png_uri(enlarged(tones(plane.data, shades(like, window)), plane)), caption, column)


def shades(image: Image, window: Limits) -> Limits:
    """What is black and what is white: the window for HU, else percentiles 0.5 and 99.5."""
    return window if image.unit == "HU" else _percentiles(image)


def error(
    result: Image,
    truth: Image,
    body: Bools,
    most: float,
    caption: str,
    column: int,
    whole: bool = False,
    view: str = "axial",
) -> Picture:
    """The result less the truth in colours that end at this difference, and the rim of the body."""
    gap = result.with_data((result.data - truth.data).mean(0, keepdims=True))
    plane = middle_plane(gap, view)
    pixels = _coloured(plane.data[0] / (2 * most) + 0.5, ERROR_COLOURS)
    inside = middle_plane(gap.with_data(body[None].astype(np.float32)), view).data[0] > 0
    pixels[inside & ~binary_erosion(inside)] = OUTLINE
    return Picture(png_uri(enlarged(pixels, plane, whole)), caption, column)


def uncertainty(doubt: Image, most: float, column: int, whole: bool = False) -> Picture:
    """The doubt in colours that end at this one."""
    plane = middle_plane(doubt.with_data(doubt.data.mean(0, keepdims=True)))
    pixels = _coloured(plane.data[0] / most, UNCERTAINTY_COLOURS)
    return Picture(png_uri(enlarged(pixels, plane, whole)), "uncertainty", column)


def middle_plane(image: Image, view: str = "axial") -> Image:
    """The middle plane of a volume, one of PLANES, as a radiologist sees it, (C, H, W); a 2-D image as it is."""
    if len(image.size) == 2:
        return image
    turned, k = oriented(image, "RAS"), PLANES.index(view)
    rows, columns = (mm for axis, mm in enumerate(turned.spacing) if axis != k)
    affine = np.diag([columns, rows, 1.0, 1.0])
    return Image(np.ascontiguousarray(planes(turned.data)[k]), affine, image.unit)


def enlarged(pixels: Bytes, plane: Image, whole: bool = False) -> Bytes:
    """Pixels (H, W[, 3]) with the proportions that the image has in mm, no smoothing: SIDE on the longer side, or, with
    `whole`, the next whole multiple, so that all pixels are alike. Larger images are shrunk by means."""
    height, width = (n * mm for n, mm in zip(plane.size, plane.spacing, strict=True))
    scale = SIDE / max(height, width)
    if whole and scale * min(plane.spacing) > 1:
        scale = math.ceil(scale * min(plane.spacing)) / min(plane.spacing)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    smaller = size[0] < plane.size[1]
    picture = Pillow.fromarray(pixels).resize(size, Pillow.Resampling.BOX if smaller else Pillow.Resampling.NEAREST)
    return np.asarray(picture)


def _coloured(values: Float64 | Float32, colours: str) -> Bytes:
    """(H, W) in [0, 1], beyond which the ends stand, as uint8 (H, W, 3)."""
    mapped: Bytes = matplotlib.colormaps[colours](np.clip(values, 0, 1), bytes=True)[..., :3].copy()
    return mapped


def _percentiles(image: Image) -> tuple[float, float]:
    if image.unit == "label":
        return 0.0, max(1.0, float(image.data.max()))
    low, high = (float(v) for v in np.percentile(image.data, [0.5, 99.5]))
    return (low, high) if low < high else (low, low + 1.0)


def span(codec: Codec) -> float:
    """The range of values, in the codec's unit."""
    low, high = codec.default_limits or (codec.low, codec.high)
    return high - low


def error_legend(name: str, target: Codec, most: float) -> Legend:
    text = f"{shown(most)}{' HU' if target.unit == 'HU' else ''}"
    return Legend(name, _ramp(ERROR_COLOURS), f"−{text}: too low", f"+{text}: too high")


def uncertainty_legend(target: Codec, most: float) -> Legend:
    unit = " HU" if target.unit == "HU" else ""
    return Legend("uncertainty", _ramp(UNCERTAINTY_COLOURS), f"0{unit}", f"{shown(most)}{unit} and more")


def _ramp(colours: str) -> str:
    return png_uri(_coloured(np.linspace(0, 1, 256)[None].repeat(12, 0), colours))


@dataclass(frozen=True)
class Exhibit:
    """One test image: why it is shown, its name, its scores, its pictures in the order of the page."""

    title: str
    name: str
    facts: Sequence[tuple[str, str]]
    top: Sequence[Picture]
    below: Sequence[Picture]


@dataclass(frozen=True)
class Gallery:
    """One direction's pictures, how to read them, and the row that says whether the doubt is where the error is.

    columns   of the pictures.
    """

    title: str
    how: str
    exhibits: Sequence[Exhibit]
    legends: Sequence[Legend]
    row: ScoreRow | None
    doubted: int
    columns: int = 4


ERROR_HU, ERROR_PART = 100.0, 1 / 10  # ends of the colours, in HU or of the range: closer than for translation


def difference_scale(target: Codec) -> float:
    """The difference at the ends of the colours, in the target's unit."""
    return ERROR_HU if target.unit == "HU" else ERROR_PART * span(target)
