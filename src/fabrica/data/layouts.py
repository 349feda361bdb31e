"""What the folders of a data set mean: splits, domains, classes, patients, masks and pairs.

Understood as they stand: trainA/trainB/testA/testB, imagesTr/labelsTr, images/ beside labels/ or masks/,
INPUT/TARGET/MASKS, train/val/test, one folder a class, one folder a patient (sub-01, patient_7), one folder a case
with the same file names in each (CASE/ct, CASE/mr, CASE/mask; BraTS-like CASE/CASE_t1, CASE/CASE_seg).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from fabrica.data.tables import SPLIT_NAMES, stem

IMAGES = {"images": "", "image": "", "imgs": "", "imagestr": "train", "imagests": "test", "input": "", "target": ""}
MASKS = {
    "images": ("masks", "labels", "mask", "label", "segmentations", "lesions"),
    "image": ("mask", "label", "masks", "labels"),
    "imgs": ("masks", "labels"),
    "imagestr": ("labelstr",),
    "imagests": ("labelsts",),
    "input": ("masks", "mask"),
    "target": ("masks", "mask"),
}
PAIRS = {"input": "target", "target": "input"}
DOMAINS = re.compile(r"(train|val|test)([ab])", re.IGNORECASE)
PATIENT = re.compile(r"(?:sub|subject|patient|pat|case|pid)[-_ ]?[a-z0-9]*\d+", re.IGNORECASE)
MASK_STEMS = {"mask", "seg", "segmentation", "label", "labels", "tissue"}
CHANNEL = re.compile(r"_(\d{4})$")  # nnU-Net: imagesTr/CASE_0000 and labelsTr/CASE


@dataclass
class Place:
    """What the place of one image says.

    case    the path without suffix and without the folders that only sort: the same for an image and its pair.
    inner   the folders left when those that only sort are taken away.
    """

    case: str
    inner: tuple[str, ...]
    split: str = ""
    domain: str = ""
    patient: str = ""
    mask: str = ""
    pair: str = ""


@dataclass
class Layout:
    """Places by relative path, and the files that are masks of others."""

    places: dict[str, Place] = field(default_factory=dict)
    masks: set[str] = field(default_factory=set)


def read_layout(paths: Iterable[str]) -> Layout:
    """The meaning of these relative POSIX paths (suffixed files, or folders that hold one series)."""
    paths = list(paths)
    by_key = {_key(path): path for path in paths}
    layout = Layout()
    for path in paths:
        place = _place(path)
        for k, folder in enumerate(PurePosixPath(path).parts[:-1]):
            name = folder.lower()
            if name in MASKS:
                found = _siblings(path, k, MASKS[name], by_key)
                place.mask = place.mask or next(iter(found), "")
                layout.masks.update(found)
            if name in PAIRS:
                place.pair = next(iter(_siblings(path, k, (PAIRS[name],), by_key)), "")
                place.domain = name
        layout.places[path] = place
    _cases(layout.places)
    layout.masks.update(place.mask for place in layout.places.values() if place.mask)
    return layout


def classes(places: Mapping[str, Place]) -> dict[str, str]:
    """Path -> class, where every image lies in one of several folders side by side; else {}.

    Folders that stand for patients, and folders with hardly an image each, are not classes.
    """
    if any(place.patient for place in places.values()):
        return {}
    inner = {path: place.inner for path, place in places.items()}
    while inner and all(len(parts) > 1 for parts in inner.values()) and len({p[0] for p in inner.values()}) == 1:
        inner = {path: parts[1:] for path, parts in inner.items()}
    names = {parts[0] for parts in inner.values() if parts}
    flat = all(len(parts) == 1 for parts in inner.values())
    if not flat or not 2 <= len(names) <= len(inner) // 2:
        return {}
    return {path: parts[0] for path, parts in inner.items()}


def _cases(places: dict[str, Place]) -> None:
    """Where folders side by side hold the same few file names, each folder is a patient and the name a domain."""
    folders: dict[PurePosixPath, dict[str, str]] = {}
    for path, place in places.items():
        parent = PurePosixPath(path).parent
        if place.inner and place.inner[-1] == parent.name and not place.mask:
            part = stem(PurePosixPath(path).name).removeprefix(parent.name).strip("_-. ")
            folders.setdefault(parent, {})[part] = path
    counts = Counter(part for parts in folders.values() for part in parts)
    # many folders and few names, each in most folders; classes are the other way round, and series are numbered
    few = 2 <= len(counts) <= 20 and (len(counts) <= len(folders) or MASK_STEMS & {part.lower() for part in counts})
    if (
        len(folders) < 2
        or not few
        or any(2 * n < len(folders) or not re.search("[a-z]", part.lower()) for part, n in counts.items())
    ):
        return
    for folder, parts in folders.items():
        images = [part for part in parts if part.lower() not in MASK_STEMS]
        masks = [path for part, path in parts.items() if part.lower() in MASK_STEMS]
        for part in images:
            place = places[parts[part]]
            place.patient, place.domain = place.patient or folder.name, part
            place.mask = masks[0] if masks else ""
            if len(images) == 2:
                place.pair = parts[images[1 - images.index(part)]]


def _place(path: str) -> Place:
    *folders, name = PurePosixPath(path).parts
    place = Place("", ())
    kept: list[str] = []
    apart = ""  # train/1.png and test/1.png are two patients; trainA/1.png and trainB/1.png may be one
    for folder in folders:
        lower = folder.lower()
        if match := DOMAINS.fullmatch(folder):
            place.split, place.domain = match[1].lower(), match[2].lower()
            apart = place.split
        elif lower in SPLIT_NAMES:
            place.split = apart = SPLIT_NAMES[lower]
        elif lower in IMAGES:
            place.split = place.split or IMAGES[lower]
        else:
            kept.append(folder)
            if PATIENT.fullmatch(folder):
                place.patient = folder
        if lower in ("imagestr", "imagests") and (channel := CHANNEL.search(stem(name))):
            place.domain = channel[1]
    bare = stem(name)
    if place.domain.isdigit():  # the channels of an nnU-Net case show one patient
        bare = CHANNEL.sub("", bare)
    place.inner = tuple(kept)
    place.case = "/".join([*([apart] if apart else []), *kept, bare])
    return place


def _key(path: str) -> str:
    """A path without suffix, its folders in lower case: what an image and its mask have in common but a folder."""
    *folders, name = PurePosixPath(path).parts
    return "/".join([*(folder.lower() for folder in folders), stem(name)])


def _siblings(path: str, level: int, names: Sequence[str], by_key: Mapping[str, str]) -> list[str]:
    """The files that stand at the same place when the folder at `level` is one of `names`, in their order."""
    parts = _key(path).split("/")
    found: dict[str, None] = {}
    for name in names:
        changed = "/".join([*parts[:level], name, *parts[level + 1 :]])
        for key in (changed, CHANNEL.sub("", changed)):
            if by_key.get(key, path) != path:
                found[by_key[key]] = None
    return list(found)
