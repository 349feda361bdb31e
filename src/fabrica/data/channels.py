"""Files that are the channels of one case, as nnU-Net names them: imagesTr/CASE_0000, CASE_0001 beside labelsTr/CASE.

Four digits at the end of a name may as well number the cases (amos_0001). What tells them apart, for all images of a
data set together: whether masks are called like the names with the digits or without, else what dataset.json says, else
whether several cases have the same digits, counted from 0000.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from fabrica.data.dataset_json import Described, nearest
from fabrica.data.tables import stem

CHANNEL = re.compile(r"_(\d{4})$")
IMAGES = {"images": "", "image": "", "imgs": "", "imagestr": "train", "imagests": "test", "imagesval": "val",
          "imagesva": "val"}  # fmt: skip
"""Folders of images -> the split that they stand for."""
MOST = 20  # channels of a case; more are the frames of a film


def channels(paths: Iterable[str], masks: Collection[str], described: Sequence[Described] = ()) -> dict[str, int]:
    """Path of an image -> number of its channel, of those that are a channel of their case.

    masks  paths of the files that are called masks, whatever they are of.
    """
    homes: dict[str, list[tuple[str, str]]] = defaultdict(list)  # data set -> (path, name) of its images
    published: set[str] = set()  # data sets with folders that only MSD and nnU-Net have
    for path in paths:
        folders = path.split("/")[:-1]
        level = next((k for k, folder in enumerate(folders) if folder.lower() in IMAGES), -1)
        if level >= 0:
            home = "/".join(folders[:level])
            homes[home].append((path, stem(path.rpartition("/")[2])))
            published |= {home} if IMAGES[folders[level].lower()] else set()
    if not any(CHANNEL.search(name) for images in homes.values() for _, name in images):
        return {}
    called: dict[str, set[str]] = defaultdict(set)  # data set -> names of its masks
    for mask in masks:
        folders = mask.split("/")[:-1]
        for k in range(len(folders)):
            called["/".join(folders[:k])].add(stem(mask.rpartition("/")[2]))
    found: dict[str, int] = {}
    for home, images in homes.items():
        ends = {path: match for path, name in images if (match := CHANNEL.search(name))}
        json = nearest(described, f"{home}/x" if home else "x")
        if ends and _are_channels([name for _, name in images], called[home], json, home in published):
            found |= {path: int(match[1]) for path, match in ends.items()}
    return found


def _are_channels(names: Sequence[str], masks: Collection[str], described: Described | None, published: bool) -> bool:
    """Whether the digits at the ends of these names of images are channels."""
    with_digits = sum(name in masks for name in names if CHANNEL.search(name))
    without = sum(CHANNEL.sub("", name) in masks for name in names if CHANNEL.search(name))
    if with_digits != without:
        return without > with_digits
    if described and described.nnunet:
        return True
    cases: dict[str, set[int]] = defaultdict(set)
    for name in names if published else ():
        if not (match := CHANNEL.search(name)):
            return False
        cases[name[: match.start()]].add(int(match[1]))
    usual = max(map(len, cases.values()), default=0)
    same = sum(numbers == set(range(usual)) for numbers in cases.values())
    return len(cases) > 1 and same > len(cases) / 2 and usual <= MOST
