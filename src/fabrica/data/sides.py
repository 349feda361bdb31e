"""The two sides of a translation: which rows of a manifest are a and b, and which belong together.

A side is a domain of the manifest, or "mask" (the label map beside each image), or "image" (every row as it is).
"degraded" is no side of its own: it is side b made worse.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from fabrica.data.channels import CHANNEL
from fabrica.data.manifest import Manifest, Row
from fabrica.data.tables import stem
from fabrica.errors import UsageError, did_you_mean


def side(manifest: Manifest, which: str, source: str) -> list[Row]:
    """The rows of this side, those that have a split; a mask's pair is its own image. Raises UsageError for a side
    without rows."""
    rows = [row for row in manifest.rows if row.split]
    if which == "mask":
        found = [
            replace(row, path=row.mask, frame=row.mask_frame, pair=row.path, modality="SEG") for row in rows if row.mask
        ]
    else:
        found = rows if which == "image" else [row for row in rows if row.domain == which]
        # MR, as the folder is called, for mr
        found = found or [row for row in rows if row.domain.casefold() == which.casefold()]
    if found:
        return found
    domains = sorted({row.domain for row in rows if row.domain})
    there = f"domains {', '.join(domains)}" if domains else "no domains"
    near = did_you_mean(which, domains) if domains and which != "mask" else ""
    raise UsageError(
        f"{source} has no image of {which!r}{near}; it has {there}"
        f"{' and masks' if any(row.mask for row in rows) else ' and no masks'}"
    )


def matched(a: Sequence[Row], b: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Each row of a with its own of b, in the order of a; rows that have none are left out.

    They belong together when one names the other in its `pair` column, else when ids are the same, else when they alone
    share a mask, else when patient and file name are the same (but for the number of a channel, as nnU-Net has it at
    the end), else when they are the only ones of their patient in one folder, or at all.
    """
    by_path, pointing = _unique(b, lambda row: row.path), _unique(b, lambda row: row.pair or None)
    keys: tuple[Callable[[Row], Hashable], ...] = (
        lambda row: row.id,
        lambda row: (row.mask, row.patient) if row.mask else None,
        lambda row: (row.patient, stem(PurePosixPath(row.path).name), row.frame) if row.patient else None,
        lambda row: (row.patient, CHANNEL.sub("", stem(PurePosixPath(row.path).name))) if row.patient else None,
        lambda row: (row.patient, PurePosixPath(row.path).parent) if row.patient else None,
        lambda row: row.patient or None,
    )
    tables = [(key, _unique(a, key), _unique(b, key)) for key in keys]
    pairs = []
    for row in a:
        other = by_path.get(row.pair) or pointing.get(row.path)
        for key, of_a, of_b in tables:
            if other is None and key(row) in of_a:
                other = of_b.get(key(row))
        if other is not None:
            pairs.append((row, other))
    return pairs


def _unique(rows: Sequence[Row], key: Callable[[Row], Hashable]) -> dict[Hashable, Row]:
    """The rows that alone have their key."""
    found: dict[Hashable, list[Row]] = {}
    for row in rows:
        if key(row) is not None:
            found.setdefault(key(row), []).append(row)
    return {k: rows[0] for k, rows in found.items() if len(rows) == 1}
