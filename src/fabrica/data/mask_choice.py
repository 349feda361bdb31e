"""Which mask of several an image is given: the folder of its classes, or the first of those that say the same.

One rule. Masks of one image that lie in a folder of masks of their own are its classes where each is called by a word
for what it shows, or most are (liver, kidney_left, vertebrae_L1): the mask is that folder, and its labels are 1 to n
in the order of the names. They are not where names are numbers, hashes or one word that is numbered (nodule_1,
nodule_2), or say who drew them (reader1, annotation-2, consensus): such masks say the same thing again, and one is
used, `first_mask`. Masks of the left and of the right, called alike but for that word (left_mask/x and right_mask/x,
x_left_mask and x_right_mask), are one mask together: 1 is the left, 2 the right. A single label map beside a folder of
classes goes before it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from fabrica.data.mask_files import MASKS, in_folder, mask_words
from fabrica.data.names import READERS, are_hashes, is_shown, plain, words
from fabrica.data.tables import stem

SIDES = ("left", "right")
AGREED = {"consensus", "majority", "maj", "staple", "fused", "fusion", "merged"}
"""Words for a mask that was made of those of several readers."""


class Choice(NamedTuple):
    """The mask of an image: a file, or a folder with its `classes` in their order; how many masks it was chosen of.
    frame: of files that are one mask together, their names in the folder, as `Row.mask_frame`."""

    path: str
    classes: tuple[str, ...] = ()
    of: int = 1
    frame: str = ""


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
        if sides := _sides(single):
            found[image] = _joined(image, sides, 1 + len(single) - len(sides))
            continue
        path = first_mask(single or whole)
        found[image] = Choice(path, whole.get(path, ()), len(single or whole))
    joined = {name for choice in found.values() if choice.frame for name in choice.classes}
    for image, choice in found.items():  # a case of which one side was drawn
        if not choice.classes and (name := _shown(choice.path, image)) in joined:
            found[image] = choice._replace(classes=(name,))
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


def _sides(masks: Sequence[str]) -> tuple[str, ...]:
    """Of masks of one image those of the left and the right, where both are called alike but for that; () of others."""
    left: dict[str, dict[str, str]] = defaultdict(dict)  # what is left of a path without its side -> side -> path
    for mask in masks:
        said = words(mask)
        if len(sides := [word for word in said if word in SIDES]) == 1:
            left[" ".join(word for word in said if word not in SIDES)][sides[0]] = mask
    both = [each for each in left.values() if len(each) == len(SIDES)]
    return tuple(both[0][side] for side in SIDES) if len(both) == 1 else ()


def _joined(image: str, sides: Sequence[str], of: int) -> Choice:
    """Masks of one image as one, with the names of what each shows."""
    parts = [path.split("/") for path in sides]
    level = next(k for k, each in enumerate(zip(*parts, strict=True)) if len(set(each)) > 1)
    names = tuple(_shown(path, image) for path in sides)
    within = "|".join("/".join(part[level:]) for part in parts)
    return Choice("/".join(parts[0][:level]) or ".", names, of, within)


def _shown(mask: str, image: str) -> str:
    """What a mask of one side shows: "left lung" of left_lung_mask/x; "" of others."""
    own = {*MASKS, *READERS, *words(_name(image))} - {*SIDES}
    said = [[word for word in words(stem(part)) if word not in own] for part in mask.split("/")]
    return next((" ".join(name) for name in said if set(SIDES) & set(name)), "")


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
