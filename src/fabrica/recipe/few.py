"""Few pairs: what stands in place of a recipe's own values where a translator has few patients or few pairs to learn
from (its section `few`), and how a run says so.

A hundred pairs are seen a hundred times in some minutes: a critic knows them by heart and tells real from made by that,
an unchanged image teaches what is special about it, and the last weights are as good as any. `docs/translation.md` has
what was tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any, TypeVar

from fabrica.errors import UsageError, did_you_mean
from fabrica.recipe.schema import FewConfig, Recipe
from fabrica.recipe.values import Unfit, filled

T = TypeVar("T")
SECTIONS = ("method", "data", "train")


def are_few(few: FewConfig, patients: int, pairs: int) -> str:
    """By which count so many patients and pairs are few, "fewer than 30 patients"; "" where they are not. pairs 0: not
    counted.

    >>> are_few(FewConfig(patients=30, pairs=300), 7, 2000)
    'fewer than 30 patients'
    >>> are_few(FewConfig(patients=30, pairs=300), 43, 77)
    'fewer than 300 pairs'
    >>> are_few(FewConfig(patients=30, pairs=300), 30, 300)
    ''
    """
    if patients < few.patients:
        return f"fewer than {few.patients} patients"
    return f"fewer than {few.pairs} pairs" if 0 < pairs < few.pairs else ""


def few_laid(recipe: Recipe) -> Recipe:
    """The recipe with the values for few pairs in place of its own, and without the section.

    Raises UsageError for a key that no recipe has, and for values of another type."""
    few = recipe.few
    return replace(
        recipe,
        method={**recipe.method, **few.method},
        data=_over(recipe.data, few.data, "data"),
        train=_over(recipe.train, few.train, "train"),
        few=FewConfig(),
    )


def without(raw: Any, named: Any) -> Any:
    """The values of a recipe after those that a user has named were laid over it: what is named stands for few pairs,
    too, and a rate of one player's own (train.lr_of) asks for the critic that has one. Another method takes nothing of
    what was found for this one."""
    few = raw.get("few") if isinstance(raw, dict) else None
    if not isinstance(few, dict) or not isinstance(named, dict):
        return raw
    if "name" in (named.get("method") or {}):
        return {key: values for key, values in raw.items() if key != "few"}
    said = {section: set(named.get(section) or {}) for section in SECTIONS}
    if "lr_of" in said["train"]:
        said["method"].add("adversarial")
    kept = {
        section: {key: value for key, value in values.items() if key not in said[section]}
        if section in SECTIONS and isinstance(values, dict)
        else values
        for section, values in few.items()
    }
    return {**raw, "few": kept}


def told(few: FewConfig, patients: int, pairs: int) -> str:
    """Two lines for the run, its record and its card: that pairs are few and what follows from it; what was chosen. ""
    where they are not few."""
    why = are_few(few, patients, pairs)
    if not why:
        return ""
    count = f"{pairs} pairs of {patients} patients" if pairs else f"pairs of {patients} patients"
    chosen = " ".join(
        f"{section}.{key}={_text(value)}" for section in SECTIONS for key, value in getattr(few, section).items()
    )
    return (
        f"{count} are few ({why}), and soon known by heart, by a critic first: trained as was best for few pairs\n"
        f"chosen: {chosen or 'nothing else'}; a value that you name stands, few.patients=0 few.pairs=0 keeps the recipe"
    )


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "")


def _over(config: T, values: Mapping[str, Any], section: str) -> T:
    known = [each.name for each in fields(config)]  # type: ignore[arg-type]  # a dataclass
    for key in values:
        if key not in known:
            raise UsageError(f"unknown recipe key few.{section}.{key}{did_you_mean(str(key), known)}")
    if not values:
        return config
    try:
        return filled(type(config), {**asdict(config), **values})  # type: ignore[call-overload]
    except Unfit as error:
        raise UsageError(f"recipe key few.{section}: {str(error).strip().splitlines()[0]}") from error
