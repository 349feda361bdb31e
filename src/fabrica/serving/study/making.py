"""A study made of its config: images read once, found alike, written blind; trials, tokens and the key beside them."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.errors import UsageError
from fabrica.progress import Progress
from fabrica.serving.study import blinding
from fabrica.serving.study.answers import Answers
from fabrica.serving.study.config import ONE, StudyConfig
from fabrica.serving.study.design import Design
from fabrica.serving.study.folder import KEY, Study, open_study
from fabrica.serving.study.sources import Truth, sources, truth_of
from fabrica.serving.study.writing import FactsOf, Sources, write


def new(
    config: StudyConfig,
    home: Path,
    out: Path,
    opened: Callable[[Path], Any],
    *,
    url: str = "http://127.0.0.1:8000",
    progress: Progress | None = None,
    key: bytes | None = None,
) -> bool:
    """Make the study's folder, whole or not at all; False where it was there already, made of the same config.

    home   from where relative paths of the config start; opened: a model by its folder.
    url    under which readers will reach the server: the links in key/links.csv begin with it.
    key    the study's secret, 32 bytes; None: a new one.
    A study of another config is made anew as long as nobody has answered; afterwards that is a UsageError.
    """
    if out.exists() and not _replaceable(out, config):
        return False
    key = key or secrets.token_bytes(32)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
        work, made = Path(place) / "work", Path(place) / "study"
        work.mkdir()
        found = sources(config, home, opened)
        truth = truth_of(config, home, lambda image: blinding.shown(image)[0][..., 0]) if config.truth else {}
        design = designed(config, found, truth)
        facts = _read(found, work, progress)
        how = blinding.look(facts, config.crossed, config.window, config.bits)
        _check_truth(config, design, truth, facts)
        write(config, design, found, facts, how, truth, work, made, key, url, progress)
        if not _taken_away(out, config, Path(place) / "before"):
            return False
        made.rename(out)
    return True


def designed(config: StudyConfig, found: Sources, truth: dict[str, Truth]) -> Design:
    """Who reads what. Of a study that is not crossed every image is a case, called by its arm and name."""
    if config.crossed:
        every = list(next(iter(found.values())))
        strata = {case: str(truth[case].diseased) for case in every if case in truth}
    else:
        every = [f"{arm}/{case}" for arm, images in found.items() for case in images]
        strata = {f"{arm}/{case}": arm for arm, images in found.items() for case in images}
    for part, named in (("training", config.training), ("catch", config.catch)):
        if lost := [case for case in named if case not in every]:
            raise UsageError(f"{part}: no case {lost[0]!r}; expected cases such as {every[0]!r}")
    apart = {*config.training, *config.catch}
    return Design(
        kind=config.kind,
        arms=config.names if config.crossed else (ONE,),
        cases=tuple(case for case in every if case not in apart),
        readers=tuple(config.readers),
        strata=strata,
        allocation=config.allocation,
        groups=config.groups,
        anchors=config.anchors,
        washout=config.washout,
        repeats=config.repeats,
        training=tuple(config.training),
        catch=tuple(config.catch),
        seed=config.seed,
    )


def _replaceable(out: Path, config: StudyConfig) -> bool:
    """Whether a study there may be made anew: False where it is this one."""
    if not (out / KEY / "config.yaml").is_file():
        if not out.is_dir() or any(out.iterdir()):
            raise UsageError(f"{out} is there, and no study; choose another folder")
        return True
    study = open_study(out)
    if study.config == config:
        return False
    with study.answers() as answers:
        _check_unanswered(study, answers, config)
    return True


def _taken_away(out: Path, config: StudyConfig, to: Path) -> bool:
    """Move what is there away, if it still may be made anew: somebody may have answered while images were read. False
    where it is this study by now. No answer is stored between the look and the move; one that comes later finds
    another file, and is refused."""
    if not out.exists():
        return True
    if not _replaceable(out, config):
        return False
    if not any(out.iterdir()):
        out.rename(to)
        return True
    study = open_study(out)
    with study.answers() as answers, answers.held():
        _check_unanswered(study, answers, config)
        out.rename(to)
    return True


def _check_unanswered(study: Study, answers: Answers, config: StudyConfig) -> None:
    if number := answers.last().seq:
        changed = [k for k, v in asdict(config).items() if v != asdict(study.config)[k]]
        raise UsageError(
            f"{study.folder} has {number} answers, and the config was changed since ({', '.join(changed)}); put it "
            "back, or make a new study in another folder"
        )


def _read(found: Sources, work: Path, progress: Progress | None) -> FactsOf:
    """Every image once, as it is shown, kept as float32 in `work`; and the facts."""
    total, done = sum(map(len, found.values())), 0
    facts: FactsOf = {}
    for a, (arm, images) in enumerate(found.items()):
        facts[arm] = {}
        for c, (case, source) in enumerate(images.items()):
            image = source.image()
            values, aspect = blinding.shown(image)
            facts[arm][case] = blinding.facts(image, values, aspect)
            np.save(work / f"{a}-{c}.npy", values)
            done += 1
            if progress:
                progress("reading images", done, total)
    return facts


def _check_truth(config: StudyConfig, design: Design, truth: dict[str, Truth], facts: FactsOf) -> None:
    if not config.truth:
        return
    every = (*design.cases, *design.training, *design.catch)
    if lost := [case for case in every if case not in truth]:
        raise UsageError(f"truth says nothing of {len(lost)} cases, the first is {lost[0]}; add them to {config.truth}")
    for case in every:
        depth, rows, columns = next(iter(facts.values()))[case].shape
        for z, left, top, right, bottom in truth[case].boxes:
            if not (0 <= z < depth and 0 <= left < right <= columns and 0 <= top < bottom <= rows):
                raise UsageError(
                    f"truth: the lesion of case {case} at {left:g}, {top:g} to {right:g}, {bottom:g} (slice {z:g}) "
                    f"lies outside the image of {columns} × {rows} × {depth} pixels"
                )
