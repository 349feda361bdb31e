"""Which model a series is for: a table of rules in YAML, the first that fits.

rules:
  - modality: CT
    body_part: [CHEST, THORAX]
    description: "*lung*"
    slices: 20-600
    model: denoise
  - modality: MR
    model: [mr-to-ct, organs]
    direction: a2b
otherwise: keep
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from fabrica.errors import FabricaError, UsageError, did_you_mean
from fabrica.recipe.values import read

KEEP, FORWARD = "keep", "forward"
_KEYS = ("modality", "body_part", "description", "slices", "model", "direction")
_RANGE = re.compile(r"(\d*)\s*(-?)\s*(\d*)")


@dataclass(frozen=True)
class Rule:
    """Patterns as of file names, in upper case, any one of which fits; () fits everything. least, most: slices."""

    models: tuple[str, ...]
    direction: str = ""
    modality: tuple[str, ...] = ()
    body_part: tuple[str, ...] = ()
    description: tuple[str, ...] = ()
    least: int = 1
    most: int = 10**9

    def fits(self, modality: str, body_part: str, description: str, slices: int) -> bool:
        pairs = (self.modality, modality), (self.body_part, body_part), (self.description, description)
        return self.least <= slices <= self.most and all(_any(patterns, said) for patterns, said in pairs)


@dataclass(frozen=True)
class Rules:
    """In their order; otherwise: what becomes of what none fits, "keep" or "forward"."""

    rules: tuple[Rule, ...] = ()
    otherwise: str = KEEP

    def wanted(self, modality: str, body_part: str, description: str, slices: int) -> Rule | None:
        """The first rule that fits a series of so many slices; of one without an image, none."""
        if slices < 1:
            return None
        return next((rule for rule in self.rules if rule.fits(modality, body_part, description, slices)), None)


def loaded(path: Path, models: Sequence[str]) -> Rules:
    """The rules in a file, of these models; UsageError that names the rule and what is wrong with it."""
    try:
        found = read(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FabricaError(f"{path}: rules cannot be read ({error.strerror})") from error
    except Exception as error:
        raise UsageError(f"{path} is no YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path}: expected `rules:`, a list, and `otherwise:`")
    _check_keys(found, ("rules", "otherwise"), str(path))
    otherwise = found.get("otherwise", KEEP)
    if otherwise not in (KEEP, FORWARD):
        raise UsageError(f"{path}: otherwise: {otherwise!r}; expected keep or forward")
    listed = found.get("rules") or []
    if not isinstance(listed, list):
        raise UsageError(f"{path}: rules: expected a list, each rule beginning with `-`")
    rules = tuple(_rule(each, models, f"{path}, rule {n}") for n, each in enumerate(listed, start=1))
    return Rules(rules, otherwise)


def every(models: Sequence[str], otherwise: str = KEEP) -> Rules:
    """All images to the one model that there is; UsageError for several, which need rules."""
    if len(models) != 1:
        raise UsageError(f"{len(models)} models, {', '.join(models)}; give --rules, which say what each is for")
    return Rules((Rule((models[0],)),), otherwise)


def _rule(given: Any, models: Sequence[str], where: str) -> Rule:
    if not isinstance(given, dict):
        raise UsageError(f"{where}: expected `model:` and what it fits, found {given!r}")
    _check_keys(given, _KEYS, where)
    named = _several(given.get("model"), where, "model")
    if not named:
        raise UsageError(f"{where} names no model; expected `model: NAME`, of {', '.join(models)}")
    for name in named:
        if name not in models:
            raise UsageError(f"{where}: no model {name!r}{did_you_mean(name, models)}")
    least, most = _range(given.get("slices"), where)
    patterns = {
        key: tuple(each.upper() for each in _several(given.get(key), where, key))
        for key in ("modality", "body_part", "description")
    }
    return Rule(named, str(given.get("direction") or ""), **patterns, least=least, most=most)


def _several(value: Any, where: str, key: str) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(each, str) and each for each in values):
        raise UsageError(f"{where}: {key}: {value!r}; expected a text, or a list of them")
    return tuple(values)


def _range(value: Any, where: str) -> tuple[int, int]:
    """20, "20-", "-600" or "20-600"."""
    if value is None:
        return 1, 10**9
    found = _RANGE.fullmatch(str(value).strip())
    if found is None or not (found[1] or found[3]):
        raise UsageError(f"{where}: slices: {value!r}; expected a number, or e.g. 20-600, 20- or -600")
    least = int(found[1] or 1)
    most = int(found[3]) if found[3] else 10**9 if found[2] else least
    if least > most:
        raise UsageError(f"{where}: slices: {value!r}; the first number is the smaller one")
    return least, most


def _check_keys(given: dict[Any, Any], known: Iterable[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise UsageError(f"{where}: no {str(key)!r}{did_you_mean(str(key), known)}")


def _any(patterns: tuple[str, ...], said: str) -> bool:
    return not patterns or any(fnmatchcase(said.strip().upper(), pattern) for pattern in patterns)
