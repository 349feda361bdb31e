"""Designs of reader studies: balanced, blind, reproducible, and washed out, over a space of designs."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import UsageError
from fabrica.serving.study import design as studies
from fabrica.serving.study.design import Design, Trial, allocated, schedule
from tests.draws import draws

KEY = bytes(range(32))


@st.composite
def designs(draw: st.DrawFn, allocations: tuple[str, ...] = studies.ALLOCATIONS) -> Design:
    allocation = draw(st.sampled_from(allocations))
    readers, cases = draw(st.integers(2, 6)), draw(st.integers(6, 24))
    groups = 1 if allocation == "all" else draw(st.integers(2, min(readers, 3)))
    anchors = draw(st.integers(1, cases - groups)) if allocation == "anchor-and-rotate" else 0
    fewest = (cases - anchors) // groups + anchors
    washout = draw(st.integers(0, fewest - 1))
    names = tuple(f"case{i}" for i in range(cases))
    kind = draw(st.sampled_from(studies.KINDS))
    arms = ("degraded", "restored", "reference")[: draw(st.integers(2 if kind == "preference" else 1, 3))]
    shown = fewest * (1 if kind == "preference" else len(arms))
    repeats = draw(st.integers(0, max(0, min(fewest, shown - washout) // 2)))
    return Design(
        kind=kind,
        arms=arms,
        cases=names,
        readers=tuple(f"reader{i}" for i in range(readers)),
        strata=dict.fromkeys(names[: draw(st.integers(0, cases))], "ill"),
        allocation=allocation,
        groups=groups,
        anchors=anchors,
        washout=washout,
        repeats=repeats,
        training=tuple(f"training{i}" for i in range(draw(st.integers(0, 3)))),
        catch=tuple(f"catch{i}" for i in range(draw(st.integers(0, 3)))),
        seed=draw(st.integers(0, 1000)),
    )


def even(counts: list[int]) -> bool:
    return max(counts) - min(counts) <= 1


def of_part(trials: tuple[Trial, ...], part: str) -> list[Trial]:
    return [trial for trial in trials if trial.part == part]


@settings(max_examples=draws(60), deadline=None)
@given(designs())
def test_who_reads_what(design: Design) -> None:
    cases = allocated(design)
    assert set(cases) == set(design.readers)
    times = Counter(case for each in cases.values() for case in each)
    assert set(times) == set(design.cases)  # every case is read
    for_all = [case for case in design.cases if times[case] == len(design.readers)]
    if design.allocation == "all":
        assert for_all == list(design.cases)
    if design.allocation == "anchor-and-rotate" and len(design.readers) > 1:
        assert len(for_all) == design.anchors
    blocks = Counter(tuple(sorted(each)) for each in cases.values())
    assert len(blocks) == design.groups and even(list(blocks.values()))
    for stratum in ("ill", ""):
        sizes = [sum(design.strata.get(c, "") == stratum and c not in for_all for c in block) for block in blocks]
        assert even(sizes)


@settings(max_examples=draws(60), deadline=None)
@given(designs())
def test_everything_is_shown_and_often_enough(design: Design) -> None:
    for reader, trials in schedule(design, KEY).items():
        cases = allocated(design)[reader]
        readings = of_part(trials, "reading")
        if design.kind == "preference":
            assert sorted(t.case for t in readings) == sorted(cases)
            assert all(sorted(t.arms) == sorted(design.arms) for t in trials)
        else:
            shown = Counter((t.case, t.arms) for t in readings)
            assert shown == Counter((case, (arm,)) for case in cases for arm in design.arms)
        assert sorted(t.case for t in of_part(trials, "catch")) == sorted(design.catch)
        assert {t.case for t in trials[: len(design.training)]} == set(design.training)
        again = of_part(trials, "repeat")
        assert len(again) == design.repeats == len({t.case for t in again})
        assert {(t.case, t.arms) for t in again} <= {(t.case, t.arms) for t in readings}


@settings(max_examples=draws(60), deadline=None)
@given(designs())
def test_the_washout_holds(design: Design) -> None:
    for trials in schedule(design, KEY).values():
        last: dict[str, int] = {}
        for place, trial in enumerate(trials):
            if trial.case in last:
                assert place - last[trial.case] - 1 >= design.washout
            last[trial.case] = place


@settings(max_examples=draws(60), deadline=None)
@given(designs())
def test_arms_are_balanced(design: Design) -> None:
    first: dict[str, list[str]] = {case: [] for case in design.cases}
    for trials in schedule(design, KEY).values():
        readings = of_part(trials, "reading")
        size = len({t.case for t in readings})
        for start in range(0, len(readings), size):
            counts = Counter(t.arms[0] for t in readings[start : start + size])
            assert even([counts[arm] for arm in design.arms])
        for trial in readings[:size]:
            first[trial.case].append(trial.arms[0])
    for begins in first.values():  # over its readers each case begins with each arm
        assert even([begins.count(arm) for arm in design.arms])


@settings(max_examples=draws(40), deadline=None)
@given(designs())
def test_it_is_reproducible_and_hidden(design: Design) -> None:
    one = schedule(design, KEY)
    assert one == schedule(replace(design), KEY)
    names = [trial.name for trials in one.values() for trial in trials]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[0-9a-f]{20}", name) for name in names)
    other = schedule(design, bytes(32))
    for reader, trials in one.items():  # the same is shown, and who has the config cannot tell in which order
        assert sorted((t.case, t.arms) for t in trials if t.part == "reading") == sorted(
            (t.case, t.arms) for t in other[reader] if t.part == "reading"
        )
    assert not set(names) & {t.name for trials in other.values() for t in trials}


def large(**changes: object) -> Design:
    names = tuple(f"c{i}" for i in range(200))
    return replace(Design("clarity", ("a", "b"), names, ("r1", "r2", "r3", "r4"), washout=50), **changes)  # type: ignore[arg-type]


def test_names_tell_no_arm() -> None:
    """Over 1,600 trials: neither the name's first letter nor its order goes with the arm."""
    trials = [t for each in schedule(large(), KEY).values() for t in each]
    arm = np.array([t.arms == ("a",) for t in trials], float)
    for told in (np.array([int(t.name[:8], 16) for t in trials], float), np.arange(len(trials)) % 2):
        assert abs(np.corrcoef(arm, told)[0, 1]) < 4 / np.sqrt(len(trials))


