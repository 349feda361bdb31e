"""k-space: what is kept, what is identity, and where ghosts stand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.image import Float32
from fabrica.physics.kspace import breathing, cartesian_mask, ghosted, truncated, undersampled


def picture(*shape: int) -> Float32:
    return np.random.default_rng(0).random(shape, np.float32)


@given(st.integers(1, 300), st.floats(1, 20), st.floats(0, 1), st.integers(0, 1000))
def test_mask_has_its_middle_and_its_number(lines: int, acceleration: float, centre: float, seed: int) -> None:
    mask = cartesian_mask(lines, acceleration, centre, np.random.default_rng(seed))
    middle = max(1, round(lines * centre))
    assert mask.sum() == max(middle, round(lines / acceleration))
    first = lines // 2 - middle // 2
    assert mask[first : first + middle].all() and mask[lines // 2]


@pytest.mark.parametrize("axis", [-2, -1])
@pytest.mark.parametrize("shape", [(32, 48), (31, 45)])
def test_a_full_mask_changes_nothing(shape: tuple[int, int], axis: int) -> None:
    image = picture(*shape)
    np.testing.assert_allclose(undersampled(image, np.ones(shape[axis], bool), axis), image, atol=1e-5)


@pytest.mark.parametrize("axis", [-2, -1])
def test_undersampling_keeps_the_lines_of_the_mask(axis: int) -> None:
    """Of an image whose zero-filled picture is real and positive, the acquired lines are the image's own."""
    image = picture(33, 33) + 20  # the middle line rules, so that the magnitude loses no sign
    mask = np.zeros(33, bool)
    mask[[3, 16, 29]] = True  # in pairs: the picture is real
    of = np.fft.fftshift(np.fft.fft(image, axis=axis), axis)
    found = np.fft.fftshift(np.fft.fft(undersampled(image, mask, axis), axis=axis), axis)
    of, found = np.moveaxis(of, axis, 0), np.moveaxis(found, axis, 0)
    np.testing.assert_allclose(found[mask], of[mask], atol=1e-3)
    np.testing.assert_allclose(found[~mask], 0, atol=1e-3)


def test_the_mean_survives_while_the_middle_is_kept() -> None:
    image = picture(64, 64) + 20
    mask = cartesian_mask(64, 4, 0.08, np.random.default_rng(0))
    assert undersampled(image, mask, -2).mean() == pytest.approx(image.mean(), rel=1e-3)


@pytest.mark.parametrize("axis", [-2, -1])
def test_a_constant_shift_moves_the_image(axis: int) -> None:
    image = picture(32, 32)
    moved = ghosted(image, np.full(32, 3.0), 1.0, axis)
    np.testing.assert_allclose(moved, np.roll(image, 3, axis), atol=1e-5)


def test_ghosts_stand_lines_over_period_apart() -> None:
    at = np.arange(64) - 32
    image = np.zeros((64, 64), np.float32)
    image[:, 20:40] = np.exp(-0.5 * (at[:, None] / 2.0) ** 2)
    shifts = breathing(64, 1.0, 4.0, np.random.default_rng(0))
    assert np.abs(shifts).max() <= 1 and np.allclose(shifts[4:], shifts[:-4], atol=1e-9)
    found = ghosted(image, shifts, 1.0, -2)
    ghosts = found[:, 30]
    assert min(ghosts[12:21].max(), ghosts[44:53].max()) > 0.1  # 64 / 4 = 16 pixels from the blob
    assert max(ghosts[22:25].max(), ghosts[40:43].max()) < 0.02
    assert found[:, :19].max() < 1e-5  # only along the phase axis


@pytest.mark.parametrize("change", [lambda x: ghosted(x, np.zeros(31), 1.0, -1), lambda x: truncated(x, 1.0)])
def test_no_motion_and_no_truncation_are_identity(change: object) -> None:
    image = picture(30, 31)
    assert callable(change)
    np.testing.assert_allclose(change(image), image, atol=1e-5)


def test_truncation_keeps_the_low_frequencies_and_rings() -> None:
    image = np.zeros((64, 64), np.float32)
    image[:, 32:] = 1
    image += 5
    found = truncated(image, 0.5)
    assert 0.05 < found.max() - 6 < 0.15  # Gibbs: about 9 % of the step
    spectrum = np.abs(np.fft.fft(found[0]))
    assert spectrum[17:48].max() < 1e-3
    np.testing.assert_allclose(spectrum[:16], np.abs(np.fft.fft(image[0]))[:16], atol=1e-3)
