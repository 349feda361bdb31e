"""Polygons as masks of pixel centres: as matplotlib and scikit-image see them, holes, edges, shared borders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from skimage.measure import grid_points_in_poly

from fabrica.io.dicom.contours import filled
from tests.draws import draws

Array = np.ndarray[Any, Any]


def star(seed: int, corners: int, size: tuple[int, int], reach: float = 0.6) -> Array:
    """A polygon that does not cross itself, partly outside of (H, W)."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(0.1, reach, corners) * max(size)
    centre = rng.uniform(0.2, 0.8, 2) * size[::-1]
    return centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def centres(size: tuple[int, int]) -> Array:
    return np.stack(np.meshgrid(np.arange(size[1]), np.arange(size[0])), axis=-1).reshape(-1, 2).astype(float)


@settings(max_examples=draws(150), deadline=None)
@given(
    seed=st.integers(0, 10**9),
    corners=st.integers(3, 40),
    size=st.sampled_from([(9, 14), (31, 17), (64, 64), (1, 20), (20, 1)]),
    turned=st.booleans(),
)
def test_a_polygon_is_filled_as_others_fill_it(seed: int, corners: int, size: tuple[int, int], turned: bool) -> None:
    shape = star(seed, corners, size)
    shape = shape[::-1] if turned else shape
    found = filled([shape], size)
    assert np.array_equal(found, Outline(shape).contains_points(centres(size)).reshape(size))
    assert np.array_equal(found, grid_points_in_poly(size, shape[:, ::-1]))


@settings(max_examples=draws(60), deadline=None)
@given(seed=st.integers(0, 10**9), corners=st.integers(3, 12))
def test_lines_that_cross_follow_the_even_odd_rule(seed: int, corners: int) -> None:
    """By the number of times that a ray to the left crosses an edge, one centre and one edge at a time."""
    size = (16, 20)
    shape = np.random.default_rng(seed).uniform(-3, 22, (corners, 2))
    expected = np.zeros(size, bool)
    for h in range(size[0]):
        for w in range(size[1]):
            for (w0, h0), (w1, h1) in zip(shape, np.roll(shape, -1, axis=0), strict=True):
                if (h0 > h) != (h1 > h) and w0 + (h - h0) * (w1 - w0) / (h1 - h0) < w:
                    expected[h, w] ^= True
    assert np.array_equal(filled([shape], size), expected)


@settings(max_examples=draws(60), deadline=None)
@given(seed=st.integers(0, 10**9), count=st.integers(1, 4))
def test_several_contours_exclude_one_another(seed: int, count: int) -> None:
    size = (40, 30)
    shapes = [star(seed + k, 11, size, 0.4) for k in range(count)]
    alone = [filled([shape], size) for shape in shapes]
    assert np.array_equal(filled(shapes, size), np.logical_xor.reduce(alone))


def test_a_hole_is_a_contour_within_or_a_keyhole() -> None:
    """Planning systems draw holes as a contour inside another, or as one contour that goes in and out by a channel of
    no width."""
    outer = np.array([[1.5, 1.5], [12.5, 1.5], [12.5, 10.5], [1.5, 10.5]])
    inner = np.array([[4.5, 3.5], [8.5, 3.5], [8.5, 7.5], [4.5, 7.5]])
    expected = np.zeros((12, 14), bool)
    expected[2:11, 2:13] = True
    expected[4:8, 5:9] = False
    keyhole = np.concatenate([outer, outer[:1], inner, inner[:1]])
    for shapes in ([outer, inner], [outer, inner[::-1]], [keyhole]):
        assert np.array_equal(filled(shapes, expected.shape), expected)


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_centres_on_edges_belong_to_one_of_two_neighbours(noise: float) -> None:
    """Corners on pixel centres, as where contours were made of masks: towards greater w and h the edge belongs."""
    rng = np.random.default_rng(0)
    box = filled([np.array([[2, 3], [6, 3], [6, 8], [2, 8]]) + noise * rng.normal(size=(4, 2))], (10, 10))
    expected = np.zeros((10, 10), bool)
    expected[3:8, 2:6] = True
    assert np.array_equal(box, expected)
    whole = np.array([[0, 0], [9, 2], [10, 9], [3, 11]], float)
    middle = np.array([5.0, 6.0])
    parts = [np.array([whole[k], whole[(k + 1) % 4], middle]) for k in range(4)]
    masks = [filled([part + noise * rng.normal(size=part.shape)], (12, 12)) for part in parts]
    assert np.sum(masks, axis=0).max() == 1
    assert np.array_equal(np.logical_or.reduce(masks), filled([whole], (12, 12)))


@pytest.mark.parametrize(
    "shape",
    [
        np.array([[2.0, 2.0]]),
        np.array([[2.0, 2.0], [7.0, 7.0]]),
        np.array([[2.0, 5.0], [7.0, 5.0], [4.0, 5.0]]),
        np.array([[20.0, 20.0], [30.0, 20.0], [30.0, 30.0]]),
        np.array([[-20.0, -20.0], [-30.0, -20.0], [-30.0, -30.0]]),
    ],
)
def test_what_encloses_no_centre_is_empty(shape: Array) -> None:
    assert not filled([shape], (10, 10)).any()
    assert not filled([], (10, 10)).any()
