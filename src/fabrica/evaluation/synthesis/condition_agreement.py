"""Would a classifier recognise what an image was told to show? Linear discriminants on image features, fitted to real
training images (Fisher 1936, with the shrinkage of Friedman 1989), asked of synthetic images and of held-out ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fabrica.conditioning.encoder import Known
from fabrica.data.metadata import age as years
from fabrica.image import Float64
from fabrica.metrics.memorisation import mean_share
from fabrica.report.scores import ScoreRow

LEAST = 20  # training images of a class
LEAST_ASKED = 8  # held-out and synthetic ones
SHRINKAGE = 0.1
AGREES = "Does a classifier see what it was told?"

Answers = npt.NDArray[np.object_]


def agreement(
    train: Float64,
    train_known: Sequence[Known],
    real: Float64,
    real_known: Sequence[Known],
    fake: Float64,
    fake_known: Sequence[Known],
) -> list[ScoreRow]:
    """A row for each thing that is known of enough images: label, sex, view, and age as above or below the median.

    train, real, fake (N, F) features of training, held-out and synthetic images; of each what is known of it, and of
    the synthetic ones what they were told.
    """
    rows = []
    for name, values in _questions([train_known, real_known, fake_known]).items():
        of_train, of_real, of_fake = values
        classes = [each for each in sorted(set(of_train) - {""}) if (of_train == each).sum() >= LEAST]
        classes = [each for each in classes if min((of_real == each).sum(), (of_fake == each).sum()) >= LEAST_ASKED]
        if len(classes) < 2:
            continue
        answer = discriminant(train, of_train, classes)
        share, low, high = _balanced(answer(fake), of_fake, classes)
        chance = f"{100 / len(classes):.0f} %"
        explanation = (
            f"Share of synthetic images in which a classifier trained on real ones sees the {name} that was asked for "
            f"({', '.join(classes)}; each counted alike, chance {chance}); real: held-out images. Where a text leaves "
            "it open, no more than chance can be expected."
        )
        at_real = _balanced(answer(real), of_real, classes)[0]
        title = name.capitalize()
        rows.append(
            ScoreRow(f"agrees_{name}", title, share, low, high, "higher", explanation, at_real, True, {}, AGREES)
        )
    return rows


def discriminant(features: Float64, answers: Answers, classes: Sequence[str]) -> Callable[[Float64], Answers]:
    """features (M, F) -> the likeliest of `classes`, as common as each other, each Gaussian with the same covariance,
    learned from features (N, F) whose class is answers (N,)."""
    means = np.stack([features[answers == each].mean(0) for each in classes])
    within = np.concatenate([features[answers == each] - mean for each, mean in zip(classes, means, strict=True)])
    covariance = within.T @ within / len(within)
    spread = np.trace(covariance) / len(covariance)
    pulled = (1 - SHRINKAGE) * covariance + SHRINKAGE * spread * np.eye(len(covariance))
    weights = np.linalg.solve(pulled, means.T)
    offset = -0.5 * np.einsum("kf,fk->k", means, weights)
    return lambda asked: np.array(classes, dtype=object)[(asked @ weights + offset).argmax(1)]


def _questions(known: Sequence[Sequence[Known]]) -> dict[str, list[Answers]]:
    """What is known of training, held-out and synthetic images, (N,) each, by condition."""
    found = {
        name: [np.array([one.get(name, "") for one in each], dtype=object) for each in known]
        for name in ("label", "sex", "view")
    }
    ages = [[float(years(one.get("age", "")) or np.nan) for one in each] for each in known]
    if np.isfinite(ages[0]).sum() >= LEAST:
        middle = float(np.nanmedian(ages[0]))
        words = (f"to {middle:g}", f"above {middle:g}")
        found["age"] = [
            np.array(["" if np.isnan(age) else words[age > middle] for age in each], dtype=object) for each in ages
        ]
    return found


def _balanced(seen: Answers, asked: Answers, classes: Sequence[str]) -> tuple[float, float, float]:
    """The mean over classes of the share recognised, and its 95 % interval."""
    right = [int(((asked == each) & (seen == each)).sum()) for each in classes]
    return mean_share(right, [int((asked == each).sum()) for each in classes])
