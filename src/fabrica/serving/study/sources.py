"""Where the images of a study come from: folders, manifests, models; and the truth of a detection."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from fabrica import io
from fabrica.data.find import contents
from fabrica.data.manifest import Manifest
from fabrica.data.tables import stem
from fabrica.errors import UsageError
from fabrica.image import Image
from fabrica.inference.translator import apply
from fabrica.runtime.ready import place
from fabrica.serving.study.config import Arm, StudyConfig

YES, NO = ("1", "yes", "true", "lesion", "diseased"), ("0", "no", "false", "none", "normal")
Box = tuple[float, float, float, float, float]
"""Slice, left, top, right, bottom: pixels of the image as it is shown."""


@dataclass(frozen=True)
class Source:
    """One image to be: what stands for it in the key, and how it is had."""

    what: str
    image: Callable[[], Image]


@dataclass(frozen=True)
class Truth:
    """Of one case: whether there is a lesion, and where, as far as that is known."""

    diseased: bool
    boxes: tuple[Box, ...] = field(default_factory=tuple)


def sources(config: StudyConfig, home: Path, opened: Callable[[Path], Any]) -> dict[str, dict[str, Source]]:
    """Arm -> case -> image, of the same cases in every arm of a study that is crossed.

    home    the folder from which relative paths start.
    opened  the model in a folder: with `way()` to be applied, or `sample(n, seed=...)`.
    Raises UsageError where an arm is empty, or lacks the image of a case.
    """
    found: dict[str, dict[str, Source]] = {}
    for arm in config.arms:
        if arm.images:
            found[arm.name] = _listed(arm, home / arm.images)
        elif arm.of:
            found[arm.name] = _applied(arm, found[arm.of], opened(place(arm.model, home=home)), home)
        else:
            found[arm.name] = _drawn(arm, opened(place(arm.model, home=home)))
    if config.crossed:
        _check_same(found)
    return found


def names_of(path: Path) -> list[tuple[str, Path, str]]:
    """(case, path, frame) of each image of a folder or file: its path below the folder without its suffix."""
    home = path if path.is_dir() else path.parent
    looked = contents(path)
    if looked.rejected:
        file, why = looked.rejected[0]
        raise UsageError(f"{file} cannot be read ({why}); repair it or take it out: a study must not lose cases unseen")

    def name(file: Path, frame: str) -> str:
        where = file.relative_to(home).as_posix()
        bare = file.resolve().name if where == "." else stem(where)
        return "/".join(filter(None, (bare, stem(frame))))

    return [(name(item.path, item.frame), item.path, item.frame) for item in looked.items]


def _listed(arm: Arm, path: Path) -> dict[str, Source]:
    if not path.exists():
        raise UsageError(f"arm {arm.name}: nothing at {path}; expected a folder of images or a manifest")
    if path.is_file() and path.suffix.lower() in (".csv", ".parquet"):
        rows = _rows(arm, path)
    elif arm.where:
        raise UsageError(f"arm {arm.name}: where chooses rows of a manifest, and {path} is none; scan it first")
    else:
        rows = names_of(path)
    if not rows:
        raise UsageError(f"arm {arm.name}: no image in {path}; expected DICOM, NIfTI, PNG or another known format")
    if twice := [case for case, times in Counter(case for case, _, _ in rows).items() if times > 1]:
        raise UsageError(f"arm {arm.name}: {path} has two images called {twice[0]}; rename one, or list them apart")

    def source(file: Path, frame: str) -> Source:
        return Source(f"{file}#{frame}" if frame else str(file), lambda: io.read(file, frame))

    return {case: source(file, frame) for case, file, frame in rows}


def _rows(arm: Arm, path: Path) -> list[tuple[str, Path, str]]:
    """The rows of a manifest, called by their patient, so that arms of other manifests have the same names; by their id
    where a patient has several."""
    manifest = Manifest.load(path).select(**arm.where)
    rows = [row for row in manifest.rows if not row.kind and (row.split or "split" in arm.where)]
    patients = [row.patient for row in rows]
    unique = len(set(patients)) == len(patients) and all(patients)
    for row in rows:
        if not manifest.file(row).exists():
            raise UsageError(f"arm {arm.name}: {manifest.file(row)} of {path} is missing; copy it there, or scan again")
    return [(row.patient if unique else row.id, manifest.file(row), row.frame) for row in rows]


def _applied(arm: Arm, of: Mapping[str, Source], model: Any, home: Path) -> dict[str, Source]:
    if not hasattr(model, "way"):
        raise UsageError(f"arm {arm.name}: {home / arm.model} translates and restores nothing; expected such a model")
    way = model.way()

    def source(before: Source) -> Source:
        return Source(f"{before.what} by {model.name} {model.hash}", lambda: apply(before.image(), way).result)

    return {case: source(before) for case, before in of.items()}


def _drawn(arm: Arm, model: Any) -> dict[str, Source]:
    if not hasattr(model, "sample"):
        raise UsageError(f"arm {arm.name}: {arm.model} draws no images; name the arm that it is applied to, with of")

    def source(number: int) -> Source:
        # one by one: image k comes from seed + k alone
        return Source(
            f"seed {arm.seed + number} by {model.name} {model.hash}",
            lambda: _sampled(model, arm, number),
        )

    return {f"{number:04d}": source(number) for number in range(arm.count)}


def _sampled(model: Any, arm: Arm, number: int) -> Image:
    image: Image = model.sample(1, seed=arm.seed + number)[0]
    return image


def _check_same(found: Mapping[str, Mapping[str, Source]]) -> None:
    every = {case for images in found.values() for case in images}
    for name, images in found.items():
        if missing := sorted(every - set(images)):
            other = next(arm for arm, those in found.items() if missing[0] in those)
            raise UsageError(
                f"arm {name} lacks the image of {len(missing)} cases, the first is {missing[0]}, which arm {other} "
                "has; all arms must hold the same cases under the same names"
            )


def truth_of(config: StudyConfig, home: Path, shown: Callable[[Image], np.ndarray[Any, Any]]) -> dict[str, Truth]:
    """Case -> truth, of a detection.

    A table has the columns case and truth (1 or 0, yes or no), and may have slice, left, top, right and bottom, a row a
    lesion. A folder holds a label map a case under its name, lesions above 0: each connected part is one. shown: turns
    a label map as its image is turned, into (D, H, W)."""
    path = home / config.truth
    if not path.exists():
        raise UsageError(f"truth: nothing at {path}; expected a table (.csv) or a folder of label maps")
    return _table(path) if path.is_file() else _masks(path, shown)


def _table(path: Path) -> dict[str, Truth]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"case", "truth"} <= set(rows[0]):
        raise UsageError(
            f"truth: {path} has the columns {', '.join(rows[0]) if rows else 'none'}; expected case, truth"
        )
    found: dict[str, Truth] = {}
    for number, row in enumerate(rows, start=2):
        said = (row["truth"] or "").strip().lower()
        if said not in (*YES, *NO):
            raise UsageError(f"truth: {path} line {number} says {row['truth']!r}; expected 1 or 0, yes or no")
        box = _box(row, path, number)
        before = found.get(row["case"])
        if before and before.diseased != (said in YES):
            raise UsageError(f"truth: {path} line {number} contradicts an earlier line of case {row['case']}")
        if before and not box:
            raise UsageError(f"truth: {path} line {number} names case {row['case']} again, without another lesion")
        if box and said in NO:
            raise UsageError(f"truth: {path} line {number} places a lesion where it says that there is none")
        found[row["case"]] = Truth(said in YES, (*(before.boxes if before else ()), *box))
    return found


def _box(row: Mapping[str, str], path: Path, number: int) -> tuple[Box, ...]:
    cells = [(row.get(name) or "").strip() for name in ("slice", "left", "top", "right", "bottom")]
    if not any(cells[1:]):
        return ()
    try:
        z, left, top, right, bottom = (float(cell or (0 if i == 0 else "none")) for i, cell in enumerate(cells))
    except ValueError as error:
        raise UsageError(f"truth: {path} line {number} has a box of {', '.join(cells)}; expected numbers") from error
    if not (left < right and top < bottom):
        raise UsageError(f"truth: {path} line {number} has a box that is empty; expected left < right, top < bottom")
    return ((z, left, top, right, bottom),)


def _masks(path: Path, shown: Callable[[Image], np.ndarray[Any, Any]]) -> dict[str, Truth]:
    found = {}
    for case, file, frame in names_of(path):
        there = shown(io.read_mask(file, frame)) > 0
        parts, number = ndimage.label(there)
        boxes: list[Box] = []
        for where in ndimage.find_objects(parts)[:number]:
            rows, columns = where[1], where[2]
            boxes += [
                (float(z), float(columns.start), float(rows.start), float(columns.stop), float(rows.stop))
                for z in range(where[0].start, where[0].stop)
            ]
        found[case] = Truth(bool(there.any()), tuple(boxes))
    return found
