"""A study's answers as files: every answer as CSV, and scores in iMRMC's layout."""

from __future__ import annotations

import csv
import io

import numpy as np

from fabrica.metrics.readers import imrmc
from fabrica.serving.study.folder import JOIN
from fabrica.serving.study.groups import groups
from fabrica.serving.study.readings import Reading, Readings, is_positive

COLUMNS = {
    "clarity": ("score",),
    "preference": ("choice", "chosen"),
    "real-or-synthetic": ("says", "confidence", "truth"),
    "detection": ("says", "confidence", "marks", "truth"),
}

FORMULAS = tuple("=+-@\t\r\n＝＋－＠")
"""What a cell begins with that a spreadsheet may take for a formula (OWASP, "CSV Injection")."""


def answers_csv(readings: Readings) -> str:
    """Every answer, in the order in which they came, also those that were taken back or came too late."""
    kind = readings.study.config.kind
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    head = (
        "row",
        "at",
        "reader",
        "place",
        "part",
        "case",
        "arms",
        *COLUMNS[kind],
        "seconds",
        "taken_back",
        "late",
        "trial",
        "device",
    )
    rows.writerow(head)
    for each in readings.every:
        trial, row = each.trial, each.row
        said = [_cell(readings, each, name) for name in COLUMNS[kind]]
        start = (row.seq, row.at, each.reader, trial.place, trial.part, trial.case, JOIN.join(trial.arms))
        end = (f"{row.seconds:g}", int(each.taken_back), int(each.late), trial.trial, row.device)
        rows.writerow([as_text(cell) for cell in (*start, *said, *end)])
    return out.getvalue()


def as_text(cell: object) -> object:
    """A cell that no spreadsheet evaluates: what comes from readers, their devices and names of files is no formula,
    whatever it begins with. The apostrophe before it is how spreadsheets themselves mark text."""
    if isinstance(cell, str) and cell.lstrip(" \ufeff")[:1] in FORMULAS:
        return f"'{cell}"
    return cell


def _cell(readings: Readings, reading: Reading, name: str) -> object:
    answer = reading.row.answer
    if name == "truth":
        return int(is_positive(readings.study, reading.trial.case, reading.arm))
    if name == "chosen":
        return reading.trial.arms[int(answer["choice"]) - 1] if answer["choice"] else ""
    if name == "marks":
        return " ".join("/".join(f"{number:g}" for number in mark) for mark in answer["marks"])
    return answer[name]


def for_imrmc(readings: Readings) -> imrmc.Readings | None:
    """Scores and truth as iMRMC's layout has them: a modality a group. None where cases of one class are missing."""
    every = groups(readings)
    columns = list(dict.fromkeys(column for group in every for column in group.columns))
    detects = readings.study.config.kind == "detection"
    names = list(dict.fromkeys(_case_name(column, detects) for column in columns))
    scores = np.full((len(every), len(readings.readers), len(names)), np.nan)
    truth = np.zeros(len(names), dtype=bool)
    for g, group in enumerate(every):
        for i, column in enumerate(group.columns):
            place = names.index(_case_name(column, detects))
            scores[g, :, place] = group.rating[:, i]
            truth[place] = group.truth[i]
    if truth.all() or not truth.any() or not readings.readers:
        return None
    about = f"{readings.study.config.title or readings.study.config.kind}, written by Fabrica"
    return imrmc.Readings(
        scores, truth, tuple(g.name for g in every), tuple(readings.readers), tuple(names), about.replace("\n", " ")
    )


def _case_name(column: tuple[str, str], detects: bool) -> str:
    return column[0] if detects or column[1] == "image" else f"{column[0]} {column[1]}"
