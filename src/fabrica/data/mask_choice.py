"""Which mask of several an image is given: the folder of its classes, or the first of those that say the same.

One rule. Masks of one image that lie in a folder of masks of their own are its classes where each is called by a word
for what it shows, or most are (liver, kidney_left, vertebrae_L1): the mask is that folder, and its labels are 1 to n
in the order of the names. They are not where names are numbers, hashes or one word that is numbered (nodule_1,
nodule_2), or say who drew them (reader1, annotation-2, consensus): such masks say the same thing again, and one is
used, `first_mask`. A single label map beside a folder of classes goes before it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from fabrica.data.mask_files import MASKS, in_folder, mask_words
from fabrica.data.names import READERS, are_hashes, is_shown, plain, words
from fabrica.data.tables import stem

AGREED = {"consensus", "majority", "maj", "staple", "fused", "fusion", "merged"}
"""Words for a mask that was made of those of several readers."""


class Choice(NamedTuple):
    """The mask of an image: a file, or a folder with its `classes` in their order; how many masks it was chosen of."""

    path: str
    classes: tuple[str, ...] = ()
    of: int = 1


def chosen(masks: Mapping[str, Sequence[str]]) -> dict[str, Choice]:
    """Image -> its mask, of these: mask -> its images."""
    members: dict[str, list[str]] = defaultdict(list)  # folder of masks -> all that lie in it
    for mask in masks:
        if in_folder(mask):
            members[mask.rpartition("/")[0]].append(mask)
    classes = {folder: _classes(files, masks) for folder, files in members.items()}
    usual = {folder.rpartition("/")[2] for folder, names in classes.items() if names}
    for folder, files in members.items():  # a case of which one class was drawn
        if len(files) == 1 and masks[files[0]] and folder.rpartition("/")[2] in usual and is_shown(_name(files[0])):
            classes[folder] = (_name(files[0]),)
    found = {}
    for image, own in by_image(masks).items():
        folders = {mask.rpartition("/")[0] for mask in own}
        whole = {folder: classes[folder] for folder in folders if classes.get(folder)}
        single = [mask for mask in own if mask.rpartition("/")[0] not in whole]
        path = first_mask(single or whole)
        found[image] = Choice(path, whole.get(path, ()), len(single or whole))
    return found


def _classes(files: Sequence[str], masks: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What the masks in a folder are called, where they are the classes of one image, or of the images of one case; ()
    where not."""
    images = masks[files[0]]
    names = sorted(map(_name, files))
    if len(files) < 2 or not images or any(masks[path] != images for path in files):
        return ()
    shapes = {re.sub(r"\d+", "#", plain(name)) for name in names}
    said = [name for name in names if is_shown(name)]
    drawn = any(READERS & set(words(name)) for name in names)
    return tuple(names) if len(shapes) > 1 and 2 * len(said) >= len(names) and not (drawn or are_hashes(names)) else ()


def first_mask(masks: Iterable[str]) -> str:
    """Of several masks of one image the one to use: what readers agreed on, then by the order of the words in MASKS,
    then by name."""

    def rank(path: str) -> tuple[bool, int, int, str]:
        said = {*mask_words(path), *(plain(folder) for folder in path.split("/")[:-1])}
        first = next((k for k, word in enumerate(MASKS) if word in said), len(MASKS))
        return not said & AGREED, first, len(path), path

    several = list(masks)
    return min(several, key=rank) if len(several) > 1 else "".join(several)


def by_image(masks: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Image -> its masks."""
    found: dict[str, list[str]] = defaultdict(list)
    for mask, images in masks.items():
        for image in images:
            found[image].append(mask)
    return dict(found)


def _name(path: str) -> str:
    return stem(path.rpartition("/")[2])
