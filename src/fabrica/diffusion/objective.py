"""What a network learns to predict from x_t = alpha x_0 + sigma noise, and how its errors are weighed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fabrica.diffusion.schedule import Schedule, coefficients
from fabrica.errors import UsageError, unknown

OBJECTIVES = ("epsilon", "x0", "v", "flow")
WEIGHTINGS = ("none", "min-snr")
TIMES = ("uniform", "stratified", "logit-normal")

Level = Tensor | float  # alpha or sigma: one number, or a tensor that broadcasts to the image
Predict = Callable[[Tensor, Tensor], Tensor]  # (x_t (B, C, *S), t (B,)) -> prediction (B, C, *S)
Denoise = Callable[[Tensor, float], Tensor]  # (x_t (B, C, *S), t) -> the estimate of x_0 (B, C, *S)


def noised(x_0: Tensor, noise: Tensor, alpha: Level, sigma: Level) -> Tensor:
    """x_t = alpha x_0 + sigma noise (Ho et al. 2020, eq. 4)."""
    return alpha * x_0 + sigma * noise


def target(objective: str, x_0: Tensor, noise: Tensor, alpha: Level, sigma: Level) -> Tensor:
    """What the network should answer at x_t.

    "epsilon": the noise (Ho et al. 2020). "x0": the image. "v": alpha noise - sigma x_0 (Salimans & Ho 2022,
    Appendix D). "flow": noise - x_0, the velocity of the straight path (Liu et al. 2022).
    """
    if objective == "epsilon":
        return noise
    if objective == "x0":
        return x_0
    if objective == "v":
        return alpha * noise - sigma * x_0
    if objective == "flow":
        return noise - x_0
    raise unknown("objective", objective, OBJECTIVES)


def to_x0(objective: str, prediction: Tensor, x_t: Tensor, alpha: Level, sigma: Level) -> Tensor:
    """The estimate of x_0 in a prediction: the inverse of `target`, on any schedule.

    Raises ValueError for "epsilon" where alpha is 0: x_t is the noise itself, and says nothing of the image.
    """
    if objective == "epsilon":
        if bool(torch.as_tensor(alpha == 0).any()):
            raise ValueError("no x_0 in a predicted noise at alpha = 0: predict v, flow or x0 on this schedule")
        return (x_t - sigma * prediction) / alpha
    if objective == "x0":
        return prediction
    if objective == "v":
        return (alpha * x_t - sigma * prediction) / (alpha * alpha + sigma * sigma)
    if objective == "flow":
        return (x_t - sigma * prediction) / (alpha + sigma)
    raise unknown("objective", objective, OBJECTIVES)


def estimates(predict: Predict, schedule: Schedule, objective: str, later: float = 0.0) -> Denoise:
    """What samplers ask, denoise(x_t, t) -> the estimate of x_0, of a network that predicts something else.

    later   is added to the times that the network is told, though not to those of x_t.
    """

    def denoise(x_t: Tensor, t: float) -> Tensor:
        at = torch.full((len(x_t),), t, device=x_t.device)
        alpha, sigma = coefficients(schedule, at, x_t)
        return to_x0(objective, predict(x_t, at + later), x_t, alpha, sigma)

    return denoise


def check(objective: str, schedule: Schedule) -> None:
    """Raises UsageError for an unknown objective, or one from which this schedule cannot be sampled."""
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    alpha, _ = schedule.alpha_sigma(torch.ones(()))
    if objective == "epsilon" and float(alpha) == 0.0:
        raise UsageError(
            f"objective epsilon on the {schedule.kind} schedule, which ends without any signal: "
            "choose the objective v, flow or x0"
        )


def loss_weight(objective: str, weighting: str, alpha: Tensor, sigma: Tensor, gamma: float = 5.0) -> Tensor:
    """The weight of a squared prediction error, in the shape of alpha; finite for every alpha, sigma >= 0.

    "none": 1. "min-snr": min(SNR, gamma) on the error of x_0 (Hang et al. 2023, eq. 8), turned into the units
    of the prediction by |d x_0 / d prediction|^2: for "epsilon" min(1, gamma / SNR), for "v" on a
    variance-preserving schedule min(SNR, gamma) / (SNR + 1).
    """
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    if weighting == "none":
        return torch.ones_like(alpha)
    if weighting != "min-snr":
        raise unknown("weighting", weighting, WEIGHTINGS)
    if objective == "epsilon":
        return (gamma * (sigma / alpha) ** 2).clamp(max=1.0)
    capped = ((alpha / sigma) ** 2).clamp(max=gamma)
    if objective == "v":
        return capped * (sigma / (alpha**2 + sigma**2)) ** 2
    if objective == "flow":
        return capped * (sigma / (alpha + sigma)) ** 2
    return capped


def denoising_loss(
    predict: Predict,
    x_0: Tensor,
    t: Tensor,
    noise: Tensor,
    schedule: Schedule,
    objective: str,
    weighting: str = "none",
) -> Tensor:
    """The weighted mean squared error of each image, (B,) (Ho et al. 2020, eq. 14).

    x_0, noise (B, C, *S); t (B,) in [0, 1].
    """
    alpha, sigma = coefficients(schedule, t, x_0)
    prediction = predict(noised(x_0, noise, alpha, sigma), t)
    error = (prediction - target(objective, x_0, noise, alpha, sigma)).square().flatten(1).mean(dim=1)
    return loss_weight(objective, weighting, alpha.flatten(), sigma.flatten()) * error


def draw_times(n: int, generator: torch.Generator, how: str = "uniform") -> Tensor:
    """n training times in (0, 1], float32 (n,), on the generator's device.

    "uniform"; "stratified": one in each n-th of the interval, in random order, so that a batch's mean loss
    varies less (after Kingma et al. 2021, Appendix I.1); "logit-normal": the middle more often (Esser et al. 2024,
    eq. 19, with m = 0 and s = 1).
    """
    device = generator.device
    if how == "logit-normal":
        return torch.sigmoid(torch.randn(n, generator=generator, device=device))
    u = 1.0 - torch.rand(n, generator=generator, device=device)  # (0, 1]: at t = 0 there is nothing to learn
    if how == "uniform":
        return u
    if how == "stratified":
        return (torch.randperm(n, generator=generator, device=device) + u) / n
    raise unknown("way to draw times", how, TIMES)
