"""Simulated readers with known truth, by which statistics are checked and studies are sized.

Scores by Roe and Metz's model, for areas under ROC curves; yes-no answers by signal detection theory; ordinal grades of
a latent quality cut at thresholds. Many studies at once: the first axis of all arrays is the study.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from fabrica.errors import UsageError
from fabrica.image import Float64

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RoeMetz:
    """Scores of two modalities (Roe and Metz 1997, Academic Radiology 4:298): X = mu_i t + R_jt + C_kt + (mR)_ijt +
    (mC)_ikt + (RC)_jkt + E, for modality i, reader j, case k and truth t, all effects normal and independent.

    one, two   the means of diseased cases; those of normal cases are 0.
    others     variances. Those of cases, of readers on cases and the residual add up to 1 in the paper's structures:
               0.3, 0.3, 0.2 and 0.2, or 0.1, 0.1, 0.2 and 0.6 where cases say little.
    """

    one: float = 1.5
    two: float = 1.5
    reader: float = 0.03
    reader_modality: float = 0.03
    case: float = 0.3
    case_modality: float = 0.3
    reader_case: float = 0.2
    residual: float = 0.2

    @property
    def aucs(self) -> tuple[float, float]:
        """The true areas of both modalities, over the populations of readers and cases."""
        of_readers = self.reader + self.reader_modality
        of_cases = self.case + self.case_modality + self.reader_case + self.residual
        width = np.sqrt(2 * (of_readers + of_cases))
        return float(stats.norm.cdf(self.one / width)), float(stats.norm.cdf(self.two / width))

    def scores(
        self, readers: int, normals: int, diseased: int, rng: np.random.Generator, studies: int = 1
    ) -> tuple[Float64, Bool]:
        """Scores (S, 2, R, C) of both modalities, and the truth (C,), normal cases first."""
        _positive(readers=readers, normals=normals, diseased=diseased, studies=studies)
        truth = np.arange(normals + diseased) >= normals

        def effect(variance: float, modalities: int, of_readers: int, of_cases: int) -> Float64:
            return rng.normal(0, np.sqrt(variance), (studies, modalities, of_readers, of_cases))

        def by_truth(variance: float, modalities: int) -> Float64:
            return effect(variance, modalities, readers, 2)[..., truth.astype(np.int64)]

        cases = len(truth)
        return (
            np.array([self.one, self.two])[:, None, None] * truth
            + by_truth(self.reader, 1)
            + by_truth(self.reader_modality, 2)
            + effect(self.case, 1, 1, cases)
            + effect(self.case_modality, 2, 1, cases)
            + effect(self.reader_case, 1, readers, cases)
            + effect(self.residual, 2, readers, cases)
        ), truth


@dataclass(frozen=True)
class Detecting:
    """Readers who say whether there is a lesion.

    d_prime, criterion      their population means.
    reader_d, reader_c      standard deviations between readers.
    case                    the share of the unit variance that all readers see alike.
    drift                   how much the criterion rises from the first to the last case of a reader's own order.
    """

    d_prime: float = 1.5
    criterion: float = 0.0
    reader_d: float = 0.2
    reader_c: float = 0.2
    case: float = 0.4
    drift: float = 0.0

    @property
    def rates(self) -> tuple[float, float]:
        """True sensitivity and specificity of the population."""
        width = np.sqrt(1 + self.reader_d**2 / 4 + self.reader_c**2)
        criteria = self.criterion + _drifts(self.drift)
        hit = stats.norm.cdf((self.d_prime / 2 - criteria) / width)
        rejection = stats.norm.cdf((self.d_prime / 2 + criteria) / width)
        return float(hit.mean()), float(rejection.mean())

    def answers(
        self, readers: int, normals: int, diseased: int, rng: np.random.Generator, studies: int = 1
    ) -> tuple[Float64, Bool]:
        """Answers (S, R, C), 1 for "diseased", and the truth (C,), normal cases first."""
        _positive(readers=readers, normals=normals, diseased=diseased, studies=studies)
        truth = np.arange(normals + diseased) >= normals
        shape = studies, readers, len(truth)
        d = rng.normal(self.d_prime, self.reader_d, (*shape[:2], 1))
        c = rng.normal(self.criterion, self.reader_c, (*shape[:2], 1))
        seen = np.sqrt(self.case) * rng.normal(size=(studies, 1, len(truth)))
        own = np.sqrt(1 - self.case) * rng.normal(size=shape)
        evidence = d * (truth - 0.5) + seen + own
        return (evidence > c + self.drift * _position(shape, rng)).astype(np.float64), truth


@dataclass(frozen=True)
class Grading:
    """Readers who grade cases under several conditions: a grade is how many thresholds the latent quality exceeds, plus
    1.

    shifts       quality of each condition.
    bias         standard deviation of readers' biases.
    reader_shift that of each reader's own change of each condition.
    case, noise  those of the cases, and of a single reading.
    drift        how much quality falls from a reader's first to the last reading.
    thresholds   in order; K - 1 for K grades.
    """

    shifts: tuple[float, ...] = (0.0, 0.0)
    bias: float = 0.3
    reader_shift: float = 0.0
    case: float = 1.0
    noise: float = 1.0
    drift: float = 0.0
    thresholds: tuple[float, ...] = (-1.8, -0.6, 0.6, 1.8)

    def grades(self, readers: int, cases: int, rng: np.random.Generator, studies: int = 1) -> tuple[Float64, Float64]:
        """Grades (S, A, R, C) from 1, and the readers' own levels (S, A, R): shift, bias and change together."""
        _positive(readers=readers, cases=cases, studies=studies)
        shape = studies, len(self.shifts), readers, cases
        bias = rng.normal(0, self.bias, (studies, 1, readers))
        levels = np.asarray(self.shifts)[:, None] + bias + rng.normal(0, self.reader_shift, shape[:3])
        order = _position((studies, readers, shape[1] * cases), rng).reshape(studies, readers, shape[1], cases)
        quality = (
            levels[..., None]
            + rng.normal(0, self.case, (studies, 1, 1, cases))
            + rng.normal(0, self.noise, shape)
            - self.drift * np.moveaxis(order, 2, 1)
        )
        return 1.0 + np.searchsorted(np.asarray(self.thresholds), quality).astype(np.float64), levels

    def shares(self, levels: Float64, case: Float64 | None = None) -> Float64:
        """The true share of each grade (..., K) of readers with these levels (...): over all cases, or, with the latent
        qualities of cases (...), of each."""
        width = self.noise if case is not None else np.sqrt(self.case**2 + self.noise**2)
        middle = np.asarray(levels) + (0.0 if case is None else case)
        middle = np.asarray(middle)[..., None] - _drifts(self.drift)
        below = stats.norm.cdf((np.asarray(self.thresholds) - middle[..., None]) / width).mean(-2)
        edges = np.concatenate([np.zeros((*below.shape[:-1], 1)), below, np.ones((*below.shape[:-1], 1))], -1)
        return np.diff(edges, axis=-1)

    def shares_together(self, levels: Float64) -> Float64:
        """The true shares (..., R, R, K, K) of grades that two readings of one case get, levels (..., R): by
        Gauss-Hermite quadrature over cases. Of a reader with himself: of two readings."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(41)
        each = self.shares(np.asarray(levels)[..., None], self.case * nodes)
        return np.asarray(np.einsum("...rnk,...snl,n->...rskl", each, each, weights / weights.sum()))


def _drifts(drift: float) -> Float64:
    """What a drift does along the reading order."""
    return drift * np.linspace(-0.5, 0.5, 41) if drift else np.zeros(1)


def _position(shape: tuple[int, int, int], rng: np.random.Generator) -> Float64:
    """From -0.5 to 0.5 along the last axis, in an order of each reader's own."""
    steps = np.linspace(-0.5, 0.5, shape[-1]) if shape[-1] > 1 else np.zeros(1)
    return rng.permuted(np.broadcast_to(steps, shape), axis=-1)


def _positive(**counts: int) -> None:
    for name, number in counts.items():
        if number < 1:
            raise UsageError(f"{number} {name}; a simulated study needs at least 1")
