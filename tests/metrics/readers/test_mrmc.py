"""MRMC variances equal iMRMC's own output, and sums over all readers and cases written out."""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.metrics.readers import equivalence, estimate, imrmc, mrmc
from fabrica.metrics.readers.estimate import t_interval
from fabrica.metrics.readers.simulation import RoeMetz
from fabrica.metrics.readers.ustatistics import READERS_AND_BOTH_CLASSES
from fabrica.metrics.roc import area_under_curve
from tests.draws import draws
from tests.real import DATA

EXAMPLE = DATA / "imrmc_example"
DESIGNS = ("crossed", "missing", "split_plot")
NEAR = {"rtol": 0, "atol": 1e-6}


def table(name: str) -> list[dict[str, str]]:
    with Path(EXAMPLE / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", params=DESIGNS)
def design(request: pytest.FixtureRequest) -> tuple[str, imrmc.Readings]:
    if not EXAMPLE.is_dir():
        pytest.skip(f"no iMRMC example in {DATA}")
    return request.param, imrmc.read(EXAMPLE / f"{request.param}.imrmc")


def analysed(readings: imrmc.Readings, row: dict[str, str]) -> mrmc.Analysis:
    one = readings.of(row["modalityA"])
    if row["modalityB"] == "NO_MOD":
        return mrmc.auc(one, readings.truth)
    return mrmc.auc_difference(one, readings.of(row["modalityB"]), readings.truth)


def test_it_equals_imrmc(design: tuple[str, imrmc.Readings]) -> None:
    name, readings = design
    rows = table(f"{name}_Ustat.csv")
    assert len(rows) == 3
    for row in rows:
        found, single = analysed(readings, row), row["modalityB"] == "NO_MOD"
        value, variance = ("AUCA", "varAUCA") if single else ("AUCAminusAUCB", "varAUCAminusAUCB")
        t, normal = found.t, found.normal
        ours = [found.value, found.variance, normal.p, normal.low, normal.high, t.df, t.p, t.low, t.high]
        names = [
            value,
            variance,
            "pValueNormal",
            "botCInormal",
            "topCInormal",
            "dfBDG",
            "pValueBDG",
            "botCIBDG",
            "topCIBDG",
        ]
        np.testing.assert_allclose(ours, [float(row[key]) for key in names], **NEAR)
        assert (found.readers, found.normals, found.diseased) == tuple(int(row[key]) for key in ("NR", "N0", "N1"))


def test_the_biased_variance_equals_imrmc(design: tuple[str, imrmc.Readings]) -> None:
    name, readings = design
    for row in table(f"{name}_MLEstat.csv"):
        key = "varAUCA" if row["modalityB"] == "NO_MOD" else "varAUCAminusAUCB"
        np.testing.assert_allclose(analysed(readings, row).variance_mle, float(row[key]), **NEAR)


def test_moments_and_components_equal_imrmc(design: tuple[str, imrmc.Readings]) -> None:
    name, readings = design
    theirs = {row["name"]: float(row["value"]) for row in table(f"{name}_varDecomp.csv")}
    one, two = readings.of("testA"), readings.of("testB")
    parts = mrmc.auc_difference(one, two, readings.truth).moments
    spelled = {"RD": "DR", "RN": "NR"}
    seen = 0
    for number, part in enumerate(parts, 1):
        for way, moments in (("Ustat", part.unbiased), ("MLE", part.biased)):
            expected = [theirs[f"BDG.{way}.comp.M{i}{number}"] for i in range(1, 9)]
            np.testing.assert_allclose(moments, expected, **NEAR)
            expected = [theirs[f"BDG.{way}.coeff.M{i}{number}"] for i in range(1, 9)]
            np.testing.assert_allclose(part.coefficients, expected, **NEAR)
            for factor, value in part.components(biased=way == "MLE").items():
                called = spelled.get(factor, factor)
                np.testing.assert_allclose(value, theirs[f"BCK.{way}.comp.{called}{number}"], **NEAR)
                weight = part.component_coefficients()[factor]
                np.testing.assert_allclose(weight, theirs[f"BCK.{way}.coeff.{called}{number}"], **NEAR)
                seen += 1
    assert seen == 3 * 2 * 7


def test_each_reader_equals_imrmc(design: tuple[str, imrmc.Readings]) -> None:
    name, readings = design
    rows = table(f"{name}_perReader.csv")
    for row in rows:
        place = readings.readers.index(row["readerID"])
        only = [readings.of(row[key])[[place]] for key in ("modalityA", "modalityB") if row[key] != "NO_MOD"]
        found = mrmc.auc(only[0], readings.truth) if len(only) == 1 else mrmc.auc_difference(*only, readings.truth)
        keys = ("AUCA", "varAUCA") if len(only) == 1 else ("AUCAminusAUCB", "varAUCAminusAUCB")
        np.testing.assert_allclose([found.value, found.variance], [float(row[key]) for key in keys], **NEAR)
        assert estimate.ONE_READER in found.note


def enumerated(one: Float64, two: Float64, truth: np.ndarray) -> tuple[Float64, Float64, float]:
    """Moments, coefficients and covariance by a loop over all pairs of (reader, normal, diseased) that were read."""
    normal, diseased = np.flatnonzero(truth == 0), np.flatnonzero(truth == 1)

    def terms(scores: Float64) -> dict[tuple[int, int, int], float]:
        found = {}
        for r, n, d in product(range(len(scores)), normal, diseased):
            low, high = scores[r, n], scores[r, d]
            if not np.isnan(low + high):
                found[r, int(n), int(d)] = 1.0 if high > low else 0.5 if high == low else 0.0
        return found

    first, second = terms(one), terms(two)
    sums, counts = dict.fromkeys(READERS_AND_BOTH_CLASSES, 0.0), dict.fromkeys(READERS_AND_BOTH_CLASSES, 0)
    for (a, x), (b, y) in product(first.items(), second.items()):
        shared = "".join(name for name, i, j in zip("RND", a, b, strict=True) if i == j)
        sums[shared] += x * y
        counts[shared] += 1
    pairs = len(first) * len(second)
    moments = [sums[s] / counts[s] if counts[s] else 0.0 for s in READERS_AND_BOTH_CLASSES]
    coefficients = [counts[s] / pairs for s in READERS_AND_BOTH_CLASSES]
    coefficients[-1] -= 1
    return np.array(moments), np.array(coefficients), float(np.dot(moments, coefficients))


def study(seed: int, readers: int = 3, cases: int = 9, missing: float = 0.0) -> tuple[Float64, np.ndarray]:
    """Scores of whole numbers (2, R, C), so that ties are many."""
    rng = np.random.default_rng(seed)
    truth = np.arange(cases) % 2
    scores = rng.normal(size=(2, readers, cases)) + truth + rng.normal(size=(readers, 1))
    scores = np.round(scores + rng.normal(size=cases))
    return np.where(rng.random(scores.shape) < missing, np.nan, scores), truth


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_it_equals_sums_written_out(seed: int, missing: float) -> None:
    (one, two), truth = study(seed, missing=missing)
    found = mrmc.auc_difference(one, two, truth)
    covariance = []
    for part, (a, b) in zip(found.moments, [(one, one), (two, two), (one, two)], strict=True):
        moments, coefficients, total = enumerated(a, b, truth)
        np.testing.assert_allclose(part.unbiased, moments, atol=1e-12)
        np.testing.assert_allclose(part.coefficients, coefficients, atol=1e-12)
        np.testing.assert_allclose(part.covariance, total, atol=1e-12)
        covariance.append(total)
    assert found.variance == pytest.approx(covariance[0] + covariance[1] - 2 * covariance[2], abs=1e-12)


def test_readers_of_separate_cases() -> None:
    """No two readers share a case: sets without any pair take no part, and nothing is divided by nothing."""
    (one, _), truth = study(5, readers=4, cases=32)
    blocks = np.repeat(np.arange(4), 8)
    apart = np.where(blocks == np.arange(4)[:, None], one, np.nan)
    found = mrmc.auc(apart, truth)
    *_, total = enumerated(apart, apart, truth)
    assert found.variance == pytest.approx(total, abs=1e-12) and np.isfinite(found.t.low)


def test_a_change_of_nothing_has_no_variance_and_no_interval() -> None:
    (one, _), truth = study(1)
    found = mrmc.auc_difference(one, one, truth)
    assert found.value == 0 and found.variance == pytest.approx(0, abs=1e-12)
    assert np.isnan(found.t.low) and estimate.CONSTANT in found.note


def test_perfect_readers() -> None:
    truth = np.arange(20) % 2
    found = mrmc.auc(np.tile(truth, (3, 1)), truth)
    assert found.value == 1 and np.isnan(found.t.low) and estimate.CONSTANT in found.note
    for table, value in ((truth, 1), (1 - truth, 0)):
        of = mrmc.auc(np.tile(table, (3, 1)), truth, scale="logit").t
        assert (of.value, of.low, of.high) == (value, *mrmc.score_interval(value, 10, 10)) and mrmc.ALIKE in of.note
    (one, *_) = mrmc.reader_aucs(np.tile(truth, (3, 1)), truth)
    assert one.high == 1 and 0.7 < one.low < 1 and "Newcombe" in one.method


def test_a_negative_variance_is_said() -> None:
    """Readers that contradict one another on the same cases: the unbiased variance is below zero."""
    truth = np.arange(12) % 2
    rng = np.random.default_rng(3)
    one = rng.normal(size=12)
    found = mrmc.auc(np.stack([one, -one, one, -one]), truth)
    assert found.variance < 0 < found.variance_mle and estimate.NEGATIVE in found.note
    assert found.t.low < 0.5 < found.t.high


def test_the_logit_interval_stays_inside() -> None:
    truth = np.arange(20) % 2
    rng = np.random.default_rng(0)
    scores = truth * 2.5 + rng.normal(size=(3, 20))
    plain, inside = (mrmc.auc(scores, truth, scale=scale) for scale in ("identity", "logit"))
    assert plain.t.high > 1 > inside.t.high and inside.t.low < inside.value < inside.t.high


@settings(max_examples=draws(15), deadline=None)
@given(st.integers(0, 10**6), st.floats(0.5, 0.99))
def test_the_logit_interval_of_a_difference_and_its_tests_say_the_same(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    truth = np.arange(24) % 2
    one, two = truth * rng.uniform(0, 3, (2, 1, 1)) + rng.normal(size=(2, 3, 24)) + rng.normal(size=24)
    plain, found = (mrmc.auc_difference(one, two, truth, scale=scale) for scale in ("identity", "logit"))
    back = mrmc.auc_difference(two, one, truth, scale="logit").t
    of = found.t
    assert (of.value, of.error, of.df, found.normal) == (plain.value, plain.t.error, plain.t.df, plain.normal)
    assert -1 <= of.low < of.value < of.high <= 1
    assert (-of.high, -of.low, of.p) == pytest.approx((back.low, back.high, back.p))
    assert (of.p < 0.05) == (of.low > 0 or of.high < 0)
    (low, high), (lower, higher) = of.at(level), of.at((1 + level) / 2)
    assert lower <= low < of.value < high <= higher  # nested
    for null in (of.value, of.value + 1e-16, of.value - 1e-13):
        assert of.p_above(null) == pytest.approx(0.5, abs=1e-6)
    for null in np.linspace(-0.6, 0.6, 7):
        assert (of.p_above(null) < (1 - level) / 2) == (low > null)
        assert (of.p_below(null) < (1 - level) / 2) == (high < null)
    both = equivalence.equivalent(of, -0.2, 0.2)
    assert both.shown == (both.low > -0.2 and both.high < 0.2) and (both.low, both.high) == of.at(0.9)
    assert equivalence.not_inferior(of, 0.1).shown == (of.low > -0.1)


def test_non_inferiority_of_high_areas_keeps_its_level() -> None:
    """Areas of 0.91 and 0.96, worse by the margin: Student's interval of the difference lies above it in about 5 %."""
    model = RoeMetz(one=float(brentq(lambda mu: RoeMetz(one=mu).aucs[0] - 0.907, 0, 6)), two=2.5)
    scores, truth = model.scores(5, 30, 30, np.random.default_rng(1), 400)
    gap = mrmc.differences(scores[:, 0], scores[:, 1], truth)
    true = model.aucs[0] - model.aucs[1]
    low, high = gap.limits(0.95)
    plain, _, _ = t_interval(gap.gap.value, gap.gap.usable, gap.gap.df)
    assert (low > true).mean() < 0.04 < (plain > true).mean() and (high < true).mean() < 0.04
    of = mrmc.auc_difference(scores[0, 0], scores[0, 1], truth, scale="logit").t
    assert (of.low, of.high) == pytest.approx((low[0], high[0]))


def test_a_perfect_modality_has_the_plain_interval() -> None:
    truth = np.arange(20) % 2
    other = truth + np.random.default_rng(0).normal(size=(3, 20))
    plain, found = (mrmc.auc_difference(np.tile(truth, (3, 1)), other, truth, scale=s).t for s in ("identity", "logit"))
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high)) and found.p == pytest.approx(plain.p)


