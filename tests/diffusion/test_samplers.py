"""Samplers against what is known in closed form: Gaussian data, whose best denoiser and ODE are affine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from fabrica.diffusion import (
    OBJECTIVES,
    SAMPLERS,
    SPACINGS,
    Begin,
    Denoise,
    Schedule,
    ddim,
    ddpm,
    dpmpp_2m,
    estimates,
    evaluations,
    guided,
    heun,
    sample,
    target,
    times,
    to_x0,
    unipc,
)
from fabrica.errors import UsageError
from fabrica.methods.noise import seeded

MU, S = 0.4, 0.25  # the data: N(MU, S^2) in every pixel
ZERO_SNR = Schedule("cosine", zero_terminal_snr=True)
SCHEDULES = [Schedule("linear"), Schedule("scaled-linear"), Schedule("cosine"), Schedule("flow"), ZERO_SNR]
DETERMINISTIC = ["ddim", "heun", "dpmpp-2m", "unipc"]


@cache
def level(schedule: Schedule, t: float) -> tuple[float, float]:
    alpha, sigma = schedule.alpha_sigma(torch.tensor(t, dtype=torch.float64))
    return float(alpha), float(sigma)


def gaussian(schedule: Schedule) -> Denoise:
    """E[x_0 | x_t] of N(MU, S^2)."""

    def denoise(x_t: Tensor, t: float) -> Tensor:
        alpha, sigma = level(schedule, t)
        return MU + alpha * S**2 / (alpha**2 * S**2 + sigma**2) * (x_t - alpha * MU)

    return denoise


def carried(x: Tensor, schedule: Schedule, start: float, end: float) -> Tensor:
    """Where the ODE brings x from one time to another: the number of standard deviations is kept."""
    (a, s), (b, r) = level(schedule, start), level(schedule, end)
    return b * MU + math.sqrt((b * S) ** 2 + r**2) * (x - a * MU) / math.sqrt((a * S) ** 2 + s**2)


def mixture(schedule: Schedule) -> Denoise:
    """E[x_0 | x_t] of 0.3 N(-0.8, 0.1^2) + 0.7 N(0.5, 0.05^2)."""
    weight, mu, s = (torch.tensor(v, dtype=torch.float64) for v in ([0.3, 0.7], [-0.8, 0.5], [0.1, 0.05]))

    def denoise(x_t: Tensor, t: float) -> Tensor:
        alpha, sigma = level(schedule, t)
        x = x_t.double().unsqueeze(-1)
        variance = alpha**2 * s**2 + sigma**2
        odds = torch.log(weight) - torch.log(variance) / 2 - (x - alpha * mu) ** 2 / variance / 2
        means = mu + alpha * s**2 / variance * (x - alpha * mu)
        return (torch.softmax(odds, -1) * means).sum(-1).to(x_t.dtype)

    return denoise


def start(n: int = 64) -> Tensor:
    return torch.randn(n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_noise_lands_where_the_ode_brings_it(name: str, schedule: Schedule) -> None:
    x = start()
    wanted = carried(x, schedule, 1.0, 0.0)

    def error(steps: int) -> float:
        found = SAMPLERS[name](gaussian(schedule), x, schedule, times(schedule, steps, "quadratic"), None)
        return float((found - wanted).abs().max())

    coarse, fine = error(20), error(160)
    assert fine < (0.02 if name == "ddim" else 2e-3)
    assert fine < coarse / 4


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (ddim, 1),
        (heun, 2),
        (dpmpp_2m, 2),
        (partial(unipc, order=1), 2),
        (unipc, 3),
        (partial(unipc, order=3), 4),
    ],
    ids=["ddim", "heun", "dpmpp-2m", "unipc-1", "unipc-2", "unipc-3"],
)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_order_of_convergence(sampler: Callable[..., Tensor], order: int, schedule: Schedule) -> None:
    """Halving the step divides the error by about 2^order, between two times inside the schedule."""
    x = start()
    first, last = schedule.log_snr(np.array([0.9, 0.1])).tolist()

    def error(steps: int) -> float:
        visited = schedule.time_of(np.linspace(first, last, steps + 1)).tolist()
        found = sampler(gaussian(schedule), x, schedule, visited)
        return float((found - carried(x, schedule, visited[0], visited[-1])).abs().max())

    assert math.log2(error(160) / error(320)) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("schedule", [ZERO_SNR, Schedule("flow")], ids=["cosine", "flow"])
@pytest.mark.parametrize("name", ["heun", "dpmpp-2m", "unipc"])
def test_second_order_holds_through_infinite_lambda(name: str, schedule: Schedule) -> None:
    """From no signal at all to no noise at all."""
    x = start()
    wanted = carried(x, schedule, 1.0, 0.0)

    def error(steps: int) -> float:
        found = SAMPLERS[name](gaussian(schedule), x, schedule, times(schedule, steps, "quadratic"), None)
        return float((found - wanted).abs().max())

    assert math.log2(error(40) / error(80)) > 1.8


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_ddpm_is_monais_on_the_table(kind: str) -> None:
    """Ho et al. 2020, eq. 6-7, entry by entry with the same noise."""
    theirs = DDPMScheduler(
        100, {"linear": "linear_beta", "cosine": "cosine"}[kind], prediction_type="sample", clip_sample=False
    )
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    schedule = Schedule(kind, levels=100)
    denoise = gaussian(schedule)
    rng, wanted = torch.Generator().manual_seed(2), x
    for k in range(99, -1, -1):
        wanted, _ = theirs.step(denoise(wanted, (k + 1) / 100), k, wanted, rng)
    rng = torch.Generator().manual_seed(2)
    found = ddpm(denoise, x, schedule, times(schedule, 100), lambda: torch.randn(x.shape, generator=rng))
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-4)


def test_ddpm_between_neighbours_is_ho_6_and_7() -> None:
    schedule = Schedule("linear")
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = torch.cumprod(1 - beta, 0)
    x, noise, x_0 = start(), start().flip(0), torch.full((64, 1), 0.3, dtype=torch.float64)
    for k in (1, 10, 500, 999):
        before, now = alpha_bar[k - 1], alpha_bar[k]
        mean = before.sqrt() * beta[k] / (1 - now) * x_0 + (1 - beta[k]).sqrt() * (1 - before) / (1 - now) * x
        wanted = mean + ((1 - before) / (1 - now) * beta[k]).sqrt() * noise
        found = ddpm(lambda x_t, t: x_0, x, schedule, [(k + 1) / 1000, k / 1000], lambda: noise)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_ddim_is_monais_on_the_table() -> None:
    theirs = DDIMScheduler(100, "cosine", prediction_type="sample", clip_sample=False)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    schedule = Schedule("cosine", levels=100)
    denoise, wanted = gaussian(schedule), x
    for k in range(99, -1, -1):
        wanted, _ = theirs.step(denoise(wanted, (k + 1) / 100), k, wanted)
    found = ddim(denoise, x, schedule, times(schedule, 100))
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-4)


@pytest.mark.parametrize("schedule", [Schedule("linear"), ZERO_SNR, Schedule("flow")], ids=str)
def test_ddpm_draws_the_right_mean_and_spread(schedule: Schedule) -> None:
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(10000, 1, generator=rng)
    found = ddpm(gaussian(schedule), x, schedule, times(schedule, 500), lambda: torch.randn(x.shape, generator=rng))
    assert float(found.mean()) == pytest.approx(MU, abs=4 * S / 100)
    assert float(found.std()) == pytest.approx(S, rel=0.03)


@pytest.mark.parametrize("name", SAMPLERS)
def test_two_modes_keep_their_weights_and_widths(name: str) -> None:
    schedule, rng = Schedule("cosine"), torch.Generator().manual_seed(4)
    x = torch.randn(5000, 1, generator=rng)
    found = sample(
        mixture(schedule),
        x,
        schedule,
        sampler=name,
        steps=200 if name in ("ddpm", "ddim") else 60,
        spacing="uniform" if name == "ddpm" else "log-snr",
        noise=lambda: torch.randn(x.shape, generator=rng),
    )
    low, high = found[found < 0], found[found >= 0]
    assert len(low) / len(found) == pytest.approx(0.3, abs=0.03)
    assert float(low.mean()) == pytest.approx(-0.8, abs=0.02) and float(high.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(low.std()) == pytest.approx(0.1, rel=0.15) and float(high.std()) == pytest.approx(0.05, rel=0.15)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    ("schedule", "objective"),
    [(s, o) for s in SCHEDULES for o in OBJECTIVES if o != "epsilon" or level(s, 1.0)[0] > 0],
    ids=str,
)
def test_ten_steps_are_sane_whatever_is_combined(schedule: Schedule, objective: str, spacing: str) -> None:
    """In single precision, through the prediction that a network would give."""
    best = gaussian(schedule)

    def denoise(x_t: Tensor, t: float) -> Tensor:
        alpha, sigma = level(schedule, t)
        x_0 = best(x_t, t)
        return to_x0(objective, target(objective, x_0, (x_t - alpha * x_0) / sigma, alpha, sigma), x_t, alpha, sigma)

    noise = partial(seeded(range(64)), (1, 2, 2))
    x = noise()
    for name in SAMPLERS:
        found = sample(denoise, x, schedule, sampler=name, spacing=spacing, noise=noise)
        assert found.dtype == torch.float32 and found.shape == x.shape
        assert float(found.mean()) == pytest.approx(MU, abs=0.06), name
        assert 0.4 < float(found.std()) / (S * float(x.std())) < 1.2, name


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_evaluations_are_counted_honestly(name: str, steps: int) -> None:
    asked: list[float] = []
    best = gaussian(ZERO_SNR)

    def denoise(x_t: Tensor, t: float) -> Tensor:
        asked.append(t)
        return best(x_t, t)

    noise = partial(seeded([0]), (1,))
    sample(denoise, noise(), ZERO_SNR, sampler=name, steps=steps, noise=noise)
    assert len(asked) == evaluations(name, steps)
    assert asked[0] == 1.0 and min(asked) > 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_seed_gives_its_image_whatever_the_batch(name: str) -> None:
    schedule = Schedule("cosine")

    def image(seeds: Sequence[int]) -> Tensor:
        noise = partial(seeded(seeds), (2, 5, 7))
        return sample(mixture(schedule), noise(), schedule, sampler=name, noise=noise)

    together = image([3, 1, 4, 1])
    assert torch.equal(together[2:3], image([4]))
    assert torch.equal(together[1], together[3]) and not torch.equal(together[0], together[1])


def test_clip_reaches_every_estimate() -> None:
    schedule = Schedule("cosine")
    x = torch.randn(8, 1, generator=torch.Generator().manual_seed(0))
    found = sample(lambda x_t, t: x_t * 100, x, schedule, sampler="ddim", clip=1.0)
    assert float(found.abs().max()) == 1.0
    assert float(sample(lambda x_t, t: x_t * 100, x, schedule, sampler="ddim").abs().max()) > 1e6


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", [ZERO_SNR, Schedule("linear"), Schedule("flow")], ids=str)
@pytest.mark.filterwarnings("error")
def test_arrays_of_numpy_go_the_same_way(name: str, schedule: Schedule) -> None:
    """A network that predicts something, guided and rescaled, clipped, told where an image is kept: in float32."""
    rng = np.random.default_rng(0)
    x, start, fresh = (rng.standard_normal((3, 2, 8, 8)).astype(np.float32) for _ in range(3))
    keep = rng.random((1, 1, 8, 8)) < 0.3

    def drawn(of: Callable[[Any], Any]) -> Any:
        def predicting(bias: float) -> Denoise:
            return estimates(lambda x_t, t: 0.6 * x_t - bias * t.reshape(-1, 1, 1, 1), schedule, "v", later=0.5)

        return sample(
            guided(predicting(0.3), predicting(0.1), 2.5, rescale=0.7),
            of(x),
            schedule,
            sampler=name,
            steps=6,
            spacing="log-snr",
            noise=lambda: of(fresh),
            clip=1.0,
            begin=Begin(of(start), 0.9, of(keep)),
        )

    of_numpy, of_torch = drawn(lambda values: values), drawn(torch.from_numpy)
    assert of_numpy.dtype == np.float32 and of_torch.dtype == torch.float32
    np.testing.assert_allclose(of_numpy, of_torch.numpy(), rtol=0, atol=2e-5)


def test_wrong_use_is_refused() -> None:
    x, schedule, denoise = torch.zeros(1, 1), Schedule(), gaussian(Schedule())
    with pytest.raises(UsageError, match="did you mean dpmpp-2m"):
        sample(denoise, x, schedule, sampler="dpmpp2m")
    with pytest.raises(UsageError, match="did you mean heun"):
        evaluations("huen", 5)
    with pytest.raises(UsageError, match="give noise"):
        sample(denoise, x, schedule, sampler="ddpm")
    with pytest.raises(UsageError, match="did you mean karras"):
        sample(denoise, x, schedule, spacing="karas")
    with pytest.raises(UsageError, match="at least 1"):
        sample(denoise, x, schedule, steps=0)
