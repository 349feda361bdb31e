"""Label maps become scored cases, in the truth's millimetres; the worst class and the worst case are found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.evaluation.segmentation.cases import ScoredCase, labels, scored, worst_first
from fabrica.image import Image
from fabrica.metrics.segmentation import compare

AFFINE = np.diag([0.5, 0.8, 3.0, 1.0])  # w, h, d


def label_map(seed: int, shape: tuple[int, ...] = (6, 12, 10), affine: np.ndarray = AFFINE) -> Image:
    data = np.random.default_rng(seed).integers(0, 4, shape).astype(np.float32)
    return Image(data[None], affine, "label", {"path": "case.nii.gz"})


def test_a_case_is_scored_in_the_millimetres_of_its_truth() -> None:
    made, truth = label_map(0), label_map(1)
    found = scored("a", "p", made, truth, [1, 3], 1.2)
    expected = compare(labels(made), labels(truth), [1, 3], (3.0, 0.8, 0.5), 1.2)
    assert (found.id, found.patient, dict(found.scores)) == ("a", "p", expected)


def test_what_is_no_label_map_is_refused() -> None:
    truth = label_map(0)
    with pytest.raises(UsageError, match="holds fractions"):
        labels(truth.with_data(truth.data + np.float32(0.5)))
    with pytest.raises(UsageError, match="whole numbers from 0"):
        labels(truth.with_data(truth.data - 1))
    with pytest.raises(UsageError, match="one channel"):
        labels(truth.with_data(np.concatenate([truth.data, truth.data])))


@pytest.mark.parametrize(("top", "kind"), [(3, "uint8"), (300, "uint16"), (70_000, "uint32")])
def test_labels_take_no_more_memory_than_their_numbers_need(top: int, kind: str) -> None:
    values = np.array([[0, 1], [2, top]], dtype=np.float32)
    found = labels(Image(values[None], unit="label"))
    assert found.dtype == kind and (found == values).all()


def test_other_grids_are_refused() -> None:
    truth, moved = label_map(0), AFFINE.copy()
    moved[0, 3] = 1
    for other in (label_map(1, (6, 12, 11)), label_map(1, affine=moved)):
        with pytest.raises(UsageError, match="different grids"):
            scored("a", "p", other, truth, [1])


def case(name: str, made: np.ndarray, truth: np.ndarray) -> ScoredCase:
    return ScoredCase(name, name, compare(made, truth, [1, 2, 3], (1.0, 1.0)))


def test_the_worst_class_and_the_worst_cases_come_first() -> None:
    truth = np.zeros((12, 12), dtype=np.uint8)
    truth[:4, :4], truth[6:, 6:] = 1, 2
    near, lost, alarm = truth.copy(), truth.copy(), truth.copy()
    near[0, 0], near[6, 6:9] = 0, 0
    lost[truth == 2] = 0
    alarm[truth == 1] = 0
    alarm[5, 5] = 3
    nothing = np.zeros_like(truth)
    cases = [case("nothing", nothing, nothing), case("near", near, truth), case("lost", lost, truth)]
    cases += [case("alarm", alarm, truth), case("same", truth, truth)]
    found = {each.id: each for each in cases}
    assert [found[k].worst for k in ("near", "lost", "alarm", "nothing")] == [2, 2, 1, None]
    assert (found["lost"].missed, found["alarm"].missed, found["alarm"].false_alarms) == ([2], [1], [3])
    assert found["lost"].mean("dice") == 0.5 and math.isnan(found["nothing"].mean("dice"))
    assert [each.id for each in worst_first(cases)] == ["alarm", "lost", "near", "same", "nothing"]
