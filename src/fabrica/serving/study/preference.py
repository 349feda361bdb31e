"""Which of the arms, side by side, is preferred."""

from __future__ import annotations

from functools import partial

import numpy as np

from fabrica.metrics.readers import means
from fabrica.metrics.readers.equivalence import equivalent
from fabrica.metrics.readers.estimate import Estimate
from fabrica.metrics.readers.proportions import share
from fabrica.serving.study.clarity import correct
from fabrica.serving.study.findings import (
    Claim,
    Finding,
    Findings,
    Forest,
    Plot,
    Series,
    Table,
    in_words,
    number,
    p_is,
    tried,
)
from fabrica.serving.study.readings import READING, Reading, Readings, chosen

CHOICES, PAIRS = "Choices", "Pairs"
WHY = "Share of trials in which this arm is chosen, readers and cases both a sample; no difference is shared among all."
WHY_PAIR = "Of trials in which one of both is chosen, or none: the share of the first, no difference counting half."


def analyse(readings: Readings, found: Findings) -> None:
    """Shares, pairs and positions into `found`."""
    config = readings.study.config
    number_of = len(config.names)
    for arm in config.names:
        table = readings.table(partial(_share, arm=arm, of=number_of))
        estimate = tried(means.mean, table, null=1 / number_of)
        found.add("share_chosen", CHOICES, "Chosen", arm, estimate, WHY, percent=True)
    family: list[Finding] = []
    for one, two in config.comparisons:
        table = readings.table(partial(_pair, one=one, two=two))
        estimate = tried(means.mean, table, null=0.5)
        family.append(
            Finding("share_preferred", PAIRS, "Preferred", f"{one} over {two}", estimate, WHY_PAIR, percent=True)
        )
        found.rows.append(family[-1])
        rows = [(name, tried(_of_reader, row)) for name, row in zip(readings.readers, table, strict=True)]
        title = f"Share preferring {one} over {two}"
        found.forests.append(Forest(f"forest-{len(found.forests)}", title, "share", tuple(rows), estimate, 0.5))
        if config.margin and np.isfinite(estimate.error):
            gap = _less(estimate, 0.5)
            found.claims.append(
                Claim(f"{one} and {two} preferred alike", equivalent(gap, -config.margin, config.margin))
            )
    correct(found, family)
    _counts(readings, found)
    if family:
        first = family[0]
        share_of = in_words(first.estimate, percent=True)
        found.verdict = f"{first.of.replace(' over ', ' was preferred over ')} in {share_of} of trials"
        p = first.estimate.p
        found.verdict += (
            f", p {p_is(p)}" if np.isfinite(p) else f"; {first.estimate.note or 'nothing could be tested'}"
        ) + "."


def _less(of: Estimate, null: float) -> Estimate:
    return Estimate(of.value - null, of.low - null, of.high - null, of.error, of.df, of.p, of.method, of.note)


def _share(reading: Reading, arm: str, of: int) -> float:
    best = chosen(reading)
    return 1 / of if not best else float(best == arm)


def _pair(reading: Reading, one: str, two: str) -> float:
    best = chosen(reading)
    return {one: 1.0, two: 0.0, "": 0.5}.get(best, np.nan)


def _of_reader(row: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Estimate:
    """Wilson's interval; a tie is half a hit."""
    there = row[np.isfinite(row)]
    return share(float(there.sum()), len(there))


def _counts(readings: Readings, found: Findings) -> None:
    config = readings.study.config
    trials = readings.part(READING)
    names = [*config.names, ""]
    rows = [
        (name, *(str(sum(chosen(r) == arm for r in trials if r.reader == name)) for arm in names))
        for name in readings.readers
    ]
    rows.append(("all", *(str(sum(chosen(r) == arm for r in trials)) for arm in names)))
    found.tables.append(Table("Choices of each reader", ("reader", *config.names, "no difference"), tuple(rows)))
    places = range(1, len(config.names) + 1)
    decided = [r for r in trials if r.row.answer["choice"]]
    of_place = [sum(r.row.answer["choice"] == k for r in decided) for k in places]
    note = "Each arm stands at each place equally often; a place that is chosen too often is a habit of the readers."
    head = ("", *(f"{k}. from the left" for k in places))
    shares = tuple(number(n / max(len(decided), 1), percent=True) for n in of_place)
    found.tables.append(Table("Places that were chosen", head, (("share", *shares),), note))
    bars = tuple(
        Series(name, tuple(map(float, range(len(names)))), tuple(_fractions(trials, name, names)))
        for name in readings.readers
    )
    words = (*config.names, "no difference")
    found.plots.append(Plot("choices", "Choices of each reader", "bars", "", "share", bars, words))


def _fractions(trials: list[Reading], reader: str, names: list[str]) -> list[float]:
    own = [chosen(r) for r in trials if r.reader == reader]
    return [own.count(name) / max(len(own), 1) for name in names]
