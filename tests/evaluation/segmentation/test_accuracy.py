"""Scores of cases become means over patients and over classes, with what is absent, missed or made up counted."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from pathlib import Path

import numpy as np
import pytest

from fabrica.evaluation.segmentation.accuracy import ALL, AWAY, Accuracy, rows, summary, table, without
from fabrica.evaluation.segmentation.cases import ScoredCase
from fabrica.metrics.patients import by_patient, interval
from fabrica.metrics.segmentation import BETTER, METRICS, ClassScores
from fabrica.report.scores import Report, ScoreRow, finite, numbers

NAMES = {1: "liver", 4: "spleen", 5: "left kidney", 7: "tail"}
DIAGONAL = 500.0
NAN = float("nan")


def both(dice: float, volume: float = 10.0, error: float = 0.0) -> ClassScores:
    iou = dice / (2 - dice)
    return ClassScores(dice, iou, dice**2, 10 * (1 - dice), volume, error, error / volume)


ABSENT = ClassScores(NAN, NAN, NAN, NAN, 0.0, 0.0, NAN)
MISSED = ClassScores(0.0, 0.0, 0.0, DIAGONAL, 20.0, -20.0, -1.0)
ALARM = ClassScores(0.0, 0.0, 0.0, DIAGONAL, 0.0, 3.0, NAN)


def case(name: str, patient: str, *scores: ClassScores) -> ScoredCase:
    return ScoredCase(name, patient, dict(zip(NAMES, scores, strict=True)))


CASES = [
    case("a1", "a", both(0.9), both(0.8, error=1.0), ABSENT, ABSENT),
    case("a2", "a", both(0.7), both(0.6, error=3.0), ABSENT, ABSENT),
    case("b1", "b", both(0.6), MISSED, ABSENT, ABSENT),
    case("c1", "c", both(0.95), ABSENT, ALARM, ABSENT),
    case("d1", "d", ABSENT, ABSENT, ABSENT, ABSENT),
]


@pytest.fixture
def found() -> Accuracy:
    return summary(CASES, NAMES, seed=3)


def test_a_class_is_the_mean_of_patients_not_of_cases(found: Accuracy) -> None:
    liver, spleen, kidney, tail = found.classes
    assert liver.scores["dice"].mean == pytest.approx((0.8 + 0.6 + 0.95) / 3)
    assert spleen.scores["dice"].mean == pytest.approx((0.7 + 0) / 2)  # what is missed counts
    assert spleen.scores["hd95"].mean == pytest.approx((3 + DIAGONAL) / 2)
    assert spleen.scores["relative_volume_error"].mean == pytest.approx((0.2 - 1) / 2)
    assert kidney.scores["dice"].mean == 0 and kidney.scores["volume_error"].mean == pytest.approx(3 / 4)
    assert math.isnan(tail.scores["dice"].mean)


def test_intervals_come_of_resampling_patients(found: Accuracy) -> None:
    values = [each.scores[1].dice for each in CASES]
    expected = interval(by_patient(values, [each.patient for each in CASES]), 3)
    assert found.classes[0].scores["dice"] == expected
    assert expected.low < expected.mean < expected.high
    again = [case(f"{each.id}{k}", each.patient, *each.scores.values()) for each in CASES for k in range(5)]
    more, once = (each.overall["dice"] for each in (summary(again, NAMES, seed=3), found))
    assert astuple(more) == pytest.approx(astuple(once))  # cases of the same patients say no more


def test_counts_say_what_became_of_each_class(found: Accuracy) -> None:
    told = [(c.name, c.cases, c.absent, c.missed, c.false_alarms, c.never) for c in found.classes]
    assert told == [
        ("liver", 5, 1, 0, 0, False),
        ("spleen", 5, 2, 1, 0, False),
        ("left kidney", 5, 4, 0, 1, False),
        ("tail", 5, 5, 0, 0, True),
    ]
    assert found.never == ["tail"]
    assert [c.said for c in found.classes] == [
        "absent in 1 of 5 cases",
        "missed in 1 of 5 cases, absent in 2",
        "a false alarm in 1 of 5 cases, absent in 4",
        "never present",
    ]


def test_the_mean_over_classes_leaves_out_what_is_never_present(found: Accuracy) -> None:
    means = [c.scores["dice"].mean for c in found.classes[:3]]
    assert found.overall["dice"].mean == pytest.approx(np.mean(means))
    assert set(found.overall) == set(BETTER)


def test_the_worst_patients_and_cases_come_first(found: Accuracy) -> None:
    assert [(p.patient, p.cases, p.missed, p.false_alarms) for p in found.patients] == [
        ("b", 1, 1, 0),
        ("c", 1, 0, 1),
        ("a", 2, 0, 0),
        ("d", 1, 0, 0),
    ]
    assert found.patients[0].scores["dice"] == pytest.approx(0.3)
    assert found.patients[2].scores["dice"] == pytest.approx((0.8 + 0.7) / 2)
    assert [each.id for each in found.cases] == ["b1", "c1", "a2", "a1", "d1"]


def test_all_of_it_is_json(found: Accuracy) -> None:
    plain = json.loads(json.dumps(finite(asdict(found)), allow_nan=False))
    assert plain["classes"][3]["scores"]["dice"] == {"mean": None, "low": None, "high": None}
    assert plain["cases"][0]["scores"]["4"]["hd95"] == DIAGONAL
    assert plain["patients"][3]["scores"]["dice"] is None


def test_rows_stand_over_all_classes_and_class_by_class(found: Accuracy) -> None:
    shown = rows(found, tolerance="2 mm", unit="pixels")
    assert len({row.key for row in shown}) == len(shown) == 4 + 4 * len(NAMES)
    by_key = {row.key: row for row in shown}
    assert by_key["dice"].value == found.overall["dice"].mean and by_key["dice"].better == "higher"
    assert "2 mm" in by_key["surface_dice"].explanation and by_key["hd95"].name == "HD95, pixels"
    assert (by_key["dice_4"].name, by_key["dice_4"].explanation) == ("spleen", "missed in 1 of 5 cases, absent in 2")
    assert by_key["relative_volume_error_4"].text(by_key["relative_volume_error_4"].value) == "-40.0 %"
    assert by_key["dice_7"].text(by_key["dice_7"].value) == "–" and by_key["dice_7"].interval == ""
    groups = [heading for heading, _, _ in report(shown).groups]
    assert groups == [ALL, "Dice by class", "Surface Dice by class", "HD95, pixels by class", "Volume error by class"]
    json.dumps(finite(numbers(shown)), allow_nan=False)


def report(shown: Sequence[ScoreRow]) -> Report:
    return Report({}, tuple(shown), (), Path("report.html"), "")


def test_one_class_has_one_table() -> None:
    cases = [ScoredCase(k, k, {1: both(0.8)}) for k in "abc"]
    shown = rows(summary(cases, {1: "lungs"}))
    assert [row.key for row in shown] == [*BETTER, "relative_volume_error"]
    assert {row.group for row in shown} == {"lungs"}


def test_the_table_has_a_line_for_each_case_and_class() -> None:
    lines = list(csv.DictReader(io.StringIO(table(CASES, NAMES))))
    assert len(lines) == len(CASES) * len(NAMES)
    states: Mapping[tuple[str, str], str] = {(line["id"], line["class"]): line["state"] for line in lines}
    assert states["a1", "liver"] == "both" and states["b1", "spleen"] == "missed"
    assert states["c1", "left kidney"] == "false alarm" and states["d1", "tail"] == "absent"
    first = lines[1]
    assert [first["dice"], first["label"], first["volume"]] == ["0.8", "4", "10"]
    assert all(lines[-1][metric] == "" for metric in METRICS if metric != "volume_error")


def test_a_contrast_taken_away_is_judged_on_the_images_that_have_it() -> None:
    done = [
        case("a1", "a", both(0.5), MISSED, ABSENT, ABSENT),
        case("a2", "a", both(0.5), both(0.2), ABSENT, ABSENT),
        case("b1", "b", both(0.4), MISSED, ABSENT, ABSENT),
    ]
    (row,) = without(CASES, {"T2": done}, list(NAMES), seed=3)
    assert (row.key, row.group, row.better) == ("dice_without_T2", AWAY, "higher")
    assert row.value == pytest.approx((0.45 + 0.05) / 2)  # classes alike, and of these patients alike
    lost = (((0.8 - 0.5) + (0.6 - 0.4)) / 2 + ((0.7 - 0.1) + 0) / 2) / 2
    assert f"Dice of 3 test images, T2 taken away: {lost:.3f} less [" in row.explanation
    assert without(CASES, {}, list(NAMES)) == []
