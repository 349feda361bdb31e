"""The models that ship with the package: exported folders in it, by name. Here alone it is decided what a name stands
for, and whether what lies there is what was shipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fabrica.errors import FabricaError, UsageError, did_you_mean, unknown
from fabrica.runtime import RECORD
from fabrica.runtime.folder import digest

HOME = Path(__file__).parent.parent / "ready"
SUMS = "SHA256SUMS"  # of each model's record, which says how its other files hash
ADVICE = "install fabrica-imaging again"


def sums() -> dict[str, str]:
    """Name -> SHA-256 of its exported.yaml, of all models that ship, by name."""
    try:
        lines = (HOME / SUMS).read_text("utf-8").splitlines()
    except OSError:  # a package without its data has no model
        return {}
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return dict(sorted((Path(name).parent.name, found) for found, name in pairs))


def place(given: str | Path, warn: Callable[[str], None] | None = None, home: Path = Path()) -> Path:
    """The folder that is meant: what lies at this path, or the model of this name that ships. What is there goes first,
    so that nobody gets another model than his own; warn is told of it. home: where paths begin.

    Raises UsageError where there is neither, FabricaError for a model that is not as it was shipped."""
    path, known = home / given, sums()
    name = str(Path(given))
    if path.exists():
        if name in known and warn:
            warn(f"{name} is taken from this folder; the model {name} that ships with Fabrica is used elsewhere")
        return path
    if name in known:
        return shipped(name)
    if Path(name).name != name:
        raise UsageError(f"{path} is not a model folder: nothing is there; expected one, or a name of `fabrica models`")
    raise UsageError(f"{path} is not a model folder, and no ready model {name!r}{did_you_mean(name, known)}")


def shipped(name: str) -> Path:
    """The folder of the model of this name; UsageError where none has it, FabricaError as `place`."""
    known = sums()
    if name not in known:
        raise unknown("ready model", name, known)
    record = HOME / name / RECORD
    try:
        found = record.read_bytes()
    except OSError as error:
        raise FabricaError(f"the ready model {name} cannot be read ({record}: {error.strerror}); {ADVICE}") from error
    if digest(found) != known[name]:
        raise FabricaError(f"the ready model {name} is not the one that was shipped ({record} has changed); {ADVICE}")
    return record.parent


def megabytes(folder: Path) -> float:
    """How much the files of a model take."""
    return sum(each.stat().st_size for each in folder.iterdir()) / 1e6
