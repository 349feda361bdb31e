"""What data a run began with, so that it goes on with the same or not at all: every image as the network sees it.

Neither paths nor dates matter, so that data may be moved or copied; nor does the rounding of another processor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from fabrica.data.augment import Int64
from fabrica.data.dataset import Dataset
from fabrica.io.atomic import atomic

Array = npt.NDArray[Any]

FLIPS = 0.01  # of an image's values another processor may round otherwise, each by one step
DEVIATIONS = 8  # standard deviations by which the sums of `Dataset.marks` may move then


def save(path: Path, sets: Mapping[str, Dataset], told: Sequence[str]) -> None:
    """Write what these datasets, by name, hold. told: the conditions of which networks are told each image's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"{name}/{key}": values for name, data in sets.items() for key, values in _of(data, told).items()}
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def differences(path: Path, sets: Mapping[str, Dataset], told: Sequence[str]) -> list[str] | None:
    """What is otherwise than it was written to `path`, a phrase each; None where nothing can be read there."""
    try:
        with np.load(path) as file:
            known = {name: {key: file[f"{name}/{key}"] for key in _KEYS} for name in sets}
    except (OSError, EOFError, KeyError, ValueError, BadZipFile):
        return None
    return [said for name, data in sets.items() for said in _differences(name, known[name], data, told)]


_KEYS = ("ids", "marks", "pixels", "labels", "words")


def _of(data: Dataset, told: Sequence[str]) -> dict[str, Array]:
    labels = data.labels if data.labels is not None else np.empty(0, dtype=np.int64)
    return {
        "ids": np.frombuffer("\n".join(data.ids).encode("utf-8", "surrogateescape"), dtype=np.uint8),
        "marks": data.marks,
        "pixels": np.array(int(np.prod(data.shape))),
        "labels": labels,
        "words": np.array(_words(data, told)),
    }


def _words(data: Dataset, told: Sequence[str]) -> str:
    """A hash of what networks are told in words."""
    kept = [name for name, when in (("texts", {"text"}), ("abouts", {"age", "sex", "view"})) if when & set(told)]
    digest = hashlib.sha256()
    for name in kept:
        digest.update((data.folder / f"{name}.txt").read_bytes())
    return digest.hexdigest() if kept else ""


def _differences(name: str, old: Mapping[str, Array], data: Dataset, told: Sequence[str]) -> list[str]:
    new = _of(data, told)
    size, count = int(new["pixels"]), len(new["marks"])
    if int(old["pixels"]) != size:
        return [f"{name} have {size} values each, and had {int(old['pixels'])}"]
    if len(old["marks"]) != count or not _alike(old["marks"], new["marks"], size).all():
        return _images(name, (_ids(old), old["marks"]), (_ids(new), new["marks"]), size)
    ids = _ids(new)
    if len(other := np.flatnonzero(_padded(old["labels"], count) != _padded(new["labels"], count))):
        return [f"{len(other)} of the {name} have another label (the first {ids[other[0]]})"]
    return [f"the {name} have other texts or facts"] if str(old["words"]) != str(new["words"]) else []


def _images(name: str, old: tuple[list[str], Int64], new: tuple[list[str], Int64], size: int) -> list[str]:
    """The phrase on other images than before."""
    was, now = (dict(zip(ids, marks, strict=True)) for ids, marks in (old, new))
    groups = {
        "gone": [id_ for id_ in old[0] if id_ not in now],
        "new": [id_ for id_ in new[0] if id_ not in was],
        "changed": [id_ for id_ in new[0] if id_ in was and not _alike(was[id_], now[id_], size)],
    }
    said = [f"{len(ids)} {what} (the first {ids[0]})" for what, ids in groups.items() if ids]
    return [f"of the {name} {', '.join(said)}" if said else f"the {name} come in another order"]


def _alike(one: Int64, other: Int64, size: int) -> Array:
    return np.asarray((np.abs(one - other) <= 1 + DEVIATIONS * np.sqrt(FLIPS * size)).all(-1))


def _ids(found: Mapping[str, Array]) -> list[str]:
    return found["ids"].tobytes().decode("utf-8", "surrogateescape").split("\n")


def _padded(labels: Int64, count: int) -> Int64:
    return labels if len(labels) == count else np.full(count, -1, dtype=np.int64)
