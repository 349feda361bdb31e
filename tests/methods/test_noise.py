"""The noise that images come from: a row belongs to its seed, and the way between two seeds stays Gaussian."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fabrica.diffusion import noise
from fabrica.errors import UsageError
from fabrica.methods.noise import between, seeded, truncated


def test_noise_is_gaussian_new_each_time_and_owned_by_its_seed() -> None:
    draw, alone = seeded(range(200)), seeded([7])
    first, second = draw((1, 8, 8)), draw((1, 8, 8))
    assert first.shape == (200, 1, 8, 8) and first.dtype == torch.float32
    assert torch.equal(first[7:8], alone((1, 8, 8))) and torch.equal(second[7:8], alone((1, 8, 8)))
    assert abs(float((first * second).mean())) < 4 / math.sqrt(first.numel())
    assert float(first.std()) == pytest.approx(1.0, abs=0.02) and abs(float(first.mean())) < 0.04


def test_the_way_between_two_seeds_starts_and_ends_at_them_exactly() -> None:
    draw, ends = between(3, 11, frames=5), seeded([3, 11])
    for _ in range(2):  # a sampler may draw more than once
        way, both = draw((2, 4, 4)), ends((2, 4, 4))
        assert way.shape == (5, 2, 4, 4)
        assert torch.equal(way[0], both[0]) and torch.equal(way[-1], both[1])


def test_half_way_is_as_long_as_any_noise() -> None:
    """The mean of two ends is shorter by 1 / sqrt 2."""
    dims = 10_000
    way = between(0, 1, frames=9)((dims,))
    a, b = seeded([0, 1])((dims,))
    torch.testing.assert_close(way.norm(dim=1) / math.sqrt(dims), torch.ones(9), rtol=0, atol=0.03)
    assert float((a + b).norm()) / 2 < 0.75 * math.sqrt(dims)
    assert float(way[4].std()) == pytest.approx(1.0, abs=0.03)


def test_steps_on_the_way_are_equal_turns() -> None:
    way = between(0, 1, frames=7)((10_000,))
    turns = torch.nn.functional.cosine_similarity(way[1:], way[:-1]).arccos()
    torch.testing.assert_close(turns, torch.full((6,), math.pi / 12), rtol=0.03, atol=0)


@pytest.mark.parametrize("dims", [1, 2, 1000])
def test_the_way_from_a_seed_to_itself_stays_there(dims: int) -> None:
    way, end = between(5, 5, frames=4)((dims,)), seeded([5])((dims,))
    torch.testing.assert_close(way, end.expand(4, dims))


def test_a_seed_has_the_noise_that_it_always_had() -> None:
    """Pictures of seeds are quoted; NumPy promises no stream of normal numbers for ever."""
    first = [0.611084, 0.846587, 0.212179, 0.38399]
    np.testing.assert_allclose(noise.seeded([2024])((2, 2)).ravel(), first, atol=1e-6)


def test_a_seed_below_0_is_refused() -> None:
    with pytest.raises(UsageError, match="seed is -2; expected 0 or more"):
        noise.seeded([3, -2])


def test_no_truncation_leaves_noise_alone() -> None:
    z = torch.randn(4, 100)
    assert torch.equal(truncated(z, 0), z)
    torch.testing.assert_close(truncated(z, 30.0), z)  # a limit that none reaches


@pytest.mark.parametrize("limit", [0.1, 0.7, 2.0])
def test_truncated_noise_is_gaussian_within_its_limit(limit: float) -> None:
    z = torch.randn(1, 20_000, generator=torch.Generator().manual_seed(0))
    found = truncated(z, limit)
    assert found.shape == z.shape and found.dtype == torch.float32
    assert float(found.abs().max()) <= limit * (1 + 1e-6)
    normal = torch.distributions.Normal(0.0, 1.0)
    low, high = normal.cdf(torch.tensor([-limit, limit]))
    levels = torch.linspace(-0.99 * limit, 0.99 * limit, 21)
    share = (found < levels[:, None]).float().mean(dim=1)
    torch.testing.assert_close(share, (normal.cdf(levels) - low) / (high - low), rtol=0, atol=0.015)


def test_truncation_keeps_the_order_of_noise_and_its_sign() -> None:
    z = torch.tensor([[-12.0, -6.0, -1.0, -0.1, 0.0, 0.1, 1.0, 6.0, 12.0]])
    for limit in (0.05, 1.0, 3.0):
        found = truncated(z, limit)[0]
        assert bool((found.diff() >= 0).all()) and bool((found[1:8].diff() > 0).all())
        assert torch.equal(found.sign(), z[0].sign()) and bool(found.isfinite().all())
