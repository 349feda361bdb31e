"""What a network learns to predict from x_t = alpha x_0 + sigma noise."""

from __future__ import annotations

from collections.abc import Callable

from fabrica.diffusion.arrays import Array, full
from fabrica.diffusion.schedule import Schedule
from fabrica.errors import UsageError, unknown

OBJECTIVES = ("epsilon", "x0", "v", "flow")

Level = Array | float  # alpha or sigma: one number, or an array that broadcasts to the image
Predict = Callable[[Array, Array], Array]  # (x_t (B, C, *S), t (B,)) -> prediction (B, C, *S)
Denoise = Callable[[Array, float], Array]  # (x_t (B, C, *S), t) -> the estimate of x_0 (B, C, *S)


def noised(x_0: Array, noise: Array, alpha: Level, sigma: Level) -> Array:
    """x_t = alpha x_0 + sigma noise (Ho et al. 2020, eq. 4)."""
    return alpha * x_0 + sigma * noise


def target(objective: str, x_0: Array, noise: Array, alpha: Level, sigma: Level) -> Array:
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


def to_x0(objective: str, prediction: Array, x_t: Array, alpha: Level, sigma: Level) -> Array:
    """The estimate of x_0 in a prediction: the inverse of `target`, on any schedule.

    Raises ValueError for "epsilon" where alpha is 0: x_t is the noise itself, and says nothing of the image.
    """
    if objective == "epsilon":
        if (alpha if isinstance(alpha, int | float) else abs(alpha).min()) == 0:
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

    def denoise(x_t: Array, t: float) -> Array:
        at = full(len(x_t), t, x_t)
        (alpha,), (sigma,), _ = schedule.levels_at([t])
        return to_x0(objective, predict(x_t, at + later), x_t, alpha, sigma)

    return denoise


def check(objective: str, schedule: Schedule) -> None:
    """Raises UsageError for an unknown objective, or one from which this schedule cannot be sampled."""
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    (alpha,), _, _ = schedule.levels_at([1.0])
    if objective == "epsilon" and alpha == 0.0:
        raise UsageError(
            f"objective epsilon on the {schedule.kind} schedule, which ends without any signal: "
            "choose the objective v, flow or x0"
        )