def test_neighbours_tell_no_arm() -> None:
    """Arms of one pass are in no order: the arm before says nothing of the next one."""
    for trials in schedule(large(), KEY).values():
        arm = np.array([t.arms == ("a",) for t in trials], float)
        assert abs(np.corrcoef(arm[:-1], arm[1:])[0, 1]) < 0.2


def test_readers_have_orders_of_their_own() -> None:
    orders = [tuple(t.case for t in trials) for trials in schedule(large(), KEY).values()]
    assert len(set(orders)) == 4
    assert schedule(large(seed=1), KEY)["r1"] != schedule(large(), KEY)["r1"]


def test_who_has_the_config_cannot_draw_the_order_again() -> None:
    one, other = (schedule(large(), key)["r1"] for key in (KEY, bytes(32)))
    assert np.mean([a.case == b.case for a, b in zip(one, other, strict=True)]) < 0.05
    same = np.mean([a.arms == b.arms for a, b in zip(one, other, strict=True)])
    assert abs(same - 0.5) < 4 * 0.5 / np.sqrt(len(one))


def test_a_washout_as_long_as_can_be_keeps_the_order() -> None:
    trials = schedule(large(washout=199), KEY)["r1"]
    assert [t.case for t in trials[:200]] == [t.case for t in trials[200:]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "clearness"}, "no kind of study 'clearness'"),
        ({"allocation": "some"}, "no allocation 'some'"),
        ({"readers": ("r1", "r1")}, "readers are named twice: r1"),
        ({"training": ("c1",)}, "cases are named twice: c1"),
        ({"arms": ()}, "at least one reader, one case and one arm"),
        ({"kind": "preference", "arms": ("a",)}, "two arms or more"),
        ({"washout": 200}, "has 199 others between two arms"),
        ({"washout": -1}, "washout is -1"),
        ({"groups": 2}, "belong to the allocations"),
        ({"allocation": "split-plot", "groups": 5}, "5 groups of 4 readers"),
        ({"allocation": "split-plot", "groups": 1}, "two or more"),
        ({"allocation": "split-plot", "groups": 2, "anchors": 3}, "has no anchors"),
        ({"allocation": "anchor-and-rotate", "groups": 2}, "0 anchors of 200"),
        ({"allocation": "anchor-and-rotate", "groups": 2, "anchors": 199, "washout": 0}, "do not fill 2 groups"),
        ({"repeats": 201}, "do not fit into 400 readings"),
    ],
)
def test_designs_that_cannot_be(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        schedule(large(**changes), KEY)


def test_a_short_key() -> None:
    with pytest.raises(UsageError, match="16 or more"):
        schedule(large(), b"secret")
