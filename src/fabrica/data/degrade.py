"""Degradations: from a good image to the one a lower dose, fewer lines or a coarser detector would have given.

A step is a mapping of its name and what differs from the defaults, {"name": "low-dose", "dose": 0.1}; what there is
stands in `fabrica.data.degradations`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fabrica.data.degradations import STEPS, Limits, Parameters, Seen
from fabrica.errors import UsageError, did_you_mean
from fabrica.geometry import as_seen, turn
from fabrica.image import Image, name

_XRAY = ("DX", "CR", "MG", "XA", "RF", "PX", "IO")
_UNTOLD = ("", "OT")


def degraded(image: Image, steps: Sequence[Parameters], seed: int) -> Image:
    """`image` (C, H, W) or (C, D, H, W) after all `steps`, in their order; volumes axial slice by axial slice.

    The same image, steps and seed give the same result, bit by bit; each step has random numbers of its own. Grid,
    affine, unit and origin stay, and values within the declared range, if any; origin["degraded"] names the steps.
    Without steps it is the image itself.
    Raises UsageError for steps that do not exist (see `check`) or do not suit the image, and for label images.
    """
    check(steps)
    for step in steps:
        _refuse(image, str(step["name"]))
    if not steps:
        return image
    data = image.data.copy()
    axial, mm = data[:, None], (1.0, *image.spacing)
    if data.ndim == 4:
        axial = as_seen(data, image.affine, "LPS")
        mm = tuple(image.spacing[axis - 1] for axis in turn(image.affine, "LPS")[0])
    values, (low, high) = np.ascontiguousarray(axial), _greys(image)
    shrunk = 1
    for k, step in enumerate(steps):
        known, parameters = STEPS[step["name"]], complete(step)
        rng = np.random.default_rng([seed & 0xFFFF_FFFF_FFFF_FFFF, k])
        base = np.float32(min(float(values.min()), 0.0) if known.subject == "MR" else 0.0)
        seen = Seen((mm[0], mm[1] * shrunk, mm[2] * shrunk), low, high)
        values = known.work(values - base, seen, parameters, rng) + base
        shrunk *= parameters.get("factor", 1)
    repeated = values.repeat(shrunk, 2).repeat(shrunk, 3)[:, :, : axial.shape[2], : axial.shape[3]]
    axial[...] = np.clip(repeated, *image.origin.get("range", (-np.inf, np.inf)))
    done = [image.origin["degraded"]] if image.origin.get("degraded") else []
    told = ", ".join([*done, *(str(step["name"]) for step in steps)])
    return image.with_data(data, origin={**image.origin, "degraded": told})


def check(steps: Any) -> None:
    """Raise UsageError where `steps` are not a list of mappings with known names and values that make sense."""
    if isinstance(steps, str | Mapping) or not isinstance(steps, Sequence):
        raise UsageError(
            f"found {steps!r} for the steps of a degradation; expected a list such as [{{name: low-dose}}]"
        )
    for step in steps:
        if not isinstance(step, Mapping) or "name" not in step:
            raise UsageError(f"found {step!r} as a degradation; expected a mapping with a name, {{name: low-dose}}")
        known = STEPS.get(step["name"]) if isinstance(step["name"], str) else None
        if known is None:
            raise UsageError(f"no degradation {step['name']!r}{did_you_mean(str(step['name']), STEPS)}")
        for key, value in step.items():
            if key == "name":
                continue
            if key not in known.parameters:
                raise UsageError(f"{step['name']} has no {key!r}{did_you_mean(str(key), known.parameters)}")
            _check_value(f"{step['name']}: {key}", value, known.parameters[key])


def _check_value(what: str, value: Any, allowed: Limits | tuple[str | bool | int, ...]) -> None:
    if not isinstance(allowed, Limits):
        if not any(type(value) is type(choice) and value == choice for choice in allowed):
            raise UsageError(f"{what} is {value!r}; expected {' or '.join(str(word).lower() for word in allowed)}")
        return
    whole = isinstance(allowed.default, int)
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not number or not allowed.least <= value <= allowed.most:
        kind = "a whole number" if whole else "a number"
        ends = f"from {allowed.least:g} to {allowed.most:g}, such as {allowed.default:g}"
        raise UsageError(f"{what} is {value!r}; expected {kind} {ends}")


def complete(step: Parameters) -> dict[str, Any]:
    """The step's parameters, defaults included."""
    known = STEPS[step["name"]].parameters.items()
    return {
        key: step.get(key, allowed.default if isinstance(allowed, Limits) else allowed[0]) for key, allowed in known
    }


def _refuse(image: Image, step: str) -> None:
    """Raise UsageError where the physics of a step is not that of the image."""
    subject, modality = STEPS[step].subject, str(image.origin.get("modality") or "")
    if image.unit == "label" or modality == "SEG":
        raise UsageError(f"{name(image)} holds labels, and {step} needs grey values; give the image, not its mask")
    suits = {
        "CT": image.unit == "HU",
        "MR": image.unit != "HU" and modality in ("MR", *_UNTOLD),
        "X-ray": image.unit != "HU" and modality in (*_XRAY, *_UNTOLD),
        "any": True,
    }
    if not suits[subject]:
        expected = {
            "CT": "CT in HU (NIfTI does not say so itself: modality CT in the manifest does)",
            "MR": "an MR image",
            "X-ray": f"a radiograph ({', '.join(_XRAY)})",
        }[subject]
        fitting = ", ".join(key for key, other in STEPS.items() if other.subject == "any")
        raise UsageError(
            f"{name(image)} has unit {image.unit}, modality {modality or 'not known'}; {step} expects {expected}: "
            f"leave such images out (data.where), or take a step for any image ({fitting})"
        )


def _greys(image: Image) -> tuple[float, float]:
    """The range of grey values: the declared one where that is of 8 bits at most. A wider one says what can be stored,
    not what is: then it runs from the 0.5th to the 99.5th percentile, or from the lowest to the highest value where
    these are one. A constant image has a range of no width."""
    low, high = image.origin.get("range", (0.0, math.inf))
    if high - low <= 255:
        return float(low), float(high)
    low, high = np.percentile(image.data, [0.5, 99.5])
    return (float(low), float(high)) if high > low else (float(image.data.min()), float(image.data.max()))
