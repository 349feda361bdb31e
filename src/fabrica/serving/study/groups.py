"""Answers of yes or no as tables, in groups that belong together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fabrica.image import Float64
from fabrica.serving.study.folder import image_of
from fabrica.serving.study.forms import positive, rating
from fabrica.serving.study.readings import READING, Readings, is_positive

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """Answers that belong together: those of one arm, or real images and those of one synthetic arm.

    columns   (case, arm as it is shown) along the tables.
    says, rating, right   (R, C), NaN where there is none; truth (C,).
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    says: Float64
    rating: Float64
    right: Float64
    truth: Bool

    @property
    def even(self) -> bool:
        """Whether there are as many of both kinds: else who says always the same is right more or less often than
        half."""
        return 2 * int(self.truth.sum()) == len(self.truth)


def groups(readings: Readings) -> list[Group]:
    """Of a detection one an arm; of real and synthetic images one a synthetic arm, and all where there are several."""
    config, study = readings.study.config, readings.study
    if config.kind == "detection":
        return [_group(readings, arm, [(case, arm) for case in readings.cases]) for arm in config.names]
    shown = list(dict.fromkeys((t.case, t.arms[0]) for t in study.trials if t.part == READING))
    arm_of = {each: image_of(config, *each)[0] for each in shown}
    real = [arm.name for arm in config.arms if arm.truth == "real"]
    synthetic = [arm.name for arm in config.arms if arm.truth == "synthetic"]
    found = [_group(readings, name, [e for e in shown if arm_of[e] in (*real, name)]) for name in synthetic]
    return found if len(found) == 1 else [*found, _group(readings, "all synthetic", shown)]


def _group(readings: Readings, name: str, columns: list[tuple[str, str]]) -> Group:
    config = readings.study.config
    rows = {reader: i for i, reader in enumerate(readings.readers)}
    places = {column: i for i, column in enumerate(columns)}
    says, sure = (np.full((len(rows), len(columns)), np.nan) for _ in range(2))
    for reading in readings.part(READING):
        place = places.get((reading.trial.case, reading.arm))
        if place is not None:
            says[rows[reading.reader], place] = positive(config, reading.row.answer)
            sure[rows[reading.reader], place] = rating(config, reading.row.answer)
    truth = np.array([is_positive(readings.study, case, arm) for case, arm in columns], dtype=bool)
    right = np.where(np.isfinite(says), says == truth, np.nan)
    return Group(name, tuple(columns), says, sure, right, truth)
