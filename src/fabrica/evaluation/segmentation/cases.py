"""One test image with its made and its true label map, scored class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fabrica.errors import UsageError
from fabrica.image import Image, name
from fabrica.metrics.segmentation import TOLERANCE, Classes, ClassScores, Labels, compare
from fabrica.metrics.surfaces import Mask


@dataclass(frozen=True)
class ScoredCase:
    """The scores of one test image, by class number; every class that is judged has its entry, absent or not."""

    id: str
    patient: str
    scores: Mapping[int, ClassScores]

    def mean(self, metric: str) -> float:
        """Over the classes that have this score; NaN where none has."""
        values = np.array([getattr(scores, metric) for scores in self.scores.values()])
        there = values[np.isfinite(values)]
        return float(there.mean()) if len(there) else float("nan")

    @property
    def worst(self) -> int | None:
        """The class with the lowest Dice, of equal ones with the larger volume error; None where all are absent."""
        scored = {number: scores for number, scores in self.scores.items() if not scores.absent}
        return min(scored, key=lambda k: (scored[k].dice, -abs(scored[k].volume_error)), default=None)

    @property
    def missed(self) -> list[int]:
        return [number for number, scores in self.scores.items() if scores.missed]

    @property
    def false_alarms(self) -> list[int]:
        return [number for number, scores in self.scores.items() if scores.false_alarm]


def scored(
    id_: str,
    patient: str,
    made: Image,
    truth: Image,
    classes: Classes,
    tolerance: float | Mapping[int, float] = TOLERANCE,
    ignore: Mask | None = None,
) -> ScoredCase:
    """Compare label maps on one grid, (1, *S) of whole numbers; spacing is that of the truth.

    classes, tolerance, ignore   as for `fabrica.metrics.segmentation.compare`.
    Raises UsageError for other grids, and for what is no label map.
    """
    if made.size != truth.size or not np.allclose(made.affine, truth.affine, atol=1e-2):
        raise UsageError(
            f"{name(made)} and its truth lie on different grids, {made.size} and {truth.size}; bring one onto the other"
        )
    return ScoredCase(id_, patient, compare(labels(made), labels(truth), classes, truth.spacing, tolerance, ignore))


def labels(image: Image) -> Labels:
    """A label map (1, *S) as integers (*S), of the smallest type that holds them. Raises UsageError for fractions and
    negative numbers."""
    values = image.data[0]
    if image.channels != 1 or not np.isfinite(values).all() or values.min(initial=0) < 0:
        raise UsageError(f"{name(image)} is no label map; expected one channel of whole numbers from 0")
    found: Labels = values.astype(np.min_scalar_type(int(values.max(initial=0))))
    if not np.array_equal(found, values):
        raise UsageError(f"{name(image)} holds fractions; expected a label map of whole numbers")
    return found


def worst_first(cases: Sequence[ScoredCase], metric: str = "dice") -> list[ScoredCase]:
    """By the mean over classes, of equal ones in the order of their ids; those without any class at the end.

    metric   one of which more is better.
    """

    def rank(case: ScoredCase) -> tuple[bool, float, str]:
        value = case.mean(metric)
        return (True, 0.0, case.id) if np.isnan(value) else (False, value, case.id)

    return sorted(cases, key=rank)
