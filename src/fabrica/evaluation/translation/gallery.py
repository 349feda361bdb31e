"""Translated images to look at, best, median and worst: source, truth, result, where it errs, and where it doubts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from fabrica.evaluation.translation import restoration_panels as restored
from fabrica.evaluation.translation.accuracy import Scored
from fabrica.evaluation.translation.cases import Cases
from fabrica.evaluation.translation.panels import Show, how, legends, side_name
from fabrica.evaluation.translation.restoration_panels import Restoring
from fabrica.image import Bools, Float32
from fabrica.metrics.patients import by_patient, interval
from fabrica.model.translation import TranslationModel
from fabrica.progress import Progress
from fabrica.report.charts import shown
from fabrica.report.pictures import Exhibit, Gallery
from fabrica.report.scores import ScoreRow

DOUBTED = 12  # images, beside those shown, on which the uncertainty is compared with the error
VOXELS = 100_000  # of each


def gallery(
    model: TranslationModel,
    cases: Cases,
    scored: Scored,
    direction: str,
    group: str,
    seed: int,
    tell: Progress,
    beside: Restoring | None = None,
) -> Gallery:
    """Pictures of at most six test images (three volumes) by error, or evenly spread where there are no pairs; the
    uncertainty is measured on these, and with pairs of slices on DOUBTED in all.

    beside   of restoration: the classics, which make many pictures of an image, so that three are shown.
    """
    volumes = len(next(cases.read([0])).body.shape) == 3
    titles, places = _chosen(scored, len(cases), 3 if volumes or beside else 6)
    doubted = places if volumes or not scored.of else _ranked(scored, len(cases), places)
    exhibits: dict[int, Exhibit] = {}
    agreement: list[tuple[str, float]] = []
    for done, (place, case) in enumerate(zip(doubted, cases.read(doubted), strict=True), start=1):
        given, truth = case.images[direction[0]], case.images.get(direction[-1])
        doubting = model.way(direction).target.kind != "label"
        applied = model.apply(given, auxiliary=case.auxiliary, direction=direction, uncertainty=doubting)
        if truth is not None and applied.uncertainty is not None:
            error = np.abs(applied.result.data - truth.data)
            agreement.append((case.patient, _spearman(applied.uncertainty.data, error, case.body)))
        if place in titles and beside:
            drawn = restored.pictures(case, applied.result, applied.uncertainty, beside)
            exhibits[place] = Exhibit(titles[place], case.id, restored.facts(scored, place, beside), drawn, ())
        elif place in titles:
            show = Show(model, direction, case, applied.result, applied.uncertainty)
            facts = _facts(scored, place, show.units)
            exhibits[place] = Exhibit(titles[place], case.id, facts, show.top(), show.below())
        tell("uncertainty", done, len(doubted))
    title = f"{side_name(model, direction[0])} → {side_name(model, direction[-1])}"
    target = model.way(direction).target
    row = _row(agreement, group, "" if direction == "a2b" else f"{direction}_", seed)
    return Gallery(
        title,
        restored.how(target, volumes) if beside else how(model, direction, volumes),
        [exhibits[place] for place in titles],
        restored.legends(target) if beside else legends(model, direction, bool(scored.of)),
        row,
        len(agreement),
        len(beside.shown) + 3 if beside else 4,
    )


def _chosen(scored: Scored, count: int, most: int) -> tuple[dict[int, str], list[int]]:
    """Which test images are shown and why, in the order of the page; and their places in order."""
    if not scored.of:
        spread = sorted({int(k) for k in np.linspace(0, count - 1, min(most, count)).round()})
        return {k: f"Test image {k + 1} of {count}" for k in spread}, spread
    order = np.argsort(scored.of["result"]["mae"], kind="stable")
    half = count // 2
    ranks = [0, half, count - 1] if most < 6 or count < 6 else [0, 1, half - 1, half, count - 2, count - 1]
    names = ["Smallest error", "Median error", "Largest error"]
    titles: dict[int, str] = {}
    for k, rank in enumerate(ranks):
        name = names[k * 3 // len(ranks)]
        titles.setdefault(int(order[rank]), f"{name}: number {rank + 1} of {count}")
    return titles, sorted(titles)


def _ranked(scored: Scored, count: int, places: Sequence[int]) -> list[int]:
    """The places shown, and DOUBTED evenly spread by error, best and worst among both: 16 in all."""
    order = np.argsort(scored.of["result"]["mae"], kind="stable")
    spread = np.linspace(0, count - 1, min(DOUBTED, count)).round()
    return sorted({*places, *(int(order[int(rank)]) for rank in spread)})


def _spearman(doubt: Float32, error: Float32, body: Bools) -> float:
    """Rank correlation of the two maps (C, *S) inside the body; NaN where one of them is flat."""
    x, y = doubt[:, body].ravel(), error[:, body].ravel()
    step = 1 + len(x) // VOXELS
    x, y = x[::step], y[::step]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def _row(agreement: Sequence[tuple[str, float]], group: str, prefix: str, seed: int) -> ScoreRow | None:
    if not agreement:
        return None
    patients, values = [patient for patient, _ in agreement], np.array([value for _, value in agreement])
    at = interval(by_patient(values, patients), seed)
    low, high = (at.low, at.high) if np.isfinite(at.mean) else (None, None)
    explanation = (
        "Does the map know where it is wrong? Spearman's rank correlation of uncertainty and absolute error inside the "
        f"body, over {len(values)} images: 1 if the larger error always has the larger doubt, 0 if they have nothing "
        "in common."
    )
    return ScoreRow(
        f"{prefix}uncertainty_spearman",
        "Uncertainty against error",
        at.mean,
        low,
        high,
        "higher",
        explanation,
        group=group,
    )


def _facts(scored: Scored, place: int, units: tuple[str, str]) -> list[tuple[str, str]]:
    """What stands beside the pictures; units of source and target, e.g. " HU"."""
    found = []
    for metric, unit in (("mae", units[1]), ("psnr", " dB"), ("ssim", "")):
        if scored.of and np.isfinite(value := float(scored.of["result"][metric][place])):
            found.append((metric.upper(), f"{shown(value)}{unit}"))
    if "mean" in scored.of:
        found.append(("MAE of the mean image", f"{shown(float(scored.of['mean']['mae'][place]))}{units[1]}"))
    if scored.round_trip is not None:
        found.append(("round trip", f"{shown(float(scored.round_trip[place]))}{units[0]}"))
    return found
