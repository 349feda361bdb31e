"""Yes or no, and how sure: real or synthetic images told apart, lesions found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.metrics.readers import detection, means, mrmc
from fabrica.metrics.readers.equivalence import equivalent, not_inferior, superior
from fabrica.metrics.readers.estimate import Estimate
from fabrica.metrics.readers.proportions import accuracy, mcnemar
from fabrica.metrics.readers.resampling import bootstrap_mean
from fabrica.serving.study.clarity import correct, verdict
from fabrica.serving.study.findings import (
    Claim,
    Finding,
    Findings,
    Forest,
    Plot,
    Series,
    Table,
    in_words,
    interval,
    number,
    p_is,
    p_value,
    tried,
    untested,
)
from fabrica.serving.study.forms import SAYS
from fabrica.serving.study.groups import Bool, Group, groups
from fabrica.serving.study.lesions import located
from fabrica.serving.study.readings import Readings

DIFFERENCES = "Differences"
WHY = {
    "accuracy": "Share of right answers, readers and cases both a sample.",
    "bootstrap": "The same by a bootstrap over readers and cases, which is too wide: it counts the variance of single "
    "readings three times (Owen 2007).",
    "sensitivity": "Share of those that have it, for which it was said.",
    "specificity": "Share of those that have it not, for which that was said.",
    "d_prime": "How far apart readers hold both kinds, in standard deviations (Obuchowski and Rockette; Hautus's "
    "correction).",
    "criterion": "Above 0: readers rarely say that it is there.",
    "auc": "Area under the ROC curve of the confidence, readers and cases both a sample (U-statistic, Gallas 2006; "
    "logit interval).",
    "students": "The same difference with Student's interval: of high AUCs that differ its ends err up to twice as "
    "often as they should.",
    "located": "Share of the lesions' cases in which one was seen and marked inside it.",
}


def analyse(readings: Readings, found: Findings) -> None:
    """Shares, d', AUC and their differences into `found`."""
    config = readings.study.config
    every = groups(readings)
    for group in every:
        _one(readings, group, found)
    if config.kind == "detection":
        _compare(readings, {group.name: group for group in every}, found)
    else:
        _guessing(readings, every, found)


def _one(readings: Readings, group: Group, found: Findings) -> None:
    detects = readings.study.config.kind == "detection"
    of, heading = group.name, ("Detection" if detects else "Told apart") + f": {group.name}"
    null = 0.0 if detects or not group.even else 0.5
    ill = group.truth
    plain = tried(means.mean, group.right, scale="logit", null=null)
    found.add("accuracy", heading, "Accuracy", of, plain, WHY["accuracy"], percent=True)
    wide = tried(bootstrap_mean, group.right)
    found.add("accuracy_bootstrap", heading, "Accuracy, bootstrap", of, wide, WHY["bootstrap"], percent=True)
    for key, there, words in (("sensitivity", ill, "Sensitivity"), ("specificity", ~ill, "Specificity")):
        share = tried(means.mean, group.right[:, there], scale="logit")
        found.add(key, heading, words, of, share, WHY[key], percent=True)
    found.add("d_prime", heading, "d′", of, untested(tried(_d_prime, group.says, ill)), WHY["d_prime"])
    found.add("criterion", heading, "Criterion c", of, untested(tried(_criterion, group.says, ill)), WHY["criterion"])
    auc = found.add("auc", heading, "AUC", of, tried(_auc, group.rating, ill), WHY["auc"])
    if detects and (hits := located(readings, group.columns, group.truth)) is not None:
        hit = tried(means.mean, hits, scale="logit")
        found.add("located", heading, "Lesion seen and located", of, hit, WHY["located"], percent=True)
    _readers(readings, group, found, auc, plain, null or None)
    _confusion(readings, group, found)


