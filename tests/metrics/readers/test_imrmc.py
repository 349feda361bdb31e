"""The iMRMC layout, read and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fabrica.errors import FabricaError, UsageError
from fabrica.metrics.readers import imrmc
from tests.draws import draws
from tests.real import DATA

HEAD = "a study\nof two lines\nBEGIN DATA:\n"
TRUTH = "truth,c1,truth,0\ntruth,c2,truth,1\n"


def test_what_it_holds() -> None:
    found = imrmc.parsed(HEAD + TRUTH + "r1, c1, CT, 3\nr2,c2,CT,1.5\nr1,c2,MR,-2e1\n")
    assert found.description == "a study\nof two lines"
    assert (found.modalities, found.readers, found.cases) == (("CT", "MR"), ("r1", "r2"), ("c1", "c2"))
    assert found.truth.tolist() == [False, True]
    np.testing.assert_array_equal(found.of("CT"), [[3, np.nan], [np.nan, 1.5]])
    np.testing.assert_array_equal(found.of("MR"), [[np.nan, -20], [np.nan, np.nan]])
    with pytest.raises(UsageError, match="no modality 'US'; expected one of CT, MR"):
        found.of("US")


names = st.text("aB1 ,;\"'é中#", min_size=1, max_size=6)
names = names.map(str.strip).filter(bool)


@settings(max_examples=draws(60), deadline=None)
@given(st.data())
def test_it_is_read_as_it_was_written(data: st.DataObject) -> None:
    several = st.lists(names, min_size=1, max_size=3, unique=True)
    axes = [tuple(data.draw(several)) for _ in range(3)]
    number = st.floats(-1e300, 1e300) | st.just(float("nan"))
    scores = data.draw(arrays(np.float64, tuple(map(len, axes)), elements=number))
    there = np.isfinite(scores)
    for axis in range(3):  # a name without any reading is not in the file
        kept = there.any(tuple({0, 1, 2} - {axis})) | (axis == 2)
        scores, there = np.compress(kept, scores, axis), np.compress(kept, there, axis)
        axes[axis] = tuple(name for name, keep in zip(axes[axis], kept, strict=True) if keep)
    if not there.any():
        return
    truth = data.draw(arrays(np.bool_, len(axes[2])))
    before = imrmc.Readings(scores, truth, *axes, description="any words")
    after = imrmc.parsed(imrmc.text_of(before))
    assert after.description == "any words" and after.cases == before.cases
    np.testing.assert_array_equal(after.truth, before.truth)
    order = [
        [after_names.index(n) for n in names]
        for after_names, names in zip((after.modalities, after.readers, after.cases), axes, strict=True)
    ]
    np.testing.assert_array_equal(after.scores[np.ix_(*order)], before.scores)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("r1,c1,CT,3", "no line 'BEGIN DATA:'"),
        (HEAD + TRUTH, "no readings"),
        (HEAD + TRUTH + "r1,c1,CT", "line 6 has 3 entries"),
        (HEAD + TRUTH + "r1,c1,CT,4,5", "line 6 has 5 entries"),
        (HEAD + TRUTH + "r1,c1,CT,high", "line 6: the score 'high' is no number"),
        (HEAD + TRUTH + "r1,c1,CT,NaN", "leave out readings that are missing"),
        (HEAD + TRUTH + "r1,c1,CT,3\nr1,c1,CT,4", "line 7: reader r1 has a second score of case c1 in CT"),
        (HEAD + TRUTH + "r1,c3,CT,3", "1 cases have no truth, among them c3"),
        (HEAD + "truth,c1,truth,2\nr1,c1,CT,3", "expected 0 \\(normal\\) or 1"),
        (HEAD + TRUTH + "truth,c1,truth,1\n", "line 6: a second truth of case c1"),
        (HEAD + "truth,c1,CT,1\n", "must both be 'truth'"),
    ],
)
def test_what_is_none(text: str, said: str) -> None:
    with pytest.raises(FabricaError, match=said):
        imrmc.parsed(text)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "study.imrmc"
    before = imrmc.parsed(HEAD + TRUTH + "r1,c1,CT,3\nr1,c2,CT,0.1\n")
    imrmc.write(before, path)
    np.testing.assert_array_equal(imrmc.read(path).scores, before.scores)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FabricaError, match="cannot be read as text"):
        imrmc.read(path)
    path.write_text("nothing")
    with pytest.raises(FabricaError, match=r"study\.imrmc: no line"):
        imrmc.read(path)


@pytest.mark.parametrize("change", [{"readers": ("truth",)}, {"cases": ("c\n1", "c2")}, {"modalities": ("",)}])
def test_names_that_a_file_cannot_hold(change: dict[str, tuple[str, ...]]) -> None:
    parts = {"modalities": ("CT",), "readers": ("r1",), "cases": ("c1", "c2")} | change
    readings = imrmc.Readings(np.zeros((1, 1, 2)), np.array([False, True]), **parts)
    with pytest.raises(UsageError, match="cannot be the name of a"):
        imrmc.text_of(readings)


def test_imrmcs_own_file_is_written_as_it_was() -> None:
    path = DATA / "imrmc_example" / "missing.imrmc"
    if not path.is_file():
        pytest.skip(f"no iMRMC example in {DATA}")
    first = imrmc.read(path)
    assert first.scores.shape == (2, 5, 80) and int(np.isnan(first.scores).sum()) == 150
    again = imrmc.parsed(imrmc.text_of(first))
    np.testing.assert_array_equal(again.scores, first.scores)
