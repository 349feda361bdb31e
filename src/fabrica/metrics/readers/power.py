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
    *,
    claim: str = "difference",
    margin: float = 0.0,
    alpha: float = 0.05,
    studies: int = STUDIES,
    seed: int = 0,
) -> Power:
    """Power to show that modality one has another AUC than two, a higher one, one at most `margin` lower, or one within
    `margin` of it; by U-statistics with Student's t. alpha is two-sided; one-sided claims are tested at half of it, and
    equivalence by two tests at alpha each."""
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // (2 * readers * normals * diseased))

    def part(number: int) -> Spread:
        scores, truth = model.scores(readers, normals, diseased, rng, number)
        return mrmc.difference_spread(scores[:, 0], scores[:, 1], truth)

    return _power(part, readers, normals + diseased, claim, margin, alpha, studies, chunk)


def of_grades(
    model: Grading,
    readers: int,
    cases: int,
    *,
    claim: str = "difference",
    margin: float = 0.0,
    alpha: float = 0.05,
    studies: int = STUDIES,
    seed: int = 0,
) -> Power:
    """The same of the mean grade of the model's second condition less that of the first; the margin in grades."""
    if len(model.shifts) < 2:
        raise UsageError(f"the model has {len(model.shifts)} condition; expected two to compare")
    rng = np.random.default_rng(seed)

    def part(number: int) -> Spread:
        grades, _ = model.grades(readers, cases, rng, number)
        there = np.ones(grades[:, 0].shape)
        return means.difference_spread(grades[:, 1], there, grades[:, 0], there)

    chunk = max(1, _CHUNK // (len(model.shifts) * readers * cases))
    return _power(part, readers, cases, claim, margin, alpha, studies, chunk)


def of_detection(
    model: Detecting,
    readers: int,
    normals: int,
    diseased: int,
    *,
    chance: float = 0.5,
    margin: float = 0.0,
    claim: str = "difference",
    alpha: float = 0.05,
    studies: int = STUDIES,
    seed: int = 0,
) -> Power:
    """The same of the share of right answers less `chance`: whether readers tell real from synthetic images at all, or
    (equivalence) tell them hardly better than by guessing."""
    rng = np.random.default_rng(seed)

    def part(number: int) -> Spread:
        answers, truth = model.answers(readers, normals, diseased, rng, number)
        right = (answers == truth).astype(np.float64)
        found = spread(means.table_moments(right, np.ones(right.shape)), bounded=True)
        return Spread(found.value - chance, found.variance, found.variance_mle, found.df)

    chunk = max(1, _CHUNK // (readers * (normals + diseased)))
    return _power(part, readers, normals + diseased, claim, margin, alpha, studies, chunk)


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


def shown(found: Spread, claim: str, margin: float, alpha: float) -> Float64:
    """1 where studies show the claim of their differences, else 0 (S,)."""
    if claim not in CLAIMS:
        raise UsageError(f"no claim {claim!r}; expected one of {', '.join(CLAIMS)}")
    if claim in ("non-inferiority", "equivalence") and not margin > 0:
        raise UsageError(f"{claim} with the margin {margin:g}; expected a number above 0")
    level = 1 - 2 * alpha if claim == "equivalence" else 1 - alpha
    low, high, _ = t_interval(found.value, found.usable, found.df, level=level)
    if claim == "difference":
        says = (low > 0) | (high < 0)
    elif claim == "equivalence":
        says = (low > -margin) & (high < margin)
    else:
        says = low > (margin if claim == "superiority" else -margin)
    return (says & (found.usable > 0)).astype(np.float64)


def _power(
    part: Callable[[int], Spread],
    readers: int,
    cases: int,
    claim: str,
    margin: float,
    alpha: float,
    studies: int,
    chunk: int,
) -> Power:
    if readers < 2 or cases < 2:
        raise UsageError(f"{readers} readers and {cases} cases; power over readers and cases needs two or more of each")
    if not 0 < alpha < 0.5:
        raise UsageError(f"alpha is {alpha:g}; expected a number between 0 and 0.5, such as 0.05")
    if studies < 1:
        raise UsageError(f"{studies} simulated studies; expected at least 1")
    sizes = [min(chunk, studies - start) for start in range(0, studies, chunk)]
    hits = sum(float(shown(part(number), claim, margin, alpha).sum()) for number in sizes)
    return Power(readers, cases, share(hits, studies))
