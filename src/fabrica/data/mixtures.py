"""What does not belong into one model: sets of mixed modality, unit, colour, or pictures beside volumes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from fabrica.data.manifest import Row

ALIKE = {"CR": "DX", "RG": "DX"}  # radiographs, however the detector works
TITLES = {"modality": "modality", "unit": "unit", "channels": "colour", "dims": "dimensions"}
SPOKEN = {
    "channels": {"1": "grey", "3": "colour"},
    "dims": {"2": "single pictures", "3": "volumes"},
}


def mixtures(rows: Sequence[Row]) -> list[str]:
    """One sentence for each way in which the images of one domain differ that no model should learn as one, with the
    filter that parts them. Rows without a split are left out, and so is what a manifest does not say."""
    domains: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.split:
            domains[row.domain].append(row)
    return [sentence for name, own in sorted(domains.items()) for sentence in _of(name, own)]


def _of(domain: str, rows: Sequence[Row]) -> list[str]:
    found = []
    where = f" of domain {domain}" if domain else ""
    for column in ("modality", "unit", "channels", "dims"):
        values = Counter(getattr(row, column) for row in rows if getattr(row, column))
        if len({ALIKE.get(value, value) for value in values}) < 2:
            continue
        if column == "unit" and len({(row.modality, row.unit) for row in rows}) == len({row.modality for row in rows}):
            continue  # each modality has its own: said already
        spoken = SPOKEN.get(column, {})
        counts = ", ".join(
            f"{n} {spoken.get(value, f'of {value} channels' if column == 'channels' else value)}"
            for value, n in values.most_common()
        )
        chosen = values.most_common(1)[0][0]
        found.append(
            f"the images{where} are mixed in {TITLES[column]} ({counts}): a model of all of them learns none well; "
            f"choose with data.where.{column}={chosen}"
        )
    return found
