"""Where a finding truly lies: chest phantoms drawn twice of the same seed, with it and without it. The area is where
their images differ by a quarter of their largest difference or more.

A model draws a patient of its own, and not the phantom whose report or label it was told: so no map can be expected to
cover the phantom's lesion, and beside each score stands what a perfect generator would get, which draws another phantom
of which the same is true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from fabrica.evaluation.synthesis.phantom_findings import facts
from fabrica.image import Bools, Float32
from fabrica.inference.synthesis import Synthesises
from fabrica.metrics.localisation import Located, located
from fabrica.metrics.memorisation import wilson
from fabrica.metrics.patients import interval
from fabrica.phantoms.chest.chest import Chest, chest

FIRST = 7_000_000_000  # phantoms far from those of training, validation, test and of every reader
EACH_SEED = 1_000_000
AREA = 0.25  # of the largest difference
TRIED = 400  # phantoms of which one may show a finding as another does; then any that has it
LOOSE = ("view", "sex", "nodule of 15 mm or more")  # of what is true of a phantom: no part of a finding


@dataclass(frozen=True, eq=False)
class Truth:
    """Of n phantoms: (n, S, S) areas of the finding, absolute differences that it makes, and those of others of which
    the same is true, in the image's unit (0 to 4095)."""

    areas: Bools
    changes: Float32
    others: Float32


@dataclass(frozen=True)
class Score:
    """How well maps say where a finding is, the mean over `count` of them with its 95 % interval.

    area_under_curve, hits   see `Located`.
    perfect                  of a generator that draws phantoms.
    between_seeds            of the difference between two images that were told the same, which knows nothing of the
                             finding but where images vary.
    chance                   of hits of a place chosen at random; of areas under the curve it is 0.5.
    """

    finding: str
    count: int
    area_under_curve: tuple[float, float, float]
    perfect: float
    between_seeds: float
    hits: tuple[float, float, float]
    perfect_hits: float
    between_seeds_hits: float
    chance: float


def of_phantoms(model: Synthesises) -> bool:
    """Whether the model draws chest phantoms, whose truth is known."""
    source = str(model.recipe.data.source)
    return source.startswith("phantom:chest") and len(model.size) == 2 and len(set(model.size)) == 1


def numbers(n: int, seed: int) -> range:
    """The phantoms of n images from this seed on."""
    return range(FIRST + seed * EACH_SEED, FIRST + seed * EACH_SEED + n)


def reports(finding: str, n: int, seed: int) -> tuple[list[str], list[str]]:
    """What is reported of n phantoms with the finding alone, and of the same without it."""
    told = [chest(number, 32, [finding]).text for number in numbers(n, seed)]  # words do not depend on the size
    return told, [chest(number, 32, ()).text for number in numbers(n, seed)]


def truth(finding: str, n: int, seed: int, size: int, *, stated: bool) -> Truth:
    """Of n phantoms of this many pixels a side. stated: whether side, size and place of the finding are told, so that
    what stands beside must be alike in them."""
    changes, others = [], []
    further = _further(finding, n, seed)
    for number in numbers(n, seed):
        own = chest(number, size, [finding])
        changes.append(_change(own, number, size))
        other = _alike(further, _said(own) if stated else {})
        others.append(_change(chest(other, size, [finding]), other, size))
    found = np.stack(changes)
    return Truth(found >= AREA * found.max((1, 2), keepdims=True), found, np.stack(others))


def scored(finding: str, maps: Float32, between: Float32, known: Truth) -> Score:
    """The score of absolute differences (n, S, S), and of those between seeds."""

    def of(values: Float32) -> list[Located]:
        return [located(one, area) for one, area in zip(values, known.areas, strict=True)]

    own, perfect, seeds = of(maps), of(known.others), of(between)
    curve, count = interval(np.array([one.area_under_curve for one in own])), len(own)

    def mean(each: list[Located]) -> tuple[float, float]:
        return float(np.mean([one.area_under_curve for one in each])), float(np.mean([one.hit for one in each]))

    hits = sum(one.hit for one in own)
    return Score(
        finding,
        count,
        (curve.mean, curve.low, curve.high),
        mean(perfect)[0],
        mean(seeds)[0],
        (hits / count, *wilson(hits, count)),
        mean(perfect)[1],
        mean(seeds)[1],
        float(np.mean([one.chance for one in own])),
    )


def _change(own: Chest, number: int, size: int) -> Float32:
    change: Float32 = np.abs(own.image.data[0] - chest(number, size, ()).image.data[0])
    return change


def _said(of: Chest) -> dict[str, str]:
    return {name: value for name, value in facts(of.labels).items() if name not in LOOSE}


def _further(finding: str, n: int, seed: int) -> Iterator[tuple[int, dict[str, str]]]:
    """Other phantoms with the finding, and what is true of them, without end."""
    number = numbers(n, seed).stop
    while True:
        yield number, _said(chest(number, 32, [finding]))
        number += 1


def _alike(further: Iterator[tuple[int, dict[str, str]]], wanted: dict[str, str]) -> int:
    """The next phantom of which this is true; after TRIED others, the next one."""
    tried = islice(further, TRIED)
    return next((number for number, said in tried if not wanted or said == wanted), next(further)[0])
