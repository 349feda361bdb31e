"""Whether an image is like those that a translator was trained on: a network answers to anything, and never says no."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fabrica.codec import Codec
from fabrica.data.body import body, threshold
from fabrica.data.dataset import Dataset
from fabrica.data.standardise import learned
from fabrica.image import Float32, Float64, Image
from fabrica.recipe import SeenConfig
from fabrica.translation import Way, turned, turned_spacing

LEVELS = np.linspace(0.02, 0.98, 9)
FLOOR = 1e-6  # variance added to each quantile's: what training never varied may differ by a thousandth of the range
LOOKED = 512  # training images, or slices of one that is asked about
BEYOND = 1.25  # times the largest distance among training and held-out images
FEWEST = 32  # images, to know how grey values spread; of fewer, any other is far from them
FIELD = 0.35  # of the field of view, smaller or larger than any in training


def seen(data: Dataset, heldout: Dataset, codec: Codec) -> SeenConfig:
    """What the training images of one side have in common; held-out ones say how far others may lie from them."""
    found = SeenConfig(data.modality, list(data.spacing), list(data.meta.extent))
    if codec.kind == "label" or len(data) < FEWEST:
        return found
    each, others = (_each(images, codec) for images in (data, heldout))
    covariance = np.cov(each.T) + FLOOR * np.eye(len(LEVELS))
    found.quantiles = [float(f"{q:.6g}") for q in each.mean(0)]
    found.covariance = [[float(f"{v:.6g}") for v in row] for row in covariance]
    found.distance = round(max(_distance(one, found) for one in (*each, *others)), 3)
    return found


def _each(data: Dataset, codec: Codec) -> Float64:
    """The quantiles (N, 9) of up to LOOKED images, evenly spread."""
    chosen = np.unique(np.linspace(0, len(data) - 1, LOOKED).astype(int))
    return np.stack([_quantiles(data.read([k])[0], codec) for k in chosen])


def unlike(image: Image, way: Way) -> list[str]:
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
    if known.quantiles and (distance := _median_distance(image, way, known)) > BEYOND * known.distance:
        reasons.append(
            f"its grey values are spread otherwise: {distance:.1f} standard deviations from the mean of training, "
            f"where no image was farther than {known.distance:.1f}"
        )
    return reasons


def doubt(answers: Iterable[tuple[Float32, Float32]], target: Codec) -> float:
    """The mean uncertainty in the body, in network values, of (result, uncertainty) pairs, each (C, *S) in them."""
    total, count = 0.0, 0
    for made, spread in answers:
        inside = made[0] > -1 if target.kind == "label" else body(made, threshold(target))
        total, count = total + float(spread[0][inside].sum()), count + int(inside.sum())
    return total / max(count, 1)


def _median_distance(image: Image, way: Way, known: SeenConfig) -> float:
    """The median over slices; of a volume for a network of volumes, the distance of the whole."""
    limits = way.source.limits(image.data)
    volume = turned(image.data, image, way)
    if len(way.data.size) == 3:
        return _distance(_quantiles(way.source.scaled(volume[:, ::2, ::2, ::2], limits), way.source), known)
    those = learned(volume.shape[1], way.data.slices)
    slices = np.unique(np.linspace(those[0], those[-1], min(LOOKED, len(those))).astype(int))
    planes = (way.source.scaled(volume[:, k], limits) for k in slices)
    return float(np.median([_distance(_quantiles(plane, way.source), known) for plane in planes]))


def _distance(quantiles: Float64, known: SeenConfig) -> float:
    """How many standard deviations these quantiles lie from the mean, whatever the direction."""
    gap = quantiles - np.array(known.quantiles)
    return float(np.sqrt(gap @ np.linalg.solve(np.array(known.covariance), gap) / len(gap)))


def _quantiles(values: Float32, codec: Codec) -> Float64:
    """Of network values (C, *S), those in the body; of neighbouring slices, those of the middle one."""
    values = values[len(values) // 2 : len(values) // 2 + 1]
    found: Float64 = np.quantile(values[0][body(values, threshold(codec))], LEVELS).astype(np.float64)
    return found
