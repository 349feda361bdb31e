"""A made label map beside the true one on the grey image: contours in a fixed colour for each class, truth dashed.

Of volumes three planes are shown, through the middle of the largest error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke
from scipy.ndimage import find_objects, label

from fabrica.evaluation.segmentation.cases import labels
from fabrica.geometry import oriented
from fabrica.image import Image
from fabrica.io.contact_sheet import PLANES
from fabrica.io.display import tones
from fabrica.io.palette import RGB, colour_of, hexed
from fabrica.metrics.segmentation import Classes, Labels, of_class, owners
from fabrica.metrics.surfaces import Mask
from fabrica.report.pictures import SOFT, Bytes, shades

Limits = tuple[float, float]

SIDE = 480  # pixels of a picture's longer side
DPI = 100
WIDTH = 2.0  # of the contours, in pixels
DASHES = (0, (2.5, 1.5))  # of the truth, in widths
HOW = "Contours: dashed the truth, solid what was made, both in the colour of their class; apart where they differ."


def overlays(
    image: Image,
    truth: Image,
    made: Image | None,
    classes: Classes,
    *,
    colours: Mapping[int, RGB] | None = None,
    window: Limits = SOFT,
    through: int | None = None,
    margin: float | None = None,
) -> list[tuple[str, Bytes]]:
    """Pictures with their names, uint8 (H, W, 3): the image with contours, of a volume one for each of PLANES.

    image     (C, *S); truth, made: label maps (1, *S) on its grid, made None: the truth alone.
    classes   whose contours are drawn: numbers, or the labels that belong to each. colours: of them; None: by number.
    window    what is black and what is white, of CT in HU; others: percentiles 0.5 and 99.5.
    through   the class whose largest error the planes go through, or whose middle where there is none; None: of all
              `classes`.
    margin    mm around both label maps (of class `through`) that are shown; None: the whole image.
    """
    chosen = owners(classes)
    shades_of = colours or {number: colour_of(number) for number in chosen}
    if len(image.size) == 3:
        image, truth = oriented(image, "RAS"), oriented(truth, "RAS")
        made = None if made is None else oriented(made, "RAS")
    maps = [labels(truth)] + ([] if made is None else [labels(made)])
    judged = [number for k, own in chosen.items() if through in (None, k) for number in own]
    limits, middle = shades(image, window), centre(maps[0], maps[-1], judged)
    box = _box(maps, judged, image.spacing, margin)
    found = []
    for name, axis in [("", None)] if len(image.size) == 2 else list(zip(PLANES, range(3), strict=True)):
        grey, *flat = (_plane(values, axis, middle, box) for values in (image.data, *(m[None] for m in maps)))
        spacing = [mm for k, mm in enumerate(image.spacing) if k != axis]
        found.append((name, _drawn(tones(grey, limits), [each[0] for each in flat], chosen, shades_of, spacing)))
    return found


def centre(truth: Labels, made: Labels, classes: Sequence[int]) -> tuple[int, ...]:
    """The voxel in the middle of the largest error in these classes, which is the largest connected lump of voxels that
    are one of them on either side and differ. Where nothing differs, the middle of the classes; without any, of all.
    """
    ours = np.isin(truth, classes) | np.isin(made, classes)
    wrong: Mask = ours & (truth != made)
    there = wrong if wrong.any() else ours
    if not there.any():
        return tuple(n // 2 for n in truth.shape)
    lumps, count = label(there, np.ones((3,) * truth.ndim))
    largest = 1 + int(np.argmax(np.bincount(lumps.ravel(), minlength=count + 1)[1:]))
    return tuple(round(float(places.mean())) for places in np.nonzero(lumps == largest))


def _box(
    maps: Sequence[Labels], classes: Sequence[int], spacing: Sequence[float], margin: float | None
) -> tuple[slice, ...]:
    """What is shown: the classes on either side and what lies around them; all of it where there are none."""
    ours = np.any([np.isin(each, classes) for each in maps], axis=0)
    if margin is None or not ours.any():
        return tuple(slice(0, n) for n in ours.shape)
    wide = [round(margin / mm) for mm in spacing]
    tight = find_objects(ours.view(np.uint8))[0]
    return tuple(
        slice(max(0, part.start - more), min(n, part.stop + more))
        for part, more, n in zip(tight, wide, ours.shape, strict=True)
    )


def _plane(values: npt.NDArray[Any], axis: int | None, at: Sequence[int], box: Sequence[slice]) -> npt.NDArray[Any]:
    """(C, *S) -> (C, H, W) within the box: a picture as it is, of a volume in RAS order a plane as a radiologist sees
    it, the patient's right on the left, or anterior there; the head, or anterior, at the top."""
    if axis is None:
        return values[:, *box]
    part = [at[axis] if k == axis else one for k, one in enumerate(box)]
    return values[:, *part][:, ::-1, ::-1]


def _drawn(
    grey: Bytes,
    maps: Sequence[Labels],
    classes: Mapping[int, Sequence[int]],
    colours: Mapping[int, RGB],
    spacing: Sequence[float],
) -> Bytes:
    """Greys (H, W[, 3]) in the proportions that they have in mm, with the contours of the label maps (H, W): the truth,
    and what was made."""
    rows, columns = grey.shape[:2]
    height, width = rows * spacing[0], columns * spacing[1]
    scale = SIDE / max(height, width)
    figure = Figure(figsize=(max(1, round(width * scale)) / DPI, max(1, round(height * scale)) / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    smooth = "antialiased" if scale * min(spacing) < 1 else "nearest"
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation=smooth)
    points = WIDTH * 72 / DPI
    rim: list[AbstractPathEffect] = [
        withStroke(linewidth=2 * points, foreground="black", alpha=0.5)
    ]  # seen on white too
    for values, style in zip(maps, (DASHES, "solid"), strict=False):
        for number, own in classes.items():
            mask = np.pad(of_class(values, own), 1).astype(np.float32)  # closed at the border of the picture
            if mask.any():
                x, y = np.arange(-1, columns + 1), np.arange(-1, rows + 1)
                line = axes.contour(
                    x, y, mask, [0.5], colors=[hexed(colours[number])], linewidths=points, linestyles=[style]
                )
                line.set_path_effects(rim)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
