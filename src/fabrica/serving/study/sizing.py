"""How large a study must be: an effect in a person's words as the parameters of simulated readers; power by size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from fabrica.errors import UsageError
from fabrica.metrics.readers import power
from fabrica.metrics.readers.power import Power, Stated
from fabrica.metrics.readers.simulation import Detecting, Grading, RoeMetz
from fabrica.progress import Progress

MEANS = {  # what --effect and --from are, by kind
    "clarity": "the difference of mean scores",
    "detection": "the difference of AUCs, from that of the first arm (--from)",
    "real-or-synthetic": "the share of right answers less a half",
    "preference": "the share that prefers the one arm less a half",
}


def powers(
    kind: str,
    effect: float,
    readers: Sequence[int],
    cases: Sequence[int],
    *,
    start: float = 0.8,
    scores: int = 5,
    claim: str = "difference",
    margin: float = 0.0,
    alpha: float = 0.05,
    target: float = 0.8,
    studies: int = power.STUDIES,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Power]:
    """The power of each size to show the claim, from the fewest readings until one reaches the target.

    effect  by kind: see MEANS. start: the AUC of the first arm, of a detection.
    scores  of clarity: how many there are.
    cases   of a detection half with lesions, and of real-or-synthetic half synthetic.
    Other parameters, how readers and cases vary, are those of `fabrica.metrics.readers.simulation`.
    Raises UsageError for an effect that cannot be.
    """
    if few := [each for each in (*readers, *cases) if each < 2]:
        raise UsageError(f"{few[0]} readers or cases; power over readers and cases needs two or more of each")
    sizes = [(r, c) for r in readers for c in cases]
    stated = Stated(claim, margin, alpha)
    draws: dict[str, Any] = {"studies": studies, "seed": seed}
    if kind == "clarity":
        grading = grading_of(effect, scores)

        def one(r: int, c: int) -> Power:
            return power.of_grades(grading, r, c, stated, **draws)

    elif kind == "detection":
        roe_metz = roe_metz_of(start, effect)

        def one(r: int, c: int) -> Power:
            return power.of_auc(roe_metz, r, c - c // 2, c // 2, stated, **draws)

    elif kind in MEANS:
        detecting = detecting_of(effect)

        def one(r: int, c: int) -> Power:
            return power.of_detection(detecting, r, c - c // 2, c // 2, stated, **draws)

    else:
        raise UsageError(f"no kind {kind!r}; expected one of {', '.join(MEANS)}")
    done = 0

    def counted(r: int, c: int) -> Power:
        nonlocal done
        found = one(r, c)
        done += 1
        if progress:
            progress("simulating studies", done, len(sizes))
        return found

    return power.least(sizes, counted, target=target)


def grading_of(effect: float, scores: int = 5) -> Grading:
    """Readers whose mean scores differ by this much, of two conditions about the middle of the scale."""
    if scores < 2:
        raise UsageError(f"{scores} scores; expected two or more")
    step = 1.2
    thresholds = tuple(step * (k - (scores - 2) / 2) for k in range(scores - 1))
    plain = Grading(thresholds=thresholds, reader_shift=0.2)
    # what a reader's own bias and change add to the spread of a score over readers
    spread = Grading(thresholds=thresholds, noise=(plain.noise**2 + plain.bias**2 + plain.reader_shift**2) ** 0.5)

    def gap(shift: float) -> float:
        shares = spread.shares(np.array([shift / 2, -shift / 2]))
        high, low = shares @ np.arange(1, scores + 1)
        return float(high - low)

    most = gap(12.0)
    if not abs(effect) < 0.98 * most:
        raise UsageError(f"the effect is {effect:g}; expected a difference of mean scores below {most:.1f}")
    shift = float(brentq(lambda s: gap(s) - effect, -12.0, 12.0))
    return replace(plain, shifts=(-shift / 2, shift / 2))


def roe_metz_of(start: float, effect: float) -> RoeMetz:
    """Readers with these AUCs: of modality two `start`, of one `effect` more."""
    if not (0.5 <= start < 1 and 0.5 <= start + effect < 1):
        raise UsageError(f"AUCs of {start:g} and {start + effect:g}; expected both from 0.5 to below 1")
    plain = RoeMetz()
    of_readers = plain.reader + plain.reader_modality
    width = (2 * (of_readers + plain.case + plain.case_modality + plain.reader_case + plain.residual)) ** 0.5
    return replace(plain, one=float(norm.ppf(start + effect)) * width, two=float(norm.ppf(start)) * width)


def detecting_of(effect: float) -> Detecting:
    """Readers who answer rightly so much more often than half the time."""
    if not 0 <= effect < 0.49:
        raise UsageError(f"the effect is {effect:g}; expected a share above a half, 0 to below 0.49")

    def right(d: float) -> float:
        hit, rejection = Detecting(d_prime=d).rates
        return (hit + rejection) / 2

    return Detecting(d_prime=float(brentq(lambda d: right(d) - 0.5 - effect, -1e-9, 8.0)) if effect else 0.0)
