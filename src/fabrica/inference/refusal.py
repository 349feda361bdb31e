"""Why an image is not for a model, before any work is done; and what is to be known of all that a model makes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fabrica.image import Image
from fabrica.inference.out_of_distribution import compared, out_of_distribution
from fabrica.inference.translation import Way
from fabrica.recipe.card import OF_PHANTOMS
from fabrica.recipe.held_out import useless


def refusals(image: Image, way: Way, auxiliary: Mapping[str, Image] | None = None, contrast: str = "") -> list[str]:
    """Why this image, and those beside it, should not be translated, a phrase each; [] where nothing speaks against
    it. contrast: which of several the image is; training is known of side a alone."""
    found = flaws(image)
    if "positions" in image.origin and len(way.data.size) == 3:
        found.append("its slices are uneven, and the model works on volumes")
    found = found or (out_of_distribution(image, way) if contrast in ("", way.data.a) else [])
    return found + [
        f"of {name} beside it, {flaw}" for name, other in (auxiliary or {}).items() for flaw in flaws(other)
    ]


def flaws(image: Image) -> list[str]:
    """What the image lacks, a phrase each."""
    reasons = []
    if missing := int(image.origin.get("missing", 0)):
        reasons.append(f"{missing} of its slices are missing")
    if strange := int(image.origin.get("nan", 0)) or int((~np.isfinite(image.data.sum(axis=-1))).sum()):
        reasons.append(f"{strange} of its values are no numbers")
    return reasons


def cautions(way: Way) -> list[str]:
    """What is to be known of all results of a model before one relies on any, a sentence each."""
    of_phantoms = f"the model is {OF_PHANTOMS}" if way.data.phantoms else ""
    return [sentence for sentence in (of_phantoms, useless(way.held_out), compared(way)) if sentence]
