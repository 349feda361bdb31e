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
from fabrica.serving.study.database import ANSWER, Row
from fabrica.serving.study.folder import Placed, Study, image_of
from fabrica.serving.study.forms import positive

READING, REPEAT, CATCH, TRAINING = "reading", "repeat", "catch", "training"


@dataclass(frozen=True)
class Reading:
    """An answer and its trial. reader: the name; taken_back: it is kept, and counts for nothing."""

    reader: str
    trial: Placed
    row: Row
    taken_back: bool = False

    @property
    def arm(self) -> str:
        """The one arm that is shown."""
        return self.trial.arms[0]


Value = Callable[[Reading], float]


@dataclass(frozen=True)
class Readings:
    """All of a study. of: those that count, taken back ones left out; every: all, in the order of the table."""

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
        else:
            live.pop((row.reader, row.trial), None)
        if row.trial not in trials or row.reader not in names:
            raise FabricaError(f"row {row.seq} of the answers is of a trial that the key lacks; put the key back")
    counts = set(live.values())
    every = tuple(
        Reading(names[row.reader], trials[row.trial], row, place not in counts)
        for place, row in enumerate(rows)
        if row.kind == ANSWER
    )
    due = Counter(names[trial.reader] for trial in study.trials)
    return Readings(study, tuple(r for r in every if not r.taken_back), every, dict(due))


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
    for name, switches in sorted(_switches(readings).items()):
        said.append(f"{name}'s link was used on two devices in turn ({switches} changes): two people may have used it.")
    return said


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


def _switches(readings: Readings) -> dict[str, int]:
    """Readers whose devices alternate, and how often. A study that is begun on one device and ended on another changes
    once; a telephone and a computer in turn, twice or three times: told from four changes on."""
    found = {}
    for name in readings.readers:
        devices = [r.row.device for r in readings.every if r.reader == name and r.row.device]
        changes = sum(one != two for one, two in pairwise(devices))
        if changes >= 4:
            found[name] = changes
    return found
