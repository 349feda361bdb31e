"""Recipe: one YAML file with every value of a run. Values only: a recipe cannot execute code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_origin

from fabrica.errors import FabricaError, UsageError, did_you_mean, unknown
from fabrica.recipe.check import check
from fabrica.recipe.earlier import is_earlier, parted, renamed
from fabrica.recipe.few import few_laid, without
from fabrica.recipe.schema import Recipe
from fabrica.recipe.values import Unfit, filled, hints, laid_over, read

T = TypeVar("T")


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe with this name (see `recipe_names`) or at this path, with `key=value` overrides laid over it.

    Raises UsageError for unknown recipes and keys ("did you mean"), wrong types, and `${...}` expressions.
    """
    text = _recipe_text(name_or_path)
    for override in overrides:
        if "=" not in override:
            raise UsageError(f"override {override!r} is not key=value, e.g. train.steps=1000")
    try:
        # "${...}" is kept as text, so that it can be refused, not evaluated
        raw = read(text) if not overrides else _overridden(text, overrides)
    except Exception as error:  # yaml and omegaconf raise many types here; all mean the same to the user
        for override in overrides:
            _check_override(text, override)
        raise UsageError(f"recipe {name_or_path} is not valid YAML: {_first_line(error)}") from error
    if "${" in str(raw):
        raise UsageError(f"recipe {name_or_path} holds an expression (${{...}}); only plain values are allowed")
    if not isinstance(raw, dict):
        raise UsageError(f"recipe {name_or_path} must be a mapping of keys to values")
    raw = renamed(raw)
    if is_earlier(raw):
        raw, _ = parted(raw)
    recipe = typed(Recipe, raw)
    check(recipe)
    check(few_laid(recipe))
    return recipe


def versioned(path: Path, version: int, advice: str) -> dict[Any, Any]:
    """The values of a record that `fabrica.recipe.values.written` wrote, and that says this version. FabricaError, one
    line that ends with the advice, for one that is damaged; for one of another version."""
    try:
        raw = read(path.read_text("utf-8"))
    except Exception as error:  # yaml and omegaconf raise many types here; all mean the same to the user
        raise FabricaError(f"{path} is damaged: {str(error).splitlines()[0]}; {advice}") from error
    if not isinstance(raw, dict) or "${" in str(raw):
        raise FabricaError(f"{path} is damaged: expected plain values by name; {advice}")
    if raw.get("version") != version:
        said = raw.get("version", "no version")
        raise FabricaError(f"{path} has version {said}, and this Fabrica reads {version}; update Fabrica")
    return raw


def typed(cls: type[T], raw: dict[Any, Any], where: str = "", of: str = "recipe") -> T:
    """The dataclass `cls` filled from plain YAML values, or UsageError naming the key and a near match. of: what the
    values are of, in words."""
    raw = _check_keys(cls, raw, where, of)
    try:
        return filled(cls, raw)
    except Unfit as error:
        key = where + error.key
        raise UsageError(f"{of} key {key}: {_first_line(error)}") from error


def _overridden(text: str, overrides: Sequence[str]) -> Any:
    return without(*laid_over(text, overrides))


def _check_override(text: str, override: str) -> None:
    """UsageError where the recipe alone can be read, and not with this laid over it."""
    try:
        read(text)
    except Exception:  # the recipe's own fault
        return
    try:
        _overridden(text, [override])
    except Exception as error:  # as in `load_recipe`
        reason = _first_line(error)
        if "container types" in reason:
            reason = "one is a list and the other names and values"
        raise UsageError(f"{override} cannot be laid over what the recipe has: {reason}") from error


def _check_keys(cls: type, raw: dict[Any, Any], where: str, of: str = "recipe") -> dict[str, Any]:
    types, known = hints(cls), [f.name for f in fields(cls)]
    clean: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            raise UsageError(f"unknown {of} key {where}{key}{did_you_mean(str(key), known)}")
        if is_dataclass(types[key]):
            if not isinstance(value, dict):
                raise UsageError(f"{of} key {where}{key} must hold keys of its own, found {value!r}")
            value = _check_keys(types[key], value, f"{where}{key}.", of)
        if key == "condition" and not isinstance(value, list):  # one of them, or none
            value = [value] if value else []
        if value is None and types[key] is str:  # `key=''`, of which a shell leaves `key=`
            value = ""
        if key == "size" and isinstance(value, int):
            value = [value, value]
        if get_origin(types[key]) is list and not isinstance(value, list):
            raise UsageError(f"{of} key {where}{key} is {value!r}; expected a list, such as [1,2]")
        if get_origin(types[key]) is dict and not isinstance(value, dict):
            raise UsageError(f"{of} key {where}{key} is {value!r}; expected names and values, such as {{name: value}}")
        clean[key] = value
    return clean


def recipe_names() -> list[str]:
    """The names of the recipes shipped in the package."""
    folder = resources.files("fabrica") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def _recipe_text(name_or_path: str | Path) -> str:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"no recipe at {path}")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"recipe {path} is damaged: it is not text in UTF-8; write it again") from error
    names = recipe_names()
    if len(path.parts) > 1:
        raise UsageError(f"{path} is no recipe; expected a name from `fabrica recipes`, or a file that ends in .yaml")
    if str(name_or_path) not in names:
        raise unknown("recipe", str(name_or_path), names)
    return (resources.files("fabrica") / "recipes" / f"{name_or_path}.yaml").read_text(encoding="utf-8")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
