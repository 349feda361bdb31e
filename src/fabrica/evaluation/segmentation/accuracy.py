"""How near made label maps are to the true ones: by class, over all classes, by patient, and the worst cases first.

What counts where a class is absent, missed or a false alarm says `fabrica.metrics.segmentation`. Cases of one patient
are no independent trials: a patient's scores of a class are averaged first, and intervals come from resampling
patients. The mean over all classes is that of the classes' means, so that an organ that few patients have counts as
much as one that all have; a class that is absent in all cases is in no mean.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fabrica.evaluation.segmentation.cases import ScoredCase, worst_first
from fabrica.image import Float64
from fabrica.metrics.patients import Interval, by_patient, interval, interval_over_columns
from fabrica.metrics.segmentation import BETTER, METRICS, ClassScores
from fabrica.report.scores import ScoreRow

ALL = "All classes"
AWAY = "One contrast taken away"
NAMES = {
    "dice": ("Dice", "Overlap: twice what both have in common over what both hold together; 1 is equal."),
    "iou": ("IoU", "Overlap: what both have in common over what either holds; 1 is equal."),
    "surface_dice": ("Surface Dice", "The share of both surfaces that lies within the tolerance of the other one."),
    "hd95": ("HD95", "95 % of either surface lies nearer to the other than this; a missed organ: the diagonal."),
    "volume_error": ("Volume error, ml", "Volume made less the true one; near 0 is right."),
    "relative_volume_error": ("Volume error", "Volume made less the true one, as a share of it; near 0 is right."),
}
BY_CLASS = ("dice", "surface_dice", "hd95", "relative_volume_error")


@dataclass(frozen=True)
class ClassAccuracy:
    """One class over all cases.

    scores          each of METRICS as a mean over patients with its interval; NaN where no case has it.
    cases           judged; of these: absent on both sides, missed, false_alarms. The others are on both sides.
    never           whether it is absent in all cases: "never present".
    """

    number: int
    name: str
    scores: Mapping[str, Interval]
    cases: int
    absent: int
    missed: int
    false_alarms: int
    never: bool

    @property
    def said(self) -> str:
        """Counts in words: "missed in 1 of 12 cases, absent in 2"; "" where it is on both sides in all of them."""
        if self.never:
            return "never present"
        counts = {"missed": self.missed, "a false alarm": self.false_alarms, "absent": self.absent}
        parts = [f"{what} in {count}" for what, count in counts.items() if count]
        return ", ".join([f"{parts[0]} of {self.cases} cases", *parts[1:]]) if parts else ""


@dataclass(frozen=True)
class PatientAccuracy:
    """One patient: how many cases, the mean over classes of each of BETTER, and how often a class was missed or made up
    there."""

    patient: str
    cases: int
    scores: Mapping[str, float]
    missed: int
    false_alarms: int


@dataclass(frozen=True)
class Accuracy:
    """All that is known of the test images; `dataclasses.asdict` and `fabrica.report.scores.finite` make JSON of it.

    overall    each of BETTER, the mean over the classes that are present anywhere, with its interval.
    patients   by mean Dice, the worst first; so are cases.
    """

    classes: Sequence[ClassAccuracy]
    overall: Mapping[str, Interval]
    patients: Sequence[PatientAccuracy]
    cases: Sequence[ScoredCase]

    @property
    def never(self) -> list[str]:
        """The classes that are never present."""
        return [found.name for found in self.classes if found.never]


def summary(cases: Sequence[ScoredCase], names: Mapping[int, str], seed: int = 0) -> Accuracy:
    """Of test images that were all scored on the classes `names` (number -> name)."""
    tables = {metric: by_patient_and_class(cases, list(names), metric) for metric in METRICS}
    classes = [
        _class(number, name, cases, {metric: interval(tables[metric][:, k], seed) for metric in METRICS})
        for k, (number, name) in enumerate(names.items())
    ]
    overall = {metric: interval_over_columns(tables[metric], seed) for metric in BETTER}
    patients = [
        _patient(patient, cases, {metric: _mean(tables[metric][k]) for metric in BETTER})
        for k, patient in enumerate(sorted({case.patient for case in cases}))
    ]
    # a patient without any class has no score and comes last
    patients.sort(key=lambda found: (math.isnan(found.scores["dice"]), found.scores["dice"], found.patient))
    return Accuracy(classes, overall, patients, worst_first(cases))


def by_patient_and_class(cases: Sequence[ScoredCase], numbers: Sequence[int], metric: str) -> Float64:
    """The mean of each patient's cases, in sorted order, by class: (P, K); NaN where none has a score."""
    patients = [case.patient for case in cases]
    columns = [by_patient([getattr(case.scores[number], metric) for case in cases], patients) for number in numbers]
    return np.stack(columns, axis=1) if columns else np.empty((len(set(patients)), 0))


