"""Patient-wise splits that neither chance, nor a published split, nor a copied file can make leak."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable

from fabrica.data.manifest import SPLITS, Row
from fabrica.errors import UsageError

Fractions = tuple[float, float, float]
FILLED = 3  # patients fill train, val and test
SMALL = 10  # fewer patients than this are counted out, not left to chance


def assign(patients: Iterable[str], fractions: Fractions, seed: int = 0) -> dict[str, str]:
    """Patient -> "train", "val" or "test".

    Each patient's place depends on a hash of name and seed alone, so adding patients moves nobody. Where that
    would leave a wanted split empty, and below SMALL patients, exact shares are dealt out in hash order instead:
    with at least 3 patients no wanted split is empty.
    """
    _check(fractions)
    place = {patient: _unit(patient, seed) for patient in set(patients)}
    first, second = fractions[0], fractions[0] + fractions[1]
    by_hash = {
        patient: SPLITS[0] if u < first else SPLITS[1] if u < second else SPLITS[2] for patient, u in place.items()
    }
    wanted = {split for split, share in zip(SPLITS, fractions, strict=True) if share > 0}
    if len(place) >= SMALL and wanted <= set(by_hash.values()):
        return by_hash
    order = sorted(place, key=lambda patient: place[patient])
    counts = _shares(len(order), fractions)
    names = [split for split, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    return dict(zip(order, names, strict=True))


def split_rows(rows: list[Row], fractions: Fractions, seed: int = 0) -> list[str]:
    """Give every row a split, in place, and return notes on what was decided.

    Rows may come with a published split. It is kept, except: a published split that only says "train" is none;
    a patient in two published splits goes to train as a whole, so that what is held out stays a part of what was
    published; where val is not published, it is drawn by patient from the published train. Patients with masks and
    patients without are drawn apart, so that each split has both where there are enough.
    """
    notes: list[str] = []
    whose = _together(rows)
    published: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.split:
            published[whose[row.patient]].add(row.split)
    if set().union(*published.values()) <= {"train"}:
        published.clear()
    torn = [patient for patient, splits in published.items() if len(splits) > 1]
    if torn:
        notes.append(
            f"{len(torn)} patients are in two splits as published ({', '.join(sorted(torn)[:3])}): all their images go "
            "to train; if they are different people, name them apart: --patient REGEX"
        )
    fixed = {patient: "train" if len(splits) > 1 else next(iter(splits)) for patient, splits in published.items()}
    masked = {whose[row.patient] for row in rows if row.mask}
    chosen = fixed | _draw_val(fixed, masked, fractions, seed, notes)
    free = {whose[row.patient] for row in rows} - set(fixed)
    for part in _apart(free, masked):
        chosen |= assign(part, fractions, seed)
    for row in rows:
        row.split = chosen[whose[row.patient]]
    if len(chosen) < FILLED:
        notes.append(f"{len(chosen)} patients cannot fill train, val and test; at least {FILLED} are needed")
    return notes


def _together(rows: Iterable[Row]) -> dict[str, str]:
    """Patient -> the one who stands for all whose images are pairs of one another: the first by name."""
    rows = list(rows)
    whose = {row.patient: row.patient for row in rows}
    by_path = {row.path: row.patient for row in rows}

    def first(patient: str) -> str:
        while whose[patient] != patient:
            patient = whose[patient]
        return patient

    for row in rows:
        if row.pair in by_path:
            one, other = sorted((first(row.patient), first(by_path[row.pair])))
            whose[other] = one
    return {patient: first(patient) for patient in whose}


def _draw_val(
    fixed: dict[str, str], masked: set[str], fractions: Fractions, seed: int, notes: list[str]
) -> dict[str, str]:
    """The patients of the published train, shared out again between train and val if nobody published a val."""
    train = {patient for patient, split in fixed.items() if split == "train"}
    share = fractions[0] + fractions[1]
    if not train or "val" in fixed.values() or 0 in fractions[:2]:
        return {}
    notes.append("no val split as published: drawn by patient from train")
    shares = (fractions[0] / share, fractions[1] / share, 0.0)
    return {patient: split for part in _apart(train, masked) for patient, split in assign(part, shares, seed).items()}


def _apart(patients: set[str], masked: set[str]) -> list[set[str]]:
    """Those with masks and those without; all together where neither could fill the splits."""
    parts = [patients & masked, patients - masked]
    return parts if max(map(len, parts)) >= FILLED else [patients]


def remove_leaks(rows: list[Row]) -> list[str]:
    """Take exact copies (same sha256) out of all splits but one, in place; returns notes.

    The copy in test is kept before the one in val, and that before train, so that what is held out stays whole.
    The others stay in the table with an empty split. Copies within one split are counted and left.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.sha256:
            groups[row.sha256].append(row)
    copies = dropped = across = 0
    for group in groups.values():
        copies += len(group) - 1
        splits = {row.split for row in group if row.split}
        if len(splits) < 2:
            continue
        across += 1
        kept = next(split for split in reversed(SPLITS) if split in splits)
        for row in group:
            if row.split and row.split != kept:
                row.split = ""
                dropped += 1
    if not copies:
        return []
    note = f"{_count(copies, 'exact duplicate')}, {across} of them across splits"
    return [f"{note}: {_count(dropped, 'image')} taken out of train or val, leak removed" if across else note]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _unit(patient: str, seed: int) -> float:
    """A number in [0, 1) that depends on its arguments alone."""
    digest = hashlib.sha256(f"{seed}:{patient}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48  # 48 bits fit a float; more could round up to 1.0


def _shares(n: int, fractions: Fractions) -> list[int]:
    """n dealt out by largest remainder; no wanted split is left empty while another can spare one."""
    exact = [n * share for share in fractions]
    counts = [int(e) for e in exact]
    for k in sorted(range(3), key=lambda k: counts[k] - exact[k])[: n - sum(counts)]:
        counts[k] += 1
    for k in range(3):
        richest = max(range(3), key=lambda j: counts[j])
        if fractions[k] > 0 and counts[k] == 0 and counts[richest] > 1:
            counts[richest] -= 1
            counts[k] += 1
    return counts


def _check(fractions: Fractions) -> None:
    if not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-6):  # so that no number is refused, too
        raise UsageError(
            f"fractions of train, val and test are {fractions}; expected three that add up to 1, e.g. 0.8,0.1,0.1"
        )
