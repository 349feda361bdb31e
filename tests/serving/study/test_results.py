"""Results: what simulated readers answered through the database gives the statistics that their parameters and the same
tables give; what is unusual is said; the files say the same."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabrica.errors import FabricaError
from fabrica.metrics.readers import agreement, cumulative_link, detection, grading, imrmc, means, mrmc
from fabrica.metrics.readers.equivalence import equivalent, holm
from fabrica.metrics.readers.estimate import Estimate
from fabrica.metrics.readers.proportions import accuracy, mcnemar
from fabrica.metrics.readers.simulation import Detecting, Grading, RoeMetz
from fabrica.serving.study.answers import Conflict
from fabrica.serving.study.checklist import holds
from fabrica.serving.study.findings import Findings
from fabrica.serving.study.folder import Placed, Study, open_study
from fabrica.serving.study.readings import load
from fabrica.serving.study.results import analysed, results
from fabrica.serving.study.tables import answers_csv, as_text, for_imrmc
from tests.serving.study.made import arms, config_of, study
from tests.serving.study.simulated import answer_all

CASES = 40
DEGRADED, RESTORED, REFERENCE = NAMES = ("degraded", "restored", "reference")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("results")
    arms(home, CASES, NAMES)
    rows = [f"case{c:02d},{int(c >= CASES // 2)},{'4,4,12,12' if c >= CASES // 2 else ',,,'}" for c in range(CASES)]
    (home / "truth.csv").write_text("\n".join(["case,truth,left,top,right,bottom", *rows]))
    (home / "few").mkdir()
    for name in NAMES:
        (home / "few" / name).mkdir()
        for c in range(6):
            shutil.copy(home / name / f"case{c:02d}.png", home / "few" / name)
    return home


def found_in(made: Study) -> Findings:
    with made.answers() as answers:
        assert answers.verify() == ""
        return analysed(load(made, answers))


def figure(found: Findings, key: str, of: str) -> Estimate:
    (row,) = [row for row in found.rows if row.key == key and row.of == of]
    return row.estimate


def same(one: Estimate, two: Estimate) -> None:
    for name in ("value", "low", "high"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), abs=1e-12, nan_ok=True), name


def number_of(name: str) -> int:
    return int(re.findall(r"\d+", name)[-1])


@pytest.fixture(scope="module")
def clarity(place: Path) -> tuple[Study, np.ndarray[Any, Any]]:
    """Five readers of three arms whose quality differs by 0.8 and 1.6, and what they said (A, R, C)."""
    model = Grading(shifts=(-0.8, 0.0, 0.8))
    grades, _ = model.grades(5, CASES, np.random.default_rng(3))
    more = {"readers": 5, "repeats": 8, "washout": 10, "margin": 0.4, "title": "Clarity <of> chests"}
    made = study(place, config_of("clarity", NAMES, **more), "clarity")

    def say(reader: str, trial: Placed) -> dict[str, Any]:
        said = int(grades[0, NAMES.index(trial.arms[0]), number_of(reader) - 1, number_of(trial.case)])
        return {"score": max(1, said - 1) if trial.part == "repeat" and number_of(trial.case) % 2 else said}

    answer_all(made, say, seconds=lambda trial: 6.0 if trial.arms == (DEGRADED,) else 3.0)
    return made, grades[0]


@pytest.fixture(scope="module")
def scored(clarity: tuple[Study, np.ndarray[Any, Any]]) -> Findings:
    return found_in(clarity[0])


def test_scores_are_those_of_the_same_tables(clarity: tuple[Study, np.ndarray[Any, Any]], scored: Findings) -> None:
    _, grades = clarity
    found = scored
    for arm, table in zip(NAMES, grades, strict=True):
        same(figure(found, "mean_score", arm), means.mean(table))
    pairs = [(RESTORED, DEGRADED), (REFERENCE, DEGRADED), (REFERENCE, RESTORED)]
    for one, two in pairs:
        a, b, of = grades[NAMES.index(one)], grades[NAMES.index(two)], f"{one} less {two}"
        same(figure(found, "score_difference", of), means.mean_difference(a, b))
        same(figure(found, "vgc_area", of), grading.vgc(a, b).area)
        same(figure(found, "wilcoxon_shift", of), grading.wilcoxon(a, b).shift)
        effect = cumulative_link.compare(a, b).effect
        assert figure(found, "odds_ratio", of).value == pytest.approx(np.exp(effect.value))
    gaps = [figure(found, "score_difference", f"{one} less {two}") for one, two in pairs]
    corrected = [row.holm for row in found.rows if row.key == "score_difference"]
    assert corrected == pytest.approx(holm([gap.p for gap in gaps]))
    flat = np.concatenate(grades, axis=1)
    same(figure(found, "fleiss_kappa", "all images"), agreement.fleiss_kappa(flat))
    same(figure(found, "icc(2,1)", "all images"), agreement.icc(flat))
    same(figure(found, "krippendorff_alpha", "all images"), agreement.krippendorff_alpha(flat))
    ratio = figure(found, "seconds_ratio", f"{RESTORED} over {DEGRADED}")
    assert ratio.value == pytest.approx(0.5) and figure(found, "seconds", DEGRADED).value == pytest.approx(6)
    claim = next(c for c in found.claims if c.of == f"{RESTORED} as good as {DEGRADED}")
    assert claim.verdict == equivalent(gaps[0], -0.4, 0.4)
    raised = [min(1, c.verdict.p * 0.05 / c.verdict.alpha) for c in found.claims]
    assert [c.holm * 0.05 / c.verdict.alpha for c in found.claims] == pytest.approx(holm(raised))
    for c in found.claims:
        assert c.shown_of_all == (c.holm <= c.verdict.alpha) and c.verdict.shown >= c.shown_of_all


def test_simulated_readers_have_their_parameters(scored: Findings) -> None:
    model = Grading(shifts=(-0.8, 0.0, 0.8))
    wide = Grading(bias=0.0, noise=(model.noise**2 + model.bias**2) ** 0.5)
    shares = wide.shares(np.array(model.shifts))
    true = shares @ np.arange(1, 6)
    gap = figure(scored, "score_difference", f"{RESTORED} less {DEGRADED}")
    assert gap.low < true[1] - true[0] < gap.high


def test_repeats_and_one_forest_a_pair(scored: Findings) -> None:
    found = scored
    (table,) = [table for table in found.tables if table.title == "Repeated images"]
    assert len(table.rows) == 5 and all(row[1] == "8" for row in table.rows)
    assert any(row[2] != "100.0 %" for row in table.rows)
    assert len(found.forests) == 3 and all(len(forest.rows) == 5 for forest in found.forests)
    (given,) = [table for table in found.tables if table.title == "Scores given"]
    assert sum(int(cell) for row in given.rows for cell in row[1:]) == 3 * 5 * CASES


def test_the_files(clarity: tuple[Study, np.ndarray[Any, Any]], tmp_path: Path) -> None:
    made, grades = clarity
    written = results(made, tmp_path / "r")
    assert sorted(file.name for file in (tmp_path / "r").iterdir()) == ["answers.csv", "report.html", "results.json"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "r" / "answers.csv").read_text())))
    assert len(rows) == 5 * (3 * CASES + 8)
    for row in rows:
        if row["part"] == "reading":
            place = NAMES.index(row["arms"]), number_of(row["reader"]) - 1, number_of(row["case"])
            assert int(row["score"]) == grades[place]
    numbers = json.loads((tmp_path / "r" / "results.json").read_text())
    assert numbers["verdict"] == written.findings.verdict and numbers["last_answer"]["seq"] == len(rows)
    page = written.page.read_text()
    assert "Clarity &lt;of&gt; chests" in page and "STARD 13a" in page and page.count("<svg") == 3 + 1 + 3 + 2
    assert set(re.findall(r'src="(.{10})', page)) == {"data:image"}
    assert set(re.findall(r'href="(.)', page)) == {"#"}  # markers within the charts
    words = re.sub(r"<(svg|pre).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert not re.search(r"\b(nan|None|inf)\b", words)


def test_a_visual_turing_test(place: Path) -> None:
    model = Detecting(d_prime=1.0)
    answers, truth = model.answers(4, CASES, CASES, np.random.default_rng(5))
    config = config_of("real-or-synthetic", (REFERENCE, RESTORED), readers=4, margin=0.1)
    made = study(place, config, "turing")
    sure = np.random.default_rng(6).integers(1, 5, answers[0].shape)

    def at(reader: str, trial: Placed) -> tuple[int, int]:
        return number_of(reader) - 1, number_of(trial.case) + CASES * trial.case.startswith(RESTORED)

    def say(reader: str, trial: Placed) -> dict[str, Any]:
        says = "synthetic" if answers[0][at(reader, trial)] else "real"
        return {"says": says, "confidence": int(sure[at(reader, trial)])}

    answer_all(made, say)
    found = found_in(made)
    right = (answers[0] == truth).astype(float)
    same(figure(found, "accuracy", RESTORED), means.mean(right, scale="logit", null=0.5))
    same(figure(found, "sensitivity", RESTORED), means.mean(right[:, truth], scale="logit"))
    same(figure(found, "d_prime", RESTORED), detection.sensitivity(answers[0], truth).d_prime)
    rating = sure * (2 * answers[0] - 1)
    same(figure(found, "auc", RESTORED), mrmc.auc(rating, truth, scale="logit").t)
    hit, rejection = model.rates
    assert figure(found, "accuracy", RESTORED).low < (hit + rejection) / 2 < figure(found, "accuracy", RESTORED).high
    assert figure(found, "d_prime", RESTORED).low < 1.0 < figure(found, "d_prime", RESTORED).high
    by_reader = next(f for f in found.forests if f.title.startswith("Accuracy"))
    for (name, one), row in zip(by_reader.rows, answers[0], strict=True):
        same(one, accuracy(row, truth.astype(float)).accuracy)
        assert name.startswith("reader")
    assert "better than guessing" in found.verdict
    (confusion,) = [table for table in found.tables if table.title.startswith("Confusion")]
    assert confusion.rows[1] == (
        "synthetic",
        str(int((1 - answers[0][:, truth]).sum())),
        str(int(answers[0][:, truth].sum())),
    )


def test_who_always_says_the_same_guesses_whatever_there_is_more_of(tmp_path: Path) -> None:
    arms(tmp_path, 12, (REFERENCE, RESTORED))
    for case in range(4, 12):
        (tmp_path / REFERENCE / f"case{case:02d}.png").unlink()
    made = study(tmp_path, config_of("real-or-synthetic", (REFERENCE, RESTORED), readers=4))
    noise = np.random.default_rng(0).random((4, 100)) < 0.1

    def say(reader: str, trial: Placed) -> dict[str, Any]:
        return {"says": "real" if noise[number_of(reader) - 1, trial.place] else "synthetic", "confidence": 1}

    answer_all(made, say)
    found = found_in(made)
    right = figure(found, "accuracy", RESTORED)
    assert right.value > 0.65 and not np.isfinite(right.p)
    above = figure(found, "above_guessing", RESTORED)
    assert above.low < 0 < above.high and above.p > 0.05
    assert "not shown to differ from guessing" in found.verdict and "both kinds counting equally" in found.verdict


def test_detection_of_two_arms(place: Path, tmp_path: Path) -> None:
    """Scores by Roe and Metz's model, cut into four degrees of confidence each way, with a split plot; marks within the
    lesion where the latent score is high."""
    scores, truth = RoeMetz(one=1.0, two=2.0).scores(6, CASES // 2, CASES // 2, np.random.default_rng(8))
    rating = np.digitize(scores[0], np.linspace(-0.6, 1.8, 7)) - 4
    rating = np.where(rating >= 0, rating + 1, rating)
    names = (DEGRADED, RESTORED)
    more = {"readers": 6, "allocation": "split-plot", "groups": 2, "washout": 5, "truth": "truth.csv", "margin": 0.1}
    made = study(place, config_of("detection", names, **more), "detection")

    def say(reader: str, trial: Placed) -> dict[str, Any]:
        value = int(rating[names.index(trial.arms[0]), number_of(reader) - 1, number_of(trial.case)])
        marks = [[0, 5, 5] if value > 2 else [0, 20, 20]] if value > 0 else []
        return {"says": "lesion" if value > 0 else "none", "confidence": abs(value), "marks": marks}

    answer_all(made, say)
    read = {(t.reader, t.case) for t in made.trials}
    with made.answers() as answers:
        ids = {reader.name: reader.reader for reader in answers.readers.values()}
    seen = np.array([[(ids[f"reader {r + 1}"], f"case{c:02d}") in read for c in range(CASES)] for r in range(6)])
    assert 0.4 < seen.mean() < 0.6
    one, two = (np.where(seen, table, np.nan) for table in rating)
    found, pair = found_in(made), f"{RESTORED} less {DEGRADED}"
    gap = mrmc.auc_difference(two, one, truth, scale="logit")
    same(figure(found, "auc_difference", pair), gap.t)
    same(figure(found, "auc_difference_students", pair), mrmc.auc_difference(two, one, truth).t)
    same(figure(found, "auc", DEGRADED), mrmc.auc(one, truth, scale="logit").t)
    right = [np.where(seen, (table > 0) == truth, np.nan) for table in (one, two)]
    same(figure(found, "accuracy_difference", pair), means.mean_difference(right[1], right[0]))
    hits = np.where(seen, two > 2, np.nan)[:, truth]
    same(figure(found, "located", RESTORED), means.mean(hits, scale="logit"))
    rows = next(table for table in found.tables if table.title == "The same cases in both arms").rows
    assert [row[2] for row in rows] == [str(mcnemar(b, a).only_one) for a, b in zip(*right, strict=True)]
    with made.answers() as answers:
        scores_found = for_imrmc(load(made, answers))
    assert scores_found is not None
    imrmc.write(scores_found, tmp_path / "study.imrmc")
    back = imrmc.read(tmp_path / "study.imrmc")
    again = mrmc.auc_difference(back.of(RESTORED), back.of(DEGRADED), back.truth)
    assert again.value == pytest.approx(gap.value) and again.variance == pytest.approx(gap.variance)
    assert set(back.readers) == set(ids)


def test_preferences(place: Path) -> None:
    made = study(place, config_of("preference", NAMES, readers=4, repeats=4), "preference")
    rng = np.random.default_rng(2)
    wanted = rng.choice([DEGRADED, RESTORED, REFERENCE, ""], (4, CASES), p=[0.1, 0.5, 0.3, 0.1])

    def say(reader: str, trial: Placed) -> dict[str, Any]:
        best = str(wanted[number_of(reader) - 1, number_of(trial.case)])
        return {"choice": trial.arms.index(best) + 1 if best else 0}

    answer_all(made, say)
    found = found_in(made)
    for arm in NAMES:
        table = np.where(wanted == arm, 1.0, np.where(wanted == "", 1 / 3, 0.0))
        same(figure(found, "share_chosen", arm), means.mean(table, null=1 / 3))
    pair = np.select([wanted == RESTORED, wanted == DEGRADED, wanted == ""], [1.0, 0.0, 0.5], np.nan)
    same(figure(found, "share_preferred", f"{RESTORED} over {DEGRADED}"), means.mean(pair, null=0.5))
    (places,) = [table for table in found.tables if table.title == "Places that were chosen"]
    shares = [float(cell.removesuffix(" %")) for cell in places.rows[0][1:]]
    assert sum(shares) == pytest.approx(100, abs=0.2) and max(shares) < 45  # the order is balanced
    (repeated,) = [table for table in found.tables if table.title == "Repeated images"]
    assert all(row[2] == "100.0 %" for row in repeated.rows)
    assert "restored was preferred over degraded" in found.verdict


@pytest.mark.parametrize(
    ("more", "readers", "limit", "score", "said"),
    [
        ({"readers": 1}, (), 10**9, None, "One reader: every interval is over cases alone"),
        ({}, (), 7, None, "reader 2 answered 7 of 12 trials: the others are missing, not guessed."),
        ({}, ("reader 1",), 10**9, None, "reader 2 answered 0 of 12 trials"),
        ({}, (), 10**9, 3, "no interval"),
        ({"training": [f"case0{i}" for i in range(1, 6)]}, (), 10**9, None, "One case: no interval can be given."),
    ],
)
def test_few_answers_are_said(
    more: dict[str, Any],
    readers: tuple[str, ...],
    limit: int,
    score: int | None,
    said: str,
    place: Path,
    tmp_path: Path,
) -> None:
    home = tmp_path / "few"
    shutil.copytree(place / "few", home)
    made = study(home, config_of("clarity", (DEGRADED, REFERENCE), **more))
    rng = np.random.default_rng(0)
    answer_all(made, lambda reader, trial: {"score": score or int(rng.integers(1, 6))}, readers=readers, limit=limit)
    found = found_in(made)
    assert any(said in warning for warning in found.warnings), found.warnings
    assert found.verdict and found.rows
    for row in found.rows:
        assert np.isfinite(row.estimate.low) == np.isfinite(row.estimate.high)
        assert np.isfinite(row.estimate.low) or row.estimate.note, row.key
        assert row.estimate.low != row.estimate.high, row.key  # never an interval of width 0


def test_real_and_synthetic_images_of_the_same_cases(place: Path) -> None:
    """Crossed: both versions of a case are images of their own, washed out, and the page says what that costs."""
    config = config_of("real-or-synthetic", (REFERENCE, DEGRADED, RESTORED), paired=True, washout=3, repeats=2)
    made = study(place / "few", config, "paired")
    rng = np.random.default_rng(4)
    said = {(r, c, arm): int(rng.integers(2)) for r in range(3) for c in range(6) for arm in NAMES}

    def say(reader: str, trial: Placed) -> dict[str, Any]:
        yes = said[number_of(reader) - 1, number_of(trial.case), trial.arms[0]]
        return {"says": "synthetic" if yes else "real", "confidence": 2}

    answer_all(made, say)
    found = found_in(made)
    for arms_of in ((DEGRADED,), (DEGRADED, RESTORED)):
        table = np.array(
            [
                [said[r, c, arm] != (arm == REFERENCE) for arm in (REFERENCE, *arms_of) for c in range(6)]
                for r in range(3)
            ]
        )
        of = arms_of[0] if len(arms_of) == 1 else "all synthetic"
        same(figure(found, "accuracy", of), means.mean(table.astype(float), scale="logit", null=0.5))
    assert sum(row.key == "above_guessing" and np.isfinite(row.holm) for row in found.rows) == 2
    assert any("of one patient" in line for line in holds(made.config))


@pytest.mark.parametrize("wrong", [False, True])
def test_all_right_or_all_wrong(wrong: bool, place: Path) -> None:
    made = study(place / "few", config_of("real-or-synthetic", (REFERENCE, DEGRADED)), f"sure-{wrong}")
    answer_all(made, lambda reader, trial: {
        "says": "synthetic" if trial.case.startswith(DEGRADED) != wrong else "real", "confidence": 4
    })  # fmt: skip
    found = found_in(made)
    share = figure(found, "accuracy", DEGRADED)
    assert share.value == (0 if wrong else 1) and share.high - share.low > 0.1
    assert figure(found, "auc", DEGRADED).value == share.value


def test_an_edited_answer_is_refused_and_named(place: Path, tmp_path: Path) -> None:
    made = study(place / "few", config_of("clarity", (DEGRADED, REFERENCE)), "edited")
    answer_all(made, lambda reader, trial: {"score": 1 + number_of(trial.case) % 3})
    with sqlite3.connect(made.folder / "answers.sqlite") as db:
        db.execute("DROP TRIGGER answers_stay")
        db.execute("UPDATE answers SET answer = '{\"score\":5}' WHERE seq = 9")
    db.close()
    with pytest.raises(FabricaError, match=r"row 9 of the answers \(reader reader 1, trial .* was changed") as raised:
        results(open_study(made.folder), tmp_path / "r")
    assert "\n" not in str(raised.value) and not (tmp_path / "r").exists()
    found = results(open_study(made.folder), tmp_path / "r", despite=True)
    assert found.findings.warnings[0].startswith("The chain of answers is broken: row 9")
    assert "The chain of answers is broken" in found.page.read_text()
    assert json.loads((tmp_path / "r" / "results.json").read_text())["warnings"] == found.findings.warnings


def test_taken_back_answers_are_kept_and_count_for_nothing(place: Path) -> None:
    made = study(place / "few", config_of("clarity", (DEGRADED, REFERENCE)), "undone")
    with made.answers() as answers:
        for reader, trials in answers.trials.items():
            for i, trial in enumerate(trials):
                answers.answer(reader, trial, {"score": 1}, seconds=1, request=trial, device="ab"[i % 2])
                answers.undo(reader, request=f"u{trial}", device="a")
                answers.answer(reader, trial, {"score": 4 + i % 2}, seconds=1, request=f"again{trial}")
        readings = load(made, answers)
    assert len(readings.every) == 2 * len(readings.of) == 2 * 3 * 12
    found = analysed(readings)
    assert 4 <= figure(found, "mean_score", DEGRADED).value <= 5
    assert sum("two people may have used it" in warning for warning in found.warnings) == 3
    rows = list(csv.DictReader(io.StringIO(answers_csv(readings))))
    assert sum(row["taken_back"] == "1" for row in rows) == 36


def test_a_link_used_by_two_people_is_one_line_and_loses_nothing(place: Path) -> None:
    """At once: one answers what the other has answered on another device. In turn: devices alternate. A second tab of
    one browser is one person."""
    names = ["at once", "in turn", "two tabs"]
    made = study(place / "few", config_of("clarity", (DEGRADED, REFERENCE), readers=names), "two people")
    with made.answers() as answers:
        for reader in answers.readers.values():
            for i, trial in enumerate(answers.trials[reader.reader]):
                device = "AB"[i // 2 % 2] if reader.name == "in turn" else "A"
                answers.answer(reader.reader, trial, {"score": 3}, seconds=1, request=f"{i}", device=device)
                if reader.name != "in turn" and i in (2, 5):
                    other = "B" if reader.name == "at once" else "A"
                    with pytest.raises(Conflict):
                        answers.answer(reader.reader, trial, {"score": 1}, seconds=1, request=f"l{i}", device=other)
        assert answers.verify() == ""
        readings = load(made, answers)
    said = [line for line in analysed(readings).warnings if "two people" in line]
    assert len(said) == 2 and not any("\n" in line for line in said)
    assert said[0].startswith("at once's link was used on two devices at once (2 answers")
    assert said[1].startswith("in turn's link was used on two devices in turn (5 changes)")
    rows = list(csv.DictReader(io.StringIO(answers_csv(readings))))
    assert [row["score"] for row in rows if row["late"] == "1"] == ["1"] * 4 and len(readings.of) == 3 * 12
    assert figure(analysed(readings), "mean_score", DEGRADED).value == 3


def test_no_cell_of_the_answers_is_a_formula(place: Path) -> None:
    for words in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "＝1", "\ufeff=1", "\r=1", "\n=1"):
        assert as_text(words) == f"'{words}"
    for words in ("A", "reader-1", "1=1", "", 3, -0.5):
        assert as_text(words) == words
    made = study(place / "few", config_of("clarity", (DEGRADED, REFERENCE), readers=["=A", "B"]), "formulas")
    with made.answers() as answers:
        reader = next(r.reader for r in answers.readers.values() if r.name == "=A")
        for i, trial in enumerate(answers.trials[reader][:2]):
            device = '=HYPERLINK("x")' if i else "\t=1"
            answers.answer(reader, trial, {"score": 3}, seconds=1, request=trial, device=device)
        rows = list(csv.DictReader(io.StringIO(answers_csv(load(made, answers)))))
    assert [row["device"] for row in rows] == ["?=1", '\'=HYPERLINK("x")']  # what no line can hold is no letter
    assert all(row["reader"] == "'=A" and row["score"] == "3" for row in rows)


def test_nobody_has_answered(place: Path, tmp_path: Path) -> None:
    made = study(place / "few", config_of("clarity", (DEGRADED, REFERENCE)), "silent")
    with pytest.raises(FabricaError, match=r"has no answers yet"):
        results(made, tmp_path / "r")


def test_catch_trials_are_counted(place: Path) -> None:
    more = {"catch": {"case01": [1, 2], "case02": [5]}, "training": {"case03": [3]}}
    made = study(place / "few", config_of("clarity", (DEGRADED, REFERENCE), **more), "catch")
    answer_all(made, lambda reader, trial: {"score": 1 if trial.part == "catch" else 3})
    found = found_in(made)
    (table,) = [table for table in found.tables if table.title == "Catch trials"]
    assert {row[1:] for row in table.rows} == {("1", "2")}
    assert figure(found, "mean_score", DEGRADED).value == 3  # of readings alone
