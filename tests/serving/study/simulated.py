"""Simulated readers who answer a study through its database, trial by trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fabrica.serving.study.answers import Answers
from fabrica.serving.study.folder import Placed, Study, chain_key
from fabrica.serving.study.forms import checked
from tests.serving.study.made import Clock

Say = Callable[[str, Placed], dict[str, Any]]
"""(reader's name, trial) -> answer."""


def answer_all(
    study: Study,
    say: Say,
    *,
    readers: tuple[str, ...] = (),
    limit: int = 10**9,
    seconds: Callable[[Placed], float] = lambda t: 4.0,
) -> None:
    """Every reader's trials answered in order, or those of some, or the first ones."""
    trials = {trial.trial: trial for trial in study.trials}
    with Answers(study.folder / "answers.sqlite", chain_key(study.key), Clock()) as answers:
        for reader in answers.readers.values():
            if readers and reader.name not in readers:
                continue
            for name in answers.trials[reader.reader][:limit]:
                trial = trials[name]
                answer = checked(study.config, say(reader.name, trial), study.shapes[trial.files[0]])
                answers.answer(reader.reader, name, answer, seconds=seconds(trial), request=name, device="d")