def test_aucs_of_readers() -> None:
    (one, _), truth = study(2, cases=40, missing=0.2)
    for row, found in zip(one, mrmc.reader_aucs(one, truth), strict=True):
        there = np.isfinite(row)
        area = area_under_curve(row[there & (truth == 1)], row[there & (truth == 0)])
        assert found.value == pytest.approx(area) and 0 < found.low < found.value < found.high < 1


def test_scores_of_one_reader_without_a_class() -> None:
    (one, _), truth = study(2)
    one[1, truth == 1] = np.nan
    first, second, _ = mrmc.reader_aucs(one, truth)
    assert np.isfinite(first.low) and np.isnan(second.value) and "no case of one class" in second.note


@pytest.mark.parametrize(
    ("scores", "truth", "said"),
    [
        (np.zeros((2, 3)), [1, 0], "expected \\(readers, cases\\)"),
        (np.zeros((2, 4)), [1, 0, 2, 0], "values other than 0 and 1"),
        (np.zeros((2, 4)), [1, 0, 0, 0], "1 diseased cases"),
        (np.zeros((2, 4)), [1, 1, 1, 1], "0 normal cases"),
        (np.full((2, 4), np.inf), [1, 1, 0, 0], "infinite"),
        (np.full((2, 4), np.nan), [1, 1, 0, 0], "0 diseased cases"),
    ],
)
def test_what_cannot_be_analysed(scores: Float64, truth: list[int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        mrmc.auc(scores, truth)


def test_levels_and_scales() -> None:
    (one, two), truth = study(1)
    assert mrmc.auc(one, truth, level=0.5).t.high < mrmc.auc(one, truth, level=0.9).t.high
    with pytest.raises(UsageError, match="between 0 and 1"):
        mrmc.auc(one, truth, level=95)
    with pytest.raises(UsageError, match="no scale"):
        mrmc.auc(one, truth, scale="log")
    with pytest.raises(UsageError, match="no scale"):
        mrmc.auc_difference(one, two, truth, scale="log")
    with pytest.raises(UsageError, match="same readers"):
        mrmc.auc_difference(one, two[:2], truth)


def test_newcombes_interval_holds_the_values_within_their_error() -> None:
    low, high = mrmc.score_interval(0.9, 30, 20)
    assert 0.75 < low < 0.9 < high < 0.98
    assert mrmc.score_interval(0.1, 20, 30) == pytest.approx((1 - high, 1 - low), abs=1e-3)
    assert mrmc.score_interval(0.0, 10, 10)[0] == 0 and mrmc.score_interval(1.0, 10, 10)[1] == 1
