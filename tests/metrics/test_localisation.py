"""Maps that know where an area is, that know nothing of it, and that point away from it."""

from __future__ import annotations

import numpy as np
import pytest

from fabrica.metrics.localisation import located


@pytest.mark.parametrize("seed", range(5))
def test_a_map_of_the_area_finds_it_and_its_opposite_does_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    area = np.zeros((30, 40), dtype=bool)
    top, left = rng.integers(2, 20, 2)
    area[top : top + 6, left : left + 5] = True
    found = located(area.astype(np.float32), area)
    assert found.area_under_curve == 1.0 and found.hit and found.chance == pytest.approx(8 * 7 / 1200)
    away = located(1.0 - area.astype(np.float32), area)
    assert away.area_under_curve == 0.0 and not away.hit
    assert located(np.ones((30, 40), np.float32), area).area_under_curve == 0.5


def test_noise_is_at_chance() -> None:
    rng = np.random.default_rng(1)
    area = np.zeros((32, 32), dtype=bool)
    area[10:16, 4:14] = True
    found = [located(rng.random((32, 32)), area) for _ in range(300)]
    assert np.mean([each.area_under_curve for each in found]) == pytest.approx(0.5, abs=0.01)
    assert np.mean([each.hit for each in found]) == pytest.approx(found[0].chance, abs=0.05)


def test_a_single_bright_pixel_of_noise_is_no_peak() -> None:
    values = np.zeros((20, 20))
    values[4:8, 4:8], values[15, 15] = 1.0, 3.0
    area = np.zeros((20, 20), dtype=bool)
    area[4:8, 4:8] = True
    assert located(values, area).hit