def _readers(
    readings: Readings, group: Group, found: Findings, auc: Estimate, plain: Estimate, null: float | None
) -> None:
    """Each reader: shares with Wilson's intervals, the four counts, AUC, and the curves."""
    names, ill = readings.readers, group.truth
    each = [accuracy(row, ill.astype(np.float64)) for row in group.says]
    aucs = mrmc.reader_aucs(group.rating, ill)
    place = len(found.forests)
    shares = tuple((n, a.accuracy) for n, a in zip(names, each, strict=True))
    title = f"Accuracy of each reader, {group.name}"
    found.forests.append(Forest(f"forest-{place}", title, "share of right answers", shares, plain, null))
    areas = tuple(zip(names, aucs, strict=True))
    found.forests.append(Forest(f"forest-{place + 1}", f"AUC of each reader, {group.name}", "AUC", areas, auc, 0.5))
    rows = tuple(
        (
            name,
            *(
                f"{number(s.value, True)} {interval(s, True)}".strip()
                for s in (a.accuracy, a.sensitivity, a.specificity)
            ),
            f"{number(b.value)} {interval(b)}".strip(),
            *map(str, (a.hits, a.misses, a.false_alarms, a.correct_rejections)),
        )
        for name, a, b in zip(names, each, aucs, strict=True)
    )
    head = ("reader", "accuracy", "sensitivity", "specificity", "AUC", "hits", "misses", "false alarms", "rejections")
    note = "Shares with Wilson's intervals, AUC with DeLong's on the logit scale: over cases, for each reader alone."
    found.tables.append(Table(f"Each reader: {group.name}", head, rows, note))
    kept = [i for i, row in enumerate(group.rating) if all(np.isfinite(row[g]).any() for g in (ill, ~ill))]
    curves = detection.roc(group.rating[kept], ill) if kept else []
    series = tuple(
        Series(names[i], tuple(c.false_positive), tuple(c.true_positive)) for i, c in zip(kept, curves, strict=True)
    )
    title = f"ROC curve of each reader, {group.name}"
    found.plots.append(
        Plot(f"roc-{len(found.plots)}", title, "roc", "false positive rate", "true positive rate", series)
    )


def _confusion(readings: Readings, group: Group, found: Findings) -> None:
    """All readers' answers by the truth, and how sure they were."""
    config = readings.study.config
    kinds = [(name, group.truth == there) for name, there in zip(SAYS[config.kind], (False, True), strict=True)]
    steps = [*range(-len(config.confidence), 0), *range(1, len(config.confidence) + 1)]
    counts = {name: [int((group.rating[:, there] == k).sum()) for k in steps] for name, there in kinds}
    half = len(config.confidence)
    rows = tuple((name, str(sum(each[:half])), str(sum(each[half:]))) for name, each in counts.items())
    head = ("truth", *(f"said {name}" for name in SAYS[config.kind]))
    found.tables.append(Table(f"Confusion, all readers: {group.name}", head, rows))
    bars = tuple(
        Series(name, tuple(map(float, steps)), tuple(n / max(sum(each), 1) for n in each))
        for name, each in counts.items()
    )
    words = tuple(f"{k:+d}" for k in steps)
    no, yes = SAYS[config.kind]
    axis = f"surely {no} ({-len(config.confidence)}) to surely {yes} ({len(config.confidence)})"
    title = f"Answers by the truth, and how sure, {group.name}"
    found.plots.append(Plot(f"sure-{len(found.plots)}", title, "bars", axis, "share", bars, words))


def _compare(readings: Readings, of: dict[str, Group], found: Findings) -> None:
    config = readings.study.config
    family: list[Finding] = []
    mc: list[tuple[str, ...]] = []
    for one, two in config.comparisons:
        a, b, pair = of[one], of[two], f"{one} less {two}"
        gap = tried(_auc_gap, a.rating, b.rating, a.truth)
        family.append(
            Finding("auc_difference", DIFFERENCES, "AUC", pair, gap, "Difference of the AUCs: the primary figure.")
        )
        found.rows.append(family[-1])
        plain = tried(_students_gap, a.rating, b.rating, a.truth)
        found.add("auc_difference_students", DIFFERENCES, "AUC, as iMRMC gives it", pair, plain, WHY["students"])
        for key, there in (("accuracy", np.ones_like(a.truth)), ("sensitivity", a.truth), ("specificity", ~a.truth)):
            share = tried(means.mean_difference, a.right[:, there], b.right[:, there])
            found.add(f"{key}_difference", DIFFERENCES, key.capitalize(), pair, share, WHY[key], percent=True)
        hits = located(readings, a.columns, a.truth), located(readings, b.columns, b.truth)
        if hits[0] is not None and hits[1] is not None:
            share = tried(means.mean_difference, *hits)
            found.add("located_difference", DIFFERENCES, "Lesion located", pair, share, WHY["located"], percent=True)
        mc += [_mcnemar(pair, name, x, y) for name, x, y in zip(readings.readers, a.right, b.right, strict=True)]
        rows = [
            (name, tried(_auc_gap, x[None], y[None], a.truth))
            for name, x, y in zip(readings.readers, a.rating, b.rating, strict=True)
        ]
        title = f"Difference of the AUCs, {pair}"
        found.forests.append(
            Forest(f"forest-{len(found.forests)}", title, "difference of the AUCs", tuple(rows), gap, 0.0)
        )
        if np.isfinite(gap.error) and gap.error > 0:
            found.claims.append(Claim(f"{one} better than {two}", superior(gap)))
            if config.margin:
                found.claims += [
                    Claim(f"{one} as good as {two}", equivalent(gap, -config.margin, config.margin)),
                    Claim(f"{one} not worse than {two}", not_inferior(gap, config.margin)),
                ]
    correct(found, family)
    head = ("pair", "reader", "only the first right", "only the second right", "p, exact", "p, mid")
    note = "McNemar's test of each reader alone; not corrected for the number of readers."
    if mc:
        found.tables.append(Table("The same cases in both arms", head, tuple(mc), note))
        found.verdict = verdict(family[0].of, family[0].estimate, "The AUC")


