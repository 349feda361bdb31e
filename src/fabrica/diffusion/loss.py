"""How a network learns to predict: the times that it sees, and how its errors are weighed. On torch tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from fabrica.diffusion.objective import OBJECTIVES, Predict, noised, target
from fabrica.diffusion.schedule import Schedule, coefficients
from fabrica.errors import unknown

WEIGHTINGS = ("none", "min-snr")
TIMES = ("uniform", "stratified", "logit-normal")


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
    error: Tensor = (prediction - target(objective, x_0, noise, alpha, sigma)).square().flatten(1).mean(dim=1)
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
