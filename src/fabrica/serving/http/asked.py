"""What a client asks of /v1, checked before any work is done."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fabrica import io
from fabrica.inference.translator import contrasts_beside
from fabrica.serving.http.tasks import Apply, Refused, Sample, Served

MOST = 64  # synthetic images of one request
MOST_HEADER = 4000  # characters: proxies take 8 kB of headers, all together
LAST_SEED = 2**31 - 1
FLAGS = ("uncertainty", "round_trip", "mirror", "force")
TOLD = {"prompt": "text", "label": "label", "age": "age", "sex": "sex", "view_position": "view"}
"""What a synthesiser may be told, by the names of the interface."""
NUMBERS = ("steps", "guidance", "rescale", "truncation")


@dataclass(frozen=True)
class Wanted:
    """What is asked of /v1/apply, beside the images."""

    choices: Mapping[str, Any] = field(default_factory=dict)
    view: bool = False
    explain: bool = False

    def beside(self, served: Served, folder: Path) -> dict[str, Path]:
        """The contrasts that may be sent beside the image, and where in a request's folder the files of each go."""
        names = contrasts_beside(served.image, served.auxiliary, str(self.choices.get("contrast", "")))
        return {name: folder / "beside" / str(k) for k, name in enumerate(names, start=1)}

    def task(self, model: str, came: Mapping[str, Sequence[Path]], folder: Path, largest: int) -> Apply:
        """came: what was uploaded, see `fabrica.serving.http.uploads.on_disk`."""
        beside = {name: tuple(files) for name, files in came.items() if name}
        return Apply(model, tuple(came[""]), folder, self.choices, self.view, self.explain, largest, beside)


def of_apply(given: Mapping[str, str], served: Served) -> Wanted:
    """Parameters of an address, checked; Refused (400) for one that is not known, or has no such value."""
    known = ("model", "direction", "contrast", "as", "view", "explain", *FLAGS)
    for name in given:
        if name not in known:
            raise Refused(400, f"no parameter {name[:40]!r}; there are {', '.join(known)}")
    choices: dict[str, Any] = {name: _flag(name, given[name]) for name in FLAGS if name in given}
    if direction := given.get("direction", ""):
        if direction not in served.directions:
            raise Refused(400, f"model {served.name} goes {', '.join(served.directions)}; found {direction[:40]!r}")
        choices["direction"] = direction
    elif served.directions:
        choices["direction"] = next(iter(served.directions))
    if kind := given.get("as", ""):
        choices["as_"] = _kind(kind, bool(served.labels))
    if contrast := given.get("contrast", ""):
        choices["contrast"] = contrast
    return Wanted(choices, *(_flag(name, given.get(name, "0")) for name in ("view", "explain")))


def object_of(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; Refused (400) where it is none."""
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the body is no JSON") from error
    if not isinstance(found, dict):
        raise Refused(400, 'the body is no JSON object; expected {"model": ..., "seed": ..., "n": ...}')
    return found


def of_sample(said: Mapping[str, Any]) -> Callable[[str, Path], Sample]:
    """What is asked of /v1/sample, checked as far as it can be without the model; Refused (400)."""
    known = ("seed", "n", "as", "view", "sampler", *TOLD, *NUMBERS)
    for name in said:
        if name not in known:
            raise Refused(400, f"no {name[:40]!r}; there are model, {', '.join(known)}")
    n, seed = _whole(said, "n", 1, 1, MOST), _whole(said, "seed", 0, 0, LAST_SEED)
    conditions = {inner: said[outer] for outer, inner in TOLD.items() if said.get(outer) not in (None, "")}
    for outer, inner in TOLD.items():
        if inner in conditions and not isinstance(conditions[inner], float | int if inner == "age" else str):
            raise Refused(400, f"{outer} is no {'number' if inner == 'age' else 'text'}")
    choices = {name: said[name] for name in (*NUMBERS, "sampler") if said.get(name) is not None}
    for name in NUMBERS:
        if name in choices and (type(choices[name]) not in (int, float) or not math.isfinite(choices[name])):
            raise Refused(400, f"{name} is no number")
    if "steps" in choices:
        choices["steps"] = _whole(said, "steps", 1, 1, 1000)
    kind = _kind(str(said["as"]), False) if said.get("as") else ""
    view = said.get("view") is True
    return lambda model, folder: Sample(model, folder, n, seed, conditions, choices, kind, view)


def _whole(said: Mapping[str, Any], name: str, usual: int, lowest: int, highest: int) -> int:
    value = said.get(name, usual)
    if type(value) is not int or not lowest <= value <= highest:
        raise Refused(400, f"{name} is {str(value)[:20]!r}; expected a whole number from {lowest} to {highest}")
    return value


def _flag(name: str, value: str) -> bool:
    if value not in ("", "0", "1", "true", "false"):
        raise Refused(400, f"{name}={value[:20]!r}; expected 1 or 0")
    return value in ("", "1", "true")


def _kind(value: str, labels: bool) -> str:
    known = (*io.SUFFIXES, *(io.SEGMENTATIONS if labels else ()))
    if value not in known:
        raise Refused(400, f"as={value[:20]!r}; expected {', '.join(known)}")
    return value


def as_header(notes: Iterable[str]) -> str:
    """Sentences as the value of a header: a JSON list, ASCII, of as many as there is room for."""
    kept = list(notes)
    while len(said := json.dumps(kept)) > MOST_HEADER:
        kept.pop()
    return said
