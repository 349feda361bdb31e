"""The plain values of a MONAI configuration, JSON or YAML. Nothing is evaluated and nothing imported: references to
plain values are followed, and a value that is needed and is a `$expression` is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fabrica.errors import FabricaError, UsageError

_TERM = r"@[\w#]+|'[^'$]*'|\"[^\"$]*\""
_TEXTS = re.compile(rf"\$\s*(?:{_TERM})(?:\s*\+\s*(?:{_TERM}))*\s*$")


@dataclass(frozen=True)
class Config:
    """What one file says; `path` is for messages."""

    path: Path
    values: Mapping[str, Any]

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) not in (None, "")

    def raw(self, key: str) -> Any:
        """The value as it stands at "a#b#0"; UsageError where there is none."""
        found: Any = self.values
        for part in key.split("#"):
            try:
                found = found[int(part)] if isinstance(found, list) else found[part]
            except (KeyError, IndexError, TypeError, ValueError):
                raise UsageError(f"{self.path} has no {key!r}, which it refers to or which is needed") from None
        return found

    def plain(self, key: str) -> Any:
        """The value at `key`, references in it followed. UsageError for an expression or a macro anywhere in it."""
        return self._plain(self.raw(key), key, (key,))

    def _plain(self, value: Any, where: str, behind: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            own = {k: v for k, v in value.items() if not str(k).startswith("_") or k == "_target_"}
            return {k: self._plain(v, f"{where}#{k}", behind) for k, v in own.items()}
        if isinstance(value, list):
            return [self._plain(each, f"{where}#{k}", behind) for k, each in enumerate(value)]
        if isinstance(value, str) and value.startswith("@"):
            key = value[1:].replace("::", "#")
            if key in behind:
                raise UsageError(f"{self.path}: {where} refers to itself through {value}; write the value there")
            return self._plain(self.raw(key), key, (*behind, key))
        if isinstance(value, str) and value.startswith(("$", "%")):
            raise UsageError(
                f"{self.path}: {where} is the expression {value[:60]!r}, and a bundle's code is never run here; "
                "write the plain value in its place"
            )
        return value

    def text(self, key: str, deep: int = 0) -> str:
        """A text that may be put together of others, "$@root + '/models/model.pt'"; "" where it is anything else."""
        value = self.values.get(key, "") if deep < 9 else ""
        if not isinstance(value, str) or not value.startswith(("$", "@")):
            return value if isinstance(value, str) else ""
        if value.startswith("@"):
            value = f"${value}"
        if not _TEXTS.match(value):
            return ""
        terms = re.findall(_TERM, value)
        parts = ("." if t == "@bundle_root" else self.text(t[1:], deep + 1) if t[0] == "@" else t[1:-1] for t in terms)
        return "".join(parts)


def read(path: Path) -> Config:
    """The configuration in a file; FabricaError where it is neither JSON nor YAML."""
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FabricaError(f"{path} is damaged: {reason}; get the bundle again") from error
    if not isinstance(values, dict):
        raise FabricaError(f"{path} holds no keys and values; expected a MONAI configuration")
    return Config(path, values)