def _guessing(readings: Readings, every: list[Group], found: Findings) -> None:
    """Whether readers tell synthetic images at all."""
    family: list[Finding] = []
    for group in every:
        plain = _above(group)
        gap = replace(plain, value=plain.value - 0.5, low=plain.low - 0.5, high=plain.high - 0.5)
        what, why = "Accuracy less 50 %", "Accuracy less that of guessing, readers and cases both a sample"
        if not group.even:
            what = "Mean of sensitivity and specificity less 50 %"
            why = "Less that of guessing, readers and cases both a sample; real and synthetic images count equally"
        why += ": the primary figure."
        row = Finding("above_guessing", "Above guessing", what, group.name, gap, why, percent=True)
        if group.name != "all synthetic":
            family.append(row)
        found.rows.append(row)
        margin = readings.study.config.margin
        if np.isfinite(gap.error) and gap.error > 0:
            found.claims.append(Claim(f"{group.name} told from real images", superior(gap)))
            if margin:
                found.claims.append(Claim(f"{group.name} not told from real images", equivalent(gap, -margin, margin)))
    correct(found, family)
    if family:
        first, right = family[0].estimate, _above(every[0], scale="logit")
        found.verdict = f"Readers told {every[0].name} images from real ones in {in_words(right, True)} of cases"
        found.verdict += "" if every[0].even else ", both kinds counting equally"
        if not np.isfinite(first.p):
            found.verdict += f"; {first.note or 'nothing could be tested'}."
        elif first.p < 0.05:
            found.verdict += f": {'better' if first.value > 0 else 'worse'} than guessing (p {p_is(first.p)})."
        else:
            found.verdict += (
                f": not shown to differ from guessing (p {p_is(first.p)}), which is no proof that it does not."
            )


def _above(group: Group, scale: str = "identity") -> Estimate:
    """The share that guessing makes one half, whatever a reader's leaning: accuracy of as many of both kinds, else the
    mean of sensitivity and specificity, which is the AUC of yes and no."""
    if group.even:
        return tried(means.mean, group.right, scale=scale, null=0.5)
    return tried(lambda: mrmc.auc(group.says, group.truth, scale=scale).t)


def _mcnemar(pair: str, reader: str, one: Float64, two: Float64) -> tuple[str, ...]:
    try:
        of = mcnemar(one, two)
    except UsageError as error:
        return pair, reader, "", "", str(error), ""
    return pair, reader, str(of.only_one), str(of.only_two), p_value(of.p), p_value(of.mid_p)


def _d_prime(says: Float64, truth: Bool) -> Estimate:
    return detection.sensitivity(says, truth).d_prime


def _criterion(says: Float64, truth: Bool) -> Estimate:
    return detection.sensitivity(says, truth).criterion


def _auc(scores: Float64, truth: Bool) -> Estimate:
    return mrmc.auc(scores, truth, scale="logit").t


def _students_gap(one: Float64, two: Float64, truth: Bool) -> Estimate:
    return mrmc.auc_difference(one, two, truth).t


def _auc_gap(one: Float64, two: Float64, truth: Bool) -> Estimate:
    return mrmc.auc_difference(one, two, truth, scale="logit").t