def _class(number: int, name: str, cases: Sequence[ScoredCase], scores: Mapping[str, Interval]) -> ClassAccuracy:
    each = [case.scores[number] for case in cases]
    absent = sum(one.absent for one in each)
    missed, false_alarms = sum(one.missed for one in each), sum(one.false_alarm for one in each)
    return ClassAccuracy(number, name, scores, len(each), absent, missed, false_alarms, absent == len(each))


def _patient(patient: str, cases: Sequence[ScoredCase], scores: Mapping[str, float]) -> PatientAccuracy:
    own = [case for case in cases if case.patient == patient]
    missed, alarms = sum(len(case.missed) for case in own), sum(len(case.false_alarms) for case in own)
    return PatientAccuracy(patient, len(own), scores, missed, alarms)


def _mean(values: Float64) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else float("nan")


def rows(found: Accuracy, tolerance: str = "1 mm", unit: str = "mm") -> list[ScoreRow]:
    """The rows of a report: over all classes, then a table of classes for each of BY_CLASS; of one class its own.

    tolerance   of the surface Dice, as the page says it ("1 mm", "that of each class").
    unit        of distances: "pixels" for images that know no mm.
    """
    near, hd95 = NAMES["surface_dice"], NAMES["hd95"]
    names = NAMES | {
        "surface_dice": (near[0], f"{near[1]} Tolerance: {tolerance}."),
        "hd95": (f"HD95, {unit}", hd95[1]),
    }
    if len(found.classes) == 1:
        one = found.classes[0]
        return [_row(key, *names[key], one.scores[key], one.name, key) for key in (*BETTER, "relative_volume_error")]
    rows = [_row(metric, *names[metric], found.overall[metric], ALL, metric) for metric in BETTER]
    for metric in BY_CLASS:
        title, explained = names[metric]
        for one in found.classes:
            key = f"{metric}_{one.number}"
            rows.append(_row(key, one.name, one.said or explained, one.scores[metric], f"{title} by class", metric))
    return rows


def without(
    cases: Sequence[ScoredCase], others: Mapping[str, Sequence[ScoredCase]], numbers: Sequence[int], seed: int = 0
) -> list[ScoreRow]:
    """A row for each contrast: mean Dice of the same test images where the model has to do without it.

    others   contrast -> the same cases, done without it; those that cannot be compared are left out on both sides.
    """
    found = []
    for name, done in others.items():
        ids = {case.id for case in done}
        plain = by_patient_and_class([case for case in cases if case.id in ids], numbers, "dice")
        left = by_patient_and_class(done, numbers, "dice")
        at, lost = interval_over_columns(left, seed), interval_over_columns(plain - left, seed)
        explanation = (
            f"Dice of {len(done)} test images, {name} taken away: {lost.mean:.3f} less "
            f"[{lost.low:.3f}, {lost.high:.3f}]."
        )
        found.append(_row(f"dice_without_{name}", f"Dice without {name}", explanation, at, AWAY, "dice"))
    return found


def _row(key: str, name: str, explanation: str, at: Interval, group: str, metric: str) -> ScoreRow:
    low, high = (at.low, at.high) if math.isfinite(at.mean) else (None, None)
    better, share = BETTER.get(metric, "near 0"), metric == "relative_volume_error"
    return ScoreRow(key, name, at.mean, low, high, better, explanation, percent=share, group=group)


def table(cases: Sequence[ScoredCase], names: Mapping[int, str]) -> str:
    """All scores as CSV, a line for each case and class: id, patient, class, label, state (both, absent, missed, false
    alarm), metrics; empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "patient", "class", "label", "state", "volume", *METRICS])
    for case in cases:
        for number, name in names.items():
            scores = case.scores[number]
            values = [getattr(scores, metric) for metric in ("volume", *METRICS)]
            shown = [f"{value:.6g}" if math.isfinite(value) else "" for value in values]
            writer.writerow([case.id, case.patient, name, number, state(scores), *shown])
    return text.getvalue()


def state(scores: ClassScores) -> str:
    """On which side the class is, in the words of the rule."""
    if scores.absent:
        return "absent"
    if scores.missed:
        return "missed"
    return "false alarm" if scores.false_alarm else "both"
