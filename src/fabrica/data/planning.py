"""A plan for a segmenter from its training images alone: how nnU-Net plans (Isensee et al. 2021, Nature Methods 18,
supplementary note 2), for the memory and the processor at hand."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fabrica.data.names import words
from fabrica.errors import UsageError
from fabrica.geometry import turn
from fabrica.image import Float32, Image
from fabrica.recipe.plan import Plan, laid, mistake

ANISOTROPIC = 3.0  # how many times thicker than wide a voxel is, for slices that are not mixed at full resolution
SMALLEST = 4  # voxels a side at the coarsest level
MOST_LEVELS = 6
FEWEST_SLICES = 8  # of volumes: with fewer, slices are learned from one by one
PER_VOXEL = 3_000  # bytes of training memory for a voxel of a patch and 32 channels of full resolution, as measured
SHARE = 0.4  # of the free memory that patches may take
MOST_VOXELS = {2: 320 * 320, 3: 96**3}  # of a patch on a processor: beyond it a step takes longer than it teaches
BATCH = {2: 4, 3: 2}  # patches a step, at least; at most MOST_BATCH times as many where they are small
MOST_BATCH = {2: 4, 3: 1}  # volumes: in half an hour of a processor eight would leave few steps
RIM = 0.08  # of a class's pixels lie on its rim where a network sees pictures: with fewer, these are seen smaller,
LEAST = 64  # with at least so many pixels a side
SAMPLED = 1000  # values of what is labelled in an image
IGNORED = {"ignore", "ignored", "void", "unlabelled", "unlabeled", "unknown"}  # labels of what nobody has said
SIDED = {"left", "right", "l", "r", "lt", "rt", "sin", "dex"}


@dataclass(frozen=True)
class Look:
    """What is known of one training image: its size turned as networks see it, (D, H, W) or (H, W), mm a voxel in that
    order (() where it knows none), the numbers in its label map, in HU some values of what is labelled, and of pictures
    the share of pixels that lie on the rim of their class, of the class where it is largest."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    labels: tuple[int, ...]
    values: tuple[float, ...] = ()
    rim: float = 1.0


