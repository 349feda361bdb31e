"""Surface elements have the areas of DeepMind's tables, closed forms, and the same in slabs as at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from surface_distance import lookup_tables

from fabrica.metrics.surfaces import Directed, between, corners, element_areas, elements
from tests.draws import draws

MM = st.floats(0.1, 10)


def reordered(theirs: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Their table in the order of our neighbourhoods."""
    weights = [int(kernel[corner]) for corner in corners(kernel.ndim)]
    codes = [sum(w for bit, w in enumerate(weights) if code >> bit & 1) for code in range(2 ** len(weights))]
    return np.asarray(theirs[codes])


@given(st.tuples(MM, MM, MM))
@settings(max_examples=draws(30), deadline=None)
def test_areas_of_all_neighbourhoods_equal_the_reference(spacing: tuple[float, float, float]) -> None:
    theirs = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    expected = reordered(theirs, lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL)
    np.testing.assert_allclose(element_areas(spacing), expected, rtol=1e-12)


@given(st.tuples(MM, MM))
@settings(max_examples=draws(30), deadline=None)
def test_lengths_of_all_neighbourhoods_equal_the_reference(spacing: tuple[float, float]) -> None:
    theirs = lookup_tables.create_table_neighbour_code_to_contour_length(spacing)
    expected = reordered(theirs, lookup_tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL)
    np.testing.assert_allclose(element_areas(spacing), expected, rtol=1e-12)


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 5, 3), (7, 1, 4)])
def test_a_box_has_the_area_of_its_faces_bevelled_edges_and_corners(size: tuple[int, int, int]) -> None:
    a, b, c = (n - 1 for n in size)
    codes = elements(np.ones(size, dtype=bool))[1]
    edges, corner = math.sqrt(1 / 2) * 4 * (a + b + c), 8 * math.sqrt(3) / 8
    assert element_areas((1.0, 1.0, 1.0))[codes].sum() == pytest.approx(2 * (a * b + b * c + a * c) + edges + corner)


@given(st.integers(0, 10_000), st.integers(2, 3), st.integers(1, 3000))
@settings(max_examples=draws(60), deadline=None)
def test_slabs_find_what_the_whole_holds(seed: int, dims: int, at_once: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 14, dims)) < rng.uniform(0.05, 0.95)
    whole, parts = elements(mask, 2**40), elements(mask, at_once)
    for one, two in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (np.diff(whole[0]) > 0).all()


def test_distances_are_those_of_a_distance_transform() -> None:
    rng = np.random.default_rng(5)
    made, truth = rng.random((9, 11, 13)) < 0.02, rng.random((9, 11, 13)) < 0.02
    spacing = (2.5, 0.7, 0.9)
    found, _ = between(made, truth, spacing)
    surface = np.zeros((10, 12, 14), dtype=bool)
    surface.ravel()[elements(truth)[0]] = True
    expected = distance_transform_edt(~surface, sampling=spacing).ravel()[elements(made)[0]]
    np.testing.assert_allclose(found.distances, expected, rtol=1e-12)


def test_quantiles_weigh_by_area() -> None:
    side = Directed(np.array([3.0, 1.0, 2.0]), np.array([1.0, 8.0, 1.0]))
    assert [side.quantile(share) for share in (0.5, 0.85, 0.95)] == [1, 2, 3]
    assert [side.within(mm) for mm in (0.5, 1, 2.9, 3)] == [0, 8, 9, 10]
