"""What a classifier recognises: in images that show it, in others, and where there are too few to say."""

from __future__ import annotations

import numpy as np
import pytest

from fabrica.evaluation.synthesis.condition_agreement import agreement, discriminant
from fabrica.image import Float64

RNG = np.random.default_rng(0)


def people(count: int, shows: bool = True) -> tuple[Float64, list[dict[str, str]]]:
    """Features (count, 6) in which the first tells the sex and the second the age, and what is known."""
    known = [{"sex": "FM"[k % 2], "age": str(20 + 3 * (k % 20)), "view": "PA"} for k in range(count)]
    features = RNG.normal(size=(count, 6))
    if shows:
        features[:, 0] += [6.0 * (one["sex"] == "M") for one in known]
        features[:, 1] += [float(one["age"]) / 4 for one in known]
    return features, known


def test_what_shows_is_recognised_and_what_does_not_is_guessed() -> None:
    train, real = people(400), people(200)
    rows = {row.key: row for row in agreement(*train, *real, *people(200))}
    assert set(rows) == {"agrees_sex", "agrees_age"}, "all are PA: there is nothing to tell"
    assert rows["agrees_sex"].value > 0.97 and rows["agrees_sex"].real is not None and rows["agrees_sex"].real > 0.97
    assert rows["agrees_age"].value > 0.85
    deaf = {row.key: row for row in agreement(*train, *real, *people(200, shows=False))}
    assert deaf["agrees_sex"].value == pytest.approx(0.5, abs=0.1) and deaf["agrees_sex"].high < 0.62
    assert deaf["agrees_sex"].real == rows["agrees_sex"].real


def test_too_few_are_not_judged() -> None:
    assert agreement(*people(30), *people(200), *people(200)) == [], "15 of each sex are too few to learn from"
    assert agreement(*people(400), *people(10), *people(200)) == []
    nothing = [{"sex": ""} for _ in range(200)]
    features, _ = people(200)
    assert agreement(*people(400), *people(200), features, nothing) == []


def test_the_discriminant_is_fishers() -> None:
    """Of two Gaussians of one covariance the best line lies across the inverse covariance times the difference."""
    covariance = np.array([[2.0, 0.9], [0.9, 1.0]])
    means = np.array([[0.0, 0.0], [1.5, 0.5]])
    rng = np.random.default_rng(1)
    features = np.concatenate([rng.multivariate_normal(mean, covariance, 20_000) for mean in means])
    answers = np.array(["a"] * 20_000 + ["b"] * 20_000, dtype=object)
    grid = rng.uniform(-2, 3, size=(2000, 2))
    direction = np.linalg.solve(covariance + 0.1 / 0.9 * 1.5 * np.eye(2), means[1])
    expected = (grid - means.mean(0)) @ direction > 0
    found = discriminant(features, answers, ["a", "b"])(grid) == "b"
    assert (found == expected).mean() > 0.99
