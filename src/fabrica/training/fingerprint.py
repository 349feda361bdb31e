"""What the training images of one side have in common, so that unlike ones are recognised later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fabrica.codec import Codec
from fabrica.data.dataset import Dataset, evenly
from fabrica.image import Bools, Float64
from fabrica.inference.out_of_distribution import (
    DARKER,
    FLOOR,
    LEVELS,
    LOOKED,
    Look,
    Strings,
    distance_from,
    grey_quantiles,
    look_at,
)
from fabrica.recipe.found import Fingerprint

FEWEST = 32  # images or volumes, to know by them alone how grey values spread
# images that what is usual counts for: all quantiles together move by SHIFT of their span, each by OWN more
USUAL, SHIFT, OWN = 2.0, 0.1, 0.2
NEAREST, FARTHEST = 1.5, 3.0  # `distance`, of few images
FAINTER = 3.0  # times less or more contrast than in training


def fingerprint(data: Dataset, heldout: Dataset, codec: Codec) -> Fingerprint:
    """What the training images of one side have in common; held-out ones say how far others may lie from them."""
    found = Fingerprint(data.modality, list(data.spacing), list(data.meta.extent))
    if codec.kind == "label":
        return found
    cases = np.array([data.ids[int(k)].rsplit("#", 1)[0] for k in evenly(len(data), LOOKED)])
    few = len(np.unique(cases)) < FEWEST
    (each, looks), (others, more) = (_measured(images, codec, few) for images in (data, heldout))
    if few:
        return _of_few(found, each, others, cases, looks + more)
    covariance = np.cov(each.T) + FLOOR * np.eye(len(LEVELS))
    found = replace(
        found,
        quantiles=[float(f"{q:.6g}") for q in each.mean(0)],
        covariance=[[float(f"{v:.6g}") for v in row] for row in covariance],
    )
    return replace(found, distance=round(max(distance_from(found, one) for one in (*each, *others)), 3))


def _measured(data: Dataset, codec: Codec, look: bool) -> tuple[Float64, list[Look]]:
    """The quantiles (N, 9) of up to LOOKED images, evenly spread, and, where asked, what a glance at each tells."""
    quantiles, looks = [], list[Look]()
    for k in evenly(len(data), LOOKED):
        values = data.read([int(k)])[0]
        quantiles.append(grey_quantiles(values, codec))
        looks += [look_at(values, quantiles[-1])] if look else []
    return np.stack(quantiles), looks


def _of_few(found: Fingerprint, each: Float64, others: Float64, cases: Strings, looks: Sequence[Look]) -> Fingerprint:
    """Quantiles (N, 9) of `cases` (N,), what is usual mixed in. How far others may lie is asked of each case in turn,
    by the rest; of held-out images too."""
    names = np.unique(cases)

    def learnt(kept: Bools) -> Fingerprint:
        mean, covariance = _usual(each[kept], len(np.unique(cases[kept])))
        return replace(found, quantiles=mean.tolist(), covariance=covariance.tolist())

    everyone = learnt(np.ones(len(each), dtype=bool))
    distances = [distance_from(everyone, one) for one in others]
    for name in names if len(names) > 1 else ():
        rest = learnt(cases != name)
        distances += [distance_from(rest, one) for one in each[cases == name]]
    return replace(
        found,
        quantiles=[float(f"{q:.6g}") for q in everyone.quantiles],
        covariance=[[float(f"{v:.6g}") for v in row] for row in everyone.covariance],
        distance=round(float(np.clip(max(distances, default=0.0), NEAREST, FARTHEST)), 3),
        bounds=[[round(v, 4) for v in pair] for pair in _bounds(np.array(looks))],
    )


def _usual(each: Float64, cases: int) -> tuple[Float64, Float64]:
    """Mean and covariance of quantiles (N, 9) of so many cases, with what is usual as USUAL cases more."""
    mean: Float64 = each.mean(0)
    span = float(mean[-1] - mean[0])
    usual = (SHIFT * span) ** 2 * np.ones((len(LEVELS),) * 2) + (OWN * span) ** 2 * np.eye(len(LEVELS))
    own = np.cov(each.T) if len(each) > 1 else np.zeros_like(usual)
    mixed: Float64 = ((cases - 1) * own + USUAL * usual) / (cases - 1 + USUAL) + FLOOR * np.eye(len(LEVELS))
    return mean, mixed


def _bounds(looks: Float64) -> list[list[float]]:
    """Of looks (N, 3): the lowest and highest that each may be."""
    (darkest, contrast, span), (brightest, most, widest) = looks.min(0), looks.max(0)
    low = contrast / FAINTER if contrast > 0 else contrast - max(0.1, most - contrast) / 2
    high = most * FAINTER if most > 0 else most / FAINTER
    return [
        [float(darkest) - DARKER, float(brightest) + DARKER],
        [float(low) - 0.02, float(high) + 0.1],
        [float(span) / FAINTER, float(widest) * FAINTER],
    ]
