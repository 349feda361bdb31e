"""Three simulated readers type their answers to 60 images on the real page: the statistics are those of what they
typed, and hold what the readers were made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fabrica.metrics.readers import cumulative_link, detection, grading, means, mrmc
from fabrica.metrics.readers.estimate import Estimate
from fabrica.metrics.readers.simulation import Detecting, Grading
from fabrica.serving.study.findings import Findings
from fabrica.serving.study.folder import Placed, Study
from fabrica.serving.study.readings import load
from fabrica.serving.study.results import analysed
from tests.serving.http.browser import CHROMIUM, browser
from tests.serving.study.driven import in_order, opened, typed, waits
from tests.serving.study.made import arms, config_of, study
from tests.serving.study.served import served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")]

READERS = ("reader 1", "reader 2", "reader 3")
IMAGES = 60
LEVEL = 0.999  # of intervals that must hold the truth of these very readers: one miss in a thousand


def type_all(made: Study, keys: Callable[[int, Placed], str], log: Path) -> Findings:
    """Each reader opens his link and types; keys: what a reader (by number) types at a trial."""
    with served(made, log) as server, browser() as page:
        for number, name in enumerate(READERS):
            opened(page, server.link(name))
            trials = in_order(made, name)
            assert len(trials) == IMAGES
            for trial in trials:
                *first, last = keys(number, trial)
                for key in first:
                    page.key(key)
                typed(page, last)
            waits(page, "done")
        assert page.complaints == []
    with made.answers() as answers:
        assert answers.verify() == "" and len(answers.rows()) == len(READERS) * IMAGES
        return analysed(load(made, answers))


def figure(found: Findings, key: str) -> Estimate:
    (row,) = [row for row in found.rows if row.key == key]
    return row.estimate


def same(one: Estimate, two: Estimate) -> None:
    assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high), abs=1e-12)


def holds(of: Estimate, truth: float) -> bool:
    low, high = of.at(LEVEL)
    return low <= truth <= high


def test_scores_typed(tmp_path: Path) -> None:
    model = Grading(shifts=(0.0, 0.8), reader_shift=0.15)
    cases = IMAGES // 2
    (grades,), _ = model.grades(len(READERS), cases, np.random.default_rng(1))
    names = ("degraded", "reference")
    arms(tmp_path, cases, names)
    made = study(tmp_path, config_of("clarity", names, washout=5))
    found = type_all(
        made,
        lambda reader, trial: str(int(grades[names.index(trial.arms[0]), reader, int(trial.case[-2:])])),
        tmp_path / "log",
    )
    old, new = grades
    gap = figure(found, "score_difference")
    same(gap, means.mean_difference(new, old))
    same(figure(found, "vgc_area"), grading.vgc(new, old).area)
    assert figure(found, "odds_ratio").value == pytest.approx(np.exp(cumulative_link.compare(new, old).effect.value))
    spread = np.sqrt(model.noise**2 + model.bias**2 + model.reader_shift**2)
    low, high = Grading(bias=0.0, noise=float(spread)).shares(np.array(model.shifts)) @ np.arange(1, 6)
    assert holds(gap, high - low) and gap.low < gap.value < gap.high


def test_real_and_synthetic_typed(tmp_path: Path) -> None:
    model = Detecting(d_prime=1.5, criterion=0.2)
    each = IMAGES // 2
    (said,), truth = model.answers(len(READERS), each, each, np.random.default_rng(2))
    sure = np.random.default_rng(3).integers(1, 5, said.shape)
    names = ("reference", "synthetic")
    arms(tmp_path, each, names)
    made = study(tmp_path, config_of("real-or-synthetic", names))

    def place(trial: Placed) -> int:
        arm, case = trial.case.split("/")
        return names.index(arm) * each + int(case[-2:])

    found = type_all(
        made,
        lambda reader, trial: f"{'s' if said[reader, place(trial)] else 'r'}{sure[reader, place(trial)]}",
        tmp_path / "log",
    )
    right = (said == truth).astype(np.float64)
    hit, rejection = model.rates
    same(figure(found, "accuracy"), means.mean(right, scale="logit", null=0.5))
    same(figure(found, "sensitivity"), means.mean(said[:, truth], scale="logit"))
    same(figure(found, "auc"), mrmc.auc(np.where(said == 1, sure, -sure), truth, scale="logit").t)
    same(figure(found, "d_prime"), detection.sensitivity(said, truth).d_prime)
    assert holds(figure(found, "accuracy"), (hit + rejection) / 2) and holds(figure(found, "sensitivity"), hit)
    assert holds(figure(found, "d_prime"), model.d_prime) and holds(figure(found, "criterion"), model.criterion)
