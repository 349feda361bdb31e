"""What a report may say of a chest phantom, finding by finding: the same words for what is asked and what is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fabrica.phantoms.chest.chest import FINDINGS as DISEASES
from fabrica.phantoms.chest.chest import Chest, chest

Labels = Mapping[str, object]
Stated = dict[str, str]  # finding -> one of its values; what a report leaves open is not there
Int = npt.NDArray[np.int64]

PROMPTS = 5_000_000_000  # the first seed: far from those of training, validation, test and of the reader
EACH_SEED = 1_000_000  # prompts, so that two seeds share none
NOWHERE = -1000  # outside of the image, even if that is moved a little
LARGE = 15.0  # mm: two to three pixels of a radiograph of 64


@dataclass(frozen=True)
class Finding:
    """Something that is true of every chest phantom.

    values  what it may be, the usual one first.
    of      the value by the labels of a phantom; "" where the question does not arise.
    """

    values: tuple[str, ...]
    of: Callable[[Labels], str]


def _present(name: str) -> Finding:
    return Finding(("absent", "present"), lambda labels: "present" if labels[name] else "absent")


def _detail(key: str, *values: str) -> Finding:
    return Finding(("absent", *values), lambda labels: str(labels[key] or "absent"))


def _effusion_size(side: str) -> Finding:
    def size(labels: Labels) -> str:
        sizes = labels["effusion_sizes"]
        return str(sizes.get(side, "absent")) if isinstance(sizes, dict) else "absent"

    return Finding(("absent", "small", "moderate", "large"), size)


def _large_nodule(labels: Labels) -> str:
    if not labels["nodule"]:
        return "absent"
    return "present" if float(str(labels["nodule_diameter_mm"])) >= LARGE else ""


FINDINGS: dict[str, Finding] = {
    "cardiomegaly": _present("cardiomegaly"),
    "degree of cardiomegaly": _detail("cardiomegaly_degree", "mild", "marked"),
    "left effusion": _present("left_effusion"),
    "size of left effusion": _effusion_size("left"),
    "right effusion": _present("right_effusion"),
    "size of right effusion": _effusion_size("right"),
    "nodule": _present("nodule"),
    f"nodule of {LARGE:.0f} mm or more": Finding(("absent", "present"), _large_nodule),
    "side of nodule": _detail("nodule_side", "right", "left"),
    "zone of nodule": _detail("nodule_zone", "upper", "mid", "lower"),
    "pneumothorax": _present("pneumothorax"),
    "side of pneumothorax": _detail("pneumothorax_side", "right", "left"),
    "size of pneumothorax": _detail("pneumothorax_size", "small", "large"),
    "pacemaker": _present("pacemaker"),
    "side of pacemaker": _detail("device_side", "right", "left"),
    "leads of pacemaker": _detail("device", "single-chamber pacemaker", "dual-chamber pacemaker"),
    "view": Finding(("PA", "AP"), lambda labels: str(labels["view"])),
    "sex": Finding(("male", "female"), lambda labels: str(labels["sex"])),
}


def facts(labels: Labels) -> Stated:
    """All that is true of a phantom with these labels."""
    said = {name: finding.of(labels) for name, finding in FINDINGS.items()}
    return {name: value for name, value in said.items() if value}


def numbered(truths: list[Stated]) -> dict[str, Int]:
    """finding -> int64 (N,), the place of each image's value in `Finding.values`; -1 where nothing is said."""
    return {
        name: np.array([finding.values.index(said[name]) if name in said else -1 for said in truths], np.int64)
        for name, finding in FINDINGS.items()
    }


@dataclass(frozen=True)
class Prompt:
    """The report of the phantom of this seed, and what it states. A disease or device that it does not name is absent;
    view and sex are open where it does not say them."""

    text: str
    stated: Stated
    seed: int


def prompts(count: int, seed: int = 0) -> list[Prompt]:
    """So many reports of phantoms that no training, validation or test ever draws, as common or rare as there."""
    drawn = []
    for number in range(PROMPTS + seed * EACH_SEED, PROMPTS + seed * EACH_SEED + count):
        made = chest(number, 32)  # the words do not depend on the size
        stated, words = facts(made.labels), made.text.lower()
        if f" {stated['view'].lower()} " not in words:
            del stated["view"]
        if "-year-old " not in words:
            del stated["sex"]
        drawn.append(Prompt(made.text, stated, number))
    return drawn


def pictures(seeds: Iterable[int], size: int) -> npt.NDArray[np.float32]:
    """The phantoms of these seeds, (N, 1, size, size) in [-1, 1]: of prompts, what a perfect generator might draw."""
    return np.stack([_scaled(chest(seed, size)) for seed in seeds])


def _scaled(made: Chest) -> npt.NDArray[np.float32]:
    """0..4095 as [-1, 1], as the codec of phantom:chest does."""
    return (made.image.data / 4095 * 2 - 1).astype(np.float32)


def examples(first: int, count: int, size: int) -> tuple[npt.NDArray[np.float32], list[Labels], Int]:
    """Phantoms to learn to read from: images (N, 1, size, size) in [-1, 1], their labels, and where the nodule appears,
    (N, 2) row and column, NOWHERE without one. Each disease is there in a third of them, independently of the others:
    more at once, and more often the rare ones, than a report ever asks for."""
    images, places = [], []
    labels: list[Labels] = []
    for k in range(first, first + count):
        rng = np.random.default_rng([k, 99])
        made = chest(k, size, [name for name in DISEASES if rng.random() < 0.35])
        images.append(_scaled(made))
        labels.append(made.labels)
        where = made.labels["nodule_mm"]
        column, row = (
            np.linalg.solve(made.image.affine, [*where, 1.0])[:2] if isinstance(where, tuple) else (NOWHERE, NOWHERE)
        )
        places.append((round(float(row)), round(float(column))))
    return np.stack(images), labels, np.array(places, np.int64)
