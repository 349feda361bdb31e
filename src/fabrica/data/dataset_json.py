"""dataset.json, as the Medical Segmentation Decathlon (MSD) and nnU-Net have it: what channels and labels are called,
which mask belongs to which image, and which split was published.

Antonelli et al. 2022 (Nature Communications 13, 4128) for MSD: "modality", "labels" by number, "training" with pairs
of image and label. Isensee et al. 2021 (Nature Methods 18, 203) for nnU-Net: version 1 as MSD, version 2 with
"channel_names", "labels" by name (a list of numbers is a region) and "file_ending"; splits_final.json holds the folds
of a cross-validation.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fabrica.data.label_names import Names, names_of
from fabrica.data.tables import SPLIT_NAMES

NAME, FOLDS = "dataset.json", "splits_final.json"
NORMALISATIONS = {"nonorm", "zscore", "rescale_to_0_1", "rescaleto01", "rgb_to_0_1", "rgbto01", "none", "default"}
"""What nnU-Net may be told in place of a channel's name: how it is normalised."""
MODALITIES = (  # DICOM's letters -> how a channel's name begins that is of it
    ("CT", re.compile(r"(nc|ce|cb|ld)?ct", re.IGNORECASE)),
    ("MR", re.compile(r"mri?|t1|t2|pd|flair|adc|dwi|dce|swi|mprage|cine|lge|bssfp|b\d+|perfusion|hbv", re.IGNORECASE)),
    ("PT", re.compile(r"pet|pt|suv|fdg", re.IGNORECASE)),
    ("US", re.compile(r"us|ultrasound", re.IGNORECASE)),
)
LARGEST = 2**26  # bytes


@dataclass(frozen=True, eq=False)
class Described:
    """What a dataset.json says of the files in its folder; paths are relative to the scanned folder.

    home      its folder, "" for the scanned one.
    channels  number of a channel -> its name; those that no name is told of have none.
    labels    see `fabrica.data.label_names.Names`.
    nnunet    every image's name ends in the number of its channel, as version 2 demands.
    masks     image -> mask, of the pairs that it lists.
    splits    name of a case, or path of an image -> split as published; of several `folds`, the first.
    notes     what could not be used.
    """

    home: str
    channels: Mapping[int, str] = field(default_factory=dict)
    labels: Names = field(default_factory=dict)
    nnunet: bool = False
    masks: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    folds: int = 0
    notes: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        return f"{self.home}/{NAME}" if self.home else NAME

    def holds(self, path: str) -> bool:
        """Whether this file lies in its folder."""
        return not self.home or path.startswith(f"{self.home}/")

    def modality(self, channel: int) -> str:
        """DICOM's letters of a channel, "" where its name does not say."""
        name = self.channels.get(channel, "")
        return next((letters for letters, begins in MODALITIES if _begins(begins, name)), "")


def nearest(described: Iterable[Described], path: str) -> Described | None:
    """The one that speaks of this file: of the deepest folder around it."""
    return max((each for each in described if each.holds(path)), key=lambda each: len(each.home), default=None)


def read_described(root: Path, files: Iterable[str]) -> list[Described]:
    """What the dataset.json among these relative paths say. Damaged ones say so in `notes`."""
    files = sorted(files)
    return [
        _read(root, str(PurePosixPath(path).parent).removeprefix("."), set(files))
        for path in files
        if PurePosixPath(path).name == NAME
    ]


def _read(root: Path, home: str, files: set[str]) -> Described:
    said, problem = _json(root / home / NAME)
    if problem:
        return Described(home, notes=(f"{f'{home}/' if home else ''}{NAME} {problem}: nothing of it is used",))
    if not isinstance(said, dict):
        return Described(home)
    named = said.get("channel_names", said.get("modality", {}))
    splits, masks = dict[str, str](), dict[str, str]()
    published = [(key, split) for key, split in SPLIT_NAMES.items() if isinstance(said.get(key), list)]
    held_out = any(split != "train" and _pairs(said[key], home) for key, split in published)
    for key, split in published:
        pairs = _pairs(said[key], home)
        masks |= pairs
        splits |= dict.fromkeys(pairs, split) if held_out else {}
    folds, notes = 0, tuple[str, ...]()
    if (path := f"{home}/{FOLDS}".lstrip("/")) in files and not splits:
        splits, folds, notes = _folds(root, path)
    labels = said.get("labels", {})
    names = names_of(labels, once=False) if isinstance(labels, (dict, list)) else {}
    names, problem = _laid_over(names, said.get("regions_class_order"))
    notes = (*notes, f"{f'{home}/' if home else ''}{NAME}: {problem}") if problem else notes
    if labels and not names and isinstance(labels, dict):  # lists of other kinds stand in files of this name, too
        notes = (
            *notes,
            f"{f'{home}/' if home else ''}{NAME} has labels {str(labels)[:60]}; expected numbers with names",
        )
    return Described(home, _channels(named), names, "channel_names" in said, masks, splits, folds, notes)


