"""Losses equal the published measures, and one can learn from them anywhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from fabrica.errors import UsageError
from fabrica.metrics import fidelity
from fabrica.nets import losses

Loss = Callable[..., Tensor]
LIKENESSES: tuple[Loss, ...] = (losses.ssim, losses.ms_ssim, losses.gradient_similarity)
DISTANCES: tuple[Loss, ...] = (
    losses.gradient_similarity_deviation,
    losses.frequency_distance,
    losses.focal_frequency_distance,
)


def pair(*shape: int, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """Smooth images in [-1, 1], and the same with noise."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(*shape[:2], 7, 7, generator=rng) * 2 - 1
    clean = torch.nn.functional.interpolate(coarse, size=shape[2:], mode="bicubic").clamp(-1, 1)
    return clean, (clean + noise * torch.randn(shape, generator=rng)).clamp(-1, 1)


@pytest.mark.parametrize("size", [(11, 14), (64, 47), (180, 200)])
def test_similarities_equal_those_of_evaluation(size: tuple[int, int]) -> None:
    a, b = pair(3, 2, *size)
    for loss, measure in ((losses.ssim, fidelity.ssim), (losses.ms_ssim, fidelity.ms_ssim)):
        np.testing.assert_allclose(loss(a, b), measure(a.numpy(), b.numpy(), 2.0), atol=1e-5)
        np.testing.assert_allclose(loss(a / 2, b / 2, 1.0), loss(a, b), atol=1e-5)  # the same images in another unit


def test_similarities_equal_those_of_others() -> None:
    a, b = pair(2, 1, 192, 200)
    for one, other, found in zip(a, b, losses.ssim(a, b), strict=True):
        published = structural_similarity(
            one[0].numpy(), other[0].numpy(), data_range=2.0, gaussian_weights=True, use_sample_covariance=False
        )
        assert abs(float(found) - published) < 1e-4
    published = multiscale_structural_similarity_index_measure(a, b, data_range=2.0, reduction="none")
    torch.testing.assert_close(losses.ms_ssim(a, b), published, rtol=0, atol=1e-4)


def test_gradient_similarity_is_the_paper_s() -> None:
    """Equations 1 to 6 written out on one image with values from 0 to 255, c = 170."""
    from scipy.ndimage import convolve

    a, b = pair(1, 1, 48, 40)
    planes = [127.5 * (x[0, 0].double().numpy() + 1) for x in (a, b)]
    halves = [p.reshape(24, 2, 20, 2).mean((1, 3)) for p in planes]
    prewitt = np.array([[1, 0, -1]] * 3) / 3
    m_a, m_b = (np.hypot(convolve(p, prewitt, mode="nearest"), convolve(p, prewitt.T, mode="nearest")) for p in halves)
    alike = (2 * m_a * m_b + 170) / (m_a**2 + m_b**2 + 170)
    assert abs(float(losses.gradient_similarity(a, b)) - alike.mean()) < 1e-4
    assert abs(float(losses.gradient_similarity_deviation(a, b)) - alike.std()) < 1.1e-3


def test_frequencies_are_those_of_a_wave() -> None:
    """A cosine of amplitude 0.5 off by 0.2: two coefficients of 64^2, of which the half spectrum holds one."""
    wave = torch.cos(2 * torch.pi * 5 * torch.arange(64) / 64).expand(1, 1, 64, 64)
    off = 0.1 * 64  # 0.2 / 2 * sqrt(64 * 64)
    count = 64 * 33
    torch.testing.assert_close(
        losses.frequency_distance(0.5 * wave, 0.7 * wave)[0].item(), off / count, rtol=1e-3, atol=0
    )
    focal = losses.focal_frequency_distance(0.5 * wave, 0.7 * wave)[0].item()
    torch.testing.assert_close(focal, off**2 / count, rtol=1e-3, atol=0)


@pytest.mark.parametrize("loss", [*LIKENESSES, *DISTANCES])
def test_more_noise_is_worse_and_none_is_best(loss: Loss) -> None:
    clean = pair(2, 1, 64, 64)[0]
    scores = torch.stack([loss(clean, pair(2, 1, 64, 64, noise=noise)[1]) for noise in (0.0, 0.05, 0.2)])
    scores = scores if loss in DISTANCES else 1 - scores
    assert scores.shape == (3, 2) and (scores.diff(dim=0) > 0).all()
    assert scores[0].abs().max() < 1e-6


@pytest.mark.parametrize("loss", [*LIKENESSES, *DISTANCES])
@pytest.mark.parametrize("values", [(0.0, 0.0), (-1.0, -1.0), (-1.0, 1.0), (0.3, None), (None, None)])
def test_slopes_are_finite_for_constant_and_for_equal_images(loss: Loss, values: tuple[float | None, ...]) -> None:
    a, b = (pair(2, 1, 48, 48)[0] if v is None else torch.full((2, 1, 48, 48), v) for v in values)
    a.requires_grad_()
    score = loss(a, b)
    score.sum().backward()
    assert a.grad is not None and torch.isfinite(score).all() and torch.isfinite(a.grad).all()
    assert float(a.grad.abs().max()) < 10


@pytest.mark.parametrize("loss", [*LIKENESSES, *DISTANCES])
def test_precision_around_changes_nothing(loss: Loss) -> None:
    a, b = pair(2, 1, 48, 48)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(a, b)
    assert inside.dtype == torch.float32 and torch.equal(inside, loss(a, b))
    half = loss(a.bfloat16(), b.bfloat16())
    assert half.dtype == torch.float32 and torch.equal(half, loss(a.bfloat16().float(), b.bfloat16().float()))


@pytest.mark.parametrize("loss", [*LIKENESSES, *DISTANCES])
def test_an_image_can_be_learned_from_each(loss: Loss) -> None:
    wanted, image = pair(1, 1, 48, 48)
    image = image.clone().requires_grad_()
    optimiser = torch.optim.Adam([image], 0.02)
    first = last = 0.0
    for _ in range(40):
        score = loss(image, wanted).mean()
        score = score if loss in DISTANCES else 1 - score
        optimiser.zero_grad()
        score.backward()
        optimiser.step()
        first, last = first or float(score.detach()), float(score.detach())
    assert last < 0.5 * first


def test_what_does_not_fit_is_refused() -> None:
    for loss in (losses.ssim, losses.ms_ssim):
        with pytest.raises(UsageError, match="11 or more"):
            loss(*pair(1, 1, 10, 40))
    with pytest.raises(UsageError, match="two equal"):
        losses.ssim(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 17))
