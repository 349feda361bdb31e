"""The folder of a study written: images blind, trials, tokens, and the key beside them."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.progress import Progress
from fabrica.recipe.values import written
from fabrica.serving.study import blinding
from fabrica.serving.study.blinding import Facts, Look
from fabrica.serving.study.config import StudyConfig
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
    write_json,
    write_table,
)
from fabrica.serving.study.sources import Source, Truth

THEN = 946684800  # seconds: the time of all files of images, the first of January 2000
Sources = dict[str, dict[str, Source]]
FactsOf = dict[str, dict[str, Facts]]


def write(
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
    """The study's folder `made`, of images (D, H, W, C) that lie as float32 in `work`, called by the numbers of arm and
    case. key: the study's secret; url: with which the links of readers begin."""
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
