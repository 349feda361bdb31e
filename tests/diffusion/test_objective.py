"""Objectives, loss weights and training times."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fabrica.diffusion import (
    OBJECTIVES,
    Schedule,
    check,
    coefficients,
    noised,
    target,
    to_x0,
)
from fabrica.diffusion.loss import denoising_loss, draw_times, loss_weight
from fabrica.errors import UsageError


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(batch: int = 6) -> tuple[Tensor, Tensor]:
    """x_0 and noise, (batch, 1, 8, 8), double precision."""
    x = torch.randn(2, batch, 1, 8, 8, generator=rng(), dtype=torch.float64)
    return x[0], x[1]


@pytest.mark.parametrize("schedule", [Schedule("cosine"), Schedule("flow")], ids=["variance kept", "flow"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_to_x0_undoes_target(objective: str, schedule: Schedule) -> None:
    x_0, noise = drawn()
    alpha, sigma = coefficients(schedule, torch.tensor([0.0, 0.01, 0.3, 0.6, 0.9, 0.99]), x_0)
    prediction = target(objective, x_0, noise, alpha, sigma)
    x_t = noised(x_0, noise, alpha, sigma)
    torch.testing.assert_close(to_x0(objective, prediction, x_t, alpha, sigma), x_0, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("objective", ["x0", "v", "flow"])
def test_to_x0_from_noise_alone(objective: str) -> None:
    x_0, noise = drawn()
    prediction = target(objective, x_0, noise, 0.0, 1.0)
    torch.testing.assert_close(to_x0(objective, prediction, noise, 0.0, 1.0), x_0)


@pytest.mark.parametrize("alpha", [0.0, torch.tensor([0.5, 0.0])])
def test_predicted_noise_says_nothing_without_signal(alpha: Tensor | float) -> None:
    with pytest.raises(ValueError, match="alpha = 0: predict v, flow or x0"):
        to_x0("epsilon", torch.zeros(2), torch.zeros(2), alpha, 1.0)


def test_check_refuses_epsilon_where_sampling_would_fail() -> None:
    check("epsilon", Schedule("cosine"))
    check("v", Schedule("cosine", zero_terminal_snr=True))
    for schedule in (Schedule("flow"), Schedule("linear", zero_terminal_snr=True)):
        with pytest.raises(UsageError, match="choose the objective v"):
            check("epsilon", schedule)
    with pytest.raises(UsageError, match="did you mean epsilon"):
        check("epsiln", Schedule())


@pytest.mark.parametrize("schedule", [Schedule("linear"), Schedule("flow")], ids=["variance kept", "flow"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_min_snr_is_the_same_loss_for_every_objective(objective: str, schedule: Schedule) -> None:
    """Whatever is predicted, the weighted error equals min(SNR, 5) times the squared error of x_0."""
    x_0, noise = drawn()
    t = torch.tensor([0.001, 0.05, 0.2, 0.4, 0.7, 0.95])
    alpha, sigma = coefficients(schedule, t, x_0)
    x_t = noised(x_0, noise, alpha, sigma)
    wrong = target(objective, x_0, noise, alpha, sigma) + torch.randn(x_0.shape, generator=rng(1))
    found = denoising_loss(lambda x, t: wrong, x_0, t, noise, schedule, objective, "min-snr")
    error = (to_x0(objective, wrong, x_t, alpha, sigma) - x_0).square().mean(dim=(1, 2, 3))
    snr = (alpha / sigma).flatten() ** 2
    assert snr.min() < 5 < snr.max()
    torch.testing.assert_close(found, snr.clamp(max=5.0) * error)


def test_min_snr_in_hangs_closed_forms() -> None:
    alpha, sigma = Schedule("cosine").alpha_sigma(torch.linspace(0.01, 1, 50))
    snr = (alpha / sigma) ** 2
    torch.testing.assert_close(loss_weight("epsilon", "min-snr", alpha, sigma), snr.clamp(max=5) / snr)
    torch.testing.assert_close(loss_weight("v", "min-snr", alpha, sigma), snr.clamp(max=5) / (snr + 1))
    torch.testing.assert_close(loss_weight("x0", "min-snr", alpha, sigma, gamma=2.0), snr.clamp(max=2))


@pytest.mark.parametrize("weighting", ["none", "min-snr"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_weights_are_finite_at_both_ends(objective: str, weighting: str) -> None:
    weight = loss_weight(objective, weighting, torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    assert weight.isfinite().all() and (weight >= 0).all()


def test_loss_of_each_image() -> None:
    x_0, noise = drawn(3)
    t = torch.tensor([0.2, 0.5, 1.0])
    each = denoising_loss(lambda x_t, t: torch.zeros_like(x_t), x_0, t, noise, Schedule(), "epsilon")
    torch.testing.assert_close(each, noise.square().mean(dim=(1, 2, 3)))


def test_the_network_is_shown_x_t_and_t() -> None:
    x_0, noise = drawn(2)
    seen = {}

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        seen["x_t"], seen["t"] = x_t, t
        return noise - x_0

    t = torch.tensor([0.25, 0.5])
    assert float(denoising_loss(predict, x_0, t, noise, Schedule("flow"), "flow").abs().max()) == 0.0
    torch.testing.assert_close(seen["x_t"][0], 0.75 * x_0[0] + 0.25 * noise[0])
    assert seen["t"] is t


def test_unknown_names_are_refused() -> None:
    one = torch.ones(1)
    with pytest.raises(UsageError, match="did you mean flow"):
        target("flw", one, one, 1.0, 0.0)
    with pytest.raises(UsageError, match="did you mean min-snr"):
        loss_weight("v", "minsnr", one, one)
    with pytest.raises(UsageError, match="did you mean stratified"):
        draw_times(4, rng(), "stratifed")


def test_times_are_drawn_as_said() -> None:
    uniform, stratified, middle = (draw_times(4000, rng(), how) for how in ("uniform", "stratified", "logit-normal"))
    for t in (uniform, stratified, middle):
        assert t.dtype == torch.float32 and t.min() > 0 and t.max() <= 1
        assert float(t.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(uniform.std()) == pytest.approx(12**-0.5, abs=0.01)
    assert torch.equal((stratified.double() * 4000).ceil().sort().values, torch.arange(1.0, 4001.0).double())
    assert not torch.equal(stratified, stratified.sort().values)
    assert float(torch.logit(middle.double()).std()) == pytest.approx(1.0, abs=0.04)
    assert torch.equal(uniform, draw_times(4000, rng(), "uniform"))
