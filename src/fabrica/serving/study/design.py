"""Who reads what: the design of a reader study, and the order in which each reader is shown his trials.

Pure functions of the design, its seed and a secret key: the same ones give the same study. Nothing that is shown tells
the arm: a trial is known by an opaque name only (`schedule`), which the key makes of reader and place, and the order is
drawn with the key, so that nobody who has the config can draw it again.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fabrica.errors import UsageError, unknown

KINDS = ("clarity", "real-or-synthetic", "preference", "detection")
ALLOCATIONS = ("all", "split-plot", "anchor-and-rotate")
PARTS = ("training", "reading", "repeat", "catch")
NAME = 20  # letters of a trial's name


@dataclass(frozen=True)
class Design:
    """What a study is.

    kind        clarity (an ordinal scale), real-or-synthetic, preference (arms side by side), or detection.
    arms        the names of what is compared: degraded, restored, reference; or models.
    cases, readers   their names.
    strata      a case's class, such as diseased or not: blocks of cases hold the classes in equal shares.
    allocation  all: every reader reads every case in every arm. split-plot: readers and cases are divided into
                `groups`, and each group of readers reads its own cases. anchor-and-rotate: the same, but
                `anchors` cases are read by all.
    washout     how many other trials lie at least between two showings of one case to one reader.
    repeats     how many trials a reader is shown a second time, for his agreement with himself.
    training    cases that are shown first, with feedback, and count for nothing; catch, cases with an obvious answer
                that are strewn among the others.
    """

    kind: str
    arms: tuple[str, ...]
    cases: tuple[str, ...]
    readers: tuple[str, ...]
    strata: Mapping[str, str] = field(default_factory=dict)
    allocation: str = "all"
    groups: int = 1
    anchors: int = 0
    washout: int = 0
    repeats: int = 0
    training: tuple[str, ...] = ()
    catch: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Trial:
    """One showing. The arms are those shown, in their order from left to right: one, or for a preference all of them.
    Name is all that may leave the server."""

    name: str
    case: str
    arms: tuple[str, ...]
    part: str


def allocated(design: Design) -> dict[str, tuple[str, ...]]:
    """The cases that each reader reads, in the design's order.

    Blocks differ by one case at most in each stratum, and groups of readers by one reader. Raises UsageError for a
    design that cannot be."""
    _check(design)
    rng = np.random.default_rng([design.seed, 0])
    shuffled = [str(each) for each in rng.permutation(list(design.cases))]
    by_stratum = sorted(shuffled, key=lambda case: design.strata.get(case, ""))
    shared = set(_spread_out(by_stratum, design.anchors))
    rest = [case for case in by_stratum if case not in shared]
    blocks = [set(rest[g :: design.groups]) for g in range(design.groups)]
    group = {reader: int(g) for g, reader in enumerate(rng.permutation(list(design.readers)))}
    return {
        reader: tuple(c for c in design.cases if c in shared or c in blocks[group[reader] % design.groups])
        for reader in design.readers
    }


def schedule(design: Design, key: bytes) -> dict[str, tuple[Trial, ...]]:
    """Each reader's trials in order: training, then readings with repeats and catch trials among them.

    Each pass shows every case of the reader once. Within a pass every arm stands equally often (to one), and over the
    readers every case begins with each arm equally often (to one); of preferences the same holds of the order of arms.
    Between two showings of one case lie at least `washout` other trials.

    key  a secret of the study, at least 16 bytes: names and orders tell nothing without it.
    """
    if len(key) < 16:
        raise UsageError(f"the key has {len(key)} bytes; expected 16 or more, as secrets.token_bytes(32) gives")
    cases = allocated(design)
    ranks, turns = _ranks(design), _turns(cases)
    trials = {}
    for place, reader in enumerate(design.readers):
        secret = hmac.new(
            key, b"order", hashlib.sha256
        ).digest()  # a seed is printed in reports, and 0 unless it is set
        rng, turn = np.random.default_rng([design.seed, 1, place, *secret]), turns[reader]
        passes = _passes(design, cases[reader], ranks, turn, rng)
        readings = [trial for each in passes for trial in each]
        again = _repeats(design, readings, rng)
        strewn = _strewn([*readings, *again], _extra(design, design.catch, "catch", ranks, turn), rng)
        first = _extra(design, design.training, "training", ranks, turn)
        order = [first[i] for i in rng.permutation(len(first))] + strewn
        trials[reader] = tuple(replace(t, name=_name(key, reader, i)) for i, t in enumerate(order))
    return trials


def _passes(
    design: Design, cases: Sequence[str], ranks: Mapping[str, int], turn: int, rng: np.random.Generator
) -> list[list[Trial]]:
    n = len(cases)
    order = [cases[i] for i in rng.permutation(n)]
    found = []
    showings = 1 if design.kind == "preference" else len(design.arms)
    for number in range(showings):
        if number:
            order = _again(order, design.washout, rng)
        found.append([Trial("", case, _arms(design, ranks[case] + turn + number), "reading") for case in order])
    return found


def _arms(design: Design, turn: int) -> tuple[str, ...]:
    """The arm of this turn; of a preference all arms, beginning with that."""
    at = turn % len(design.arms)
    if design.kind == "preference":
        return design.arms[at:] + design.arms[:at]
    return (design.arms[at],)


def _again(order: Sequence[str], washout: int, rng: np.random.Generator) -> list[str]:
    """The same cases in another random order, such that at least `washout` trials lie between a case and itself. Case i
    may stand at place i - (n - 1 - washout) or later, so that at every place one is free."""
    late, waiting, found = len(order) - 1 - washout, list(enumerate(order)), []
    for place in range(len(order)):
        free = [k for k, (i, _) in enumerate(waiting) if i <= place + late]
        found.append(waiting.pop(free[int(rng.integers(len(free)))])[1])
    return found


def _repeats(design: Design, readings: Sequence[Trial], rng: np.random.Generator) -> list[Trial]:
    """Some trials once more, from those that are far enough back."""
    last = {trial.case: i for i, trial in enumerate(readings)}
    first_free = {i: last[trial.case] + design.washout + 1 for i, trial in enumerate(readings)}
    chosen: list[Trial] = []
    used: set[str] = set()
    for _ in range(design.repeats):
        now = len(readings) + len(chosen)
        free = [i for i, trial in enumerate(readings) if first_free[i] <= now and trial.case not in used]
        if not free:
            raise UsageError(
                f"{design.repeats} repeats with a washout of {design.washout} trials do not fit into {len(readings)} "
                "readings; ask for fewer repeats or a shorter washout"
            )
        trial = readings[free[int(rng.integers(len(free)))]]
        used.add(trial.case)
        chosen.append(replace(trial, part="repeat"))
    return chosen


def _extra(design: Design, cases: Sequence[str], part: str, ranks: Mapping[str, int], turn: int) -> list[Trial]:
    return [Trial("", case, _arms(design, ranks[case] + turn), part) for case in cases]


def _strewn(trials: Sequence[Trial], more: Sequence[Trial], rng: np.random.Generator) -> list[Trial]:
    """Further trials among the others, at random but spread over them all."""
    found = list(trials)
    edges = np.linspace(0, len(trials), len(more) + 1)
    for low, high, trial in sorted(zip(edges[:-1], edges[1:], more, strict=True), reverse=True, key=lambda at: at[0]):
        found.insert(int(rng.integers(int(low), max(int(high), int(low) + 1))), trial)
    return found


def _turns(cases: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """A number of each reader. Those who read the same cases have consecutive ones, so that every arm comes first to
    equally many of them."""
    together: dict[tuple[str, ...], list[str]] = {}
    for reader, own in cases.items():
        together.setdefault(own, []).append(reader)
    return {reader: i for i, reader in enumerate(r for readers in together.values() for r in readers)}


def _ranks(design: Design) -> dict[str, int]:
    """A random place of each case, the same for all readers. Cases that the same readers read have consecutive ones, so
    that every arm falls to equally many of them."""
    rng = np.random.default_rng([design.seed, 2])
    ranks: dict[str, int] = {}
    cases = allocated(design)
    together: dict[tuple[str, ...], list[str]] = {}
    for case in design.cases:
        together.setdefault(tuple(r for r in design.readers if case in cases[r]), []).append(case)
    # those of all readers first: a block then goes on where they end
    shared = [group for readers, group in together.items() if len(readers) == len(design.readers)]
    others = [group for readers, group in together.items() if len(readers) < len(design.readers)]
    after = sum(map(len, shared))
    for start, group in [(0, group) for group in shared] + [(after, group) for group in others]:
        for i, k in enumerate(rng.permutation(len(group))):
            ranks[group[k]] = start + i
    for extra in (design.training, design.catch):
        ranks |= {case: i for i, case in enumerate(extra)}
    return ranks


def _spread_out(cases: Sequence[str], number: int) -> list[str]:
    """So many cases at even distances."""
    return [cases[int(i)] for i in np.floor((np.arange(number) + 0.5) * len(cases) / max(number, 1))]


def _name(key: bytes, reader: str, place: int) -> str:
    return hmac.new(key, f"{place}:{reader}".encode(), hashlib.sha256).hexdigest()[:NAME]


def _check(design: Design) -> None:
    if design.kind not in KINDS:
        raise unknown("kind of study", design.kind, KINDS)
    if design.allocation not in ALLOCATIONS:
        raise unknown("allocation", design.allocation, ALLOCATIONS)
    for what, names in (
        ("arms", design.arms),
        ("readers", design.readers),
        ("cases", (*design.cases, *design.training, *design.catch)),
    ):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(
                f"{what} are named twice: {', '.join(twice[:5])}; training and catch cases are cases of their own"
            )
    if not design.readers or not design.cases or not design.arms:
        raise UsageError("a study needs at least one reader, one case and one arm")
    if design.kind == "preference" and len(design.arms) < 2:
        raise UsageError(f"a preference needs two arms or more to stand side by side; found {len(design.arms)}")
    for name, number in (("washout", design.washout), ("repeats", design.repeats), ("anchors", design.anchors)):
        if number < 0:
            raise UsageError(f"{name} is {number}; expected 0 or more")
    _check_groups(design)
    least = _fewest_cases(design)
    if least < 1:
        raise UsageError(
            f"{len(design.cases)} cases do not fill {design.groups} groups; ask for fewer groups or anchors"
        )
    shown_again = design.kind != "preference" and len(design.arms) > 1
    if shown_again and design.washout > least - 1:
        raise UsageError(
            f"a washout of {design.washout} trials; a reader of {least} cases has {least - 1} others between two arms "
            "of one case at most"
        )


def _check_groups(design: Design) -> None:
    if design.allocation == "all":
        if design.groups != 1 or design.anchors:
            raise UsageError("groups and anchors belong to the allocations split-plot and anchor-and-rotate; found all")
    elif not 2 <= design.groups <= min(len(design.readers), len(design.cases)):
        raise UsageError(
            f"{design.groups} groups of {len(design.readers)} readers and {len(design.cases)} cases; expected two or "
            "more, and at most one for each reader and case"
        )
    if design.allocation == "split-plot" and design.anchors:
        raise UsageError("a split plot has no anchors, which all readers read; take anchor-and-rotate")
    if design.allocation == "anchor-and-rotate" and not 1 <= design.anchors < len(design.cases):
        raise UsageError(f"{design.anchors} anchors of {len(design.cases)} cases; expected one or more, and not all")


def _fewest_cases(design: Design) -> int:
    rest = (len(design.cases) - design.anchors) // design.groups
    return 0 if rest < 1 else rest + design.anchors
