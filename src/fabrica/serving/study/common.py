"""What every kind of study is asked: agreement, time, learning, repeats, catch trials."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

import numpy as np

from fabrica.image import Float64
from fabrica.metrics.readers import agreement, means
from fabrica.metrics.readers.estimate import Estimate
from fabrica.serving.study.findings import (
    Finding,
    Findings,
    Plot,
    Series,
    Table,
    bins,
    interval,
    number,
    tried,
    untested,
)
from fabrica.serving.study.folder import image_of
from fabrica.serving.study.forms import positive
from fabrica.serving.study.readings import READING, REPEAT, Reading, Readings, catches, chosen, right_answer

AGREEMENT, TIME = "Agreement between readers", "Time"
FIFTHS = 5
WHY_TIME = "Geometric mean of the seconds for which the page was looked at, readers and cases both a sample."
WHY_RATIO = "How many times as long, readers and cases both a sample."


def analyse(readings: Readings, found: Findings) -> None:
    """Into `found`."""
    _agreement(readings, found)
    _repeats(readings, found)
    _time(readings, found)
    _learning(readings, found)
    _catches(readings, found)


def code(reading: Reading, readings: Readings) -> float:
    """An answer as a number: a score, 1 for what is looked for, or the number of the preferred arm."""
    config, answer = readings.study.config, reading.row.answer
    if config.kind == "clarity":
        return float(answer["score"])
    if config.kind == "preference":
        best = chosen(reading)
        return float(config.names.index(best) + 1) if best else 0.0
    return float(positive(config, answer))


def images_of(readings: Readings) -> tuple[list[tuple[str, tuple[str, ...]]], Float64]:
    """(case, arms shown) of every showing, and the readers' answers (R, showings). Orders from left to right are no
    difference."""
    preference = readings.study.config.kind == "preference"
    showings: dict[tuple[str, tuple[str, ...]], dict[str, float]] = defaultdict(dict)
    for r in readings.part(READING):
        key = r.trial.case, () if preference else r.trial.arms
        showings[key][r.reader] = code(r, readings)
    table = [[showings[key].get(name, np.nan) for key in showings] for name in readings.readers]
    return list(showings), np.asarray(table, dtype=np.float64).reshape(len(readings.readers), len(showings))


def _agreement(readings: Readings, found: Findings) -> None:
    if len(readings.readers) < 2:
        return
    clarity = readings.study.config.kind == "clarity"
    _, table = images_of(readings)
    figures = [
        ("fleiss_kappa", "Fleiss's κ", agreement.fleiss_kappa, {}, "Of all readers, categories without an order."),
        (
            "krippendorff_alpha",
            f"Krippendorff's α, {'ordinal' if clarity else 'nominal'}",
            agreement.krippendorff_alpha,
            {"scale": "ordinal" if clarity else "nominal"},
            "Of all readers, whatever is missing.",
        ),
    ]
    if clarity:
        for form in ("ICC(2,1)", "ICC(2,k)"):
            words = f"{form}: {agreement.FORMS[form]}."
            figures.append((form.lower(), form, agreement.icc, {"form": form}, words))
    for key, name, statistic, choices, why in figures:
        estimate = tried(statistic, table, **choices)
        found.rows.append(Finding(key, AGREEMENT, name, "all images", estimate, why))
    weights = "quadratic" if clarity else "none"
    rows = []
    for i, j in combinations(range(len(table)), 2):
        of = tried(agreement.cohen_kappa, table[i], table[j], weights=weights)
        rows.append((readings.readers[i], readings.readers[j], number(of.value), interval(of) or of.note))
    title = f"Cohen's κ of two readers, {'quadratic weights' if clarity else 'unweighted'}"
    found.tables.append(Table(title, ("reader", "reader", "κ", "95 % interval"), tuple(rows)))


def _repeats(readings: Readings, found: Findings) -> None:
    repeats = readings.part(REPEAT)
    if not repeats:
        return
    first = {(r.reader, r.trial.case, r.trial.arms): code(r, readings) for r in readings.part(READING)}
    rows = []
    for name in readings.readers:
        own = [(r.trial.case, r.trial.arms, code(r, readings)) for r in repeats if r.reader == name]
        pairs = [(first[name, case, arms], again) for case, arms, again in own if (name, case, arms) in first]
        if not pairs:
            continue
        one, two = (np.array([values], dtype=np.float64) for values in zip(*pairs, strict=True))
        clarity = readings.study.config.kind == "clarity"
        (of,) = agreement.intra_reader(one, two, weights="quadratic" if clarity else "none")
        rows.append(
            (
                name,
                str(of.cases),
                number(of.equal, percent=True),
                f"{number(of.kappa.value)} {interval(of.kappa)}".strip(),
                f"{number(of.icc.value)} {interval(of.icc)}".strip() if clarity else "–",
            )
        )
    head = ("reader", "images seen twice", "same answer", "κ", "ICC(2,1)")
    note = "Each reader's agreement with himself; few repeats make wide intervals."
    found.tables.append(Table("Repeated images", head, tuple(rows), note))


def _time(readings: Readings, found: Findings) -> None:
    config = readings.study.config
    if config.kind == "preference":
        logs = {"all": readings.table(_log)}
    elif config.crossed:
        logs = {arm: readings.table(_log, arm) for arm in config.names}
    else:
        logs = {
            arm: readings.table(_log, cases=[c for c in readings.cases if image_of(config, c, "")[0] == arm])
            for arm in config.names
        }
    for arm, table in logs.items():
        found.add("seconds", TIME, "Seconds a case", arm, untested(_exp(tried(means.mean, table))), WHY_TIME)
    if config.crossed and config.kind != "preference":
        for one, two in config.comparisons:
            ratio = _exp(tried(means.mean_difference, logs[one], logs[two]))
            found.add("seconds_ratio", TIME, "Ratio of the seconds", f"{one} over {two}", ratio, WHY_RATIO)


def _log(reading: Reading) -> float:
    return float(np.log(reading.row.seconds)) if reading.row.seconds > 0 else float("nan")


def _exp(of: Estimate) -> Estimate:
    value, low, high = (float(np.exp(v)) for v in (of.value, of.low, of.high))
    return Estimate(value, low, high, df=of.df, p=of.p, method=of.method + ", of the logarithm", note=of.note)


def _learning(readings: Readings, found: Findings) -> None:
    """Scores or right answers, and time, along each reader's own order: all readers' fifths together."""
    config = readings.study.config
    trials = readings.part(READING)
    if len(trials) < 2 * FIFTHS:
        return
    fifths: dict[int, int] = {}
    for name in readings.readers:
        own = [r for r in trials if r.reader == name]
        for reading, fifth in zip(own, bins([r.trial.place for r in own], FIFTHS), strict=True):
            fifths[id(reading)] = int(fifth)
    steps = tuple(float(k + 1) for k in range(FIFTHS))
    if config.kind == "clarity":
        of = {arm: [[code(r, readings) for r in trials if fifths[id(r)] == k and r.arm == arm] for k in range(FIFTHS)]
              for arm in config.names}  # fmt: skip
        what = "mean score"
    elif config.kind == "preference":
        of, what = {}, ""
    else:
        shares = [
            [float(bool(right_answer(readings.study, r))) for r in trials if fifths[id(r)] == k] for k in range(FIFTHS)
        ]
        of, what = {"all readers": shares}, "share of right answers"
    series = tuple(Series(name, steps, tuple(_mean(each) for each in lists)) for name, lists in of.items())
    if series:
        found.plots.append(
            Plot("learning", "Learning: answers along the order", "line", "fifth of the order", what, series)
        )
    times = []
    for name in readings.readers:
        seconds = [[r.row.seconds for r in trials if r.reader == name and fifths[id(r)] == k] for k in range(FIFTHS)]
        times.append(Series(name, steps, tuple(float(np.median(each)) if each else np.nan for each in seconds)))
    title = "Learning: time along the order"
    found.plots.append(Plot("times", title, "line", "fifth of the order", "median seconds a case", tuple(times)))


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _catches(readings: Readings, found: Findings) -> None:
    counts = catches(readings)
    if not counts:
        return
    rows = tuple((name, str(right), str(of)) for name, (right, of) in counts.items())
    found.tables.append(Table("Catch trials", ("reader", "right", "of"), rows, "Cases whose answer is obvious."))
    for name, (right, of) in counts.items():
        if right < of / 2:
            found.warnings.append(f"{name} answered {right} of {of} obvious cases rightly; look at those answers.")
