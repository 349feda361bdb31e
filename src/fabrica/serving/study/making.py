"""A study made of its config: images read once, found alike, written blind; trials, tokens and the key beside them."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.errors import UsageError
from fabrica.progress import Progress
from fabrica.recipe.values import written
from fabrica.serving.study import blinding
from fabrica.serving.study.blinding import Facts, Look
from fabrica.serving.study.config import ONE, StudyConfig
from fabrica.serving.study.database import Reader, create, hashed, new_token
from fabrica.serving.study.design import NAME, Design, schedule
from fabrica.serving.study.folder import (
    ANSWERS,
    FORMAT,
    KEY,
    SHOWN,
    Placed,
    Shown,
    hash_of,
    image_of,
    kept_hash,
    open_study,
    write_json,
    write_table,
)
from fabrica.serving.study.sources import Source, Truth, sources, truth_of

THEN = 946684800  # seconds: the time of all files of images, the first of January 2000
Sources = dict[str, dict[str, Source]]
FactsOf = dict[str, dict[str, Facts]]


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
        _write(config, design, found, facts, how, truth, work, made, key, url, progress)
        if out.exists():
            if not _replaceable(out, config):  # somebody may have answered while images were read
                return False
            out.rename(Path(place) / "before")
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
        if number := answers.last().seq:
            changed = [k for k, v in asdict(config).items() if v != asdict(study.config)[k]]
            raise UsageError(
                f"{out} has {number} answers, and the config was changed since ({', '.join(changed)}); put it back, or "
                "make a new study in another folder"
            )
    return True


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


def _write(
    config: StudyConfig,
    design: Design,
    found: Sources,
    facts: FactsOf,
    how: Look,
    truth: dict[str, Truth],
    work: Path,
    made: Path,
    key: bytes,
    url: str,
    progress: Progress | None,
) -> None:
    for folder in (made / SHOWN / "images", made / SHOWN / "readers", made / KEY):
        folder.mkdir(parents=True)
    (made / KEY).chmod(0o700)
    images = _write_images(config, found, facts, how, work, made / SHOWN / "images", key, progress)
    by_place = {(image.arm, image.case): image for image in images}
    trials = schedule(design, key)
    readers = [Reader(_opaque(key, f"reader:{name}"), name, "") for name in config.readers]
    tokens = {reader.name: new_token() for reader in readers}
    placed = [
        Placed(
            t.name,
            r.reader,
            i,
            t.part,
            t.case,
            t.arms,
            tuple(by_place[image_of(config, t.case, a)].file for a in t.arms),
        )
        for r in readers
        for i, t in enumerate(trials[r.name])
    ]
    first = facts[
        config.names[0]
    ]  # of all arms: pixels that differ by less than can be seen would tell them by numbers
    usual = next(iter(first.values()))
    shape_of = {i.file: first[i.case] if config.crossed else usual for i in images}
    for reader in readers:
        own = [_as_shown(p, shape_of) for p in placed if p.reader == reader.reader]
        write_json(made / SHOWN / "readers" / f"{reader.reader}.json", {"trials": own})
    write_json(made / SHOWN / "study.json", _told(config, how, blinding.length_of(facts, how)))
    (made / KEY / "config.yaml").write_text(written(asdict(config)), encoding="utf-8")
    (made / KEY / "secret").write_text(key.hex(), encoding="ascii")
    write_table(made / KEY / "trials.csv", [f.name for f in fields(Placed)], map(vars, placed))
    write_table(made / KEY / "images.csv", [f.name for f in fields(Shown)], map(vars, images))
    named = [(case, t) for case, t in truth.items() if case in {p.case for p in placed}]
    kept = [{"case": c, "diseased": int(t.diseased), "boxes": json.dumps(t.boxes)} for c, t in named]
    write_table(made / KEY / "truth.csv", ("case", "diseased", "boxes"), kept)
    write_json(
        made / KEY / "feedback.json", {p.trial: feedback(config, p, truth) for p in placed if p.part == "training"}
    )
    links = [
        {"reader": r.name, "token": tokens[r.name], "link": f"{url.rstrip('/')}/#{tokens[r.name]}"} for r in readers
    ]
    write_table(made / KEY / "links.csv", ("reader", "token", "link"), links)
    for file in (made / KEY).iterdir():
        file.chmod(0o600)
    create(
        made / ANSWERS,
        [replace(r, token=hashed(tokens[r.name])) for r in readers],
        {r.reader: [p.trial for p in placed if p.reader == r.reader] for r in readers},
        {"format": str(FORMAT), "config": hash_of(made / KEY / "config.yaml"), "key": kept_hash(made / KEY)},
    )


def _write_images(
    config: StudyConfig,
    found: Sources,
    facts: FactsOf,
    how: Look,
    work: Path,
    out: Path,
    key: bytes,
    progress: Progress | None,
) -> list[Shown]:
    """All images in the order of their names, which tell nothing, so that neither places nor times of files do."""
    length = blinding.length_of(facts, how)
    every = [(a, c, arm, case) for a, arm in enumerate(found) for c, case in enumerate(found[arm])]
    named = sorted((_opaque(key, f"image:{arm}:{case}"), a, c, arm, case) for a, c, arm, case in every)
    images = []
    for done, (file, a, c, arm, case) in enumerate(named, start=1):
        data = blinding.encoded(np.load(work / f"{a}-{c}.npy"), how, length)
        (out / file).write_bytes(data)
        os.utime(out / file, (THEN, THEN))
        images.append(Shown(file, arm, case, found[arm][case].what, hashlib.sha256(data).hexdigest()))
        if progress:
            progress("writing images", done, len(named))
    return images


def _as_shown(trial: Placed, facts: dict[str, Facts]) -> dict[str, Any]:
    """What a reader's browser may know of a trial."""
    images = [{"file": file, "shape": facts[file].shape, "aspect": facts[file].aspect} for file in trial.files]
    return {"trial": trial.trial, "practice": trial.part == "training", "images": images}


def _told(config: StudyConfig, how: Look, length: int) -> dict[str, Any]:
    """What all readers are told."""
    words: dict[str, dict[str, Any]] = {
        "clarity": {"scale": config.scale},
        "real-or-synthetic": {"confidence": config.confidence},
        "preference": {"ties": config.ties, "side_by_side": len(config.arms)},
        "detection": {"confidence": config.confidence, "mark": config.mark},
    }
    about = {
        "format": FORMAT,
        "title": config.title,
        "kind": config.kind,
        "question": config.question,
        "adjust": config.adjust,
        **words[config.kind],
    }
    return {**about, "image": {**asdict(how), "length": length}}


def feedback(config: StudyConfig, trial: Placed, truth: dict[str, Truth]) -> dict[str, Any]:
    """What a reader is told after a practice trial: what is right, and where, as far as it is known."""
    right = config.training[trial.case]
    if right and config.kind == "preference":  # by place, as it is answered: names of arms never leave the key
        return {"right": [trial.arms.index(arm) + 1 if arm else 0 for arm in right]}
    if right:
        return {"right": right}
    if config.kind == "real-or-synthetic":
        arm, _ = image_of(config, trial.case, trial.arms[0])
        return {"right": [config.arm(arm).truth]}
    if config.kind == "detection":
        known = truth[trial.case]
        return {"right": ["lesion" if known.diseased else "none"], "boxes": known.boxes}
    return {"right": []}


def _opaque(key: bytes, what: str) -> str:
    return hmac.new(key, what.encode(), hashlib.sha256).hexdigest()[:NAME]
