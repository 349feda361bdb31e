"""Contact sheets: what a person looks at during and after training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from fabrica.io.atomic import atomic

Uint8 = npt.NDArray[np.uint8]
PLANES = ("axial", "coronal", "sagittal")
PREVIEW = "preview.png"
RUNS = 3  # zlib's strategy of runs alone: half the time, and of filtered grey values no larger
GAP = 96  # grey between tiles: black would not show beside the air of a radiograph


def image_grid(
    images: npt.NDArray[Any], columns: int = 8, *, gap: int = 2, smallest: int = 96, spacing: Sequence[float] = ()
) -> Uint8:
    """A contact sheet (H, W) or (H, W, 3) of images (N, C, H, W) or (N, C, D, H, W) in [-1, 1].

    A volume shows its three middle planes side by side, see `planes`, in the proportions of its voxels: spacing is
    (D, H, W) in mm; empty: cubes. Tiles smaller than `smallest` pixels are enlarged by a whole number, without
    smoothing.
    """
    if images.ndim == 5:
        images = np.stack([_side_by_side(volume, spacing or (1.0, 1.0, 1.0)) for volume in images])
    tiles = np.round((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)
    tiles = tiles[:, :3] if tiles.shape[1] >= 3 else tiles[:, :1]
    factor = max(1, round(smallest / tiles.shape[-2]))
    tiles = tiles.repeat(factor, axis=-1).repeat(factor, axis=-2)
    count, channels, height, width = tiles.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = np.full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), GAP, np.uint8)
    for k, tile in enumerate(tiles):
        top, left = (k // columns) * (height + gap), (k % columns) * (width + gap)
        sheet[:, top : top + height, left : left + width] = tile
    return sheet[0] if channels == 1 else sheet.transpose(1, 2, 0)


def save_picture(pixels: Uint8, path: Path) -> None:
    """Write uint8 (H, W) or (H, W, 3) as PNG, whole or not at all."""
    with atomic(path) as temporary:
        Pillow.fromarray(pixels).save(temporary, format="png", compress_type=RUNS)


def reduced(pixels: Uint8, longest: int) -> Uint8:
    """The picture (H, W) or (H, W, 3) with sides of at most `longest` pixels: means of squares of a whole number."""
    factor = -(-max(pixels.shape[:2]) // longest)
    return pixels if factor == 1 else np.asarray(Pillow.fromarray(pixels).reduce(factor))


def save_gif(images: npt.NDArray[Any], path: Path, *, per_second: int = 10, spacing: Sequence[float] = ()) -> None:
    """Write images (N, C, H, W) or (N, C, D, H, W) in [-1, 1] as a GIF that repeats for ever, whole or not at all.

    Frames look like the tiles of `image_grid`: enlarged, and volumes as their three middle planes; spacing as there.
    """
    frames = [Pillow.fromarray(image_grid(image[None], spacing=spacing)) for image in images]
    with atomic(path) as temporary:
        frames[0].save(
            temporary, format="gif", save_all=True, append_images=frames[1:], duration=1000 // per_second, loop=0
        )


def is_preview(name: str) -> bool:
    """Whether a file of this name is a picture of what lies beside it, and none of the images themselves.

    >>> [is_preview(name) for name in ("preview.png", "sct-preview.png", "ct.png")]
    [True, True, False]
    """
    return name == PREVIEW or name.endswith(f"-{PREVIEW}")


def planes(volume: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """The middle planes (C, H, W) of a volume (C, D, H, W) in RAS order, as in PLANES.

    As a radiologist looks at them: the patient's right on the left, or seen from the left side anterior there; the
    head, or anterior, at the top.
    """
    depth, height, width = (side // 2 for side in volume.shape[1:])
    return [volume[:, depth, ::-1, ::-1], volume[:, ::-1, height, ::-1], volume[:, ::-1, ::-1, width]]


def _side_by_side(volume: npt.NDArray[Any], spacing: Sequence[float]) -> npt.NDArray[Any]:
    """The planes of a volume (C, D, H, W) with square pixels, as large as its finest voxels, padded to one square size
    in a row (C, H, 3 H)."""
    drawn = []
    for k, plane in enumerate(planes(volume)):
        for axis, mm in enumerate((*spacing[:k], *spacing[k + 1 :]), start=1):
            share = min(spacing) / mm
            pixels = (np.arange(round(plane.shape[axis] / share)) + 0.5) * share
            plane = plane.take(np.minimum(pixels.astype(int), plane.shape[axis] - 1), axis)
        drawn.append(plane)
    side = max(max(plane.shape[1:]) for plane in drawn)
    padded = []
    for plane in drawn:
        rows, columns = side - plane.shape[1], side - plane.shape[2]
        margins = ((0, 0), (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))
        padded.append(np.pad(plane, margins, constant_values=-1.0))
    return np.concatenate(padded, axis=-1)
