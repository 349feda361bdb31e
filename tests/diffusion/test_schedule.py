"""Noise levels: against published values, MONAI's tables and their own inverse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDPMScheduler

from fabrica.diffusion import KINDS, Schedule, coefficients
from fabrica.errors import UsageError

ONE = torch.ones((), dtype=torch.float64)
VARIANTS = [
    *(Schedule(kind) for kind in KINDS),
    *(Schedule(kind, zero_terminal_snr=True) for kind in KINDS),
    Schedule("cosine", shift=4.0),
    Schedule("linear", shift=0.5, levels=200),
    Schedule("flow", shift=3.0),
]


def grid(levels: int) -> torch.Tensor:
    """The times of the table's entries."""
    return torch.arange(1, levels + 1, dtype=torch.float64) / levels


@pytest.mark.parametrize("schedule", VARIANTS, ids=str)
def test_ends_are_exact_and_the_signal_only_falls(schedule: Schedule) -> None:
    alpha, sigma = schedule.alpha_sigma(torch.linspace(0, 1, 5001))
    assert alpha.dtype == sigma.dtype == torch.float64
    assert alpha[0] == 1.0 and sigma[0] == 0.0
    assert (alpha.diff() < 0).all() and (sigma.diff() > 0).all()
    power = alpha + sigma if schedule.kind == "flow" else alpha**2 + sigma**2
    torch.testing.assert_close(power, torch.ones_like(power), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("schedule", "alpha_T"),
    [
        (Schedule("linear"), 0.006353),
        (Schedule("cosine"), 4.928e-5),
        (Schedule("scaled-linear", beta_start=0.00085, beta_end=0.012), 0.068265),
    ],
)
def test_terminal_signal_as_published(schedule: Schedule, alpha_T: float) -> None:
    """Lin et al. 2023, Table 1: sqrt(alpha_bar_T) of Ho 2020, Nichol & Dhariwal 2021 and Rombach et al. 2022."""
    assert float(schedule.alpha_sigma(ONE)[0]) == pytest.approx(alpha_T, rel=2e-4)


@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [
        ("linear", "linear_beta", {}),
        ("scaled-linear", "scaled_linear_beta", {"beta_start": 0.0015, "beta_end": 0.0205}),
        ("cosine", "cosine", {}),
    ],
)
def test_tables_equal_monai(kind: str, name: str, settings: dict[str, float]) -> None:
    table = DDPMScheduler(1000, schedule=name, **settings).alphas_cumprod.double()
    alpha, _ = Schedule(kind).alpha_sigma(grid(1000))
    torch.testing.assert_close(alpha**2, table, rtol=1e-3, atol=3e-7)  # MONAI's products are in single precision


@pytest.mark.parametrize("kind", ["linear", "scaled-linear", "cosine"])
def test_zero_terminal_snr_is_algorithm_1(kind: str) -> None:
    plain, _ = Schedule(kind).alpha_sigma(grid(1000))
    alpha, sigma = Schedule(kind, zero_terminal_snr=True).alpha_sigma(grid(1000))
    assert alpha[-1] == 0.0 and sigma[-1] == 1.0
    assert float(alpha[0]) == pytest.approx(float(plain[0]), abs=1e-15)
    wanted = (plain - plain[-1]) * plain[0] / (plain[0] - plain[-1])
    torch.testing.assert_close(alpha, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("schedule", VARIANTS, ids=str)
def test_time_of_is_the_inverse_of_log_snr(schedule: Schedule) -> None:
    t = np.array([0.0, 1e-5, 1e-3, 0.01, 0.1234, 0.5, 0.77, 0.999, 0.99951, 1.0])
    np.testing.assert_allclose(schedule.time_of(schedule.log_snr(t)), t, rtol=1e-9, atol=1e-11)


def test_time_of_what_the_schedule_never_reaches() -> None:
    lam = np.array([[-math.inf, -50.0], [80.0, math.inf]])
    np.testing.assert_allclose(Schedule("cosine").time_of(lam), [[1.0, 1.0], [0.0, 0.0]], rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_shift_moves_lambda_by_its_logarithm(kind: str) -> None:
    """Hoogeboom et al. 2023: logSNR_shift = logSNR + 2 log(64 / d), twice our lambda."""
    t = np.linspace(0.05, 0.95, 7)
    moved = Schedule(kind).log_snr(t) - Schedule(kind, shift=512 / 64).log_snr(t)
    np.testing.assert_allclose(moved, math.log(8.0), rtol=1e-7)


def test_shift_of_the_flow_is_that_of_sd3() -> None:
    """Esser et al. 2024, eq. 23: t_m = a t / (1 + (a - 1) t) with a = sqrt(m / n)."""
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    _, sigma = Schedule("flow", shift=3.0).alpha_sigma(t)
    torch.testing.assert_close(sigma, 3 * t / (1 + 2 * t))


@pytest.mark.parametrize("schedule", VARIANTS, ids=str)
def test_arrays_of_either_kind_have_the_same_levels(schedule: Schedule) -> None:
    t = np.linspace(-0.1, 1.1, 1003)
    for of_numpy, of_torch in zip(schedule.alpha_sigma(t), schedule.alpha_sigma(torch.from_numpy(t)), strict=True):
        assert isinstance(of_numpy, np.ndarray) and of_torch.dtype == torch.float64
        np.testing.assert_allclose(of_numpy, of_torch.numpy(), rtol=0, atol=4e-16)


def test_coefficients_take_the_images_type_and_shape() -> None:
    alpha, sigma = coefficients(Schedule("flow"), torch.tensor([0.25, 1.0]), torch.zeros(2, 1, 4, 4, 4))
    assert alpha.shape == sigma.shape == (2, 1, 1, 1, 1) and alpha.dtype == torch.float32
    assert alpha.flatten().tolist() == [0.75, 0.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "cosin"}, "did you mean cosine"),
        ({"kind": "warp"}, "expected one of cosine"),
        ({"levels": 1}, "at least 2"),
        ({"shift": 0.0}, "above 0"),
        ({"kind": "linear", "beta_start": 0.5}, "0 < start <= end < 1"),
        ({"kind": "flow", "beta_end": 0.1}, "leave them out"),
    ],
)
def test_impossible_schedules_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Schedule(**settings)  # type: ignore[arg-type]
