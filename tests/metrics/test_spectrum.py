"""A pattern of the stride's period is found where there is one, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.image import Float32
from fabrica.metrics.spectrum import power_kept, stride_peak
from fabrica.phantoms.head.head import head


@pytest.fixture(scope="module")
def heads() -> Float32:
    return np.stack([head(seed, 64, contrasts=["CT"]).images["CT"].data for seed in range(6)])


def test_images_without_a_pattern_have_no_peak(heads: Float32) -> None:
    noise = np.random.default_rng(0).standard_normal((16, 1, 64, 64)).astype(np.float32)
    assert stride_peak(noise, 4) < 2
    assert stride_peak(heads, 4) < 4


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("axis", [2, 3])
def test_a_faint_pattern_is_found(heads: Float32, stride: int, axis: int) -> None:
    along = (np.arange(64) % stride == 0).astype(np.float32) * 20  # HU, in images of some 2500
    shape = [1, 1, 1, 1]
    shape[axis] = 64
    assert stride_peak(heads + along.reshape(shape), stride) > 8


def test_a_pattern_below_the_texture_of_real_images_is_none(heads: Float32) -> None:
    smooth = np.linspace(-1000, 1000, 64, dtype=np.float32)[:, None] * np.ones((1, 1, 64, 64), np.float32)
    faint = smooth + 0.01 * (np.arange(64) % 2)
    assert stride_peak(faint, 2) > 8
    assert stride_peak(faint, 2, heads) < 1
    seen = smooth + 20 * (np.arange(64) % 2).astype(np.float32)
    assert stride_peak(seen, 2, heads) > 8


def test_tiny_images_are_refused() -> None:
    with pytest.raises(UsageError, match="too small"):
        stride_peak(np.zeros((1, 1, 16, 16), np.float32), 2)


def test_blur_takes_power_from_high_frequencies_as_its_transfer_function_says(heads: Float32) -> None:
    noise = np.random.default_rng(0).standard_normal((16, 1, 64, 64)).astype(np.float32)
    blurred = (noise + np.roll(noise, 1, -1) + np.roll(noise, 1, -2) + np.roll(noise, (1, 1), (-1, -2))) / 4
    frequencies, ratios = power_kept(blurred, noise)
    assert len(frequencies) == 16 and frequencies[0] == pytest.approx(1 / 32)
    # along an axis |cos(pi f / 2)|^2; the mean over the directions of a ring
    angles = np.linspace(0, 2 * np.pi, 360)
    told = [np.mean((np.cos(np.pi * f * np.cos(angles) / 2) * np.cos(np.pi * f * np.sin(angles) / 2)) ** 2)
            for f in frequencies]  # fmt: skip
    np.testing.assert_allclose(ratios, told, atol=0.03)
    np.testing.assert_allclose(power_kept(heads, heads)[1], 1)
    np.testing.assert_allclose(power_kept(0.5 * heads, heads)[1], 0.25, rtol=1e-3)


def test_volumes_have_a_spectrum_too() -> None:
    volumes = np.random.default_rng(0).standard_normal((2, 1, 16, 24, 16)).astype(np.float32)
    frequencies, ratios = power_kept(2 * volumes, volumes)
    assert len(frequencies) == 4
    np.testing.assert_allclose(ratios, 4, rtol=1e-5)
