"""Two models that segment, on the same cases: the paired difference of each class, and over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fabrica.errors import UsageError
from fabrica.evaluation.segmentation.accuracy import ALL, NAMES, by_patient_and_class
from fabrica.evaluation.segmentation.cases import ScoredCase
from fabrica.evaluation.subject import opened
from fabrica.metrics import paired as pairs
from fabrica.metrics.patients import known_mean
from fabrica.metrics.segmentation import BETTER
from fabrica.model.segmentation import SegmentationModel
from fabrica.report.charts import shown
from fabrica.report.scores import Comparison

COMPARED = ("dice", "surface_dice", "hd95")  # class by class


def rival(model: SegmentationModel, versus: SegmentationModel | Path | str) -> SegmentationModel:
    """The second model; UsageError where it does not answer the same question."""
    other = opened(versus)
    if not isinstance(other, SegmentationModel):
        raise UsageError(f"{getattr(other, 'folder', other)} is no model that segments; versus takes one")
    ours, theirs = model.found.plan, other.found.plan
    judged = sorted({number for own in ours.owned.values() for number in own})
    if lacking := [number for number in judged if number not in theirs.numbers]:
        raise UsageError(
            f"{other.name} knows no label {', '.join(map(str, lacking))}, which {model.name} gives; "
            "versus needs two models of the same task"
        )
    names = {number: name for number, name in zip(theirs.numbers, theirs.names, strict=True) if name}
    for number, name in zip(ours.numbers, ours.names, strict=True):
        if name and not (ours.regions or theirs.regions) and names.get(number, name) != name:
            raise UsageError(
                f"label {number} is {name} of {model.name} and {names[number]} of {other.name}; versus needs two "
                "models of the same task"
            )
    if strange := [name for name in other.data.auxiliary if name not in model.data.auxiliary]:
        raise UsageError(
            f"{other.name} sees {', '.join(strange)} beside the image and {model.name} does not; "
            f"judge {other.name}, versus {model.name}"
        )
    return other


def comparisons(
    one: Sequence[ScoredCase], two: Sequence[ScoredCase], names: Mapping[int, str], rival: str, seed: int
) -> list[Comparison]:
    """The paired difference to another model on the same cases over the patients: the mean over classes of each of
    BETTER, then class by class. Classes that no patient has are left out. rival: its name on the page."""
    found = []
    for metric, better in BETTER.items():
        tables = [by_patient_and_class(cases, list(names), metric) for cases in (one, two)]
        columns = [(ALL, metric, [known_mean(table, 1) for table in tables])]
        if len(names) > 1 and metric in COMPARED:
            columns += [
                (name, f"{metric}_{number}", [table[:, k] for table in tables])
                for k, (number, name) in enumerate(names.items())
            ]
        for group, key, values in columns:
            ours, theirs = values
            both = np.isfinite(ours) & np.isfinite(theirs)
            if not both.any():
                continue
            gap = pairs.difference(ours[both], theirs[both], seed)
            means = float(ours[both].mean()), float(theirs[both].mean())
            title = NAMES[metric][0] if len(names) == 1 else f"{NAMES[metric][0]}, {group[0].lower()}{group[1:]}"
            found.append(Comparison(key, title, *means, gap.mean, gap.low, gap.high, gap.p, better, rival=rival))
    return found


def said_of(item: Comparison) -> str:
    """In words: "0.02 higher (difference [0.01, 0.03], p = 0.004) than"."""
    p = "p < 0.001" if item.p < 0.001 else f"p = {shown(item.p)}"
    gap = f"{shown(abs(item.mean))} {'lower' if item.mean < 0 else 'higher'}"
    return f"{gap} (difference [{shown(item.low)}, {shown(item.high)}], {p}) than"
