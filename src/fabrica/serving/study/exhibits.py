"""The cases that tell most, as pictures for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fabrica.serving.study.common import code, images_of
from fabrica.serving.study.findings import number
from fabrica.serving.study.folder import Study
from fabrica.serving.study.readings import Readings, is_positive

if TYPE_CHECKING:
    from fabrica.image import Float64

MOST = 4  # cases of each exhibit
SIDE = 240


@dataclass(frozen=True)
class Picture:
    uri: str
    caption: str


@dataclass(frozen=True)
class Case:
    name: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Exhibit:
    """Some cases, each with pictures side by side, and how they were chosen."""

    title: str
    how: str
    cases: tuple[Case, ...]


def exhibits(readings: Readings) -> list[Exhibit]:
    """By kind: the cases with the largest difference and with the least agreement, or those that were mistaken most."""
    config = readings.study.config
    if not readings.readers:
        return []
    showings, table = images_of(readings)
    if config.kind in ("clarity", "detection") and len(config.names) > 1:
        return _compared(readings, showings, table)
    if config.kind == "real-or-synthetic":
        return _mistaken(readings, showings, table)
    if config.kind == "preference":
        return _preferred(readings)
    return []


def _compared(readings: Readings, showings: Sequence[tuple[str, tuple[str, ...]]], table: Float64) -> list[Exhibit]:
    study = readings.study
    one, two = study.config.comparisons[0]
    means = dict(zip(showings, _mean(table), strict=True))
    both = [c for c in readings.cases if all(np.isfinite(means.get((c, (arm,)), np.nan)) for arm in (one, two))]
    gap = {case: means[case, (one,)] - means[case, (two,)] for case in both}
    ranked = sorted(both, key=lambda case: -abs(gap[case]))[:MOST]
    detects = study.config.kind == "detection"
    word = "said lesion" if detects else "mean score"
    cases = []
    for case in ranked:
        pictures = tuple(
            Picture(
                picture(study, case, arm),
                f"{arm}, {word} {number(means.get((case, (arm,)), float('nan')), percent=detects)}",
            )
            for arm in study.config.names
        )
        truth = f" ({'lesion' if study.truth[case].diseased else 'no lesion'})" if detects else ""
        cases.append(Case(f"{case}{truth}", pictures))
    how = f"The cases whose answers differ most between {one} and {two}, middle slices of volumes."
    return [Exhibit("The cases that differ most", how, tuple(cases))] if cases else []


def _mistaken(readings: Readings, showings: Sequence[tuple[str, tuple[str, ...]]], table: Float64) -> list[Exhibit]:
    study, share = readings.study, _mean(table)
    found = []
    for synthetic, title in ((True, "Synthetic images taken for real"), (False, "Real images taken for synthetic")):
        wrong = {
            showing: (1 - share[i] if synthetic else share[i])
            for i, showing in enumerate(showings)
            if is_positive(study, showing[0], showing[1][0]) == synthetic and np.isfinite(share[i])
        }
        ranked = [each for each in sorted(wrong, key=lambda each: -wrong[each])[:MOST] if wrong[each] > 0]
        pictures = tuple(
            Picture(
                picture(study, case, arms[0]),
                f"{case}: {number(wrong[case, arms], percent=True)} of readers were mistaken",
            )
            for case, arms in ranked
        )
        if pictures:
            how = "Those that most readers were mistaken about."
            found.append(Exhibit(title, how, (Case("", pictures),)))
    return found


def _preferred(readings: Readings) -> list[Exhibit]:
    study = readings.study
    names = study.config.names
    votes = {
        case: [
            sum(code(r, readings) == k + 1 for r in readings.part("reading") if r.trial.case == case)
            for k in range(len(names))
        ]
        for case in readings.cases
    }
    ranked = sorted(votes, key=lambda case: -max(votes[case], default=0))[:MOST]
    cases = tuple(
        Case(
            case,
            tuple(
                Picture(picture(study, case, arm), f"{arm}, {n} votes")
                for arm, n in zip(names, votes[case], strict=True)
            ),
        )
        for case in ranked
        if sum(votes[case])
    )
    return [Exhibit("The clearest choices", "Those with the most votes for one arm.", cases)] if cases else []


def picture(study: Study, case: str, arm: str) -> str:
    """The middle slice as it was shown, as a data: URI."""
    from PIL import Image as Pillow

    from fabrica.report.charts import png_uri
    from fabrica.serving.study.folder import image_of

    own, name = image_of(study.config, case, arm)
    file = next(image.file for image in study.images if (image.arm, image.case) == (own, name))
    values = study.pixels(file)
    plane = values[len(values) // 2].astype(np.float64) * (255 / (2**study.look.bits - 1))
    pixels = np.rint(plane).astype(np.uint8)
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    height, width = pixels.shape[0] * study.aspects[file], float(pixels.shape[1])
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Pillow.Resampling.NEAREST if scale >= 1 else Pillow.Resampling.BOX
    return png_uri(np.asarray(Pillow.fromarray(pixels).resize(size, how)))


def _mean(table: Float64) -> Float64:
    there = np.isfinite(table)
    number_of = there.sum(0)
    total = np.where(there, table, 0.0).sum(0)
    return np.asarray(np.divide(total, number_of, out=np.full(table.shape[1], np.nan), where=number_of > 0))
