"""Readings in the file layout of iMRMC (.imrmc), which R's iMRMC and the FDA's programme read.

Any text, a line "BEGIN DATA:", then lines "reader,case,modality,score"; the truth stands in lines of the reader and the
modality "truth", 0 for a normal case and 1 for a diseased one (iMRMC user guide, "Input file format").
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fabrica.errors import FabricaError, UsageError
from fabrica.image import Float64

BEGIN = "BEGIN DATA:"
TRUTH = "truth"


@dataclass(frozen=True, eq=False)
class Readings:
    """Scores of readers, and the truth.

    scores      (M, R, C) by modality, reader and case, NaN where there is no reading.
    truth       bool (C,), true for disease.
    modalities, readers, cases  the names along the axes.
    description   the lines before the data.
    """

    scores: Float64
    truth: npt.NDArray[np.bool_]
    modalities: tuple[str, ...]
    readers: tuple[str, ...]
    cases: tuple[str, ...]
    description: str = ""

    def of(self, modality: str) -> Float64:
        """Scores (R, C) of one modality."""
        if modality not in self.modalities:
            raise UsageError(f"no modality {modality!r}; expected one of {', '.join(self.modalities)}")
        return np.asarray(self.scores[self.modalities.index(modality)])


def read(path: str | Path) -> Readings:
    """Readings of an .imrmc file; FabricaError, with the number of the line, for what is none."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FabricaError(f"{path} cannot be read as text: {error}") from error
    try:
        return parsed(text)
    except FabricaError as error:
        raise FabricaError(f"{path}: {error}") from error


def parsed(text: str) -> Readings:
    """Readings of the text of an .imrmc file. Modalities, readers and cases in the order in which they are named."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip().upper().startswith(BEGIN)), None)
    if start is None:
        raise FabricaError(f"no line {BEGIN!r}; expected text, that line, and lines of reader,case,modality,score")
    truth: dict[str, bool] = {}
    rows: dict[tuple[str, str, str], float] = {}
    for number, row in enumerate(csv.reader(lines[start + 1 :], skipinitialspace=True), start + 2):
        if not any(cell.strip() for cell in row):
            continue
        reader, case, modality, score = _row(row, number)
        if TRUTH in (reader.lower(), modality.lower()):
            _keep_truth(truth, reader, case, modality, score, number)
        elif (modality, reader, case) in rows:
            raise FabricaError(f"line {number}: reader {reader} has a second score of case {case} in {modality}")
        else:
            rows[modality, reader, case] = score
    if not rows:
        raise FabricaError("no readings after the truth; expected lines of reader,case,modality,score")
    if lost := sorted({case for _, _, case in rows} - set(truth)):
        raise FabricaError(f"{len(lost)} cases have no truth, among them {lost[0]}; add lines truth,CASE,truth,0 or 1")
    modalities, readers = (tuple(dict.fromkeys(key[i] for key in rows)) for i in (0, 1))
    cases = tuple(truth)
    scores = np.full((len(modalities), len(readers), len(cases)), np.nan)
    places = [{name: i for i, name in enumerate(names)} for names in (modalities, readers, cases)]
    for names, score in rows.items():
        scores[tuple(place[name] for place, name in zip(places, names, strict=True))] = score
    return Readings(scores, np.array(list(truth.values())), modalities, readers, cases, "\n".join(lines[:start]))


def text_of(readings: Readings) -> str:
    """The text of an .imrmc file, from which `parsed` makes the same readings."""
    for kind, names in (("modality", readings.modalities), ("reader", readings.readers), ("case", readings.cases)):
        if bad := [n for n in names if n != n.strip() or not n or "\n" in n or (kind != "case" and n.lower() == TRUTH)]:
            raise UsageError(f"{bad[0]!r} cannot be the name of a {kind} in an iMRMC file; rename it")
    if BEGIN in readings.description.upper():
        raise UsageError(f"the description holds {BEGIN!r}, which begins the data; leave it out")
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    out.write((readings.description + "\n" if readings.description else "") + BEGIN + "\n")
    rows.writerows((TRUTH, case, TRUTH, int(ill)) for case, ill in zip(readings.cases, readings.truth, strict=True))
    for m, r, c in np.argwhere(np.isfinite(readings.scores)):
        score = readings.scores[m, r, c]
        rows.writerow((readings.readers[r], readings.cases[c], readings.modalities[m], repr(float(score))))
    return out.getvalue()


def write(readings: Readings, path: str | Path) -> None:
    """Write an .imrmc file."""
    Path(path).write_text(text_of(readings), encoding="utf-8")


def _row(row: list[str], number: int) -> tuple[str, str, str, float]:
    cells = [cell.strip() for cell in row]
    while len(cells) > 4 and not cells[-1]:
        cells.pop()
    if len(cells) != 4 or not all(cells):
        raise FabricaError(
            f"line {number} has {len(cells)} entries ({','.join(row)}); expected reader,case,modality,score"
        )
    try:
        score = float(cells[3])
    except ValueError:
        score = float("nan")
    if not np.isfinite(score):
        raise FabricaError(f"line {number}: the score {cells[3]!r} is no number; leave out readings that are missing")
    return cells[0], cells[1], cells[2], score


def _keep_truth(truth: dict[str, bool], reader: str, case: str, modality: str, score: float, number: int) -> None:
    if not reader.lower() == modality.lower() == TRUTH:
        raise FabricaError(
            f"line {number}: {reader},{case},{modality}; reader and modality must both be 'truth', or none"
        )
    if score not in (0, 1):
        raise FabricaError(f"line {number}: the truth of case {case} is {score:g}; expected 0 (normal) or 1 (diseased)")
    if case in truth:
        raise FabricaError(f"line {number}: a second truth of case {case}")
    truth[case] = bool(score)
