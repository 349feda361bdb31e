"""python -m benchmarks.readers [--studies N] [--only FAMILY] [--quick]: do the intervals of reader studies cover the
truth, and do their tests keep their level?

N simulated studies (2,000) of 5 readers and 60 cases, whose truth is known from the readers' parameters: for scores by
Roe and Metz's model, answers by signal detection theory with a criterion that drifts, grades of a latent quality that
drifts too. Coverage is the share of 95 % intervals that hold the truth; 92.5 to 97.5 % is the aim. A study without an
interval (all answers alike) does not count, and is counted. What is true of the readers of the study alone (agreement
of readers, one reader's figures) is judged by these readers' own truth; the rest by that of all readers.

Error rates are shares of studies that show a claim which is just false: a difference of 0, or one at the margin.
Results go to real/readers.json; --only does one family of them, and keeps the others.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, stats

from fabrica.image import Float64
from fabrica.metrics.readers import (
    agreement,
    cumulative_link,
    detection,
    grading,
    means,
    mrmc,
    power,
    proportions,
    resampling,
)
from fabrica.metrics.readers.estimate import Estimate, t_interval
from fabrica.metrics.readers.simulation import Detecting, Grading, RoeMetz
from fabrica.metrics.readers.ustatistics import Spread, spread

KEPT = Path(__file__).parent / "real" / "readers.json"
READERS, NORMALS, DISEASED = 5, 30, 30
CASES = NORMALS + DISEASED
AIM = (0.925, 0.975)
PART = 250  # studies at once
SCORES = {
    "much by cases": RoeMetz(),
    "much by readings": RoeMetz(reader=0.0055, reader_modality=0.0055, case=0.1, case_modality=0.1, residual=0.6),
    "high AUC": RoeMetz(one=2.5, two=2.5),
}
ANSWERS = Detecting(d_prime=1.5, criterion=0.1, drift=0.3)
HARD = Detecting(d_prime=0.3, criterion=0.1, drift=0.3)
GRADES = Grading(shifts=(0.0, 0.5), bias=0.3, reader_shift=0.15, drift=0.3)
MARGIN = 0.05
GRADE_MARGIN = 0.3
Row = dict[str, Any]
Interval = tuple[float, float, float]  # low, high, truth


def parts(studies: int) -> Iterator[int]:
    for start in range(0, studies, PART):
        yield min(PART, studies - start)


def covered(intervals: list[Interval], target: str, note: str = "") -> Row:
    low, high, truth = (np.asarray(column) for column in zip(*intervals, strict=True))
    there = np.isfinite(low) & np.isfinite(high)
    share = float(((low <= truth) & (truth <= high))[there].mean())
    row = {
        "coverage": round(share, 4),
        "within": bool(AIM[0] <= share <= AIM[1]),
        "too low": round(float((truth > high)[there].mean()), 4),
        "too high": round(float((truth < low)[there].mean()), 4),
        "width": round(float((high - low)[there].mean()), 4),
        "without interval": int((~there).sum()),
        "studies": len(low),
        "of": target,
    }
    return row | ({"note": note} if note else {})


def rate(shown: Float64, level: float, note: str = "") -> Row:
    share = float(np.mean(shown))
    most = level + 1.96 * np.sqrt(level * (1 - level) / len(shown))
    row = {"error rate": round(share, 4), "level": level, "within": bool(share <= most), "studies": len(shown)}
    return row | ({"note": note} if note else {})


def ends(estimate: Estimate, truth: float) -> Interval:
    return estimate.low, estimate.high, truth


def of_spread(found: Spread, truth: float | Float64, scale: str = "identity") -> list[Interval]:
    low, high, _ = t_interval(found.value, found.usable, found.df, scale=scale)
    flat = np.broadcast_to(truth, low.shape)
    usable = found.usable > 0
    return [(a if u else np.nan, b if u else np.nan, t) for a, b, t, u in zip(low, high, flat, usable, strict=True)]


ALL_READERS, THESE = "all readers and cases", "these readers, all cases"


def areas(studies: int) -> Iterator[tuple[str, Row]]:
    for called, model in SCORES.items():
        rng = np.random.default_rng(1)
        plain: list[Interval] = []
        logit: list[Interval] = []
        gaps: list[Interval] = []
        logit_gaps: list[Interval] = []
        for number in parts(studies):
            scores, truth = model.scores(READERS, NORMALS, DISEASED, rng, number)
            success, there = mrmc.successes(scores[:, 0], truth)
            found = spread(mrmc.of_successes(success, there))
            plain += of_spread(found, model.aucs[0])
            logit += of_spread(found, model.aucs[0], "logit")
            gap = mrmc.differences(scores[:, 0], scores[:, 1], truth)
            gaps += of_spread(gap.gap, 0.0)
            logit_gaps += [(low, high, 0.0) for low, high in zip(*gap.limits(0.95), strict=True)]
        yield f"AUC, U-statistic ({called})", covered(plain, ALL_READERS)
        yield f"AUC, U-statistic, logit ({called})", covered(logit, ALL_READERS)
        yield f"AUC difference, U-statistic ({called})", covered(gaps, ALL_READERS)
        yield f"AUC difference, U-statistic, logit ({called})", covered(logit_gaps, ALL_READERS)
    rng = np.random.default_rng(2)
    model = RoeMetz(reader=0.0, reader_modality=0.0)
    one: list[Interval] = []
    for number in parts(studies):
        scores, truth = model.scores(1, NORMALS, DISEASED, rng, number)
        one += [ends(mrmc.reader_aucs(each[0], truth)[0], model.aucs[0]) for each in scores]
    yield "AUC of one reader, logit", covered(one, THESE)


def claims(studies: int) -> Iterator[tuple[str, Row]]:
    base, high = SCORES["much by cases"], SCORES["high AUC"]
    worse, better = (shifted(base, sign * MARGIN) for sign in (-1, 1))
    not_worse = power.Stated("non-inferiority", MARGIN)
    cases = [
        ("AUC difference, no difference", base, power.Stated(), 0.05),
        ("AUC superiority, no difference", base, power.Stated("superiority"), 0.025),
        ("AUC superiority by a margin, at the margin", better, power.Stated("superiority", MARGIN), 0.025),
        ("AUC non-inferiority, at the margin", worse, not_worse, 0.025),
        ("AUC non-inferiority, at the margin (high AUC)", shifted(high, -MARGIN), not_worse, 0.025),
        ("AUC superiority, no difference (high AUC)", high, power.Stated("superiority"), 0.025),
        ("AUC equivalence (TOST), at the margin", worse, power.Stated("equivalence", MARGIN), 0.05),
        # of so few readers equivalence within 0.05 is never shown: a large margin, so that the test is at work
        (
            "AUC equivalence (TOST), at a margin of 0.25",
            shifted(base, -0.25),
            power.Stated("equivalence", 0.25),
            0.05,
        ),
    ]
    for called, model, stated, level in cases:
        shown = power.of_auc(model, READERS, NORMALS, DISEASED, stated, studies=studies, seed=3)
        yield called, rate(np.repeat([1.0, 0.0], _split(shown.share.value, studies)), level)
    for called, model in (("", worse), (" (high AUC)", shifted(high, -MARGIN))):
        yield f"AUC non-inferiority by Student's interval, at the margin{called}", rate(students(model, studies), 0.025)
    yield from graded_claims(studies)


def shifted(base: RoeMetz, gap: float) -> RoeMetz:
    """With an AUC of modality one that is that of two and so much."""
    area = base.aucs[1] + gap
    return replace(base, one=float(optimize.brentq(lambda mu: replace(base, one=mu).aucs[0] - area, 0.0, 6.0)))


def students(model: RoeMetz, studies: int) -> Float64:
    """1 where the difference less its own Student's t times its error is above the margin: as iMRMC's interval is."""
    rng = np.random.default_rng(3)
    found = []
    for number in parts(studies):
        scores, truth = model.scores(READERS, NORMALS, DISEASED, rng, number)
        gap = mrmc.differences(scores[:, 0], scores[:, 1], truth).gap
        low, _, _ = t_interval(gap.value, gap.usable, gap.df)
        found.append(low > -MARGIN)
    return np.concatenate(found).astype(np.float64)


def graded_claims(studies: int) -> Iterator[tuple[str, Row]]:
    levels = np.linspace(0, 1, 201)
    width = np.sqrt(GRADES.bias**2 + GRADES.reader_shift**2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    numbers = np.arange(1, 6)
    truth = [float((GRADES.shares(level + width * nodes) @ numbers) @ (weights / weights.sum())) for level in levels]
    shift = float(np.interp(truth[0] + GRADE_MARGIN, truth, levels))
    null, edge = (Grading((0.0, s), GRADES.bias, GRADES.reader_shift, drift=GRADES.drift) for s in (0.0, shift))
    for called, model, stated, level in [
        ("grade difference, no difference", null, power.Stated(), 0.05),
        ("grade superiority, no difference", null, power.Stated("superiority"), 0.025),
        ("grade superiority by a margin, at the margin", edge, power.Stated("superiority", GRADE_MARGIN), 0.025),
        ("grade equivalence (TOST), at the margin", edge, power.Stated("equivalence", GRADE_MARGIN), 0.05),
    ]:
        shown = power.of_grades(model, READERS, CASES, stated, studies=studies, seed=5)
        yield called, rate(np.repeat([1.0, 0.0], _split(shown.share.value, studies)), level)


def _split(share: float, studies: int) -> list[int]:
    hits = round(share * studies)
    return [hits, studies - hits]


def answers(studies: int) -> Iterator[tuple[str, Row]]:
    rng = np.random.default_rng(6)
    found: dict[str, list[Interval]] = {}
    for called, model in (("", ANSWERS), (" (hardly better than chance)", HARD)):
        hit, rejection = model.rates
        for number in parts(studies):
            said, truth = model.answers(READERS, NORMALS, DISEASED, rng, number)
            right = (said == truth).astype(np.float64)
            for name, table, true in (
                ("accuracy", right, (hit + rejection) / 2),
                ("sensitivity", said[..., truth], hit),
                ("specificity", 1 - said[..., ~truth], rejection),
            ):
                of = spread(means.table_moments(table, np.ones(table.shape)), bounded=True)
                found.setdefault(f"{name}, readers and cases{called}", []).extend(of_spread(of, true))
                found.setdefault(f"{name}, readers and cases, logit{called}", []).extend(of_spread(of, true, "logit"))
            d, c, d_without, c_without = detection.of_answers(said, truth)
            for name, value, without, true in (
                ("d'", d, d_without, model.d_prime),
                ("criterion", c, c_without, model.criterion),
            ):
                of = resampling.obuchowski_rockette(value, without)
                found.setdefault(f"{name}, Obuchowski-Rockette{called}", []).extend(of_spread(of, true))
            for each in right:
                drawn = resampling.bootstrap_mean(each, resamples=500)
                found.setdefault(f"accuracy, bootstrap over readers and cases{called}", []).append(
                    ends(drawn, (hit + rejection) / 2)
                )
    for name, intervals in found.items():
        yield name, covered(intervals, ALL_READERS)


def one_reader(studies: int) -> Iterator[tuple[str, Row]]:
    rng = np.random.default_rng(7)
    model = Detecting(d_prime=1.5, criterion=0.1, reader_d=0.0, reader_c=0.0)
    hit, rejection = model.rates
    found: dict[str, list[Interval]] = {}
    for number in parts(studies):
        said, truth = model.answers(1, NORMALS, DISEASED, rng, number)
        for each in said:
            of = proportions.accuracy(each[0], truth)
            found.setdefault("accuracy of one reader, Wilson", []).append(ends(of.accuracy, (hit + rejection) / 2))
            found.setdefault("sensitivity of one reader, Wilson", []).append(ends(of.sensitivity, hit))
            found.setdefault("specificity of one reader, Wilson", []).append(ends(of.specificity, rejection))
            (figures,) = detection.reader_sensitivity(each, truth)
            found.setdefault("d' of one reader", []).append(ends(figures.d_prime, model.d_prime))
            found.setdefault("criterion of one reader", []).append(ends(figures.criterion, model.criterion))
    for name, intervals in found.items():
        yield name, covered(intervals, THESE)
    # a case's answers under two conditions: alike in 6 of 10, and else as likely right in either
    exact, mid, gaps = [], [], []
    for _ in range(studies):
        kind = rng.choice(4, CASES, p=[0.5, 0.1, 0.2, 0.2])
        one, two = np.isin(kind, (0, 2)).astype(float), np.isin(kind, (0, 3)).astype(float)
        of_pair = proportions.mcnemar(one, two)
        exact.append(of_pair.p <= 0.05)
        mid.append(of_pair.mid_p <= 0.05)
        kind = rng.choice(4, CASES, p=[0.5, 0.15, 0.25, 0.1])
        one, two = np.isin(kind, (0, 2)).astype(float), np.isin(kind, (0, 3)).astype(float)
        gaps.append(ends(proportions.mcnemar(one, two).difference, 0.15))
    yield "McNemar, exact", rate(np.asarray(exact, float), 0.05)
    yield "McNemar, mid-p", rate(np.asarray(mid, float), 0.05)
    yield "difference of paired shares, Bonett-Price", covered(gaps, THESE)


def grades(studies: int) -> Iterator[tuple[str, Row]]:
    rng = np.random.default_rng(8)
    width = np.sqrt(GRADES.bias**2 + GRADES.reader_shift**2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    weights = weights / weights.sum()
    numbers = np.arange(1, 6)
    true = [float((GRADES.shares(s + width * nodes) @ numbers) @ weights) for s in GRADES.shifts]
    many = np.asarray(GRADES.shifts)[:, None] + rng.normal(0, GRADES.bias, 40_000)
    many = many + rng.normal(0, GRADES.reader_shift, many.shape)
    old, new = GRADES.shares(many)
    area = float((new * (np.cumsum(old, -1) - old / 2)).sum(-1).mean())
    found: dict[str, list[Interval]] = {}
    for number in parts(studies):
        given, _ = GRADES.grades(READERS, CASES, rng, number)
        there = np.ones(given[:, 0].shape)
        of = spread(means.table_moments(given[:, 1], there), bounded=True)
        found.setdefault("mean grade", []).extend(of_spread(of, true[1]))
        of = means.difference_spread(given[:, 1], there, given[:, 0], there)
        found.setdefault("difference of mean grades", []).extend(of_spread(of, true[1] - true[0]))
        value, without = grading.areas(given[:, 1], given[:, 0])
        of = resampling.obuchowski_rockette(value, without)
        found.setdefault("VGC area, logit", []).extend(of_spread(of, area, "logit"))
    for name, intervals in found.items():
        yield name, covered(intervals, ALL_READERS)
    p, shifts = [], []
    for changed in (0.0, 0.5):
        model = Grading((0.0, changed), GRADES.bias, drift=GRADES.drift)
        for number in parts(studies):
            given, _ = model.grades(READERS, CASES, rng, number)
            ranked = [grading.wilcoxon(each[1], each[0]) for each in given]
            if changed:
                edges = _pseudomedian(model, rng)
                shifts += [ends(each.shift, edges) for each in ranked]
            else:
                p += [each.p <= 0.05 for each in ranked]
    yield "Wilcoxon's signed ranks over cases, no difference", rate(np.asarray(p, float), 0.05)
    yield "shift of grades, Hodges-Lehmann", covered(shifts, THESE, "readers without changes of their own")
    times = []
    for _ in range(studies):
        table = rng.normal(3, 0.3, (READERS, 1)) + rng.normal(0, 0.2, CASES) + rng.normal(0, 0.4, (READERS, CASES))
        times.append(ends(means.mean(table), 3.0))
    yield "mean of log time", covered(times, ALL_READERS)


_MEDIANS: dict[Grading, float] = {}


def _pseudomedian(model: Grading, rng: np.random.Generator) -> float:
    """Of the differences of mean grades of readers like these, by a large sample of cases."""
    if model not in _MEDIANS:
        given, _ = model.grades(READERS, 2000, rng, 200)
        gap = (given[:, 1] - given[:, 0]).mean(1).ravel()
        _MEDIANS[model] = float(np.median((gap + rng.permutation(gap)) / 2))
    return _MEDIANS[model]


def agreed(studies: int) -> Iterator[tuple[str, Row]]:
    rng = np.random.default_rng(9)
    model = Grading((0.0, 0.0), bias=0.3, drift=0.3)
    numbers = np.arange(1.0, 6.0)
    weights = {"quadratic": (numbers[:, None] - numbers) ** 2, "linear": np.abs(numbers[:, None] - numbers)}
    weights["none"] = (weights["linear"] > 0).astype(float)
    absolute, consistent = _intraclass(model, rng)
    found: dict[str, list[Interval]] = {}
    for number in parts(studies):
        given, levels = model.grades(READERS, CASES, rng, number)
        for table, again, level in zip(given[:, 0], given[:, 1], levels[:, 0], strict=True):
            joint = model.shares_together(level)
            single = model.shares(level)
            for name, weight in weights.items():
                true = 1 - (joint[0, 1] * weight).sum() / (single[0] @ weight @ single[1])
                of = agreement.cohen_kappa(table[0], table[1], weights=name)
                found.setdefault(f"weighted kappa of two readers, {name}", []).append(ends(of, float(true)))
            itself = joint[0, 0]
            true = 1 - (itself * weights["quadratic"]).sum() / (single[0] @ weights["quadratic"] @ single[0])
            of = agreement.cohen_kappa(table[0], again[0])
            found.setdefault("intra-reader kappa, quadratic", []).append(ends(of, float(true)))
            pooled = single.mean(0)
            others = ~np.eye(READERS, dtype=bool)
            same = np.trace(joint, axis1=-2, axis2=-1)[others].mean()
            expected = (pooled**2).sum()
            found.setdefault("Fleiss's kappa", []).append(
                ends(agreement.fleiss_kappa(table), float((same - expected) / (1 - expected)))
            )
            middles = np.cumsum(pooled) - pooled / 2
            for name, distance in (
                ("ordinal", (middles[:, None] - middles) ** 2),
                ("interval", weights["quadratic"]),
                ("nominal", weights["none"]),
            ):
                true = 1 - (joint[others].mean(0) * distance).sum() / (pooled @ distance @ pooled)
                of = agreement.krippendorff_alpha(table, scale=name)
                found.setdefault(f"Krippendorff's alpha, {name}", []).append(ends(of, float(true)))
            found.setdefault("ICC(2,1) of grades", []).append(ends(agreement.icc(table), absolute))
            found.setdefault("ICC(3,1) of grades", []).append(ends(agreement.icc(table, form="ICC(3,1)"), consistent))
    for _ in range(studies):
        of_case = rng.normal(size=CASES)
        table = rng.normal(0, 0.3, (READERS, 1)) + of_case + rng.normal(size=(READERS, CASES))
        for form, true in (
            ("ICC(2,1)", 1 / 2.09),
            ("ICC(3,1)", 0.5),
            ("ICC(2,k)", 5 / (5 + 1.09)),
            ("ICC(3,k)", 5 / 6),
        ):
            found.setdefault(f"{form} of normal scores", []).append(ends(agreement.icc(table, form=form), true))
        table = of_case + rng.normal(size=(READERS, CASES))
        found.setdefault("ICC(1,1) of normal scores", []).append(ends(agreement.icc(table, form="ICC(1,1)"), 0.5))
    for name, intervals in found.items():
        everyone = "ICC" in name
        yield name, covered(intervals, ALL_READERS if everyone else THESE)


def _intraclass(model: Grading, rng: np.random.Generator) -> tuple[float, float]:
    """The true ICC(2,1) and ICC(3,1) of grades: covariance of two readers' grades of a case by the variance of grades,
    with and without that between readers."""
    given, _ = model.grades(2, 1, rng, 1_000_000)
    one, two = given[:, 0, 0, 0], given[:, 0, 1, 0]
    shared = float(np.cov(one, two)[0, 1])
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    weights = weights / weights.sum()
    by_reader = model.shares(model.bias * nodes) @ np.arange(1, 6)
    between = float((by_reader**2) @ weights - (by_reader @ weights) ** 2)
    whole = float(np.concatenate([one, two]).var())
    return shared / whole, shared / (whole - between)


def preferences(studies: int) -> Iterator[tuple[str, Row]]:
    """The better of two images by a latent difference of all readers, of each, of each case and of the single look;
    no difference where it is small."""
    rng = np.random.default_rng(11)
    of_reader, of_case, own, tie = 0.3, 0.6, 0.8, 0.25
    width = float(np.sqrt(of_reader**2 + of_case**2 + own**2))
    for called, middle in (("no preference", 0.0), ("some preference", 0.5), ("strong preference", 1.5)):
        true = float((stats.norm.sf((tie - middle) / width) + stats.norm.sf((-tie - middle) / width)) / 2)
        found, claimed = [], []
        for _ in range(studies):
            latent = middle + rng.normal(0, of_reader, (READERS, 1)) + rng.normal(0, of_case, CASES)
            latent = latent + rng.normal(0, own, (READERS, CASES))
            of = means.mean(np.where(np.abs(latent) <= tie, 0.5, latent > 0), null=0.5)
            found.append(ends(of, true))
            claimed.append(of.p < 0.05)
        yield f"share preferring one of two, with ties ({called})", covered(found, ALL_READERS)
        if not middle:
            yield "share preferring one of two, no preference", rate(np.asarray(claimed, float), 0.05)
    found = []
    true = 1 / 3
    for _ in range(studies):
        quality = rng.normal(0, of_reader, (3, READERS, 1)) + rng.normal(0, of_case, (3, 1, CASES))
        best = (quality + rng.normal(0, own, (3, READERS, CASES))).argmax(0)
        found.append(ends(means.mean((best == 0).astype(np.float64)), true))
    yield "share choosing one of three", covered(found, ALL_READERS)


def links(studies: int) -> Iterator[tuple[str, Row]]:
    rng = np.random.default_rng(10)
    model = Grading((0.0, 0.5), bias=0.3, reader_shift=0.15)
    given, _ = model.grades(READERS, CASES, rng, studies)
    found = [ends(cumulative_link.compare(each[1], each[0], link="probit").effect, 0.5) for each in given]
    yield "cumulative-link effect", covered(found, ALL_READERS)


FAMILIES: dict[str, Callable[[int], Iterator[tuple[str, Row]]]] = {
    "areas": areas,
    "claims": claims,
    "answers": answers,
    "one reader": one_reader,
    "grades": grades,
    "agreement": agreed,
    "preferences": preferences,
    "cumulative link": links,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--only", choices=FAMILIES, action="append")
    parser.add_argument("--quick", action="store_true", help="a look at whether it runs: 40 studies, nothing is kept")
    asked = parser.parse_args()
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for family in asked.only or FAMILIES:
        start = time.process_time()
        rows = dict(FAMILIES[family](40 if asked.quick else asked.studies))
        for name, row in rows.items():
            print(
                f"{'  ' if row['within'] else '! '}{name:<64}{row.get('coverage', row.get('error rate')):.4f}",
                flush=True,
            )
        kept[family] = {"processor seconds": round(time.process_time() - start), "rows": rows}
        if not asked.quick:
            KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
