"""Which contrasts a segmenter sees of a patient, one beside the other as channels, where the recipe names none.

Images that share a label map show one case: t1, t1ce, t2 and flair of BraTS, the channels _0000, _0001 ... of nnU-Net.
Where all training cases have the same ones, the network sees them together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from fabrica.data.manifest import Row
from fabrica.data.manifest_cache import load_manifest
from fabrica.data.sample import PHANTOM
from fabrica.data.sources import open_source
from fabrica.errors import UsageError
from fabrica.recipe.schema import DataConfig

NAMED = 3  # sets of contrasts that are named where they differ


def contrasts(config: DataConfig) -> tuple[list[str], str]:
    """The contrasts that are seen together, the first as side a, on whose voxels the others are laid; and why. [] for
    images that stand alone, with the reason where there are several contrasts nevertheless.

    The first is the first one on whose voxels the label map of the first case was drawn, of several the first in the
    manifest, which is also the order of the others.
    """
    if config.a not in ("", "image"):
        return ([config.a, *config.auxiliary], "as asked") if config.auxiliary else ([], "")
    if config.b != "mask" or config.source.startswith(PHANTOM):
        return [], ""
    names, why = of_every_case(load_manifest(config.source).select(split="train", **config.where).rows)
    if not names:
        return [], why
    first = next((name for name in names if _drawn_on(config, name)), names[0])
    return [first, *(name for name in names if name != first)], why


def of_every_case(rows: Sequence[Row]) -> tuple[list[str], str]:
    """The domains that every case of these rows has once, two at least, in the order of the rows; and why, or, if it is
    [], why not: "" where no case has several images. Rows without a mask do not count."""
    cases: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        if row.mask:
            cases[row.mask, row.patient].append(row.domain)
    if all(len(domains) == 1 for domains in cases.values()) or any("" in domains for domains in cases.values()):
        return [], ""  # one image each, or nobody says what they are
    kinds = Counter(tuple(sorted(domains)) for domains in cases.values())
    names = list(dict.fromkeys(row.domain for row in rows if row.mask))
    (usual, count), *others = kinds.most_common()
    if not others and len(set(usual)) == len(usual):
        return names, f"all {count} training cases have them: seen together, as channels"
    said = "; ".join(f"{' + '.join(kind)} of {n}" for kind, n in kinds.most_common(NAMED))
    return [], f"cases differ ({said}): each image alone; name those to see together: data.a, data.auxiliary"


def _drawn_on(config: DataConfig, name: str) -> bool:
    """Whether the label map of the first case has the voxels of this contrast."""
    labels = open_source(replace(config, a=name, auxiliary=[]), "train", "b")
    try:
        return not next(labels.samples([0])).image.origin.get("resampled", False)
    except UsageError:  # pictures of other sizes, which cannot be laid on one another
        return False
