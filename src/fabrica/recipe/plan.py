"""Plan: what a segmenter's data ask of its training, decided from them (`fabrica.data.planning`) where the recipe does
not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from fabrica.errors import UsageError


@dataclass(frozen=True)
class Plan:
    """Patches, the network's levels, and the labels. Lists are in array order, (H, W) or (D, H, W).

    spacing   mm between pixel centres at which the network sees images; empty: pictures without mm, fitted into `size`.
    size      of a patch; batch: patches a step.
    levels    how much coarser each level of the network is than the one before, along each axis; the first is all 1.
    kernels   the side of each level's convolutions along each axis: 3, or 1 along an axis of slices that are still much
              thicker than its pixels are wide.
    numbers   what stands in the label maps, the background 0 first; names: of each, "" where nobody named it.
    regions   labels that overlap, name -> the numbers that each holds, in the order in which they are laid over one
              another in a label map: see `laid`. Empty: a voxel has one label.
    mirror    the axes along which training images are mirrored at random: the last, from left to right, or none where a
              name tells left from right. Along the others patients differ from their mirror images, and a network
              that is shown both learns less in the same time.
    turned    the axes in whose plane they are turned and bent: all, or of thick slices the last two.
    contrasts of the patient, seen together as channels: the first is side a, the others lie beside it; empty: one.
    reasons   what each was decided by, a sentence each.
    """

    spacing: list[float] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    batch: int = 0
    levels: list[list[int]] = field(default_factory=list)
    kernels: list[list[int]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    regions: dict[str, list[int]] = field(default_factory=dict)
    mirror: list[int] = field(default_factory=list)
    turned: list[int] = field(default_factory=list)
    contrasts: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def channels(self) -> list[list[int]]:
        """What each channel of the network's answer says: places in `numbers`, one of each, or those of each region."""
        if not self.regions:
            return [[k] for k in range(len(self.numbers))]
        return [[self.numbers.index(number) for number in numbers] for numbers in self.regions.values()]

    @property
    def label_names(self) -> dict[int, str]:
        """What the numbers in label maps are called, without the background."""
        named = zip(self.numbers, self.names, strict=True)
        return {number: name or f"label {number}" for number, name in named if number}

    @property
    def owned(self) -> dict[int, list[int]]:
        """Of what is judged: number in a label map -> the numbers that belong to it."""
        return {number: own for number, (_, own) in self.judged.items()}

    @property
    def judged(self) -> dict[int, tuple[str, list[int]]]:
        """What is judged: number in a label map -> its name, and the numbers that belong to it; without the
        background."""
        if self.regions:
            each = zip(laid(self.regions), self.regions.items(), strict=True)
            return {number: (name, numbers) for number, (name, numbers) in each}
        return {number: (name, [number]) for number, name in self.label_names.items()}


def laid(regions: Mapping[str, Sequence[int]]) -> list[int]:
    """The number that each region becomes where they are laid over one another in this order: the first of its own
    that no later one has. Raises UsageError where later ones hide one wholly.

    >>> laid({"kidney": [1, 2, 3], "masses": [2, 3], "tumour": [2]})
    [1, 3, 2]
    """
    found, names = list[int](), list(regions)
    for k, name in enumerate(names):
        later = {number for other in names[k + 1 :] for number in regions[other]}
        left = [number for number in regions[name] if number not in later]
        if not left:
            raise UsageError(
                f"the region {name!r}, {list(regions[name])}, holds nothing that those after it do not hold, so a "
                "label map cannot show it; expected larger regions before the smaller ones within them"
            )
        found.append(left[0])
    return found


def mistake(plan: Plan) -> str:
    """What does not hold together in a plan that a person may have changed, in words; "" where all does."""
    dims = len(plan.size)
    expectations = [
        (dims in (2, 3) and min(plan.size) >= 1, f"has size {plan.size}; expected [H, W] or [D, H, W]"),
        (len(plan.spacing) in (0, dims) and min(plan.spacing, default=1) > 0,
         f"has spacing {plan.spacing}; expected mm above 0, {dims} numbers as in size, or none"),
        (plan.batch >= 1, f"has batch {plan.batch}; expected at least 1"),
        (bool(plan.levels) and len(plan.levels) == len(plan.kernels), f"has {len(plan.levels)} levels and "
         f"{len(plan.kernels)} kernels; expected as many of both"),
        (all(len(each) == dims and min(each) >= 1 for each in (*plan.levels, *plan.kernels)),
         f"has levels or kernels of other than {dims} numbers from 1"),
        (all(side % 2 == 1 for each in plan.kernels for side in each), "has kernels of even sides; expected 1 or 3"),
        (len(set(plan.numbers)) == len(plan.numbers) == len(plan.names) > 1 and plan.numbers[0] == 0,
         f"has numbers {plan.numbers} and {len(plan.names)} names; expected 0 and others once, with a name each"),
        (all({*own} <= {*plan.numbers} - {0} and own for own in plan.regions.values()),
         f"has regions {plan.regions}; expected numbers of {plan.numbers} but 0"),
        ({*plan.mirror, *plan.turned} <= {*range(dims)}, f"has mirror {plan.mirror} and turned {plan.turned}; expected "
         f"axes from 0 to {dims - 1}"),
    ]  # fmt: skip
    return next((said for holds, said in expectations if not holds), "")


def table(plan: Plan) -> str:
    """The plan as a person reads it: what, how much, and why."""
    turned = "in the plane alone" if len(plan.turned) < len(plan.size) else "about every axis"
    coarsest = [prod(along) for along in zip(*plan.levels, strict=True)]
    named = (f"{number} {name}".strip() for number, name in zip(plan.numbers, plan.names, strict=True) if number)
    told = "; ".join(f"{name}: {', '.join(map(str, numbers))}" for name, numbers in plan.regions.items())
    why = plan.reasons.get("regions", "they overlap: each is learned for itself")
    regions = [("regions", told, why)] if told else []
    rows = [
        ("images", f"{len(plan.size)}-D", plan.reasons.get("dimensions", "as asked")),
        ("spacing", f"{_times(plan.spacing)} mm" if plan.spacing else "-", plan.reasons.get("spacing", "as asked")),
        ("patch", _times(plan.size), plan.reasons.get("patch", "as asked")),
        ("batch", str(plan.batch), plan.reasons.get("batch", "as asked")),
        ("levels", str(len(plan.levels)), f"down to 1/{_times(coarsest)} of the resolution"),
        ("labels", ", ".join(named), "in the label maps"),
        *regions,
        ("turned", turned, "at random, in training"),
        ("mirrored", _mirrored(plan), plan.reasons.get("mirror", "")),
    ]
    if plan.contrasts or "contrasts" in plan.reasons:
        rows.insert(1, ("contrasts", ", ".join(plan.contrasts) or "one", plan.reasons.get("contrasts", "as asked")))
    wide = [max(len(row[k]) for row in rows) for k in (0, 1)]
    return "\n".join(f"{name:{wide[0]}}  {value:{wide[1]}}  {why}".rstrip() for name, value, why in rows)


def _mirrored(plan: Plan) -> str:
    if not plan.mirror:
        return "no"
    only = plan.mirror == [len(plan.size) - 1]
    return "left to right" if only else f"axes {', '.join(map(str, plan.mirror))}"


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
