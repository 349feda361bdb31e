"""The area under the ROC curve is the chance that a positive score is the higher one."""

from __future__ import annotations

import numpy as np
import pytest

from fabrica.metrics.roc import area_under_curve


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_share_of_pairs_in_order_ties_counting_half(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive, negative = rng.integers(1, 6, 20), rng.integers(0, 5, 30)
    above, equal = positive[:, None] > negative, positive[:, None] == negative
    assert area_under_curve(positive, negative) == pytest.approx((above + 0.5 * equal).mean())


def test_an_empty_group_has_no_curve() -> None:
    assert np.isnan(area_under_curve([], [1.0])) and np.isnan(area_under_curve([1.0], []))
