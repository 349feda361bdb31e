"""Ordinal scores of arms compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.metrics.readers import cumulative_link, grading, means
from fabrica.metrics.readers.equivalence import equivalent, holm, not_inferior, superior
from fabrica.metrics.readers.estimate import Estimate
from fabrica.serving.study.findings import (
    Claim,
    Finding,
    Findings,
    Forest,
    Plot,
    Series,
    Table,
    in_words,
    p_is,
    tried,
    untested,
)
from fabrica.serving.study.readings import READING, Reading, Readings

SCORES, DIFFERENCES = "Scores", "Differences"
WHY = {
    "mean": "Mean over readers and cases, both a sample (Gallas, Pennello and Myers 2007).",
    "difference": "Difference of the mean scores, readers and cases both a sample: the primary figure.",
    "odds": "Cumulative-link mixed model (McCullagh 1980): how many times the odds of a higher score are the other's.",
    "vgc": "Visual grading characteristics (Båth and Månsson 2007): the chance of being scored above the other.",
    "shift": "Wilcoxon's signed ranks of the cases' mean scores, shift by Hodges and Lehmann; of these readers alone.",
}


def analyse(readings: Readings, found: Findings) -> None:
    """Scores, their differences, and what was claimed, into `found`."""
    config = readings.study.config
    tables = {arm: readings.table(score, arm) for arm in config.names}
    for arm, table in tables.items():
        found.add("mean_score", SCORES, "Mean score", arm, untested(tried(means.mean, table)), WHY["mean"])
    _distribution(readings, found)
    for one, two in config.comparisons[:1]:
        _both_scores(readings, found, one, two, tables[one], tables[two])
    gaps: list[Finding] = []
    for one, two in config.comparisons:
        pair = f"{one} less {two}"
        a, b = tables[one], tables[two]
        gap = tried(means.mean_difference, a, b)
        gaps.append(Finding("score_difference", DIFFERENCES, "Difference of mean scores", pair, gap, WHY["difference"]))
        found.rows.append(gaps[-1])
        found.add("odds_ratio", DIFFERENCES, "Odds ratio of a higher score", pair, tried(_odds, a, b), WHY["odds"])
        area = tried(_vgc, a, b)
        found.add("vgc_area", DIFFERENCES, "VGC area", pair, area, WHY["vgc"], percent=False)
        found.add("wilcoxon_shift", DIFFERENCES, "Shift, Wilcoxon", pair, tried(_ranked, a, b), WHY["shift"])
        _forest(readings, found, pair, a, b, gap)
        _vgc_plot(found, pair, one, two, a, b)
        if config.margin and np.isfinite(gap.error):
            found.claims += [
                Claim(f"{one} as good as {two}", equivalent(gap, -config.margin, config.margin)),
                Claim(f"{one} not worse than {two}", not_inferior(gap, config.margin)),
            ]
        if np.isfinite(gap.error):
            found.claims.append(Claim(f"{one} better than {two}", superior(gap)))
    correct(found, gaps)
    if gaps:
        found.verdict = verdict(gaps[0].of, gaps[0].estimate, "The mean score")


def score(reading: Reading) -> float:
    return float(reading.row.answer["score"])


def correct(found: Findings, family: list[Finding]) -> None:
    """Holm's correction of one figure over all comparisons, in place."""
    if len(family) < 2:
        return
    for row, p in zip(family, holm([each.estimate.p for each in family]), strict=True):
        found.rows[found.rows.index(row)] = replace(row, holm=p)


def verdict(pair: str, gap: Estimate, figure: str) -> str:
    """The answer to the primary question, in a sentence."""
    one, _, two = pair.partition(" less ")
    said = f"{figure} of {one} less that of {two} is {in_words(gap, signed=True)}"
    if not np.isfinite(gap.p):
        return f"{said}; {gap.note or 'nothing could be tested'}."
    shown = "a difference is shown" if gap.p < 0.05 else "no difference is shown, which is no proof that there is none"
    return f"{said}, p {p_is(gap.p)}: {shown}."


def _odds(one: Float64, two: Float64) -> Estimate:
    fitted = cumulative_link.compare(one, two).effect
    low, high = np.exp(fitted.low), np.exp(fitted.high)
    return replace(fitted, value=float(np.exp(fitted.value)), low=float(low), high=float(high), error=float("nan"))


def _vgc(one: Float64, two: Float64) -> Estimate:
    return grading.vgc(*_both(one, two)).area


def _ranked(one: Float64, two: Float64) -> Estimate:
    ranked = grading.wilcoxon(*_both(one, two))
    return replace(ranked.shift, p=ranked.p)


def _both(one: Float64, two: Float64) -> tuple[Float64, Float64]:
    """The readers who have two cases with both scores."""
    kept = (np.isfinite(one) & np.isfinite(two)).sum(1) >= 2
    if not kept.any():
        raise UsageError("no reader has scored two cases in both arms")
    return one[kept], two[kept]


def _distribution(readings: Readings, found: Findings) -> None:
    config = readings.study.config
    steps = range(1, len(config.scale) + 1)
    counts = {
        arm: [sum(r.arm == arm and r.row.answer["score"] == k for r in readings.part(READING)) for k in steps]
        for arm in config.names
    }
    head = ("arm", *(f"{k} {word}" for k, word in zip(steps, config.scale, strict=True)))
    rows = tuple((arm, *map(str, each)) for arm, each in counts.items())
    found.tables.append(Table("Scores given", head, rows))
    bars = tuple(
        Series(arm, tuple(map(float, steps)), tuple(n / max(sum(each), 1) for n in each))
        for arm, each in counts.items()
    )
    found.plots.append(Plot("scores", "Scores given to each arm", "bars", "", "share", bars, tuple(config.scale)))


def _both_scores(readings: Readings, found: Findings, one: str, two: str, a: Float64, b: Float64) -> None:
    """How often the same reader gave the same case this score in one arm and that in the other."""
    steps = range(1, len(readings.study.config.scale) + 1)
    rows = tuple((f"{one}: {i}", *(str(int(((a == i) & (b == j)).sum())) for j in steps)) for i in steps)
    title = f"The same reader and case: scores of {one} by scores of {two}"
    found.tables.append(Table(title, ("", *(f"{two}: {j}" for j in steps)), rows))


def _forest(readings: Readings, found: Findings, pair: str, a: Float64, b: Float64, whole: Estimate) -> None:
    rows = []
    for name, one, two in zip(readings.readers, a, b, strict=True):
        rows.append((name, tried(means.mean_difference, one[None], two[None])))
    key = f"forest-{len(found.forests)}"
    found.forests.append(
        Forest(key, f"Difference of mean scores, {pair}", "difference of mean scores", tuple(rows), whole, 0.0)
    )


def _vgc_plot(found: Findings, pair: str, one: str, two: str, a: Float64, b: Float64) -> None:
    try:
        curve = grading.vgc(*_both(a, b)).curve
    except UsageError:
        return
    series = (Series(pair, tuple(curve[:, 0]), tuple(curve[:, 1])),)
    title = f"VGC curve, {one} over {two}"
    found.plots.append(
        Plot(f"vgc-{len(found.plots)}", title, "roc", f"share of {two} at or above", f"share of {one}", series)
    )
