"""Projection, filtered back-projection and dose against what can be calculated by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.image import Float32, Float64
from fabrica.physics import tomography
from fabrica.physics.tomography import (
    MU_WATER,
    attenuation,
    back_project,
    counted,
    fan_fbp,
    fan_project,
    fbp,
    hounsfield,
    project,
    thinned,
)
from tests.draws import draws

MM = (0.8, 0.8)


def disc(
    size: tuple[int, int], radius: float, mm: tuple[float, float] = MM, centre: tuple[float, float] = (0, 0)
) -> Float32:
    """A disc of 1, radius and centre (down, right) in mm, with the share of each border pixel that it covers."""
    fine = [((np.arange(n * 4) + 0.5) / 4 - n / 2) * step - at for n, step, at in zip(size, mm, centre, strict=True)]
    inside = np.hypot(fine[0][:, None], fine[1]) <= radius
    return inside.reshape(size[0], 4, size[1], 4).mean((1, 3)).astype(np.float32)


def chords(radius: float, s: Float64) -> Float64:
    return np.asarray(2 * np.sqrt(np.maximum(radius**2 - s**2, 0)))


@pytest.mark.parametrize(("size", "mm"), [((128, 128), MM), ((97, 128), MM), ((96, 128), (1.0, 0.75))])
def test_projection_of_a_disc(size: tuple[int, int], mm: tuple[float, float]) -> None:
    radius, centre = 24.0, (3.0, -5.0)
    found = project(disc(size, radius, mm, centre) * np.float32(MU_WATER), mm, 40)
    angle = np.pi * np.arange(40)[:, None] / 40
    ray = (np.arange(found.shape[1]) - (found.shape[1] - 1) / 2) * max(mm)
    s = ray - (centre[1] * np.cos(angle) + centre[0] * np.sin(angle))
    expected = MU_WATER * chords(radius, s)
    away = np.abs(np.abs(s) - radius) > 3  # an edge cannot be had from pixels
    assert np.abs(found - expected)[away].max() < 0.015 * expected.max()
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.005 * expected.max()


def test_fan_projection_of_a_disc() -> None:
    radius, centre = 24.0, (3.0, -5.0)
    found = fan_project(disc((128, 128), radius, MM, centre), MM, 90)
    gamma = (np.arange(found.shape[1]) - (found.shape[1] - 1) / 2) * MM[0] / tomography.SOURCE
    angle = 2 * np.pi * np.arange(90)[:, None] / 90 + gamma
    s = tomography.SOURCE * np.sin(gamma) - (centre[1] * np.cos(angle) + centre[0] * np.sin(angle))
    away = np.abs(np.abs(s) - radius) > 3
    assert np.abs(found - chords(radius, s))[away].max() < 0.03 * 2 * radius


@settings(max_examples=draws(25), deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.sampled_from([0.5, 1.0, 1.7]), st.integers(0, 99))
def test_back_projection_is_the_transpose_of_projection(h: int, w: int, views: int, row: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.random((h, w), np.float32)
    sinogram = project(image, (row, 1.0), views)
    other = rng.random(sinogram.shape, np.float32)
    there = np.vdot(sinogram.astype(np.float64), other)
    back = np.vdot(image.astype(np.float64), back_project(other, (h, w), (row, 1.0)))
    norms = np.linalg.norm(sinogram) * np.linalg.norm(other)
    assert abs(there - back) < 1e-5 * norms


@pytest.mark.parametrize("window", ["ramp", "hann"])
@pytest.mark.parametrize("fan", [False, True])
def test_fbp_recovers_the_numbers_of_a_disc(fan: bool, window: str) -> None:
    size = (128, 120)
    truth = disc(size, 30, MM, (4, 6)) * np.float32(1060) - 1000
    there, back, views = (fan_project, fan_fbp, 400) if fan else (project, fbp, 200)
    found = hounsfield(back(there(attenuation(truth), MM, views), size, MM, window))
    inside, outside = disc(size, 26, MM, (4, 6)) == 1, disc(size, 36, MM, (4, 6)) == 0
    assert abs(found[inside].mean() - 60) < 2
    assert abs(found[outside].mean() + 1000) < 5
    assert found[inside].std() < 12  # Gibbs ringing of the edge


def test_fan_and_parallel_rays_see_the_same_off_the_axis() -> None:
    """Wide pixels, so that the rays spread: a fan that is turned or bent puts the disc elsewhere."""
    mm = (3.0, 3.0)
    image = disc((128, 128), 24, mm, (90, -110))
    parallel = fbp(project(image, mm, 180), (128, 128), mm, "hann")
    fan = fan_fbp(fan_project(image, mm, 360), (128, 128), mm, "hann")
    assert np.abs(fan - parallel).max() < 0.05


def test_the_corners_are_scanned_too() -> None:
    image = np.zeros((64, 64), np.float32)
    image[2:8, 2:8] = 1
    found = fbp(project(image, MM, 200), (64, 64), MM)
    assert abs(found[4:6, 4:6].mean() - 1) < 0.1


def test_attenuation_of_water_and_air() -> None:
    np.testing.assert_allclose(attenuation(np.float32([-3000, -1000, 0, 1000])), np.float32([0, 0, 1, 2]) * MU_WATER)
    np.testing.assert_allclose(
        hounsfield(attenuation(np.float32([-1000, -50, 0, 900]))), [-1000, -50, 0, 900], atol=1e-3
    )


@pytest.mark.parametrize(("dose", "electronic"), [(0.25, 0.0), (0.5, 20.0), (0.1, 20.0)])
def test_thinned_variance_is_that_of_the_formula(dose: float, electronic: float) -> None:
    p, photons = 2.0, 2e4
    found = thinned(np.full((300, 300), p, np.float32), photons, dose, electronic, np.random.default_rng(0))
    quanta = np.exp(p) / photons
    expected = (1 - dose) / dose * quanta * (1 + (1 + dose) / dose * electronic**2 * quanta)
    assert found.var() == pytest.approx(expected, rel=0.05)
    assert found.mean() == pytest.approx(p, abs=4 * np.sqrt(expected) / 300 + expected)


def test_full_dose_adds_nothing() -> None:
    p = np.full((4, 5), 2.0, np.float32)
    assert np.array_equal(thinned(p, 1e4, 1.0, 10, np.random.default_rng(0)), p)


def test_counted_variance_falls_with_the_photons() -> None:
    p = np.full((300, 300), 1.0, np.float32)
    few, many = (counted(p, photons, 0, np.random.default_rng(0)).var() for photons in (1e3, 1e5))
    assert few == pytest.approx(np.e / 1e3, rel=0.05)
    assert few / many == pytest.approx(100, rel=0.05)


def test_a_starved_ray_stays_finite() -> None:
    for photons in (1.0, 1e3):
        dark = np.full((8, 8), 60.0, np.float32)
        rng = np.random.default_rng(0)
        assert np.isfinite(counted(dark, photons, 10, rng)).all()
        assert np.isfinite(thinned(dark, photons, 0.1, 10, rng)).all()


@settings(max_examples=draws(15), deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(1, 7))
def test_any_size_and_number_of_views(h: int, w: int, views: int) -> None:
    image = np.ones((h, w), np.float32)
    for there, back in ((project, fbp), (fan_project, fan_fbp)):
        found = back(there(image, MM, views), (h, w), MM)
        assert found.shape == (h, w) and np.isfinite(found).all()
