"""Diffusion and flows as mathematics: noise levels, objectives, samplers and guidance.

All are of arrays of PyTorch and of NumPy alike (`arrays`), so that an exported model draws by the same lines as a
trained one, but what only training needs: `loss`. What every method begins with is here too, GANs among them: the noise
that belongs to a seed (`noise`).

Time t is continuous from 0 (data) to 1 (noise); everything is written with x_t = alpha(t) x_0 + sigma(t) noise.
No function knows a network: they take `denoise(x_t, t) -> x_0` or `predict(x_t, t)`.
"""

from fabrica.diffusion.distillation import step_target, way
from fabrica.diffusion.objective import (
    OBJECTIVES,
    Denoise,
    Predict,
    check,
    estimates,
    noised,
    target,
    to_x0,
)
from fabrica.diffusion.samplers import (
    SAMPLERS,
    Noise,
    Sampler,
    ddim,
    ddpm,
    dpmpp_2m,
    evaluations,
    heun,
    unipc,
)
from fabrica.diffusion.sampling import SPACINGS, Begin, guided, sample, times, within
from fabrica.diffusion.schedule import KINDS, Schedule, coefficients

__all__ = [
    "KINDS",
    "OBJECTIVES",
    "SAMPLERS",
    "SPACINGS",
    "Begin",
    "Denoise",
    "Noise",
    "Predict",
    "Sampler",
    "Schedule",
    "check",
    "coefficients",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "estimates",
    "evaluations",
    "guided",
    "heun",
    "noised",
    "sample",
    "step_target",
    "target",
    "times",
    "to_x0",
    "unipc",
    "way",
    "within",
]
