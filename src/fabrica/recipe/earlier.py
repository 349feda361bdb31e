"""Recipes of the earlier form: keys that were called otherwise, and model folders in which what was found stood in
recipe.yaml itself."""

from __future__ import annotations

from typing import Any

NAMES = {"seen_a": "fingerprint_a", "seen_b": "fingerprint_b", "found_a": "held_out_a", "found_b": "held_out_b"}


RENAMED = {
    "": {"codecs_beside": "codecs_auxiliary"},
    "data": {"beside": "auxiliary"},
    "train": {"watch_every": "monitor_every"},
}


def renamed(raw: dict[Any, Any]) -> dict[Any, Any]:
    """What a recipe holds, by today's names."""
    found = dict(raw)
    for section, names in RENAMED.items():
        values = found if not section else found.get(section)
        if isinstance(values, dict):
            new = {names.get(key, key): value for key, value in values.items()}
            found = new if not section else {**found, section: new}
    return found


def is_earlier(raw: dict[Any, Any]) -> bool:
    """Whether what a recipe.yaml holds is of the earlier form."""
    return any(name in raw for name in NAMES)


def parted(raw: dict[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """What was asked and what was found, of a recipe of the earlier form; codecs, classes and the like are in both."""
    data, output = (dict(raw.get(name) or {}) for name in ("data", "output"))
    found = {new: dict(raw[old]) for old, new in NAMES.items() if old in raw}
    for name in ("fingerprint_a", "fingerprint_b"):
        if "doubt" in found.get(name, {}):
            found[name]["uncertainty"] = found[name].pop("doubt")
    found["size"] = output.pop("size", None) or data.get("size", [])
    asked = {key: value for key, value in raw.items() if key not in NAMES}
    asked |= {name: values for name, values in (("data", data), ("output", output)) if values}
    return asked, found
