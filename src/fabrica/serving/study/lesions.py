"""Whether a lesion that was seen is where it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fabrica.image import Float64
from fabrica.serving.study.readings import READING, Reading, Readings
from fabrica.serving.study.sources import Box

Bool = npt.NDArray[np.bool_]


def located(readings: Readings, columns: Sequence[tuple[str, str]], diseased: Bool) -> Float64 | None:
    """(R, D) of the cases with lesions whose places are known: 1 where one was seen and marked in it, 0 where not.
    None where no place is known. columns: (case, arm); diseased (C,)."""
    truth = readings.study.truth
    known = [i for i, (case, _) in enumerate(columns) if diseased[i] and truth[case].boxes]
    if not known:
        return None
    rows = {reader: i for i, reader in enumerate(readings.readers)}
    places = {columns[i]: k for k, i in enumerate(known)}
    found = np.full((len(rows), len(known)), np.nan)
    for reading in readings.part(READING):
        place = places.get((reading.trial.case, reading.arm))
        if place is not None:
            found[rows[reading.reader], place] = _inside(reading, truth[reading.trial.case].boxes)
    return found


def _inside(reading: Reading, boxes: tuple[Box, ...]) -> bool:
    """Whether a mark lies in a lesion's box: the click, or the middle of the box that was drawn."""
    for mark in reading.row.answer["marks"]:
        x, y = (mark[1], mark[2]) if len(mark) == 3 else ((mark[1] + mark[3]) / 2, (mark[2] + mark[4]) / 2)
        if any(z == mark[0] and left <= x <= right and top <= y <= bottom for z, left, top, right, bottom in boxes):
            return True
    return False
