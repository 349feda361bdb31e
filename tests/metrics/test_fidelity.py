"""Fidelity scores equal scikit-image and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from fabrica.errors import UsageError
from fabrica.image import Float32
from fabrica.metrics.fidelity import diversity, levels_for, ms_ssim, psnr, ssim


def images(n: int, *shape: int, seed: int = 0) -> Float32:
    rng = np.random.default_rng(seed)
    axes = tuple(range(2, 1 + len(shape)))
    smooth = gaussian_filter(rng.normal(size=(n, *shape)), 2, axes=axes) * 2
    return np.asarray(np.clip(smooth, -1, 1), dtype=np.float32)


def worse(a: Float32, noise: float = 0.1) -> Float32:
    return np.asarray(a + np.random.default_rng(9).normal(0, noise, a.shape), dtype=np.float32)


@pytest.mark.parametrize("shape", [(1, 64, 50), (3, 33, 40), (1, 20, 24, 17)])
def test_ssim_and_psnr_equal_scikit_image(shape: tuple[int, ...]) -> None:
    a = images(3, *shape)
    b = worse(a)
    for i, (ours, ours_psnr) in enumerate(zip(ssim(a, b, 2.0), psnr(a, b, 2.0), strict=True)):
        theirs = structural_similarity(
            a[i].astype(np.float64),
            b[i].astype(np.float64),
            data_range=2.0,
            channel_axis=0,
            gaussian_weights=True,
            use_sample_covariance=False,
        )
        assert ours == pytest.approx(theirs, abs=1e-6)
        assert ours_psnr == pytest.approx(peak_signal_noise_ratio(a[i], b[i], data_range=2.0), abs=1e-4)


def test_ssim_depends_on_the_data_range() -> None:
    a = images(1, 1, 32, 32)
    b = worse(a)
    assert ssim(a, b, 2.0)[0] != pytest.approx(ssim(a, b, 20.0)[0], abs=0.01)
    np.testing.assert_allclose(ssim(a * 1000, b * 1000, 2000.0), ssim(a, b, 2.0), rtol=1e-5)


def test_ms_ssim_equals_torchmetrics_at_five_levels() -> None:
    a = images(2, 1, 192, 200)
    b = worse(a, 0.3)
    theirs = [
        float(
            multiscale_structural_similarity_index_measure(
                torch.from_numpy(x)[None], torch.from_numpy(y)[None], data_range=2.0
            )
        )
        for x, y in zip(a, b, strict=True)
    ]
    assert levels_for((192, 200)) == 5
    np.testing.assert_allclose(ms_ssim(a, b, 2.0), theirs, atol=1e-4)


def test_ms_ssim_with_fewer_levels_equals_torchmetrics_with_those_weights() -> None:
    a = images(1, 1, 100, 100)
    b = worse(a, 0.3)
    betas = np.array([0.0448, 0.2856, 0.3001])
    theirs = multiscale_structural_similarity_index_measure(
        torch.from_numpy(a), torch.from_numpy(b), data_range=2.0, betas=tuple(betas / betas.sum())
    )
    assert ms_ssim(a, b, 2.0, levels=3)[0] == pytest.approx(float(theirs), abs=1e-4)


@pytest.mark.parametrize(
    ("side", "levels"), [(11, 1), (21, 1), (22, 2), (28, 2), (64, 3), (175, 4), (176, 5), (900, 5)]
)
def test_levels_fit_the_image(side: int, levels: int) -> None:
    assert levels_for((side, 999)) == levels
    if side < 100:
        a = images(1, 1, side, 100)
        assert ms_ssim(a, a, 2.0)[0] == pytest.approx(1)


def test_one_level_is_ssim_with_borders() -> None:
    a = images(1, 1, 18, 30)
    b = worse(a)
    theirs = structural_similarity_index_measure(torch.from_numpy(a), torch.from_numpy(b), data_range=2.0)
    assert isinstance(theirs, torch.Tensor)
    assert ms_ssim(a, b, 2.0, levels=1)[0] == pytest.approx(float(theirs), abs=1e-4)


def test_ms_ssim_of_volumes_falls_with_noise() -> None:
    a = images(1, 1, 24, 32, 28)
    scores = [ms_ssim(a, worse(a, noise), 2.0)[0] for noise in (0.0, 0.1, 0.5)]
    assert scores[0] == pytest.approx(1) and scores[0] > scores[1] > scores[2]


def test_identical_images_have_infinite_psnr() -> None:
    a = images(1, 1, 16, 16)
    assert psnr(a, a, 2.0)[0] == np.inf


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(UsageError, match="shapes"):
        ssim(images(2, 1, 32, 32), images(2, 1, 32, 30), 2.0)
    with pytest.raises(UsageError, match="at least 11"):
        ssim(images(2, 1, 8, 32), images(2, 1, 8, 32), 2.0)
    with pytest.raises(UsageError, match="at least 176"):
        ms_ssim(images(1, 1, 64, 64), images(1, 1, 64, 64), 2.0, levels=5)
    with pytest.raises(UsageError, match="at least 2"):
        diversity(images(1, 1, 32, 32))


def test_diversity_sees_mode_collapse() -> None:
    varied = images(60, 1, 48, 48)
    collapsed = worse(np.repeat(varied[:2], 30, axis=0), 0.02)
    mean, low, high = diversity(varied, pairs=300)
    worse_mean, worse_low, _ = diversity(collapsed, pairs=300)
    assert low < mean < high
    assert high < worse_low < worse_mean
    assert (mean, low, high) == diversity(varied, pairs=300)


def test_diversity_takes_every_pair_once_when_asked_for_more() -> None:
    few = images(4, 1, 24, 24)
    expected = np.mean([ms_ssim(few[i : i + 1], few[j : j + 1], 2.0)[0] for i in range(4) for j in range(i)])
    assert diversity(few, pairs=10_000)[0] == pytest.approx(expected)
    assert diversity(few[:2])[0] == pytest.approx(ms_ssim(few[:1], few[1:2], 2.0)[0])


def test_the_interval_of_diversity_covers_the_truth() -> None:
    truth = diversity(images(400, 1, 16, 16, seed=77), pairs=4000)[0]
    hits = []
    for seed in range(40):
        _, low, high = diversity(images(40, 1, 16, 16, seed=seed), pairs=200, seed=seed)
        hits.append(low <= truth <= high)
    assert np.mean(hits) > 0.8
