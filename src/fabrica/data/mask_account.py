"""What the masks of a data set show, in the column `mask_labels` and in one sentence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fabrica.data.dataset_json import Described
from fabrica.data.label_names import Names, column, labels_in, names_in, regions_in
from fabrica.data.manifest import Row

SHOWN = 8  # names in a sentence


def tables_of_labels(root: Path, described: Sequence[Described], files: Sequence[str]) -> dict[str, Names]:
    """Path of a file -> the names of labels that it says; of a folder's several, those of its dataset.json, else the
    first by name.

    files  relative paths of those that are called tables of labels, see `fabrica.data.label_names.is_called_so`.
    """
    found = {each.file: each.labels for each in described if each.labels}
    homes = {_home(path) for path in found}
    for path in sorted(files):
        if path not in found and _home(path) not in homes and (names := names_in(root / path)):
            found[path] = names
            homes.add(_home(path))
    return found


def name_labels(rows: Sequence[Row], tables: dict[str, Names]) -> set[str]:
    """Fill in `mask_labels` of masks whose labels nothing names yet, by the table in the deepest folder around them, or
    the only one there is; returns the tables that were used."""
    used = set()
    for row in rows:
        if not row.mask or row.mask_labels or not tables:
            continue
        around = [path for path in tables if not _home(path) or row.mask.startswith(f"{_home(path)}/")]
        chosen = max(around, key=lambda path: len(_home(path)), default=next(iter(tables)) if len(tables) == 1 else "")
        if chosen:
            row.mask_labels = column(tables[chosen])
            used.add(chosen)
    return used


@dataclass(frozen=True)
class MasksFound:
    """How many images have a mask and how many do not, and of how many images the masks may show what is called so."""

    there: int = 0
    none: int = 0
    labels: dict[str, int] = field(default_factory=dict)


def masks_found(rows: Sequence[Row]) -> MasksFound:
    """Of rows that have a split."""
    own = [row for row in rows if row.split]
    there = [row for row in own if row.mask]
    labels = Counter(name for row in there for name in regions_in(row.mask_labels).values())
    return MasksFound(len(there), len(own) - len(there), dict(labels))


def masks_sentence(rows: Sequence[Row]) -> list[str]:
    """One sentence on the masks, and one where a label's number means different things in different masks."""
    found = masks_found(rows)
    if not found.there:
        return []
    meanings: dict[int, set[str]] = defaultdict(set)
    for text in {row.mask_labels for row in rows if row.split and row.mask}:
        for number, name in labels_in(text).items():
            meanings[number].add(name)
    unclear = sorted(number for number, names in meanings.items() if len(names) > 1)
    listed = list(found.labels) if unclear else [f"{k} {next(iter(names))}" for k, names in sorted(meanings.items())]
    more = f", ... ({len(listed)})" if len(listed) > SHOWN else ""
    labels = f"; labels: {', '.join(listed[:SHOWN])}{more}" if listed else ""
    total = found.there + found.none
    said = [f"{found.there} of {total} images have a mask (column `mask`), {found.none} have none{labels}"]
    if unclear:
        names = " or ".join(sorted(meanings[unclear[0]])[:2])
        said.append(
            f"label {unclear[0]} is {names}, as masks number what they show differently: column `mask_labels` tells"
        )
    return said


def _home(path: str) -> str:
    return str(PurePosixPath(path).parent).removeprefix(".")
