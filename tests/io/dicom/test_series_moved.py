"""Volumes of one series that do not lie at the same places: the patient was followed, slabs overlap or lie apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.draws import draws
from tests.io.dicom import series as make
from tests.io.dicom.test_series import QUICK, everything, folder

TOLD = ("acquisition", "acquisition time", "temporal position", "trigger time", "instance alone")


def written(home: Path, truths: list[make.Truth], form: str, tell: str) -> None:
    """Volumes as mosaics, as enhanced files of a volume each, or a file a slice."""
    if form == "slices":
        make.classic(home, truths, tell=tell)
        return
    for v, truth in enumerate(truths):
        said = {"InstanceNumber": v + 1, "AcquisitionNumber": v + 1}
        if form == "mosaics":
            made = make.mosaic(truth, **said)
        else:
            made = make.enhanced(make.frames_of([truth], indexed=False, told=False), **said)
        make.save(made, home / make.hashed(v), instance=v)


@settings(max_examples=draws(60), **QUICK)
@given(
    form=st.sampled_from(["slices", "slices", "mosaics", "enhanced"]),
    tell=st.sampled_from(TOLD),
    depth=st.integers(3, 7),
    count=st.integers(2, 4),
    between=st.sampled_from([3.0, -3.0, 0.7]),
    share=st.sampled_from([0.005, 0.02, 0.11, 0.3, 0.8, 1.2]),
    aside=st.sampled_from([0.0, 0.4]),
    angles=st.sampled_from([(0, 0, 0), (-7.3, 12.9, 31.7)]),
)
def test_volumes_that_follow_the_patient_are_never_mixed(
    form: str, tell: str, depth: int, count: int, between: float, share: float, aside: float, angles: Any
) -> None:
    """Prospective motion correction moves the slices of each time point, along their normal and aside."""
    where = make.grid(depth, between, angles=angles)
    by = where.normal * share * between + where.along_w * aside
    truths = make.truths(count, [where.moved(by * v) for v in range(count)])
    with folder() as home:
        written(home, truths, form, tell)
        assert make.compared(everything(home).values(), truths, tolerance=2e-3) == []


@settings(max_examples=draws(40), **QUICK)
@given(
    tell=st.sampled_from(["acquisition", "instance alone"]),
    depth=st.integers(4, 9),
    slabs=st.integers(2, 5),
    overlap=st.integers(1, 3),
    between=st.sampled_from([2.0, -2.0]),
    modality=st.sampled_from(["CT", "MR"]),
)
def test_slabs_that_overlap_are_volumes(
    tell: str, depth: int, slabs: int, overlap: int, between: float, modality: str
) -> None:
    where = make.grid(depth, between)
    truths = make.truths(slabs, [where.moved([0, 0, between * (depth - overlap) * s]) for s in range(slabs)])
    with folder() as home:
        make.classic(home, truths, tell=tell, modality=modality)
        assert make.compared(everything(home).values(), truths) == []


@pytest.mark.parametrize("depth", [2, 4, 7])
@pytest.mark.parametrize("apart", [31.0, 100.0, 400.0])
@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_slices_of_slabs_far_apart_are_no_repeats(tmp_path: Path, depth: int, apart: float, modality: str) -> None:
    """What is near beside the gap between slabs is still the distance of slices: with nothing to tell slabs apart
    they are one image, each slice in its place."""
    offsets = [*(3.0 * k for k in range(depth)), *(3.0 * (depth - 1 + k) + apart for k in range(depth))]
    [truth] = make.truths(1, make.grid(offsets=offsets))
    make.classic(tmp_path, [truth], modality=modality)
    assert make.compared(everything(tmp_path).values(), [truth]) == []


def test_stacks_far_apart_are_told_by_their_names(tmp_path: Path) -> None:
    truths = make.truths(2, [make.grid(4), make.grid(4).moved([0, 0, 80])])
    path = make.save(make.enhanced(make.frames_of(truths, "stack")), tmp_path / "a.dcm")
    assert make.compared(everything(path).values(), truths) == []


@pytest.mark.parametrize("said", ["time", "echo"])
def test_slices_that_follow_one_another_are_one_volume_whatever_their_time(tmp_path: Path, said: str) -> None:
    """Some scanners count the time of each few slices, or round the echo time of each anew."""
    [truth] = make.truths(1, make.grid(6))
    for k in range(6):
        told = {"TemporalPositionIdentifier": k // 2 + 1} if said == "time" else {"EchoTime": 5 + 0.01 * (k // 2)}
        make.save(make.plane(truth.values[k], truth.grid, k, InstanceNumber=k + 1, **told), tmp_path / make.hashed(k))
    assert make.compared(everything(tmp_path).values(), [truth]) == []
