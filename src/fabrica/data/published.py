"""The splits that a data set was published with: folders, dataset.json, and the folds of nnU-Net.

A test or val split without masks, where train has them, is none: its images are there to be learned from without
labels, and are split like all others. Of the folds of a cross-validation the first is used; what it holds out is the
test split, unless another one with masks was published: nobody should be judged by what weights were chosen with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from fabrica.data.channels import CHANNEL
from fabrica.data.dataset_json import FOLDS, Described, nearest
from fabrica.data.place import Place
from fabrica.data.tables import stem


def settle(places: Mapping[str, Place], described: Sequence[Described]) -> list[str]:
    """Bring the splits of these images together, in place; notes on what was decided."""
    homes: dict[Described | None, dict[str, Place]] = {}
    for path, place in places.items():
        home = nearest(described, path)
        homes.setdefault(home, {})[path] = place
    return [note for home, own in homes.items() for note in (*_without_masks(own), *_told(home, own))]


def _without_masks(places: Mapping[str, Place]) -> list[str]:
    """Take back the splits that have no masks."""
    counts = Counter(place.split for place in places.values())
    masks = Counter(place.split for place in places.values() if place.mask)
    if 2 * masks["train"] < max(1, counts["train"]):
        return []
    bare = [split for split in ("val", "test") if counts[split] and not masks[split]]
    for place in places.values():
        place.split = "" if place.split in bare else place.split
    return [
        f"{counts[split]} images of {split} have no masks, as train has: split like all others, to be learned from "
        "without labels"
        for split in bare
    ]


def _told(home: Described | None, places: Mapping[str, Place]) -> list[str]:
    """Take over the splits that a dataset.json or its folds say."""
    if home is None or not home.splits:
        return []
    told = {path: split for path in places if (split := next(filter(None, map(home.splits.get, _names(path))), ""))}
    if not told:
        return [f"the cases that {FOLDS} names are not among the images: not used"] if home.folds else []
    others = {place.split for path, place in places.items() if path not in told and place.mask}
    held_out = "test" if "test" not in {*told.values(), *others} else "val"
    for path, split in told.items():
        places[path].split = held_out if split == "val" and home.folds else split
    if not home.folds:
        return [f"splits as {home.file} says"]
    which = f"the first of {home.folds} folds" if home.folds > 1 else "the split"
    for path, place in places.items():
        place.split = place.split if path in told or (place.mask and place.split == "test") else ""
    return [f"{which} of {FOLDS} is used: what it holds out is {held_out}"]


def _names(path: str) -> tuple[str, ...]:
    """What a list of splits may call an image: by its path, its name, its name without the channel."""
    name = stem(path.rpartition("/")[2])
    return path, name, CHANNEL.sub("", name)
