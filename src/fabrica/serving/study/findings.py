"""What an analysis of a study found, as data for the page and for results.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fabrica.errors import UsageError
from fabrica.image import Float64
from fabrica.metrics.readers.equivalence import ALPHA, Verdict, holm
from fabrica.metrics.readers.estimate import Estimate

NOT_GIVEN = "–"


@dataclass(frozen=True)
class Finding:
    """One figure with its interval.

    key      in results.json; group: the heading under which it stands.
    of       the arm, or the two that are compared.
    percent  a share, that a person reads as per cent.
    holm     p corrected for the number of comparisons; NaN where there is one alone, or no test.
    """

    key: str
    group: str
    name: str
    of: str
    estimate: Estimate
    explanation: str = ""
    percent: bool = False
    holm: float = float("nan")


@dataclass(frozen=True)
class Forest:
    """One figure of each reader and of all, for a picture. null: what no difference, or guessing, would be."""

    key: str
    title: str
    axis: str
    rows: tuple[tuple[str, Estimate], ...]
    whole: Estimate
    null: float | None = None


@dataclass(frozen=True)
class Table:
    """A plain table: its first column names the rows."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Series:
    """A curve: name, x and y."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Plot:
    """Curves in one picture. kind: "line", "roc" (with the diagonal), or "bars" (a share of each x for each name)."""

    key: str
    title: str
    kind: str
    x: str
    y: str
    series: tuple[Series, ...]
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A test of what was stated before the study. holm: its p corrected for all claims of the study, to be compared
    with the verdict's own alpha; NaN of one claim alone, or without a test."""

    of: str
    verdict: Verdict
    holm: float = float("nan")

    @property
    def shown_of_all(self) -> bool:
        """Whether it is shown also with Holm's correction for all claims."""
        return self.verdict.shown and not self.holm > self.verdict.alpha


@dataclass
class Findings:
    """All of one study; filled analysis by analysis."""

    rows: list[Finding] = field(default_factory=list)
    forests: list[Forest] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    verdict: str = ""

    def add(self, key: str, group: str, name: str, of: str, estimate: Estimate, why: str = "", **more: Any) -> Estimate:
        """A row; the estimate, for who goes on with it."""
        self.rows.append(Finding(key, group, name, of, estimate, why, **more))
        return estimate


def corrected(claims: Sequence[Claim]) -> list[Claim]:
    """With Holm's correction for all of them. One-sided tests at 2.5 % count as two-sided ones at 5 % do, so that one p
    can be compared with another."""
    if len(claims) < 2:
        return list(claims)
    alike = [min(1.0, claim.verdict.p * ALPHA / claim.verdict.alpha) for claim in claims]
    return [replace(claim, holm=p * claim.verdict.alpha / ALPHA) for claim, p in zip(claims, holm(alike), strict=True)]


def untested(of: Estimate) -> Estimate:
    """Without the test of 0, where nobody asks whether a figure is 0."""
    return replace(of, p=float("nan"))


def tried(compute: Callable[..., Estimate], *tables: Any, **choices: Any) -> Estimate:
    """An estimate of these tables, or none with the reason where the answers do not allow it."""
    try:
        return compute(*tables, **choices)
    except UsageError as error:
        return Estimate(np.nan, np.nan, np.nan, note=str(error))


def number(value: float, percent: bool = False, signed: bool = False) -> str:
    """A figure as a person reads it."""
    if not np.isfinite(value):
        return NOT_GIVEN
    if percent:
        return f"{100 * value:{'+' if signed else ''}.1f} %"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:{'+' if signed else ''}.{digits}f}"


def p_value(p: float) -> str:
    if not np.isfinite(p):
        return NOT_GIVEN
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_is(p: float) -> str:
    """For a sentence: "p = 0.041", "p < 0.001", without the p."""
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"


def interval(of: Estimate, percent: bool = False) -> str:
    """[low, high], or nothing."""
    if not (np.isfinite(of.low) and np.isfinite(of.high)):
        return ""
    return f"[{number(of.low, percent).removesuffix(' %')}, {number(of.high, percent)}]"


def in_words(of: Estimate, percent: bool = False, signed: bool = False) -> str:
    """For a sentence: "0.62 (95 % interval 0.31 to 0.93)"."""
    value = number(of.value, percent, signed)
    if not (np.isfinite(of.low) and np.isfinite(of.high)):
        return f"{value} (no interval)"
    low, high = number(of.low, percent, signed), number(of.high, percent, signed)
    return f"{value} (95 % interval {low.removesuffix(' %')} to {high})"


def bins(places: Sequence[int], count: int = 5) -> Float64:
    """Which fifth of a reader's own order each place is in."""
    ranks = np.argsort(np.argsort(np.asarray(places)))
    return np.floor(ranks * count / max(len(places), 1))
