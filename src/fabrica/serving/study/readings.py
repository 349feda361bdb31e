"""What readers said, beside what they were shown: answers joined with the key, as records and as tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from fabrica.errors import FabricaError
from fabrica.image import Float64
from fabrica.serving.study.answers import Answers
from fabrica.serving.study.database import ANSWER, LATE, UNDO, Row
from fabrica.serving.study.folder import Placed, Study, image_of
from fabrica.serving.study.forms import positive

READING, REPEAT, CATCH, TRAINING = "reading", "repeat", "catch", "training"


@dataclass(frozen=True)
class Reading:
    """An answer and its trial. reader: the name; taken_back, late (the trial was not the next one): it is kept, and
    counts for nothing."""

    reader: str
    trial: Placed
    row: Row
    taken_back: bool = False
    late: bool = False

    @property
    def arm(self) -> str:
        """The one arm that is shown."""
        return self.trial.arms[0]


Value = Callable[[Reading], float]


@dataclass(frozen=True)
class Readings:
    """All of a study. of: those that count, neither taken back nor late; every: all, in the order of the table."""

    study: Study
    of: tuple[Reading, ...]
    every: tuple[Reading, ...]
    due: dict[str, int]  # reader -> how many trials

    def part(self, *parts: str) -> list[Reading]:
        return [reading for reading in self.of if reading.trial.part in parts]

    @cached_property
    def readers(self) -> list[str]:
        """Those who have answered, in the order of the config."""
        there = {reading.reader for reading in self.part(READING)}
        return [name for name in self.study.config.readers if name in there]

    @cached_property
    def cases(self) -> list[str]:
        """All that were to be read, in the key's order."""
        return list(dict.fromkeys(trial.case for trial in self.study.trials if trial.part == READING))

    def table(self, value: Value, arm: str = "", *, cases: Sequence[str] | None = None, part: str = READING) -> Float64:
        """A number for each reader and case (R, C), NaN where there is none. arm: of trials that show this one; "": of
        whatever they show."""
        readers, names = self.readers, self.cases if cases is None else cases
        rows = {name: i for i, name in enumerate(readers)}
        columns = {name: i for i, name in enumerate(names)}
        found = np.full((len(readers), len(names)), np.nan)
        for reading in self.part(part):
            if reading.reader in rows and reading.trial.case in columns and (not arm or reading.trial.arms == (arm,)):
                found[rows[reading.reader], columns[reading.trial.case]] = value(reading)
        return found


def load(study: Study, answers: Answers) -> Readings:
    """The answers of a study. FabricaError where an answer belongs to no trial of the key."""
    trials = {trial.trial: trial for trial in study.trials}
    names = {reader.reader: reader.name for reader in answers.readers.values()}
    live: dict[tuple[str, str], int] = {}
    rows = answers.rows()
    for place, row in enumerate(rows):
        if row.kind == ANSWER:
            live[row.reader, row.trial] = place
        elif row.kind == UNDO:
            live.pop((row.reader, row.trial), None)
        if row.trial not in trials or row.reader not in names:
            raise FabricaError(f"row {row.seq} of the answers is of a trial that the key lacks; put the key back")
    counts = set(live.values())
    every = tuple(
        Reading(
            names[row.reader],
            trials[row.trial],
            row,
            taken_back=row.kind == ANSWER and place not in counts,
            late=row.kind == LATE,
        )
        for place, row in enumerate(rows)
        if row.kind != UNDO
    )
    due = Counter(names[trial.reader] for trial in study.trials)
    return Readings(study, tuple(r for r in every if not (r.taken_back or r.late)), every, dict(due))


def warnings_of(readings: Readings) -> list[str]:
    """What a person must know before he reads any figure."""
    said = []
    done = Counter(reading.reader for reading in readings.of)
    for name, due in readings.due.items():
        if done[name] < due:
            said.append(f"{name} answered {done[name]} of {due} trials: the others are missing, not guessed.")
    if len(readings.readers) == 1:
        said.append("One reader: every interval is over cases alone, and says nothing of other readers.")
    if len(readings.cases) == 1:
        said.append("One case: no interval can be given.")
    return said + _two_people(readings)


def catches(readings: Readings) -> dict[str, tuple[int, int]]:
    """Reader -> how many catch trials were answered rightly, and how many there were; of those whose right answer is
    known."""
    found: dict[str, list[bool]] = defaultdict(list)
    for reading in readings.part(CATCH):
        if (right := right_answer(readings.study, reading)) is not None:
            found[reading.reader].append(right)
    return {name: (sum(those), len(those)) for name, those in found.items()}


def right_answer(study: Study, reading: Reading) -> bool | None:
    """Whether an answer is right; None where nothing says what is."""
    config, answer = study.config, reading.row.answer
    accepted = {**config.training, **config.catch}.get(reading.trial.case)
    if accepted:
        given = answer.get("score", answer.get("says"))
        if config.kind == "preference":
            given = chosen(reading)
        return given in accepted
    if config.kind in ("real-or-synthetic", "detection"):
        return positive(config, answer) == is_positive(study, reading.trial.case, reading.arm)
    return None


def is_positive(study: Study, case: str, arm: str) -> bool:
    """Whether what is looked for is there: a synthetic image, or a lesion."""
    if study.config.kind == "detection":
        return study.truth[case].diseased
    return study.config.arm(image_of(study.config, case, arm)[0]).truth == "synthetic"


def chosen(reading: Reading) -> str:
    """The arm that is preferred, "" for no difference."""
    choice = int(reading.row.answer["choice"])
    return reading.trial.arms[choice - 1] if choice else ""


def _two_people(readings: Readings) -> list[str]:
    """One line for each reader whose link two people may have used: at once, so that one answered what the other had
    answered on another device; or in turn. A study that is begun on one device and ended on another changes once; a
    telephone and a computer in turn, twice or three times: told from four changes on."""
    found = []
    for name in readings.readers:
        own = [reading for reading in readings.every if reading.reader == name and reading.row.device]
        devices = [reading.row.device.partition(" ")[0] for reading in own]  # its size changes as it is turned
        given = {r.trial.trial: device for r, device in zip(own, devices, strict=True) if not r.late}
        at_once = sum(
            r.late and given.get(r.trial.trial, device) != device for r, device in zip(own, devices, strict=True)
        )
        changes = sum(one != two for one, two in pairwise(devices))
        if at_once:
            found.append(
                f"{name}'s link was used on two devices at once ({at_once} answers to what the other device had "
                "answered: kept as late in answers.csv, counting for nothing): two people may have used it."
            )
        elif changes >= 4:
            found.append(
                f"{name}'s link was used on two devices in turn ({changes} changes): two people may have used it."
            )
    return found
