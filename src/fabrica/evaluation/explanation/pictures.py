"""Pictures of an explanation: uint8 (H, W, 3), without more than the base needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fabrica.evaluation.explanation.differences import Difference
from fabrica.evaluation.explanation.lesions import Truth
from fabrica.evaluation.explanation.parts import Part, Parts
from fabrica.image import Array, Bools, Float32, Float64
from fabrica.io.contact_sheet import GAP
from fabrica.io.display import Uint8, signed_colours, tones
from fabrica.io.palette import colour_of

SEEDS = 6  # of a sheet
SMALLEST = 160  # pixels of a tile: smaller ones are enlarged by whole numbers
BRIGHTEST = 0.995  # quantile of a map at which its colours end
OUTLINE = (0, 255, 160)


def end_of(values: Float32 | Float64) -> float:
    """The value at which the colours of maps end."""
    return float(np.quantile(np.abs(values), BRIGHTEST)) or float(np.abs(values).max()) or 1.0


def differences(found: Difference, truth: Truth | None) -> Uint8:
    """A row for each of the first SEEDS seeds, what is told something else, what is told, their difference, and of
    phantoms the true one; in the last row the means of all seeds."""
    count = min(SEEDS, len(found.seeds))
    k = _plane(np.abs(found.mean))
    low, high = _ends(np.concatenate([found.told[:count], found.instead[:count]]))
    shade = end_of(found.maps)

    def row(instead: Float32, told: Float32, gap: Float32 | Float64, end: float, true: Float32 | None) -> list[Uint8]:
        tiles = [grey(_flat(one.mean(0), k), low, high) for one in (instead, told)]
        tiles.append(signed_colours(_flat(gap, k) / end))
        return [*tiles, *([] if true is None else [signed_colours(true / (true.max() or 1.0))])]

    rows = [
        row(found.instead[s], found.told[s], found.maps[s], shade, truth.changes[s] if truth else None)
        for s in range(count)
    ]
    if len(found.seeds) > 1:
        means = found.instead.mean(0), found.told.mean(0)
        rows.append(row(*means, found.mean, end_of(found.mean), truth.changes.mean(0) if truth else None))
    return sheet(rows)


def parts(found: Parts, one: Part) -> dict[str, Uint8]:
    """Name -> picture, all of the window that the network sees; of volumes the axial plane in which most is moved."""
    k = _plane(one.moved)
    seen = found.seen
    shown = seen.values[seen.way.data.context * seen.way.data.channels]
    image = grey(_flat(shown, k), -1.0, 1.0)
    everywhere = bool(seen.region[seen.inside].all())
    area = _flat(np.ones_like(seen.region) if everywhere else seen.region & seen.inside, k)
    moved = signed_colours(_flat(one.moved, k) / end_of(one.moved))
    pictures = {
        "input": _outlined(image, area),
        "answer": _answer(found, one, k, image),
        "occlusion": _outlined(moved, area),
        "over the input": _outlined((0.55 * image + 0.65 * moved).clip(0, 255).astype(np.uint8), area),
    }
    if one.gradients is not None:
        values = one.gradients.map.sum(0)
        pictures["gradients"] = _outlined(signed_colours(_flat(values, k) / end_of(values)), area)
    return {name: larger(picture) for name, picture in pictures.items()}


def sheet(rows: Sequence[Sequence[Uint8]]) -> Uint8:
    """Tiles (H, W, 3) of one size in rows of one length, a gap between them."""
    height, width = (n + 2 for n in larger(rows[0][0]).shape[:2])
    out = np.full((len(rows) * height - 2, len(rows[0]) * width - 2, 3), GAP, np.uint8)
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            out[y * height : (y + 1) * height - 2, x * width : (x + 1) * width - 2] = larger(tile)
    return out


def larger(pixels: Uint8) -> Uint8:
    factor = max(1, -(-SMALLEST // max(pixels.shape[:2])))
    return pixels.repeat(factor, 0).repeat(factor, 1)


def grey(values: Float32, low: float, high: float) -> Uint8:
    """(H, W) from black to white as (H, W, 3)."""
    return np.repeat(tones(values[None], (low, high))[..., None], 3, -1)


def _answer(found: Parts, one: Part, k: int | None, image: Uint8) -> Uint8:
    """The result, or the class laid over the image."""
    target, seen = found.seen.way.target, found.seen
    if target.kind != "label":
        return grey(_flat(found.answer[0], k), -1.0, 1.0)
    numbers = list(target.numbers or range(target.classes))
    names = [seen.way.labels.get(number, f"label {number}") if number else "" for number in numbers]
    channel = names.index(one.name)
    area = _flat(found.answer[channel] > 0, k)
    laid = image.copy()
    laid[area] = image[area] // 2 + np.array(colour_of(numbers[channel]), dtype=np.uint8) // 2
    return laid


def _outlined(pixels: Uint8, area: Bools) -> Uint8:
    """The rim of an area, unless that is everything."""
    if area.all():
        return pixels
    inner = area.copy()
    for axis in (0, 1):
        for step in (1, -1):
            moved = np.roll(area, step, axis)
            moved[(0 if step == 1 else -1,) if axis == 0 else (slice(None), 0 if step == 1 else -1)] = False
            inner &= moved
    out = pixels.copy()
    out[area & ~inner] = OUTLINE
    return out


def _plane(values: Float64) -> int | None:
    """Of volumes the axial plane with most in it."""
    return int(values.sum((1, 2)).argmax()) if values.ndim == 3 else None


def _flat(values: Array, k: int | None) -> Array:
    """(H, W) of (H, W), or of a volume (D, H, W) in RAS order, as radiologists look at it."""
    return values if k is None else values[k, ::-1, ::-1]


def _ends(values: Float32) -> tuple[float, float]:
    low, high = np.quantile(values, [0.005, 0.995])
    return float(low), float(high)