def _laid_over(names: Names, order: Any) -> tuple[Names, str]:
    """Labels that overlap with the number first that each has in a label map where they are laid over one another:
    nnU-Net's regions_class_order, in their order without the background; and what is wrong with it."""
    own = [numbers for numbers, name in names.items() if numbers != (0,) and name.lower() != "ignore"]
    if order is None or all(len(numbers) == 1 for numbers in own):
        return names, ""
    listed = order if isinstance(order, list) and len(order) == len(own) else [None] * len(own)
    if any(number not in numbers for number, numbers in zip(listed, own, strict=True)):
        return names, (
            f"regions_class_order is {str(order)[:60]}; expected a number of each of the {len(own)} regions, in their "
            "order: it is not used"
        )
    pairs = zip(listed, own, strict=True)
    first = {numbers: (number, *(n for n in numbers if n != number)) for number, numbers in pairs}
    return {first.get(numbers, numbers): name for numbers, name in names.items()}, ""


def _json(path: Path) -> tuple[Any, str]:
    """The value of a JSON file, and what is wrong with it."""
    try:
        if path.stat().st_size > LARGEST:
            return None, "is larger than any of its kind"
        return json.loads(path.read_bytes().decode("utf-8-sig", errors="replace")), ""
    except OSError as error:
        return None, f"cannot be opened ({error.strerror})"
    except json.JSONDecodeError as error:
        return None, f"is no JSON (line {error.lineno}: {error.msg})"
    except (ValueError, RecursionError):
        return None, "is no JSON"


def _channels(named: Any) -> dict[int, str]:
    """Number -> name of {"0": "T1"}, ["T1", "T2"] or "CT", without names that are none or are there twice."""
    if isinstance(named, str):
        named = [named]
    pairs = enumerate(named) if isinstance(named, list) else named.items() if isinstance(named, dict) else ()
    found = {
        int(number): " ".join(name.split())
        for number, name in pairs
        if str(number).isdecimal() and isinstance(name, str) and name.strip().lower() not in ("", *NORMALISATIONS)
    }
    count = Counter(name.casefold() for name in found.values())
    return {number: name for number, name in found.items() if count[name.casefold()] == 1}


def _pairs(listed: Any, home: str) -> dict[str, str]:
    """Image -> mask, of [{"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}]."""
    found = {}
    for each in listed if isinstance(listed, list) else ():
        image, mask = (each.get(key) for key in ("image", "label")) if isinstance(each, dict) else (None, None)
        if isinstance(image, str) and isinstance(mask, str):
            found[_within(home, image)] = _within(home, mask)
    return found


def _within(home: str, path: str) -> str:
    return (PurePosixPath(home) / path.replace("\\", "/")).as_posix()


def _folds(root: Path, path: str) -> tuple[dict[str, str], int, tuple[str, ...]]:
    """Case -> split of the first fold, how many folds there are, and what is wrong."""
    said, problem = _json(root / path)
    if not problem and not (isinstance(said, list) and said and all(_is_fold(fold) for fold in said)):
        problem = 'is no list of folds; expected [{"train": [...], "val": [...]}, ...]'
    if problem:
        return {}, 0, (f"{path} {problem}: split anew",)
    splits = {case: split for split in ("train", "val", "test") for case in said[0].get(split, ())}
    return splits, len(said), ()


def _is_fold(fold: Any) -> bool:
    return (
        isinstance(fold, dict)
        and all(
            isinstance(fold.get(key, []), list) and all(isinstance(name, str) for name in fold.get(key, []))
            for key in ("train", "val", "test")
        )
        and {"train", "val"} <= fold.keys()
    )


def _begins(begins: re.Pattern[str], name: str) -> bool:
    """Whether a name begins with such a word, and not only with its letters: "CT", "ct_venous", "T1Gd", not "cTnI"."""
    match = begins.match(name)
    return match is not None and not re.match(r"[a-z]{3}", name[match.end() :].lower().removesuffix("weighted"))
