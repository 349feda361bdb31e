"""Does the picture obey the text? On phantoms that can be measured: prompt, image, finding read from its pixels.

A score is only as good as its reader, so that the reader's own accuracy stands beside it, and findings that it cannot
read at this size are named and left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fabrica.errors import UsageError
from fabrica.evaluation.synthesis.phantom_classifier import PhantomClassifier, classifier
from fabrica.evaluation.synthesis.phantom_findings import FINDINGS, Int, Prompt, Stated, numbered, pictures, prompts
from fabrica.image import Float32
from fabrica.metrics.memorisation import mean_share

__all__ = [
    "Adherence",
    "Obeyed",
    "PhantomClassifier",
    "Prompt",
    "adherence",
    "classifier",
    "pictures",
    "prompts",
    "scored",
]


@dataclass(frozen=True)
class Obeyed:
    """How often images show what was stated of one finding.

    share      the mean over the values that were stated of the share of images that show them: a generator that never
               draws a nodule, however rare nodules are, gets one half.
    low, high  its 95 % interval (Wilson 1927, for the number of images that such a mean is worth).
    chance     what images that know nothing of the text get: one over the number of values stated.
    count      images of which the text says something.
    accuracy   the same share of real phantoms, as the reader reads them: no generator can be expected to exceed it.
    values     value -> (images that show it, images that should).
    """

    finding: str
    share: float
    low: float
    high: float
    chance: float
    count: int
    accuracy: float
    values: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Adherence:
    """rows, one a finding that the reader can be trusted with; unread: finding -> the reader's accuracy, of the others;
    whole: of how many texts the image shows all that is stated of those findings, and how many texts there are. The
    mean is over the rows, NaN without any."""

    rows: tuple[Obeyed, ...]
    unread: dict[str, float]
    whole: tuple[int, int] = (0, 0)

    @property
    def mean(self) -> float:
        return float(np.mean([row.share for row in self.rows])) if self.rows else float("nan")

    @property
    def chance(self) -> float:
        """The same mean of images that know nothing of the text."""
        return float(np.mean([row.chance for row in self.rows])) if self.rows else float("nan")


def adherence(asked: Sequence[Prompt | Stated], images: Float32, by: PhantomClassifier) -> Adherence:
    """How far images obey what was asked of them.

    asked   a prompt an image, or what is stated of it: finding -> one of its values in FINDINGS.
    images  float32 (N, 1, S, S) in [-1, 1], S the reader's size.

    Raises UsageError for other numbers of images, findings and values that there are not, images the reader refuses.
    """
    stated = [one.stated if isinstance(one, Prompt) else one for one in asked]
    if len(stated) != len(images) or not stated:
        raise UsageError(f"{len(stated)} prompts and {len(images)} images; expected one image a prompt")
    for said in stated:
        for name, value in said.items():
            if name not in FINDINGS or value not in FINDINGS[name].values:
                known = FINDINGS[name].values if name in FINDINGS else FINDINGS
                raise UsageError(f"nothing reads {name!r} = {value!r}; expected one of {', '.join(known)}")
    return scored(numbered(stated), by.read(images), by.accuracy, by.trusted)


def scored(
    stated: dict[str, Int], seen: dict[str, Int], accuracy: dict[str, float], trusted: Sequence[str]
) -> Adherence:
    """The score of findings (N,) seen where others were stated, -1 where nothing was."""
    names = [name for name in trusted if (stated[name] >= 0).any()]
    rows = [_row(name, stated[name], seen[name], accuracy[name]) for name in names]
    kept = [(stated[name] < 0) | (stated[name] == seen[name]) for name in names]
    whole = (int(np.all(kept, axis=0).sum()), len(kept[0])) if kept else (0, 0)
    return Adherence(tuple(rows), {name: share for name, share in accuracy.items() if name not in trusted}, whole)


def _row(name: str, stated: Int, seen: Int, accuracy: float) -> Obeyed:
    values = {}
    for k in np.unique(stated[stated >= 0]):
        those = seen[stated == k]
        values[FINDINGS[name].values[k]] = (int(np.sum(those == k)), len(those))
    share, low, high = mean_share(*zip(*values.values(), strict=True))
    return Obeyed(name, share, low, high, 1 / len(values), int(np.sum(stated >= 0)), accuracy, values)
