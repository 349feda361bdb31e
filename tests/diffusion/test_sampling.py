"""Times and guidance."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from fabrica.diffusion import KINDS, SPACINGS, Schedule, guided, times

SCHEDULES = [*(Schedule(kind) for kind in KINDS), Schedule("linear", zero_terminal_snr=True), Schedule(shift=5.0)]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_times_fall_from_one_to_zero(schedule: Schedule, spacing: str) -> None:
    for steps in (1, 2, 3, 10, 250):
        visited = times(schedule, steps, spacing)
        assert len(visited) == steps + 1 and visited[0] == 1.0 and visited[-1] == 0.0
        assert all(later < earlier for earlier, later in pairwise(visited))


def test_uniform_times_meet_the_table() -> None:
    assert times(Schedule(), 1000) == pytest.approx([k / 1000 for k in range(1000, -1, -1)], abs=1e-15)


def test_log_snr_times_are_uniform_in_lambda() -> None:
    lam = Schedule("flow").log_snr(np.array(times(Schedule("flow"), 10, "log-snr"))[1:-1])
    np.testing.assert_allclose(np.diff(lam), 1.02, rtol=1e-5)
    assert float(lam[0]) == pytest.approx(-5.1 + 1.02, abs=1e-5)


def test_karras_times_are_his_equation_5() -> None:
    visited = torch.tensor(times(Schedule("flow", levels=10000), 18, "karras"), dtype=torch.float64)
    alpha, sigma = Schedule("flow").alpha_sigma(visited[1:-1])
    i = torch.arange(1, 18, dtype=torch.float64)
    wanted = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(sigma / alpha, wanted)


@pytest.mark.parametrize("spacing", ["log-snr", "karras"])
def test_the_limits_of_lambda_move_with_the_shift(spacing: str) -> None:
    """A shift moves every lambda alike, so the same times are visited."""
    assert times(Schedule(shift=5.0), 12, spacing) == pytest.approx(times(Schedule(), 12, spacing), rel=1e-9)


def test_guidance_extrapolates_from_the_null() -> None:
    shown, hidden = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    for scale, wanted in ((0.0, [0.0, 4.0]), (1.0, [1.0, 2.0]), (3.0, [3.0, -2.0])):
        found = guided(lambda x_t, t: shown, lambda x_t, t: hidden, scale)(shown, 0.5)
        assert found.tolist() == [wanted]


def test_scale_one_does_not_ask_the_null() -> None:
    def null(x_t: Tensor, t: float) -> Tensor:
        raise AssertionError("asked in vain")

    assert guided(lambda x_t, t: x_t + 1, null, 1.0)(torch.zeros(1, 1), 0.5).item() == 1.0


@pytest.mark.parametrize("phi", [0.0, 0.7, 1.0])
def test_rescale_brings_the_contrast_back(phi: float) -> None:
    """Lin et al. 2023, eq. 15-16, each image for itself."""
    rng = torch.Generator().manual_seed(0)
    shown = torch.randn(3, 1, 16, 16, generator=rng) * torch.tensor([0.1, 1.0, 3.0]).view(3, 1, 1, 1)
    hidden = torch.randn(shown.shape, generator=rng)
    plain = guided(lambda x_t, t: shown, lambda x_t, t: hidden, 5.0)(shown, 0.5)
    found = guided(lambda x_t, t: shown, lambda x_t, t: hidden, 5.0, rescale=phi)(shown, 0.5)
    wanted = phi * shown.std(dim=(1, 2, 3)) + (1 - phi) * plain.std(dim=(1, 2, 3))
    torch.testing.assert_close(found.std(dim=(1, 2, 3)), wanted)


def test_rescale_leaves_a_flat_image_alone() -> None:
    flat = torch.full((1, 1, 4, 4), 0.5)
    assert torch.equal(guided(lambda x, t: flat, lambda x, t: flat, 3.0, rescale=0.7)(flat, 0.5), flat)
