"""One translated image drawn for the page: greys in windows that are said, errors and doubts in fixed colours."""

from __future__ import annotations

from dataclasses import dataclass

from fabrica.codec import Codec
from fabrica.evaluation.translation.cases import Case, directions
from fabrica.image import Image
from fabrica.model.translation import TranslationModel
from fabrica.report.pictures import (
    SOFT,
    WIDE,
    Legend,
    Picture,
    error,
    error_legend,
    grey,
    span,
    uncertainty,
    uncertainty_legend,
)

ERROR_HU, UNCERTAINTY_HU = 500.0, 250.0
ERROR_PART, UNCERTAINTY_PART = 1 / 8, 1 / 16  # of the range, for other units


@dataclass(frozen=True, eq=False)
class Show:
    """What is drawn of one test image."""

    model: TranslationModel
    direction: str
    case: Case
    result: Image
    doubt: Image | None

    @property
    def units(self) -> tuple[str, str]:
        """Of source and target, " HU" or nothing."""
        way = self.model.way(self.direction)
        source, target = (" HU" if codec.unit == "HU" else "" for codec in (way.source, way.target))
        return source, target

    def top(self) -> list[Picture]:
        given, truth = self.case.images[self.direction[0]], self.case.images.get(self.direction[-1])
        source, target = side_name(self.model, self.direction[0]), side_name(self.model, self.direction[-1])
        found = [grey(given, given, f"{source}, the source", 1, WIDE)]
        if truth is None:
            found.append(grey(self.result, self.result, f"{target}, translated", 2, WIDE))
            if (back := self._back()) is not None:
                found.append(grey(back, given, f"{source}, there and back", 3, WIDE))
            return [*found, *self._mean_uncertainty()]
        found.append(grey(truth, truth, f"{target}, the truth", 2, WIDE))
        found.append(grey(self.result, truth, f"{target}, translated", 3, WIDE))
        if self.result.unit != "label":
            found.append(self._error(truth))
        return found

    def below(self) -> list[Picture]:
        truth = self.case.images.get(self.direction[-1])
        target, found = side_name(self.model, self.direction[-1]), []
        if self.result.unit == "HU":
            if truth is not None:
                found.append(grey(truth, truth, f"{target}, the truth, soft tissue", 2, SOFT))
            column = 2 if truth is None else 3
            found.append(grey(self.result, self.result, f"{target}, translated, soft tissue", column, SOFT))
        return found if truth is None else [*found, *self._mean_uncertainty()]

    def _back(self) -> Image | None:
        other = [way for way in directions(self.model) if way != self.direction]
        return self.model.apply(self.result, direction=other[0]).result if other else None

    def _error(self, truth: Image) -> Picture:
        most = error_scale(self.model.way(self.direction).target)
        return error(self.result, truth, self.case.body, most, "translated less truth; grey line: the body", 4)

    def _mean_uncertainty(self) -> list[Picture]:
        most = uncertainty_scale(self.model.way(self.direction).target)
        return [] if self.doubt is None else [uncertainty(self.doubt, most, 4)]


def error_scale(codec: Codec) -> float:
    """The error at the ends of the colours, in the codec's unit."""
    return ERROR_HU if codec.unit == "HU" else ERROR_PART * span(codec)


def uncertainty_scale(codec: Codec) -> float:
    """The uncertainty at the end of the colours, in the codec's unit."""
    return UNCERTAINTY_HU if codec.unit == "HU" else UNCERTAINTY_PART * span(codec)


def side_name(model: TranslationModel, side: str) -> str:
    return {"a": model.data.a, "b": model.data.b}[side]


def legends(model: TranslationModel, direction: str, with_error: bool) -> list[Legend]:
    target = model.way(direction).target
    if target.kind == "label":
        return []
    found = [error_legend("translated less truth", target, error_scale(target))] if with_error else []
    return [*found, uncertainty_legend(target, uncertainty_scale(target))]


def how(model: TranslationModel, direction: str, volumes: bool) -> str:
    """What the greys mean."""
    way, said = model.way(direction), []
    for side, codec in ((direction[0], way.source), (direction[-1], way.target)):
        name = side_name(model, side)
        if codec.unit == "HU":
            said.append(
                f"{name}: black is −{-WIDE[0]:g} HU, white is {WIDE[1]:g} HU"
                + (f"; soft tissue: −{-SOFT[0]:g} to {SOFT[1]:g} HU" * (side == direction[-1]))
            )
        elif codec.kind != "label":
            said.append(f"{name}: black and white are percentiles 0.5 and 99.5 of the (true) image")
    return ". ".join([*said, *(["Of volumes the middle axial slice is shown"] if volumes else [])]) + "."
