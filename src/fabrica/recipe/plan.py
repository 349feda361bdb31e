"""Plan: what a segmenter's data ask of its training, decided from them (`fabrica.data.planning`) where the recipe does
not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod


@dataclass(frozen=True)
class Plan:
    """Patches, the network's levels, and the labels. Lists are in array order, (H, W) or (D, H, W).

    spacing   mm between pixel centres at which the network sees images; empty: pictures without mm, fitted into `size`.
    size      of a patch; batch: patches a step.
    levels    how much coarser each level of the network is than the one before, along each axis; the first is all 1.
    kernels   the side of each level's convolutions along each axis: 3, or 1 along an axis of slices that are still much
              thicker than its pixels are wide.
    numbers   what stands in the label maps, the background 0 first; names: of each, "" where nobody named it.
    mirror    the axes along which training images are mirrored at random: none where a name tells left from right.
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
    mirror: list[int] = field(default_factory=list)
    turned: list[int] = field(default_factory=list)
    contrasts: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


def table(plan: Plan) -> str:
    """The plan as a person reads it: what, how much, and why."""
    turned = "in the plane alone" if len(plan.turned) < len(plan.size) else "about every axis"
    coarsest = [prod(along) for along in zip(*plan.levels, strict=True)]
    named = (f"{number} {name}".strip() for number, name in zip(plan.numbers, plan.names, strict=True) if number)
    rows = [
        ("images", f"{len(plan.size)}-D", plan.reasons.get("dimensions", "as asked")),
        ("spacing", f"{_times(plan.spacing)} mm" if plan.spacing else "-", plan.reasons.get("spacing", "as asked")),
        ("patch", _times(plan.size), plan.reasons.get("patch", "as asked")),
        ("batch", str(plan.batch), plan.reasons.get("batch", "as asked")),
        ("levels", str(len(plan.levels)), f"down to 1/{_times(coarsest)} of the resolution"),
        ("labels", ", ".join(named), "in the label maps"),
        ("turned", turned, "at random, in training"),
        ("mirrored", "yes" if plan.mirror else "no", plan.reasons.get("mirror", "")),
    ]
    if plan.contrasts or "contrasts" in plan.reasons:
        rows.insert(1, ("contrasts", ", ".join(plan.contrasts) or "one", plan.reasons.get("contrasts", "as asked")))
    wide = [max(len(row[k]) for row in rows) for k in (0, 1)]
    return "\n".join(f"{name:{wide[0]}}  {value:{wide[1]}}  {why}".rstrip() for name, value, why in rows)


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
