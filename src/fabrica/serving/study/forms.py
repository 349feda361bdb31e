"""What may be answered, by kind of study: parsed where it comes in, and read as numbers where it is analysed.

clarity            {"score": 1 .. K}
real-or-synthetic  {"says": "real" | "synthetic", "confidence": 1 .. K}
preference         {"choice": 1 .. N by place from the left, 0 for no difference}
detection          {"says": "lesion" | "none", "confidence": 1 .. K, "marks": [...]}, a mark [slice, column, row] for
                   a click, [slice, left, top, right, bottom] for a box, pixels of the image as it is shown, from 0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fabrica.errors import UsageError
from fabrica.serving.study.config import StudyConfig

SAYS = {"real-or-synthetic": ("real", "synthetic"), "detection": ("none", "lesion")}
"""The two answers, the second of which is what is looked for."""


def checked(config: StudyConfig, answer: Any, shape: Sequence[int] = ()) -> dict[str, Any]:
    """The answer as it is kept; UsageError for any other. shape: slices, rows and columns of what is shown, within
    which marks must lie; () where it is not known."""
    if not isinstance(answer, dict):
        raise UsageError(f"the answer is {answer!r}; expected names and values")
    keys = {
        "clarity": {"score"},
        "preference": {"choice"},
        "real-or-synthetic": {"says", "confidence"},
        "detection": {"says", "confidence", "marks"},
    }[config.kind]
    if set(answer) != keys:
        raise UsageError(f"the answer has {', '.join(sorted(map(str, answer)))}; expected {', '.join(sorted(keys))}")
    if config.kind == "clarity":
        return {"score": _number("score", answer["score"], 1, len(config.scale))}
    if config.kind == "preference":
        return {"choice": _number("choice", answer["choice"], 0 if config.ties else 1, len(config.arms))}
    said = SAYS[config.kind]
    if answer["says"] not in said:
        raise UsageError(f"the answer is {answer['says']!r}; expected {' or '.join(said)}")
    kept = {
        "says": answer["says"],
        "confidence": _number("confidence", answer["confidence"], 1, len(config.confidence)),
    }
    if config.kind == "detection":
        kept["marks"] = _marks(config, answer["marks"], shape)
        if kept["marks"] and kept["says"] == "none":
            raise UsageError("the answer marks a lesion and says that there is none; take back one of both")
    return kept


def positive(config: StudyConfig, answer: dict[str, Any]) -> bool:
    """Whether what is looked for was seen: a synthetic image, or a lesion."""
    return bool(answer["says"] == SAYS[config.kind][1])


def rating(config: StudyConfig, answer: dict[str, Any]) -> float:
    """How sure a reader is that it is there: -K .. -1, surely not first, and 1 .. K."""
    return float(answer["confidence"]) * (1 if positive(config, answer) else -1)


def _number(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{name} is {value!r}; expected a whole number from {low} to {high}")
    return value


def _marks(config: StudyConfig, marks: Any, shape: Sequence[int]) -> list[list[float]]:
    numbers = 3 if config.mark == "click" else 5
    if not isinstance(marks, list) or len(marks) > 100:
        raise UsageError(f"marks are {str(marks)[:60]}; expected a list of at most 100")
    kept = []
    for mark in marks:
        if not isinstance(mark, list) or len(mark) != numbers or not all(_is_number(each) for each in mark):
            raise UsageError(f"a mark is {str(mark)[:60]}; expected {numbers} numbers: see the form of a {config.mark}")
        corners = [mark[1:3]] if numbers == 3 else [mark[1:3], mark[3:5]]
        if shape and not all(0 <= mark[0] < shape[0] and 0 <= x <= shape[2] and 0 <= y <= shape[1] for x, y in corners):
            raise UsageError(f"a mark at {mark} lies outside the image of {tuple(shape)} slices, rows and columns")
        if numbers == 5 and not (mark[1] < mark[3] and mark[2] < mark[4]):
            raise UsageError(f"a box is {mark}; expected [slice, left, top, right, bottom]")
        kept.append([float(each) for each in mark])
    return kept


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6
