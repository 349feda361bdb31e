"""Radiomic features: known values, agreement with scikit-image, and what they can tell apart."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.feature import graycomatrix, graycoprops

from fabrica.errors import UsageError
from fabrica.image import Float32, Float64
from fabrica.metrics import texture as group
from fabrica.metrics.distribution import frechet
from fabrica.metrics.radiomics import FEATURE_NAMES, radiomic_features, standardised, standardiser


def textured(n: int, size: int = 64, seed: int = 0, sigma: float = 2.0) -> Float32:
    """Smooth random images with a bright disc that lies left of the middle: (n, 1, size, size)."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(size=(n, 1, size, size)), sigma, axes=(2, 3)) * sigma
    y, x = np.mgrid[:size, :size] / size - 0.5
    centre = rng.normal(-0.2, 0.03, size=(n, 1, 1, 1))
    disc = np.hypot(y, x - centre) < rng.normal(0.2, 0.02, size=(n, 1, 1, 1))
    return np.asarray(np.clip(noise + disc - 0.4, -1, 1), dtype=np.float32)


def column(features: Float64, name: str) -> Float64:
    return features[:, FEATURE_NAMES.index(name)]


def scaled_frechet(real: Float32, other: Float32) -> float:
    reference = radiomic_features(real)
    centre, scale = standardiser(reference)
    return frechet(standardised(reference, centre, scale), standardised(radiomic_features(other), centre, scale))


def test_names_are_unique_and_match_the_columns() -> None:
    features = radiomic_features(textured(3))
    assert features.shape == (3, len(FEATURE_NAMES))
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES)
    assert 60 <= len(FEATURE_NAMES) <= 120
    for names, measure in ((group.GREY_NAMES, group.grey), (group.TEXTURE_NAMES, group.texture)):
        assert measure(textured(2)[:, 0]).shape == (2, len(names))


