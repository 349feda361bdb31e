"""What became of every file of a folder, in numbers that add up and in sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from fabrica import io
from fabrica.data.find import TEXTS, FolderContents
from fabrica.data.manifest import Row
from fabrica.io.dicom.kinds import KINDS
from fabrica.io.packed import Packed

APART = "set apart: "  # how the note of a row begins that says why it is
_NUMBER = re.compile(r"\d[\d.,%]*")
_MOST = 8


def sentences(rows: Sequence[Row], found: FolderContents, include: Collection[str]) -> list[str]:
    """What is not taken for an image, and what readers noted, each with a count and an example."""
    kinds = Counter(row.kind for row in rows if row.kind and row.kind not in include)
    said = []
    for kind, count in kinds.most_common():
        example = next(_shown(row) for row in rows if row.kind == kind)
        what = f"{_count(count, 'image')} set apart as {kind} ({KINDS[kind]}), as {example}"
        said.append(f"{what}: --include {kind} takes them all the same")
    said += [f"{_count(n, 'file')} set apart as {kind} ({KINDS[kind]})" for kind, n in found.apart.most_common()]
    if found.copies:
        said.append(f"{_count(found.copies, 'DICOM file')} left out: copies of others, header and all")
    noted: dict[str, list[tuple[str, str]]] = {}
    for row, item in zip(rows, found.items, strict=True):
        for note in item.notes:
            if not note.startswith(APART):
                noted.setdefault(_NUMBER.sub("N", note), []).append((note, _shown(row)))
    for examples in sorted(noted.values(), key=lambda examples: -len(examples)):
        note, path = examples[0]
        said.append(f"{_count(len(examples), 'image')}, {path} for one: {note}")
    if found.inside:
        listed = _listed(found.inside)
        said.append(f"{_count(found.inside.total(), 'member')} of zip archives not read: {listed}; unpack them first")
    return said + unread_sentences(found.unread)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.most_common(_MOST))


def _shown(row: Row) -> str:
    """What a sentence calls an image."""
    return "/".join(filter(None, (row.path if row.path != "." else "", row.frame))) or "the only one"


def unread_sentences(unread: Counter[str]) -> list[str]:
    """What was not looked into, with what converts it."""
    said = []
    known = Counter({suffix: count for suffix, count in unread.items() if suffix in io.UNREAD})
    for suffix, count in known.most_common():
        name, converter = io.UNREAD[suffix]
        said.append(f"{_count(count, f'{suffix} file')} not read ({name}): convert with {converter}")
    other = Counter({suffix: n for suffix, n in unread.items() if suffix not in io.UNREAD and suffix not in TEXTS})
    if other:
        said.append(f"{_count(other.total(), 'file')} not looked into: {_listed(other)}")
    if texts := sum(count for suffix, count in unread.items() if suffix in TEXTS):
        said.append(f"{_count(texts, 'file')} of tables and texts")
    return said


def tally(rows: Sequence[Row], found: FolderContents, masks: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many files were used, set apart, left out or not read: each file under the folder once."""
    counts = {"used": 0, "set apart": found.apart.total(), "left out": found.copies, "unread": found.unread.total()}
    counted: set[Path] = set()
    both = zip(rows, found.items, strict=True)
    for row, item in sorted(both, key=lambda pair: not pair[0].split):
        counts["used" if row.split else "set apart"] += found.files.get(
            (item.path, item.frame), int(item.path not in counted)
        )
        counted.add(item.path)
    for images in masks.values():
        counts["used" if images else "set apart"] += 1
    rejected = {path.archive if isinstance(path, Packed) else path for path, _ in found.rejected}
    counts["left out"] += len(rejected - counted)
    return counts


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
