"""How well a label map agrees with the true one, class by class: overlap, surfaces, volume.

What counts, where a class is not on both sides (the rule of this house; libraries do not agree):

- In neither: the class is *absent* in this case. It has no score (NaN), is counted as absent, and is never taken for
  perfect.
- Made, but not in the truth: a *false alarm*. Dice, IoU and surface Dice are 0, HD95 is the diagonal of the image in
  mm (the largest distance there can be), the volume error is what was made, and has no relative size.
- In the truth, but not made: *missed*. The same 0, 0, 0 and diagonal; the volume error is all of it, -100 %. A missed
  organ counts.
- Absent in all cases: shown as never present, and in no mean.

Where others differ: MONAI's Dice is NaN wherever the truth is empty and its Hausdorff distance wherever either side is,
and NaN leave its means, so that false alarms, and for distances missed organs, cost nothing (its surface Dice is 0 for
both, as here). medpy takes two empty masks for perfect and measures no distance of an empty one; its hd95 pools the
distances of both directions before it takes the percentile, so that the longer surface has the larger say, where here
the larger of two percentiles stands. The Dice of torchmetrics leaves out absent classes and counts false alarms and
missed organs as 0, as here, but averages the classes of each case by default ("macro"), the background among them,
which is nearly always near 1. nnU-Net has 0 for a false alarm and NaN for an absent class, as here. Distances of MONAI,
medpy and torchmetrics run between the voxels of the rim, each counted once; here, as in DeepMind's surface-distance
(Nikolov et al. 2018, arXiv 1809.04430), between elements of the surface, weighted by their area, so that oblique
surfaces and voxels that are no cubes count as they should.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from fabrica.errors import UsageError
from fabrica.metrics.surfaces import Mask, between

Labels = npt.NDArray[np.integer]
Box = tuple[slice, ...]
Classes = Iterable[int] | Mapping[int, Sequence[int]]

METRICS = ("dice", "iou", "surface_dice", "hd95", "volume_error", "relative_volume_error")
BETTER = {"dice": "higher", "iou": "higher", "surface_dice": "higher", "hd95": "lower"}  # volume errors: near 0
TOLERANCE = 1.0  # mm
NAN = float("nan")


@dataclass(frozen=True)
class ClassScores:
    """One class of one label map against the true one, by the rule above; NaN: no score.

    dice, iou, surface_dice   0 to 1.
    hd95                      mm.
    volume                    of the true class, in ml; of 2-D images its area in cm^2.
    volume_error              made less true, in ml or cm^2; relative_volume_error: as a share of the true volume.
    """

    dice: float
    iou: float
    surface_dice: float
    hd95: float
    volume: float
    volume_error: float
    relative_volume_error: float

    @property
    def made(self) -> bool:
        return self.volume + self.volume_error > 0

    @property
    def absent(self) -> bool:
        return self.volume == 0 and not self.made

    @property
    def missed(self) -> bool:
        return self.volume > 0 and not self.made

    @property
    def false_alarm(self) -> bool:
        return self.volume == 0 and self.made


def dice(made: Mask, truth: Mask) -> float:
    """2 |A and B| / (|A| + |B|) of bool masks of one shape (Dice 1945): 0 nothing in common, 1 the same. NaN where both
    are empty."""
    _checked(made, truth)
    return _dice(*_counts(made, truth))


def iou(made: Mask, truth: Mask) -> float:
    """|A and B| / |A or B| of bool masks of one shape (Jaccard 1912), 0 to 1. NaN where both are empty."""
    _checked(made, truth)
    return _iou(*_counts(made, truth))


def surface_dice(made: Mask, truth: Mask, spacing: Sequence[float], tolerance: float = TOLERANCE) -> float:
    """The share of both surfaces that lies within `tolerance` mm of the other one, by area: 0 to 1; the normalised
    surface Dice, NSD (Nikolov et al. 2018). NaN where both masks are empty, 0 where one is.

    made, truth   bool (H, W) or (D, H, W).
    spacing       mm between voxel centres along each axis, in that order.
    """
    _checked(made, truth, spacing)
    return _surface(made, truth, spacing, tolerance)[0]


def hd95(made: Mask, truth: Mask, spacing: Sequence[float]) -> float:
    """95 % Hausdorff distance in mm: the distance within which 95 % of a surface, by area, lie from the other one, the
    larger of both directions. NaN where both masks are empty, the diagonal of the image where one is.

    made, truth, spacing   as for `surface_dice`.
    """
    _checked(made, truth, spacing)
    return _surface(made, truth, spacing, TOLERANCE)[1]


def volume_error(made: Mask, truth: Mask, spacing: Sequence[float]) -> tuple[float, float]:
    """Volume of `made` less that of `truth`: in ml (of 2-D images area in cm^2), and as a share of that of the truth,
    NaN where it has none.

    made, truth, spacing   as for `surface_dice`.
    """
    _checked(made, truth, spacing)
    made_count, truth_count, _ = _counts(made, truth)
    return _volume(made_count - truth_count, spacing), _relative(made_count, truth_count)


def compare(
    made: Labels,
    truth: Labels,
    classes: Classes,
    spacing: Sequence[float],
    tolerance: float | Mapping[int, float] = TOLERANCE,
    ignore: Mask | None = None,
) -> dict[int, ClassScores]:
    """All scores of these classes of a label map against the true one; each in the order of `classes`.

    made, truth   integers (H, W) or (D, H, W); 0 is the background. Labels that are no class are background too.
    classes       numbers; or of each the labels that belong to it, where several do: regions may overlap.
    spacing       mm between voxel centres along each axis, in that order.
    tolerance     of the surface Dice, in mm; or that of each class.
    ignore        bool, where nothing is judged: such voxels count as background on both sides, so that what both made
                  there ends at the same surface.

    Each class is looked at in the box that holds it on both sides, which changes no score. Raises UsageError for other
    shapes and types, and for classes below 1.
    """
    owned = owners(classes)
    wanted = list(owned)
    _check_labels(made, truth, [*wanted, *(n for own in owned.values() for n in own)], spacing, ignore)
    tolerances = tolerance if isinstance(tolerance, Mapping) else dict.fromkeys(wanted, tolerance)
    if without := [number for number in wanted if number not in tolerances]:
        raise UsageError(f"tolerance holds none for class {without[0]}; expected mm for each class, or one number")
    top = max((number for own in owned.values() for number in own), default=0)
    boxes = [find_objects(labels, max_label=top) if top else [] for labels in (made, truth)]
    diagonal = _diagonal(made.shape, spacing)
    found = {}
    for number, own in owned.items():
        box = _around([each[label - 1] for each in boxes for label in own])
        one, two = of_class(made[box], own), of_class(truth[box], own)
        if ignore is not None:
            judged = ~ignore[box]
            one, two = one & judged, two & judged
        counts = _counts(one, two)
        near, distance = _surface(one, two, spacing, tolerances[number], diagonal)
        volume, error = _volume(counts[1], spacing), _volume(counts[0] - counts[1], spacing)
        found[number] = ClassScores(
            _dice(*counts), _iou(*counts), near, distance, volume, error, _relative(*counts[:2])
        )
    return found


def owners(classes: Classes) -> dict[int, tuple[int, ...]]:
    """Class -> the labels that belong to it: itself, where nothing else is said."""
    if isinstance(classes, Mapping):
        return {int(number): tuple(own) for number, own in classes.items()}
    return {int(number): (int(number),) for number in classes}


def of_class(labels: Labels, own: Sequence[int]) -> Mask:
    """Where a label map shows one of these labels."""
    found: Mask = labels == own[0] if len(own) == 1 else np.isin(labels, own)
    return found


def _counts(made: Mask, truth: Mask) -> tuple[int, int, int]:
    """Voxels of one, of the other, and of both."""
    return int(np.count_nonzero(made)), int(np.count_nonzero(truth)), int(np.count_nonzero(made & truth))


def _dice(made: int, truth: int, both: int) -> float:
    return 2 * both / (made + truth) if made + truth else NAN


def _iou(made: int, truth: int, both: int) -> float:
    return both / (made + truth - both) if made + truth else NAN


def _relative(made: int, truth: int) -> float:
    return (made - truth) / truth if truth else NAN


def _volume(voxels: int, spacing: Sequence[float]) -> float:
    return voxels * math.prod(mm / 10 for mm in spacing)


def _surface(
    made: Mask, truth: Mask, spacing: Sequence[float], tolerance: float, diagonal: float | None = None
) -> tuple[float, float]:
    """Surface Dice and HD95. diagonal: of the image, in mm; None: of these arrays."""
    there = made.any(), truth.any()
    if not any(there):
        return NAN, NAN
    if not all(there):
        return 0.0, _diagonal(made.shape, spacing) if diagonal is None else diagonal
    box = _around([find_objects(mask.view(np.uint8))[0] for mask in (made, truth)])
    sides = between(made[box], truth[box], spacing)
    whole = sum(float(np.sum(side.areas)) for side in sides)
    return sum(side.within(tolerance) for side in sides) / whole, max(side.quantile(0.95) for side in sides)


def _diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    return math.sqrt(sum((n * mm) ** 2 for n, mm in zip(shape, spacing, strict=True)))


def _around(boxes: Sequence[Box | None]) -> Box:
    """The box that holds all; nothing of nothing."""
    there = [box for box in boxes if box is not None]
    if not there:
        return (slice(0, 0),)
    return tuple(
        slice(min(part.start for part in along), max(part.stop for part in along)) for along in zip(*there, strict=True)
    )


def _checked(made: Mask, truth: Mask, spacing: Sequence[float] | None = None) -> None:
    for name, mask in (("made", made), ("true", truth)):
        if mask.dtype != np.bool_:
            raise UsageError(f"the {name} mask is of type {mask.dtype}; expected bool, of one class")
    _check_shapes(made.shape, truth.shape, spacing)


def _check_shapes(made: tuple[int, ...], truth: tuple[int, ...], spacing: Sequence[float] | None) -> None:
    if made != truth or len(made) not in (2, 3):
        raise UsageError(f"masks have shapes {made} and {truth}; expected two equal ([D,] H, W)")
    if spacing is not None and (len(spacing) != len(made) or not all(0 < mm < math.inf for mm in spacing)):
        raise UsageError(f"spacing is {tuple(spacing)}; expected {len(made)} numbers of mm above 0, one an axis")


def _check_labels(
    made: Labels, truth: Labels, classes: Sequence[int], spacing: Sequence[float], ignore: Mask | None
) -> None:
    for name, labels in (("made", made), ("true", truth)):
        if not np.issubdtype(labels.dtype, np.integer):
            raise UsageError(f"the {name} label map is of type {labels.dtype}; expected integers")
    _check_shapes(made.shape, truth.shape, spacing)
    if ignore is not None and (ignore.shape != truth.shape or ignore.dtype != np.bool_):
        raise UsageError(f"ignore is {ignore.dtype} {ignore.shape}; expected bool {truth.shape}, as the label maps")
    if low := [number for number in classes if number < 1]:
        raise UsageError(f"classes hold {low[0]}; expected numbers from 1: 0 is the background, which is not judged")
