"""Whether an image is like those that a translator was trained on: a network answers to anything, and never says no.

Of many training images, their own spread says how far another may lie from them. Of fewer than FEWEST it says too
little: then it is mixed with what images of one kind usually vary by, and three plain measures (`Look`) must lie near
training's, which no other unit, no shift and no inversion leaves where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fabrica.codec import ABSENT, Codec
from fabrica.data.body import body, threshold
from fabrica.data.dataset import evenly
from fabrica.data.standardise import learned
from fabrica.image import Float32, Float64, Image
from fabrica.inference.translation import Way, turned, turned_spacing
from fabrica.recipe.found import Fingerprint

Int64 = npt.NDArray[np.int64]
Strings = npt.NDArray[Any]

LEVELS = np.linspace(0.02, 0.98, 9)
FLOOR = 1e-6  # variance added to each quantile's: what training never varied may differ by a thousandth of the range
LOOKED = 512  # training images, or slices of one that is asked about
BEYOND = 1.25  # times the largest distance among training and held-out images
DARKER = 0.25  # network values by which the darkest ones may lie beyond training's
FIELD = 0.35  # of the field of view, smaller or larger than any in training


class Look(NamedTuple):
    """What a glance at network values (C, *S) tells, whatever is shown; padding around them does not count.

    darkest   the 1 % quantile of all of them.
    contrast  the mean of the middle less that of the border, in the plane.
    span      from the lowest to the highest quantile in the body.
    """

    darkest: float
    contrast: float
    span: float


def look_at(values: Float32, quantiles: Float64) -> Look:
    """Of network values (C, *S), whose `grey_quantiles` are these."""
    plane = _shown(values[len(values) // 2])
    height, width = plane.shape[-2:]
    rows, columns = (np.abs(np.arange(n) + 0.5 - n / 2) * 2 / n for n in (height, width))  # 0 in the middle, 1 outside
    away = np.maximum(rows[:, None], columns)
    contrast = plane[..., away <= 0.5].mean() - plane[..., away > 0.75].mean() if min(height, width) > 1 else 0.0
    return Look(float(np.quantile(plane, 0.01)), float(contrast), float(quantiles[-1] - quantiles[0]))


def _shown(plane: Float32) -> Float32:
    """An array (*S) without the lines at its border that are empty throughout, as padding is."""
    filled = plane > ABSENT
    for axis in range(plane.ndim):
        lines = np.flatnonzero(filled.any(tuple(k for k in range(plane.ndim) if k != axis)))
        if len(lines):
            plane = plane.take(range(lines[0], lines[-1] + 1), axis)
            filled = filled.take(range(lines[0], lines[-1] + 1), axis)
    return plane


def out_of_distribution(image: Image, way: Way) -> list[str]:
    """What tells the image from those in training, a phrase each; [] where nothing does."""
    known, reasons = way.seen, []
    modality = str(image.origin.get("modality", ""))
    if known.modality and modality and "OT" not in (modality, known.modality) and modality != known.modality:
        reasons.append(f"its modality is {modality}, and {known.modality} in training")
    if known.extent and image.measured:
        spacing = turned_spacing(image, way)[1:]
        extent = max(n * mm for n, mm in zip(turned(image.data, image, way).shape[2:], spacing, strict=True))
        low, high = known.extent[0] * (1 - FIELD), known.extent[1] * (1 + FIELD)
        if not low <= extent <= high:
            usual = f"{known.extent[0]:.0f} to {known.extent[1]:.0f} mm"
            reasons.append(f"its field of view is {extent:.0f} mm, and {usual} in training")
    if not known.quantiles:
        return reasons
    planes = list(_planes(image, way))
    quantiles = [grey_quantiles(plane, way.source) for plane in planes]
    distance = float(np.median([distance_from(known, each) for each in quantiles]))
    if distance > BEYOND * known.distance:
        how_far = f"where no image was farther than {known.distance:.1f}"
        how_far = f"of few images, of which {BEYOND * known.distance:.1f} are allowed" if known.bounds else how_far
        reasons.append(
            f"its grey values are spread otherwise: {distance:.1f} standard deviations from the mean of training, "
            f"{how_far}"
        )
    if known.bounds:
        looks = [look_at(plane, each) for plane, each in zip(planes, quantiles, strict=True)]
        reasons += _apart(Look(*np.median(looks, axis=0)), image, way)
    return reasons


def compared(way: Way) -> str:
    """A sentence where grey values cannot be compared with training's; "" where `unlike` does so."""
    if way.seen.quantiles or way.source.kind == "label":
        return ""
    return (
        "grey values were not compared with those in training, which this model does not know: see yourself that unit "
        "and scale are the same"
    )


def _apart(look: Look, image: Image, way: Way) -> list[str]:
    """What of a look lies beyond the bounds of few training images."""
    reasons = []
    (darkest, brightest), (faint, strong), (narrow, wide) = way.seen.bounds
    if not darkest <= look.darkest <= brightest:
        limits = way.source.limits(image.data)
        values = np.array([look.darkest, darkest + DARKER, brightest - DARKER], dtype=np.float32)
        found, low, high = replace(way.source, clip=False).decode(values, limits)
        unit = f" {way.source.unit}" if way.source.unit != "arbitrary" else ""
        reasons.append(f"its darkest values are {found:.4g}{unit}, and {low:.4g} to {high:.4g}{unit} in training")
    if look.contrast < 0 < faint:
        reasons.append("its middle is darker than its border, and brighter in training: perhaps it is inverted")
    elif not (faint <= look.contrast <= strong and narrow <= look.span <= wide):
        reasons.append("its contrast is far from that in training: perhaps it has another unit")
    return reasons


def uncertainty_in_body(answers: Iterable[tuple[Float32, Float32]], target: Codec) -> float:
    """The mean uncertainty in the body, in network values, of (result, uncertainty) pairs, each (C, *S) in them."""
    total, count = 0.0, 0
    for made, spread in answers:
        inside = made[0] <= 0 if target.kind == "label" else body(made, threshold(target))  # no background
        total, count = total + float(spread[0][inside].sum()), count + int(inside.sum())
    return total / max(count, 1)


def _planes(image: Image, way: Way) -> Iterator[Float32]:
    """The slices that are looked at, in network values (C, H, W); of a volume for a network of volumes, the whole."""
    limits = way.source.limits(image.data)
    volume = turned(image.data, image, way)
    if len(way.data.size) == 3:
        yield way.source.scaled(volume[:, ::2, ::2, ::2], limits)
        return
    those = learned(volume.shape[1], way.data.slices)
    slices = those[0] + evenly(len(those), LOOKED)
    yield from (way.source.scaled(volume[:, k], limits) for k in slices)


def distance_from(known: Fingerprint, quantiles: Float64) -> float:
    """How many standard deviations these quantiles lie from the mean, whatever the direction."""
    gap = quantiles - np.array(known.quantiles)
    return float(np.sqrt(gap @ np.linalg.solve(np.array(known.covariance), gap) / len(gap)))


def grey_quantiles(values: Float32, codec: Codec) -> Float64:
    """(9,): of network values (C, *S), those in the body; of neighbouring slices, those of the middle one."""
    values = values[len(values) // 2 : len(values) // 2 + 1]
    found: Float64 = np.quantile(values[0][body(values, threshold(codec))], LEVELS).astype(np.float64)
    return found