def looked(image: Image, labels: Image) -> Look:
    """A glance at an image and its label map on the same grid."""
    present = tuple(int(n) for n in np.unique(np.rint(labels.data)))
    inside = image.data[0][labels.data[0] > 0] if image.unit == "HU" else np.empty(0)
    values = tuple(float(v) for v in inside[:: 1 + len(inside) // SAMPLED])
    if len(image.size) == 2:
        return Look(image.size, image.spacing if image.measured else (), present, values, _rim(labels.data[0]))
    axes = [axis - 1 for axis in turn(image.affine, "RAS")[0]]
    spacing = tuple(image.spacing[axis] for axis in axes)
    return Look(tuple(image.size[axis] for axis in axes), spacing if image.measured else (), present, values)


def _rim(labels: Float32) -> float:
    """Of each class in a picture (H, W) the share of its pixels that touch another; the largest of these, 0 of none."""
    same = np.ones(labels.shape, dtype=bool)
    for axis in (0, 1):
        equal = np.diff(labels, axis=axis) == 0
        same &= np.insert(equal, 0, True, axis) & np.append(equal, np.ones_like(equal.take([0], axis)), axis)
    whole, rim = (np.bincount(np.rint(part).astype(int)) for part in (labels.ravel(), labels[~same]))
    shown = np.flatnonzero(whole[1:]) + 1
    return float(max((np.pad(rim, (0, len(whole) - len(rim)))[shown] / whole[shown]), default=0.0))


def window(looks: Sequence[Look]) -> tuple[float, float] | None:
    """The HU between which nearly all that is labelled lies (0.5 to 99.5 %), all images together; None where images are
    not in HU. What lies beyond looks alike."""
    values = np.concatenate([look.values for look in looks] or [()])
    if not len(values) or any(look.labels != (0,) and not look.values for look in looks):
        return None
    low, high = (float(v) for v in np.percentile(values, [0.5, 99.5]))
    return (round(low), round(max(high, low + 1)))


def planned(
    looks: Sequence[Look],
    *,
    names: dict[int, str] | None = None,
    dims: int = 0,
    size: Sequence[int] = (),
    spacing: Sequence[float] = (),
    batch: int = 0,
    regions: Mapping[str, Sequence[int]] | None = None,
    width: int = 32,
    memory: float = 0.0,
) -> Plan:
    """The plan for training images of which these are looks; what is given stands, the rest is decided.

    names    of label numbers; one that is called "ignore" is no class: what it marks teaches nothing.
    regions  labels that overlap, name -> numbers, in the order in which they are laid over one another; those that no
             training image shows are left out.
    dims     2 for slices, 3 for volumes; 0: as the images are.
    width    channels of the network at full resolution.
    memory   bytes that training may take; 0: a share of what is free.

    Raises UsageError where no label map shows anything but background, and for values that do not fit together.
    """
    nothing = ignored(names)
    numbers = sorted({0, *(n for look in looks for n in look.labels)} - nothing)
    regions = {name: own for name, own in (regions or {}).items() if not set(own) <= nothing}
    overlap = {name: list(own) for name, own in regions.items() if set(own) & set(numbers) - {0}}
    if regions and not overlap:
        raise UsageError(
            f"no training image has a label of the regions {', '.join(regions)}: label maps hold "
            f"{', '.join(map(str, numbers))}; see data.regions, or the names of the masks' labels"
        )
    numbers = sorted({*numbers, *(number for own in overlap.values() for number in own)})
    becomes = dict(zip(laid(overlap), overlap, strict=True))
    if len(numbers) < 2:
        raise UsageError(
            f"the label maps of all {len(looks)} training images are empty: there is nothing to learn; see whether "
            "the masks are those of these images"
        )
    reasons: dict[str, str] = {}
    if absent := [name for name in regions if name not in overlap]:
        reasons["regions"] = f"without {', '.join(absent)}, which no training image shows"
    dims = dims or len(size) or _dims(looks, reasons)
    mm = list(spacing) or _spacing(looks, dims, reasons)
    extents = np.array([_at(look, dims, mm) for look in looks])
    smaller = 1.0 if size or spacing else _smaller(looks, reasons)
    mm, extents = [v * smaller for v in mm], extents / smaller
    median = np.median(extents, axis=0)
    patch = [int(n) for n in size] or _patch(median, extents.max(0), mm, dims, width, memory, reasons)
    levels, kernels = _levels(patch, mm)
    if not size:  # the nearest that every level divides: of an image of 36 voxels 32, not 40, which is mostly margin
        multiple = np.prod(levels, axis=0)
        patch = [int(max(1, round(n / m)) * m) for n, m in zip(patch, multiple, strict=True)]
    each = [_named(n, (names or {}).get(n, ""), becomes.get(n, ""), overlap) for n in numbers]
    sided = [name for name in each if SIDED & set(words(name))]
    reasons["mirror"] = (
        f"{sided[0]} tells sides apart: never mirrored"
        if sided
        else "no label tells left from right; up and down, front and back differ in every patient"
    )
    thick = dims == 3 and bool(mm) and max(mm) / min(mm) > ANISOTROPIC
    return Plan(
        spacing=[round(float(v), 6) for v in mm],
        size=patch,
        batch=batch or _batch(patch, dims, width, memory, reasons),
        levels=levels,
        kernels=kernels,
        numbers=numbers,
        names=each,
        regions=overlap,
        mirror=[] if sided else [dims - 1],  # turned as networks see images, the last axis runs from left to right
        turned=[1, 2] if thick else list(range(dims)),
        reasons=reasons,
    )


def _named(number: int, name: str, region: str, regions: Mapping[str, Sequence[int]]) -> str:
    """What a number is called that a region becomes, where nothing else names it: by what of the region it is."""
    if not region or name not in ("", *regions):
        return name
    inner = [
        other
        for other in list(regions)[list(regions).index(region) + 1 :]
        if set(regions[other]) & set(regions[region])
    ]
    return f"{region} without {inner[0]}" if inner else region


def adopted(
    plan: Plan,
    looks: Sequence[Look],
    *,
    source: str,
    names: Mapping[int, str] | None = None,
    size: Sequence[int] = (),
    spacing: Sequence[float] = (),
    batch: int = 0,
    regions: Mapping[str, Sequence[int]] | None = None,
) -> Plan:
    """The plan of another run (`source` says which) for these training images, whose label numbers are called `names`;
    what is given here stands over it.

    Raises UsageError where images or label maps are not what it is for.
    """
    strange = sorted({number for look in looks for number in look.labels} - {*plan.numbers} - ignored(names))
    if strange:
        raise UsageError(
            f"uses.plan: {source} knows the labels {', '.join(map(str, plan.numbers))}, and training images have "
            f"{', '.join(map(str, strange))}, too; add them to its numbers and names, or leave uses.plan out"
        )
    if len(size or plan.size) == 3 and (flat := sum(len(look.size) == 2 for look in looks)):
        raise UsageError(f"uses.plan: {source} is of volumes, and {flat} of {len(looks)} training images are pictures")
    mm = list(spacing or plan.spacing)
    if mm and any(len(look.spacing) < len(mm) for look in looks):
        raise UsageError(f"uses.plan: {source} says mm, which not all training images know; set its spacing to []")
    found = replace(
        plan,
        size=list(size or plan.size),
        spacing=mm,
        batch=batch or plan.batch,
        regions={name: list(own) for name, own in (regions or plan.regions).items()},
        reasons=dict.fromkeys(plan.reasons, f"of {source}"),
    )
    if size or spacing:
        levels, kernels = _levels(found.size, found.spacing)
        found = replace(found, levels=levels, kernels=kernels)
    if problem := mistake(found):
        raise UsageError(f"uses.plan: {source}, with what the recipe asks for, {problem}")
    return found


def ignored(names: Mapping[int, str] | None) -> set[int]:
    return {number for number, name in (names or {}).items() if IGNORED & set(words(name))}


def _dims(looks: Sequence[Look], reasons: dict[str, str]) -> int:
    flat = [look for look in looks if len(look.size) == 2]
    depth = float(np.median([look.size[0] for look in looks if len(look.size) == 3] or [0]))
    if flat or depth < FEWEST_SLICES:
        reasons["dimensions"] = "pictures" if flat else f"volumes of {depth:g} slices: slice by slice"
        return 2
    reasons["dimensions"] = f"volumes, {depth:g} slices in the middle one"
    return 3


def _spacing(looks: Sequence[Look], dims: int, reasons: dict[str, str]) -> list[float]:
    """The median mm; of an axis of thick slices, where some images have thinner ones, their tenth percentile."""
    known = np.array([look.spacing[-dims:] for look in looks if len(look.spacing) >= dims])
    if len(known) < len(looks):
        reasons["spacing"] = "not known of all images: fitted into the patch"
        return []
    mm = np.median(known, axis=0)
    worst = int(mm.argmax())
    others = np.delete(mm, worst)
    reasons["spacing"] = "the median of the training images"
    if dims == 3 and mm[worst] > ANISOTROPIC * others.max():
        mm[worst] = max(float(np.quantile(known[:, worst], 0.1)), float(others.max()))
        reasons["spacing"] += "; of the thick slices, that of the thinnest tenth"
    return [float(v) for v in mm]


def _smaller(looks: Sequence[Look], reasons: dict[str, str]) -> float:
    """How many times smaller pictures are seen, since all that is labelled in them is large."""
    rims = [RIM / max(look.rim, RIM * LEAST / min(look.size)) for look in looks if look.labels != (0,)]
    found = max(1.0, float(np.median(rims or [1.0])))
    if found > 1:
        reasons["spacing"] += f"; labels are large, so pictures are seen {found:.2g} times smaller"
    return found


def _at(look: Look, dims: int, mm: Sequence[float]) -> npt.NDArray[np.float64]:
    """The size of an image at so many mm a voxel."""
    size = np.array(look.size[-dims:], dtype=float)
    return size * np.array(look.spacing[-dims:]) / np.array(mm) if len(mm) else size


def _patch(
    median: npt.NDArray[np.float64],
    most: npt.NDArray[np.float64],
    mm: Sequence[float],
    dims: int,
    width: int,
    memory: float,
    reasons: dict[str, str],
) -> list[int]:
    """All of most images where that fits, else of the same shape in mm and as large as fits."""
    voxels = min(MOST_VOXELS[dims], _free(memory) / (BATCH[3] * PER_VOXEL * width / 32))
    whole = most if most.prod() <= min(voxels, 1.5 * median.prod()) else median
    reasons["patch"] = f"the middle image has {_times(median)} voxels at this spacing"
    patch = np.maximum(whole, 1.0)
    shape = np.array(mm) if len(mm) else np.ones(dims)
    if patch.prod() > voxels and not len(mm):
        patch = patch * (voxels / patch.prod()) ** (1 / dims)
        reasons["patch"] += f", and a step on this machine takes {voxels:.3g} at most: made smaller"
    elif patch.prod() > voxels:  # a cube in mm, cut where the image ends
        side = 1.0
        while np.minimum(patch, 1.02 * side / shape).prod() < voxels:
            side *= 1.02
        patch = np.minimum(patch, side / shape)
        reasons["patch"] += f", and a step on this machine takes {voxels:.3g} at most: part of it"
    return [max(1, round(n)) for n in patch]


def _levels(patch: Sequence[int], mm: Sequence[float]) -> tuple[list[list[int]], list[list[int]]]:
    """Strides and kernels of each level: an axis is halved while both halves are at least SMALLEST, and waits while its
    voxels are still more than twice as wide as the finest; it is convolved once it is not much coarser."""
    size, wide = [float(n) for n in patch], np.array(mm if len(mm) else [1.0] * len(patch))
    levels, kernels = [[1] * len(patch)], []
    while True:
        kernels.append([1 if w / wide.min() > ANISOTROPIC / 1.5 else 3 for w in wide])
        stride = [2 if n / 2 >= SMALLEST and w <= 2 * wide.min() else 1 for n, w in zip(size, wide, strict=True)]
        if max(stride) == 1 or len(levels) == MOST_LEVELS:
            return levels, kernels
        levels.append(stride)
        size = [n / s for n, s in zip(size, stride, strict=True)]
        wide = wide * np.array(stride)


def _batch(patch: Sequence[int], dims: int, width: int, memory: float, reasons: dict[str, str]) -> int:
    fits = int(_free(memory) / (PER_VOXEL * width / 32 * float(np.prod(patch))))
    smaller = int(MOST_VOXELS[dims] / np.prod(patch))
    found = max(1, min(fits, max(BATCH[dims], min(BATCH[dims] * MOST_BATCH[dims], smaller))))
    reasons["batch"] = "what the memory holds" if found == fits else "small enough for many steps, for this patch"
    return found


def _free(memory: float) -> float:
    """Bytes that a training may take."""
    if memory:
        return memory
    return SHARE * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _times(size: npt.NDArray[np.float64]) -> str:
    return " x ".join(f"{n:.0f}" for n in size)
