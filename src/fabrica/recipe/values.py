"""Plain values as YAML text and back, and as the dataclass that they fill.

All as OmegaConf does it, which makes an object of each value and takes a sixth of a second for a model folder. So it is
asked only where there is something to decide: texts that we did not write, values that are not of their type, errors;
and imported only then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

T = TypeVar("T")

SPECIAL = "${"  # what means more than text to OmegaConf; "???", to it a value that is missing, is text
WORDS = ("y", "yes", "n", "no", "true", "false", "on", "off")


class Unfit(ValueError):
    """A value that is not of its field's type. key: of the field, with those it lies in; "" where it is unknown."""

    def __init__(self, reason: str, key: str) -> None:
        super().__init__(reason)
        self.key = key


class _Dumper(yaml.CSafeDumper):
    """Text that reads as a number or as yes or no, to whatever reader of YAML, stands in quotes."""


def _text(dumper: yaml.representer.BaseRepresenter, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if _is_number(text) else None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.lower() in WORDS
    return True


_Dumper.add_representer(str, _text)


def written(values: Mapping[str, Any]) -> str:
    """Plain values as YAML, in their order."""
    return yaml.dump(values, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)


def read(text: str) -> Any:
    """The values in a YAML text, `${...}` as it stands. What is wrong with a text is raised as PyYAML or OmegaConf says
    it."""
    if "&" not in text:  # an alias may stand for any number of values
        values = yaml.load(text, yaml.CSafeLoader)
        if _has_type(values, dict[str, Any]) and written(values) == text:  # all readers agree on what we wrote
            return values
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.create(text), resolve=False)


def laid_over(text: str, overrides: Sequence[str]) -> tuple[Any, Any]:
    """The values in a YAML text with `key=value` overrides laid over it, and the values of these alone. What is wrong
    with them is raised as PyYAML or OmegaConf says it."""
    from omegaconf import OmegaConf

    said = OmegaConf.from_dotlist(list(overrides))
    merged = OmegaConf.merge(OmegaConf.create(text), said)
    return OmegaConf.to_container(merged, resolve=False), OmegaConf.to_container(said, resolve=False)


def filled(cls: type[T], values: dict[str, Any]) -> T:
    """The dataclass with these values, of the keys that it has, converted where that loses nothing. Raises Unfit for
    values of other types."""
    if _has_type(values, cls):
        return _made(values, cls)  # type: ignore[no-any-return]
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_object(OmegaConf.merge(_schema(cls), values))  # type: ignore[no-any-return, arg-type]  # a class is hashable
    except OmegaConfBaseException as error:
        raise Unfit(str(error), error.full_key or "") from error


@cache
def _schema(cls: type) -> Any:
    """What OmegaConf makes of a dataclass, which takes most of its time; `merge` copies it."""
    from omegaconf import OmegaConf

    return OmegaConf.structured(cls)


@cache
def hints(cls: Any) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return get_type_hints(cls)


def _has_type(value: Any, kind: Any) -> bool:
    """Whether nothing is to be converted but whole numbers to float."""
    if is_dataclass(kind):
        known = hints(kind)  # type: ignore[arg-type]  # a class is hashable
        needed = [f for f in fields(kind) if f.default is f.default_factory is MISSING]
        return (
            type(value) is dict
            and all(name in known and _has_type(each, known[name]) for name, each in value.items())
            and all(f.name in value for f in needed)
        )
    origin, inside = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_has_type(value, each) for each in inside)
    if origin is list:
        return type(value) is list and all(_has_type(each, inside[0]) for each in value)
    if origin is dict:
        pairs = value.items() if type(value) is dict else [(None, None)]
        return all(_has_type(key, inside[0]) and _has_type(each, inside[1]) for key, each in pairs)
    if kind is Any:
        plain: list[Any] = [str, bool, int, float, NoneType, list[Any], dict[str, Any]]
        return any(_has_type(value, each) for each in plain)
    if kind is str:
        return type(value) is str and SPECIAL not in value
    return type(value) is kind or (kind is float and type(value) is int)


def _made(value: Any, kind: Any) -> Any:
    """A value that `_has_type`, as the field holds it: lists and mappings are copied."""
    if is_dataclass(kind):
        known = hints(kind)  # type: ignore[arg-type]
        return kind(**{name: _made(each, known[name]) for name, each in value.items()})  # type: ignore[operator]
    inside = get_args(kind) or (Any, Any)
    if type(value) is list:
        return [_made(each, inside[0]) for each in value]
    if type(value) is dict:
        return {key: _made(each, inside[1]) for key, each in value.items()}
    return float(value) if type(value) is int and float in (kind, *inside) else value
