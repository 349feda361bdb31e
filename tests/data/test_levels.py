"""Grey levels held within what is usual: what is usual stays as it is, what is not is brought to it, in order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.data.levels import FEWEST, LANDMARKS, held, landmarks, usual
from fabrica.image import Float32


def windowed(n: int, seed: int = 0, black: float = 0.1, white: float = 0.03) -> Float32:
    """Images in which the same share is black, and the same white."""
    rng = np.random.default_rng(seed)
    values = rng.normal(rng.uniform(-0.2, 0.2, (n, 1, 1, 1)), 0.5, (n, 1, 32, 32))
    low, high = np.quantile(values, [black, 1 - white], axis=(1, 2, 3), keepdims=True)
    return np.clip(2 * (values - low) / (high - low) - 1, -1, 1).astype(np.float32)


def test_what_is_usual_is_told_of_many_images_and_not_of_few() -> None:
    images = windowed(FEWEST)
    low, high = np.array(usual(landmarks(images)))
    assert low.shape == high.shape == (len(LANDMARKS),) and (low <= high).all()
    outside = (landmarks(windowed(400, 1)) < low) | (landmarks(windowed(400, 1)) > high)
    assert outside.mean() < 0.1  # of others of the same kind few lie beyond
    assert low[LANDMARKS.index(98)] > 0.999 and high[LANDMARKS.index(5)] < -0.999
    assert usual(landmarks(images[1:])) == []


@settings(deadline=None, max_examples=40)
@given(
    gain=st.floats(0.5, 1.3),
    offset=st.floats(-0.3, 0.3),
    gamma=st.floats(0.5, 2.0),
    seed=st.integers(0, 2**31),
    n=st.integers(1, 4),
)
def test_what_is_not_usual_is_brought_to_it_and_the_order_of_values_stays(
    gain: float, offset: float, gamma: float, seed: int, n: int
) -> None:
    levels = usual(landmarks(windowed(200)))
    low, high = np.array(levels)
    made = windowed(n, seed)
    made = (np.clip(gain * (2 * ((made + 1) / 2) ** gamma - 1) + offset, -1, 1)).astype(np.float32)
    kept = made.copy()
    found = held(made, levels)
    np.testing.assert_array_equal(made, kept)
    assert found.dtype == np.float32 and found.shape == made.shape
    own, apart = landmarks(found), np.diff(landmarks(made), axis=1) > 1e-3
    free = np.pad(apart, ((0, 0), (1, 0)), constant_values=True) & np.pad(apart, ((0, 0), (0, 1)), constant_values=True)
    assert ((own >= low - 0.02) & (own <= high + 0.02) | ~free).all()  # values that are equal stay so
    for one, other in zip(made.reshape(n, -1), found.reshape(n, -1), strict=True):
        assert (np.diff(other[np.argsort(one, kind="stable")]) >= -1e-6).all()
    if free.all():
        np.testing.assert_allclose(held(found, levels), found, atol=0.02)


def test_what_is_usual_stays_as_it_is() -> None:
    images = windowed(200)
    levels = usual(landmarks(images))
    low, high = np.array(levels)
    own = landmarks(images)
    inside = ((own >= low) & (own <= high)).all(1)
    found = held(images, levels)
    assert inside.sum() > 100 and np.array_equal(found[inside], images[inside])
    assert np.abs(found - images).max() < 0.2
    assert held(images, []) is images


@pytest.mark.parametrize(("black", "white"), [(0.1, 0.3), (0.6, 0.03), (0.4, 0.4)])
def test_what_is_all_black_or_white_stays_so_however_much_of_it_there_is(black: float, white: float) -> None:
    made = windowed(20, 3, black, white)
    found = held(made, usual(landmarks(windowed(200))))
    for value in (-1.0, 1.0):
        assert np.abs(found[made == value] - value).max() < 0.01


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_an_image_of_one_value_is_no_error(value: float) -> None:
    found = held(np.full((1, 1, 8, 8), value, np.float32), usual(landmarks(windowed(200))))
    assert np.isfinite(found).all() and np.ptp(found) == 0
