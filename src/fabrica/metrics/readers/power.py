"""How many readers and cases a study needs: by simulation, with the analysis that the study will be judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.metrics.readers import means, mrmc
from fabrica.metrics.readers.estimate import Estimate, t_interval
from fabrica.metrics.readers.proportions import share
from fabrica.metrics.readers.simulation import Detecting, Grading, RoeMetz
from fabrica.metrics.readers.ustatistics import Spread, spread

STUDIES = 1000
_CHUNK = 4_000_000  # numbers in one table of successes
CLAIMS = ("difference", "superiority", "non-inferiority", "equivalence")


Limits = Callable[[float], tuple[Float64, Float64]]
"""Of many studies: low and high (S,) at a level of confidence, NaN where there is no interval."""


@dataclass(frozen=True)
class Stated:
    """What a study is to show, as it is stated before.

    claim   difference: of the first from the second; superiority: that it is larger, by more than `margin`;
            non-inferiority: at most `margin` lower; equivalence: within `margin`.
    alpha   two-sided: one-sided claims are tested at half of it, and equivalence by two tests at alpha each.
    """

    claim: str = "difference"
    margin: float = 0.0
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if self.claim not in CLAIMS:
            raise UsageError(f"no claim {self.claim!r}; expected one of {', '.join(CLAIMS)}")
        if self.claim in ("non-inferiority", "equivalence") and not self.margin > 0:
            raise UsageError(f"{self.claim} with the margin {self.margin:g}; expected a number above 0")
        if not 0 < self.alpha < 0.5:
            raise UsageError(f"alpha is {self.alpha:g}; expected a number between 0 and 0.5, such as 0.05")


DIFFERENCE = Stated()


@dataclass(frozen=True)
class Power:
    """The share of simulated studies of this size that show the claim, with Wilson's interval for their number."""

    readers: int
    cases: int
    share: Estimate


def of_auc(
    model: RoeMetz,
    readers: int,
    normals: int,
    diseased: int,
    stated: Stated = DIFFERENCE,
    *,
    studies: int = STUDIES,
    seed: int = 0,
) -> Power:
    """Power to show what is stated of the AUC of modality one less that of two: by U-statistics, intervals of both
    AUCs on the logit scale."""
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // (2 * max(readers * normals * diseased, 1)))

    def part(number: int) -> Limits:
        scores, truth = model.scores(readers, normals, diseased, rng, number)
        return mrmc.differences(scores[:, 0], scores[:, 1], truth).limits

    return _power(part, readers, normals + diseased, stated, studies, chunk)


def of_grades(
    model: Grading, readers: int, cases: int, stated: Stated = DIFFERENCE, *, studies: int = STUDIES, seed: int = 0
) -> Power:
    """The same of the mean grade of the model's second condition less that of the first; the margin in grades."""
    if len(model.shifts) < 2:
        raise UsageError(f"the model has {len(model.shifts)} condition; expected two to compare")
    rng = np.random.default_rng(seed)

    def part(number: int) -> Limits:
        grades, _ = model.grades(readers, cases, rng, number)
        there = np.ones(grades[:, 0].shape)
        return _students(means.difference_spread(grades[:, 1], there, grades[:, 0], there))

    chunk = max(1, _CHUNK // (len(model.shifts) * max(readers * cases, 1)))
    return _power(part, readers, cases, stated, studies, chunk)


def of_detection(
    model: Detecting,
    readers: int,
    normals: int,
    diseased: int,
    stated: Stated = DIFFERENCE,
    *,
    chance: float = 0.5,
    studies: int = STUDIES,
    seed: int = 0,
) -> Power:
    """The same of the share of right answers less `chance`: whether readers tell real from synthetic images at all, or
    (equivalence) tell them hardly better than by guessing."""
    rng = np.random.default_rng(seed)

    def part(number: int) -> Limits:
        answers, truth = model.answers(readers, normals, diseased, rng, number)
        right = (answers == truth).astype(np.float64)
        found = spread(means.table_moments(right, np.ones(right.shape)), bounded=True)
        return _students(Spread(found.value - chance, found.variance, found.variance_mle, found.df))

    chunk = max(1, _CHUNK // max(readers * (normals + diseased), 1))
    return _power(part, readers, normals + diseased, stated, studies, chunk)


def least(sizes: Iterable[tuple[int, int]], power: Callable[[int, int], Power], *, target: float = 0.8) -> list[Power]:
    """The powers of the sizes (readers, cases), from the fewest readings, until one reaches the target, which is the
    last; all of them where none does."""
    if not 0 < target < 1:
        raise UsageError(f"the power to reach is {target}; expected a number between 0 and 1, such as 0.8")
    found = []
    for readers, cases in sorted(sizes, key=lambda size: (size[0] * size[1], size)):
        found.append(power(readers, cases))
        if found[-1].share.value >= target:
            break
    if not found:
        raise UsageError("no sizes to look at; expected pairs of readers and cases")
    return found


def shown(limits: Limits, stated: Stated) -> Float64:
    """1 where studies show what is stated, else 0 (S,)."""
    low, high = limits(1 - 2 * stated.alpha if stated.claim == "equivalence" else 1 - stated.alpha)
    if stated.claim == "difference":
        says = (low > 0) | (high < 0)
    elif stated.claim == "equivalence":
        says = (low > -stated.margin) & (high < stated.margin)
    else:
        says = low > (stated.margin if stated.claim == "superiority" else -stated.margin)
    return says.astype(np.float64)  # NaN is above and below nothing


def _students(found: Spread) -> Limits:
    """Value ± t × error."""

    def limits(level: float) -> tuple[Float64, Float64]:
        low, high, _ = t_interval(found.value, found.usable, found.df, level=level)
        varies = found.usable > 0
        return np.where(varies, low, np.nan), np.where(varies, high, np.nan)

    return limits


def _power(part: Callable[[int], Limits], readers: int, cases: int, stated: Stated, studies: int, chunk: int) -> Power:
    if readers < 2 or cases < 2:
        raise UsageError(f"{readers} readers and {cases} cases; power over readers and cases needs two or more of each")
    if studies < 1:
        raise UsageError(f"{studies} simulated studies; expected at least 1")
    sizes = [min(chunk, studies - start) for start in range(0, studies, chunk)]
    hits = sum(float(shown(part(number), stated).sum()) for number in sizes)
    return Power(readers, cases, share(hits, studies))
