"""Occlusion and integrated gradients of functions whose attributions are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import UsageError
from fabrica.image import Float32, Float64
from fabrica.metrics.attribution import default_window, integrated_gradients, local_mean, occlusion, places

SHAPES = st.sampled_from([(1, 7), (2, 5, 6), (1, 3, 4, 5)])


def arrays(shape: tuple[int, ...], seed: int) -> tuple[Float32, Float32, Float32]:
    rng = np.random.default_rng(seed)
    x, fill, w = (rng.standard_normal(shape).astype(np.float32) for _ in range(3))
    return x, fill, w


@settings(max_examples=20, deadline=None)
@given(SHAPES, st.integers(0, 10**6))
def test_gradients_of_a_linear_function_are_exact_at_one_step(shape: tuple[int, ...], seed: int) -> None:
    x, baseline, w = arrays(shape, seed)

    def linear(some: Float32) -> tuple[Float64, Float32]:
        return (some.astype(np.float64) * w).reshape(len(some), -1).sum(1) + 3.0, np.broadcast_to(w, some.shape)

    found = integrated_gradients(linear, x, baseline, steps=1)
    assert np.allclose(found.map, w * (x - baseline), atol=1e-6)
    assert found.complete and found.steps == 1 and found.gap < 1e-4


@settings(max_examples=20, deadline=None)
@given(SHAPES, st.integers(0, 10**6), st.integers(1, 9))
def test_gradients_of_polynomials_are_exact(shape: tuple[int, ...], seed: int, power: int) -> None:
    """Of sum a x^p each value adds a (x^p - baseline^p), whatever the others are."""
    x, baseline, a = arrays(shape, seed)

    def polynomial(some: Float32) -> tuple[Float64, Float32]:
        values = (a * some.astype(np.float64) ** power).reshape(len(some), -1).sum(1)
        return values, a * power * some.astype(np.float64) ** (power - 1)

    found = integrated_gradients(polynomial, x, baseline, steps=5, batch=2)
    expected = a * (x.astype(np.float64) ** power - baseline.astype(np.float64) ** power)
    assert np.allclose(found.map, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_steps_are_doubled_until_the_sum_is_what_it_should_be() -> None:
    x, baseline = np.ones((1, 4), np.float32), -np.ones((1, 4), np.float32)

    def steep(some: Float32) -> tuple[Float64, Float32]:
        """A step at 0.3: most of the way has no gradient at all."""
        values = np.tanh(60 * (some.astype(np.float64) - 0.3))
        return values.reshape(len(some), -1).sum(1), 60 * (1 - values**2)

    found = integrated_gradients(steep, x, baseline, steps=2)
    assert found.complete and 16 <= found.steps <= 256 and found.expected == pytest.approx(8, abs=1e-6)
    cut = integrated_gradients(steep, x, baseline, steps=2, most=2)
    assert not cut.complete and cut.steps == 2 and cut.gap > 0.05 * 8
    with pytest.raises(UsageError, match="0 steps"):
        integrated_gradients(steep, x, baseline, steps=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6), st.data())
def test_occlusion_is_the_mean_of_the_windows_over_a_place(
    height: int, width: int, tall: int, wide: int, seed: int, data: st.DataObject
) -> None:
    window = min(tall, height), min(wide, width)
    stride = data.draw(st.integers(1, window[0])), data.draw(st.integers(1, window[1]))
    x, fill, w = arrays((2, height, width), seed)
    plain = float((x * w).sum())
    found = occlusion(
        lambda some: np.stack([plain - (one * w).sum() for one in some])[:, None], x, fill, window, stride, batch=3
    )
    effects = (w * (x - fill)).sum(0)
    expected, counts = np.zeros((height, width)), np.zeros((height, width))
    for top in sorted({*range(0, height - window[0], stride[0]), height - window[0]}):
        for left in sorted({*range(0, width - window[1], stride[1]), width - window[1]}):
            here = slice(top, top + window[0]), slice(left, left + window[1])
            expected[here] += effects[here].sum()
            counts[here] += 1
    assert counts.min() >= 1 and np.allclose(found[0], expected / counts, atol=1e-4)


def test_hiding_single_pixels_lights_only_where_a_local_operator_looks() -> None:
    x = np.random.default_rng(0).standard_normal((1, 9, 9)).astype(np.float32)

    def moved(some: Float32) -> Float64:
        """The mean of 3 x 3 pixels around (4, 2)."""
        return np.abs(x[:, 3:6, 1:4].mean() - some[:, :, 3:6, 1:4].mean((1, 2, 3)))[:, None]

    (found,) = occlusion(moved, x, np.zeros_like(x), (1, 1), (1, 1))
    lit = np.zeros((9, 9), dtype=bool)
    lit[3:6, 1:4] = True
    assert (found[lit] > 0).all() and not found[~lit].any()
    assert np.allclose(found[lit], np.abs(x[0][lit]) / 9, atol=1e-6)


def test_windows_that_do_not_fit_are_refused() -> None:
    for window, stride in (((5, 1), (1, 1)), ((2, 2), (3, 1)), ((0, 1), (1, 1)), ((2, 2), (0, 1))):
        with pytest.raises(UsageError, match="do not cover"):
            places((4, 4), window, stride)


def test_the_fill_is_the_mean_around() -> None:
    ramp = np.arange(9, dtype=np.float32).reshape(1, 1, 9)
    assert np.allclose(local_mean(ramp, (1, 3))[0, 0], [1 / 3, 1, 2, 3, 4, 5, 6, 7, 23 / 3])
    assert default_window((64, 96)) == ([8, 8], [4, 4]) and default_window((32, 32, 5)) == ([2, 2, 2], [2, 2, 2])
