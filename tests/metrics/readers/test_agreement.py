"""Agreement equals published examples, statsmodels where that is right, and its own definitions in every corner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fabrica.errors import UsageError
from fabrica.metrics.readers import agreement
from tests.draws import draws

NONE = np.nan
# Krippendorff 2011, "Computing Krippendorff's alpha-reliability", example C: four observers, twelve units
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
        [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
    ]
)
# Shrout and Fleiss 1979, table 2: six targets, four judges
JUDGES = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]).T
# Fleiss 1971's layout, the example of fourteen raters, ten subjects and five categories: counts of each category
COUNTS = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)


@pytest.mark.parametrize(
    ("scale", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)]
)
def test_alpha_of_krippendorffs_example(scale: str, value: float) -> None:
    found = agreement.krippendorff_alpha(OBSERVERS, scale=scale)
    assert found.value == pytest.approx(value, abs=5e-4) and found.low < value < found.high


@pytest.mark.parametrize(
    ("form", "value", "low", "high"),
    [
        ("ICC(1,1)", 0.166, -0.133, 0.723),
        ("ICC(2,1)", 0.290, 0.019, 0.761),
        ("ICC(3,1)", 0.715, 0.342, 0.946),
        ("ICC(1,k)", 0.443, -0.884, 0.912),
        ("ICC(2,k)", 0.620, 0.071, 0.927),
        ("ICC(3,k)", 0.909, 0.676, 0.986),
    ],
)
def test_icc_of_shrout_and_fleiss(form: str, value: float, low: float, high: float) -> None:
    found = agreement.icc(JUDGES, form=form)
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high), abs=1.5e-3)
    assert form in found.method


def test_fleiss_kappa_of_the_example() -> None:
    ratings = np.array([np.repeat(np.arange(5), row) for row in COUNTS]).T
    assert agreement.fleiss_kappa(ratings).value == pytest.approx(0.210, abs=5e-4)


grades = arrays(np.int64, st.tuples(st.integers(2, 4), st.integers(4, 20)), elements=st.integers(1, 4))


@settings(max_examples=draws(40), deadline=None)
@given(grades)
def test_kappas_equal_statsmodels(table: np.ndarray) -> None:
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    counts = np.stack([(table == g).sum(0) for g in range(1, 5)], 1)
    shares = counts.sum(0) / counts.sum()
    if (shares**2).sum() < 1 - 1e-9:
        expected = inter_rater.fleiss_kappa(counts)
        assert agreement.fleiss_kappa(table).value == pytest.approx(expected, abs=1e-9)
    square = np.zeros((4, 4))
    np.add.at(square, (table[0] - 1, table[1] - 1), 1)
    for ours, theirs in (("none", None), ("linear", "linear"), ("quadratic", "quadratic")):
        found = agreement.cohen_kappa(table[0], table[1], weights=ours)
        distance = np.arange(4)[:, None] - np.arange(4)
        expected_disagreement = (square.sum(1)[:, None] * square.sum(0) * (distance != 0)).sum()
        if expected_disagreement == 0:
            assert np.isnan(found.value) and found.note == agreement.UNDEFINED
            continue
        with np.errstate(all="ignore"):  # its variances of few cases are no numbers
            kappa = inter_rater.cohens_kappa(square, wt=theirs).kappa
        assert found.value == pytest.approx(kappa, abs=1e-9)


@settings(max_examples=draws(40), deadline=None)
@given(grades, st.integers(0, 2**16))
def test_what_does_not_matter(table: np.ndarray, seed: int) -> None:
    """The order of cases and of readers, and cases with one grade only; of nominal scales also the names."""
    rng = np.random.default_rng(seed)
    other = table[rng.permutation(len(table))][:, rng.permutation(table.shape[1])].astype(float)
    other = np.concatenate([other, np.full((len(other), 1), NONE)], 1)
    other[0, -1] = 3
    for scale in agreement.SCALES:
        one, two = (agreement.krippendorff_alpha(each, scale=scale).value for each in (table, other))
        assert one == pytest.approx(two, abs=1e-9, nan_ok=True)
    renamed = np.array([0, 30, 10, 40, 20])[table]
    for of in (agreement.fleiss_kappa, lambda t: agreement.krippendorff_alpha(t, scale="nominal")):
        assert of(table).value == pytest.approx(of(renamed).value, abs=1e-9, nan_ok=True)
    assert agreement.fleiss_kappa(table).value == pytest.approx(
        agreement.fleiss_kappa(other).value, abs=1e-9, nan_ok=True
    )


def test_alpha_of_two_readers_by_hand() -> None:
    """Binary, no reading missing: 1 - (2 n - 1) * disagreements / (ones * zeros), over all 2 n grades."""
    one, two = np.array([0, 1, 0, 0, 0, 0, 0, 0, 1, 0]), np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0])
    ones = int(one.sum() + two.sum())
    expected = 1 - 19 * int((one != two).sum()) / (ones * (20 - ones))
    assert agreement.krippendorff_alpha([one, two], scale="nominal").value == pytest.approx(expected)


def test_the_jackknife_leaves_out_cases() -> None:
    rng = np.random.default_rng(1)
    table = np.clip(np.round(3 + rng.normal(size=15) + 0.7 * rng.normal(size=(3, 15))), 1, 5)
    table[1, 4] = NONE
    for of in (agreement.fleiss_kappas, lambda t, k: agreement.alphas(t, k, "ordinal")):
        without = of(table, 1.0 - np.eye(15))
        for case in (0, 4, 14):
            kept = np.delete(table, case, 1)
            assert without[case] == pytest.approx(of(kept, np.ones((1, 14)))[0])


def test_complete_agreement() -> None:
    table = np.tile([1, 2, 3, 4, 5, 1, 2], (3, 1))
    for found in (
        agreement.fleiss_kappa(table),
        agreement.krippendorff_alpha(table),
        agreement.cohen_kappa(table[0], table[1]),
        agreement.icc(table),
        agreement.icc(table, form="ICC(3,1)"),
    ):
        assert found.value == pytest.approx(1) and np.isnan(found.low) and "no interval" in found.note


def test_all_grades_alike() -> None:
    """Agreement is complete, but none of it is beyond chance: the coefficients are undefined, not 0 and not 1."""
    table = np.full((3, 8), 4)
    for found in (
        agreement.fleiss_kappa(table),
        agreement.krippendorff_alpha(table),
        agreement.cohen_kappa(table[0], table[1]),
        agreement.icc(table),
    ):
        assert np.isnan(found.value) and "undefined" in found.note


def test_readers_that_differ_by_a_constant() -> None:
    table = np.array([[1.0, 2, 3, 4, 2], [2, 3, 4, 5, 3]])
    assert agreement.icc(table, form="ICC(3,1)").value == 1
    assert 0 < agreement.icc(table, form="ICC(2,1)").value < 1


def test_few_cases() -> None:
    assert "too few" in agreement.cohen_kappa([1, 2], [1, 1]).note
    with pytest.raises(UsageError, match="1 cases were graded by all"):
        agreement.icc([[1, NONE], [2, 3]])
    with pytest.raises(UsageError, match="no case was graded by both"):
        agreement.cohen_kappa([1, NONE], [NONE, 2])
    with pytest.raises(UsageError, match="no case was graded by two"):
        agreement.fleiss_kappa([[1, NONE], [NONE, 2]])
    with pytest.raises(UsageError, match="two readers or more"):
        agreement.krippendorff_alpha([[1, 2, 3]])


def test_agreement_with_oneself() -> None:
    rng = np.random.default_rng(2)
    first = np.clip(np.round(3 + rng.normal(size=(3, 20))), 1, 5)
    second = np.clip(first + rng.integers(-1, 2, first.shape), 1, 5)
    second[1, 5:] = NONE
    second[2] = NONE
    one, two, three = agreement.intra_reader(first, second)
    assert one.cases == 20 and one.equal == pytest.approx((first[0] == second[0]).mean())
    assert one.kappa == agreement.cohen_kappa(first[0], second[0]) and one.icc == agreement.icc([first[0], second[0]])
    assert two.cases == 5 and three.cases == 0
    assert np.isnan(three.equal) and "graded twice" in three.kappa.note


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: agreement.cohen_kappa([1, 2], [1, 2], weights="cubic"), "no weights 'cubic'"),
        (lambda: agreement.krippendorff_alpha([[1, 2], [1, 2]], scale="log"), "no scale 'log'"),
        (lambda: agreement.krippendorff_alpha([[-1, 2], [1, 2]], scale="ratio"), "below 0"),
        (lambda: agreement.icc([[1, 2], [1, 2]], form="ICC(4,1)"), "no form"),
        (lambda: agreement.fleiss_kappa([[np.inf, 2], [1, 2]]), "infinite"),
        (lambda: agreement.intra_reader([1, 2], [1, 2]), "expected \\(readers, cases\\)"),
    ],
)
def test_what_is_refused(call: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()  # type: ignore[operator]
