"""Masks of BIDS: sub-01_ses-1_label-lesion_mask.nii.gz beside sub-01_ses-1_T1w.nii.gz, or below derivatives/.

A mask belongs to the images of its subject whose entities contradict none of its own, in its own folder before others
(bids-specification.readthedocs.io, "Imaging data type: segmentations"). What a mask says of itself (label, desc, res
...) is not compared.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from fabrica.data.tables import stem

MASKS = {"mask", "dseg", "msk", "seg", "roi", "lesion"}
"""What the name of a mask ends in."""
OWN = {"label", "desc", "res", "den", "hemi", "seg", "atlas", "roi", "from", "mod", "rater", "descr"}
"""Entities that a mask has and its image need not."""
MOST = 8  # images of one mask
_NAME = re.compile(r"((?:[A-Za-z]+-[A-Za-z0-9]+_)+)([A-Za-z0-9]+)")

Entities = dict[str, str]


def bids_masks(paths: Iterable[str]) -> dict[str, list[str]]:
    """Mask -> its images, of those of these relative POSIX paths that are called as BIDS has it; without those that no
    image belongs to."""
    masks: dict[str, Entities] = {}
    images: dict[str, list[tuple[str, Entities]]] = defaultdict(list)  # subject -> its images
    for path in paths:
        name = path.rpartition("/")[2]
        if not name.startswith("sub-") or not (match := _NAME.fullmatch(stem(name))):
            continue
        entities = dict(part.split("-", 1) for part in match[1].rstrip("_").split("_"))
        if match[2].lower() in MASKS:
            masks[path] = {key: value for key, value in entities.items() if key not in OWN}
        else:
            images[entities["sub"]].append((path, entities))
    found = {}
    for mask, own in masks.items():
        fitting = [path for path, said in images[own["sub"]] if _agree(own, said)]
        here = [path for path in fitting if path.rpartition("/")[0] == mask.rpartition("/")[0]]
        if 0 < len(here or fitting) <= MOST:
            found[mask] = here or fitting
    return found


def _agree(mask: Entities, image: Entities) -> bool:
    """Whether an image is of a mask's session, run and space: the same where both say, and what the mask says of the
    visit the image says too."""
    return all(image.get(key, "" if key in ("ses", "run") else value) == value for key, value in mask.items())
