"""Changes of grey values: what stays, and that they are small."""

from __future__ import annotations

import numpy as np
import pytest

from fabrica.data.intensity import _contrasted, _powered, changed_values, coarsened
from fabrica.image import Float32


def patch(*size: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).uniform(-1, 1, size).astype(np.float32)


@pytest.mark.parametrize("size", [(1, 40, 30), (2, 12, 16, 14)])
def test_they_are_the_same_each_time_and_leave_the_patch_alone(size: tuple[int, ...]) -> None:
    values = patch(*size)
    kept = values.copy()
    changed = 0
    for seed in range(40):
        one, other = (changed_values(values, np.random.default_rng(seed)) for _ in range(2))
        assert one.shape == size and one.dtype == np.float32 and np.array_equal(one, other) and np.isfinite(one).all()
        changed += not np.array_equal(one, values)
    assert np.array_equal(values, kept) and 20 < changed < 40


def test_thick_slices_are_not_mixed() -> None:
    values = -np.ones((1, 6, 16, 16), dtype=np.float32)
    values[:, 3] = patch(1, 16, 16)
    for seed in range(60):
        found = changed_values(values, np.random.default_rng(seed), thick=[0])
        around = np.delete(found, 3, axis=1)
        spread = around.std()
        if spread < 0.01:  # no noise was drawn: what was flat without a neighbour's values stays so
            assert np.ptp(around) < 1e-4


def test_mean_and_spread_outlast_a_power() -> None:
    values = patch(1, 50, 50)
    for power in (0.7, 1.0, 1.5):
        found = _powered(values, power)
        assert found.mean() == pytest.approx(values.mean(), abs=1e-5)
        assert found.std() == pytest.approx(values.std(), abs=1e-5)
    assert np.array_equal(_powered(np.zeros((1, 4, 4), dtype=np.float32), 2.0), np.zeros((1, 4, 4)))
    wider = _contrasted(values, 1.25)
    assert wider.std() > values.std() and wider.min() == values.min() and wider.max() == values.max()


@pytest.mark.parametrize("share", [0.5, 0.7, 0.99])
def test_a_coarser_patch_keeps_its_size_and_what_is_smooth(share: float) -> None:
    ramp = np.broadcast_to(np.linspace(-1, 1, 64, dtype=np.float32), (1, 48, 64)).copy()
    found = coarsened(ramp, share, [1, 2])
    assert found.shape == ramp.shape and np.abs(found - ramp).max() < 0.06
    noise = patch(1, 48, 64)
    assert coarsened(noise, share, [1, 2]).std() < noise.std()
