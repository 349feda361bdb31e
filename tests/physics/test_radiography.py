"""Quanta and scatter of a radiograph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.physics.radiography import developed, exposure, gaussian, quantum, scattered


@given(st.floats(-100, 400), st.floats(0.5, 6))
def test_developing_undoes_exposing(grey: float, latitude: float) -> None:
    found = developed(exposure(np.float32([grey]), 0, 255, latitude), 0, 255, latitude)
    assert found[0] == pytest.approx(grey, abs=0.05)


@pytest.mark.parametrize("grey", [0.0, 100.0, 200.0])
@pytest.mark.parametrize("photons", [2e3, 2e5])
def test_quantum_variance(grey: float, photons: float) -> None:
    found = quantum(np.full((300, 300), grey, np.float32), 0, 255, 3, photons, np.random.default_rng(0))
    expected = (255 / 3) ** 2 / (photons * np.exp(-3 * grey / 255))
    assert found.var() == pytest.approx(expected, rel=0.06)
    assert found.mean() == pytest.approx(grey, abs=0.5)


def test_no_photon_no_infinity() -> None:
    wild = np.float32([[-1e9, 0, 255, 1e9]])
    found = quantum(wild, 0, 255, 12, 1, np.random.default_rng(0))
    assert np.isfinite(found).all() and np.isfinite(scattered(wild, 0, 255, 12, 0.9, (3, 3))).all()
    np.testing.assert_allclose(found[0, [0, 3]], [-1e9, 1e9], rtol=1e-5)


def test_scatter_keeps_the_exposure_and_lowers_the_contrast() -> None:
    grey = np.full((64, 64), 50, np.float32)
    grey[16:48, 16:48] = 200
    found = scattered(grey, 0, 255, 3, 0.4, (10, 10))
    assert exposure(found, 0, 255, 3).mean() == pytest.approx(exposure(grey, 0, 255, 3).mean(), rel=1e-4)
    assert 20 < found[32, 32] - found[0, 0] < 140
    np.testing.assert_allclose(scattered(grey, 0, 255, 3, 0.0, (10, 10)), grey, atol=1e-3)
    flat = np.full((16, 16), 80, np.float32)
    np.testing.assert_allclose(scattered(flat, 0, 255, 3, 0.5, (3, 3)), flat, atol=1e-2)


def test_without_a_range_nothing_changes() -> None:
    flat = np.full((4, 4), 7, np.float32)
    assert np.array_equal(quantum(flat, 7, 7, 3, 10, np.random.default_rng(0)), flat)
    assert np.array_equal(scattered(flat, 7, 7, 3, 0.4, (2, 2)), flat)


def test_gaussian_is_that_of_its_width() -> None:
    point = np.zeros((65, 65), np.float32)
    point[32, 32] = 1
    found = gaussian(point, (4.0, 2.0))
    at = np.arange(65) - 32
    assert found.sum() == pytest.approx(1, rel=1e-5)
    assert (found.sum(1) * at**2).sum() == pytest.approx(16, rel=1e-3)
    assert (found.sum(0) * at**2).sum() == pytest.approx(4, rel=1e-3)