@pytest.mark.parametrize("distance", group.DISTANCES)
def test_co_occurrence_equals_scikit_image(distance: int) -> None:
    image = textured(1)[0, 0]
    levels = group.quantised(image[None], group.GREY_LEVELS)[0].astype(np.uint8)
    # A diagonal step of scikit-image is rounded to whole pixels, so only distance 1 keeps the same diagonals.
    angles = [0.0, np.pi / 2] if distance > 1 else [0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    steps = {0.0: (0, distance), np.pi / 2: (distance, 0)}
    steps |= {np.pi / 4: (distance, distance), 3 * np.pi / 4: (distance, -distance)}
    for angle in angles:
        theirs = graycomatrix(levels, [distance], [angle], group.GREY_LEVELS, symmetric=True, normed=True)
        ours = group._texture_of(group._co_occurrence(group.quantised(image[None], group.GREY_LEVELS), *steps[angle]))[
            0
        ]
        named = dict(zip(group._TEXTURE, ours, strict=True))
        assert np.expm1(named["contrast"]) == pytest.approx(graycoprops(theirs, "contrast")[0, 0])
        for key, name in (
            ("dissimilarity", "dissimilarity"),
            ("homogeneity", "homogeneity"),
            ("ASM", "angular_second_moment"),
            ("correlation", "correlation"),
            ("entropy", "entropy"),
        ):
            value = graycoprops(theirs, key)[0, 0]
            # scikit-image takes the natural logarithm, we bits.
            value = value / np.log(2) if key == "entropy" else value
            assert named[name] == pytest.approx(value, abs=1e-9), name


def test_cluster_shade_equals_its_definition() -> None:
    shares = group._co_occurrence(group.quantised(textured(1)[:, 0], group.GREY_LEVELS), 0, 1)
    i, j = np.indices((group.GREY_LEVELS, group.GREY_LEVELS))
    p = shares.reshape(i.shape)
    expected = ((i + j - 2 * (i * p).sum()) ** 3 * p).sum()
    found = group._texture_of(shares)[0, group._TEXTURE.index("cluster_shade")]
    assert np.sign(found) * np.expm1(abs(found)) == pytest.approx(expected)


def test_run_lengths_of_stripes() -> None:
    # Rows alternate between black and white in bands of two: runs are 16 long across and 2 long down.
    bands = np.where(np.arange(16) // 2 % 2 == 0, -1.0, 1.0).astype(np.float32)
    stripes = np.broadcast_to(bands[:, None], (16, 16))[None]
    found = dict(zip(group.RUN_NAMES, group.runs(np.ascontiguousarray(stripes))[0], strict=True))
    assert found["runs_across_short_run_emphasis"] == pytest.approx(1 / 256)
    assert np.expm1(found["runs_down_log_long_run_emphasis"]) == pytest.approx(4)
    assert found["runs_across_run_percentage"] == pytest.approx(1 / 16)
    assert found["runs_down_run_length_non_uniformity"] == pytest.approx(1)
    assert found["runs_down_grey_level_non_uniformity"] == pytest.approx(0.5)


def test_grey_levels_of_a_known_image() -> None:
    image = np.full((1, 1, 16, 16), -1, dtype=np.float32)
    image[..., 8:] = 1
    features = radiomic_features(image)
    for name, value in (
        ("mean", 0),
        ("sd", 1),
        ("entropy", 1),
        ("uniformity", 0.5),
        ("share_white", 0.5),
        ("centre_across", 8 / 15),
        ("mirror_correlation", -1),
        ("block_00", -1),
        ("block_03", 1),
    ):
        assert column(features, name)[0] == pytest.approx(value, abs=1e-6), name


def test_spectrum_slope_tells_white_noise_from_smooth_images() -> None:
    rng = np.random.default_rng(0)
    white = rng.normal(0, 0.3, (8, 1, 64, 64)).astype(np.float32)
    assert abs(column(radiomic_features(white), "spectrum_slope").mean()) < 0.1
    assert column(radiomic_features(textured(8)), "spectrum_slope").mean() < -2


def test_flat_images_give_finite_features() -> None:
    flat = np.stack([np.full((1, 20, 17), v, dtype=np.float32) for v in (-1, 0, 0.3, 1)])
    assert np.isfinite(radiomic_features(flat)).all()


def test_a_feature_does_not_depend_on_its_batch() -> None:
    images = textured(70)
    np.testing.assert_allclose(radiomic_features(images)[65:68], radiomic_features(images[65:68]), atol=1e-6)


def test_channels_are_averaged_and_volumes_take_three_planes() -> None:
    grey = textured(2, size=32)
    np.testing.assert_allclose(radiomic_features(np.repeat(grey, 3, axis=1)), radiomic_features(grey))
    volumes = gaussian_filter(np.random.default_rng(0).normal(size=(2, 1, 20, 24, 28)), 1, axes=(2, 3, 4))
    volumes = volumes.astype(np.float32)
    planes = [volumes[:, :, 10], volumes[:, :, :, 12], volumes[..., 14]]
    expected = np.mean([radiomic_features(plane) for plane in planes], axis=0)
    np.testing.assert_allclose(radiomic_features(volumes), expected)


@pytest.mark.parametrize("shape", [(2, 1, 8, 64), (4, 64, 64)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"expected|need"):
        radiomic_features(np.zeros(shape, dtype=np.float32))


def test_nan_is_refused() -> None:
    images = textured(2)
    images[1, 0, 3, 3] = np.nan
    with pytest.raises(UsageError, match="NaN"):
        radiomic_features(images)


def test_standardised_features_of_the_reference_are_centred_and_dead_ones_dropped() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(5, 3, (400, 3))
    real[:, 1] = 7
    real[:3, 2] = 1e6  # odd images must not set the scale
    centre, scale = standardiser(real)
    z = standardised(real, centre, scale)
    assert z.shape == (400, 2)
    assert np.median(z, axis=0) == pytest.approx([0, 0])
    assert z[:, 0].std() == pytest.approx(1, abs=0.1)
    assert z[:3, 1] == pytest.approx(10)
    assert z[3:, 1].std() == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_a_distance_grows_with_every_kind_of_damage() -> None:
    real, again = textured(300, seed=1), textured(300, seed=2)
    floor = scaled_frechet(real, again)
    damaged = {
        "blur": gaussian_filter(again, 1.0, axes=(2, 3)),
        "noise": again + np.random.default_rng(0).normal(0, 0.1, again.shape).astype(np.float32),
        "brighter": again + np.float32(0.2),
        "misplaced": again[..., ::-1],  # the same greys and textures in the wrong place
        "collapsed": np.repeat(again[:3], 100, axis=0),
    }
    for name, images in damaged.items():
        assert scaled_frechet(real, images) > 1.5 * floor, name


def test_features_cost_no_more_than_some_transforms_of_the_images() -> None:
    images = textured(256)
    radiomic_features(images[:32])
    start = time.process_time()
    radiomic_features(images)
    taken = time.process_time() - start
    start = time.process_time()
    for _ in range(10):
        np.fft.fft2(images)
    assert taken < 50 * (time.process_time() - start) / 10  # measured: 5 to 8
