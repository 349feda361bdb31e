"""Distillation: a student goes in one step where its teacher, a trained diffusion model, goes in several.

Salimans, Ho: Progressive distillation for fast sampling of diffusion models (2022), with three simplifications. The way
is the teacher's own, from noise to image (Luhman & Luhman 2021), so that no training image is looked at. There is one
stage: steps of several lengths are learned at once, by a network that is told how far it steps (Frans et al. 2024, One
step diffusion via shortcut models). Guidance is the teacher's, and costs the student nothing (Meng et al. 2023, On
distillation of guided diffusion models). The mathematics stands in fabrica.diffusion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fabrica import diffusion
from fabrica.errors import UsageError
from fabrica.methods import Compressor, Conditions, Denoiser, Synthesiser, Teacher, Turn
from fabrica.methods.noise import Draw
from fabrica.nets.conditions import dropped, unknown
from fabrica.recipe.conditions import Condition
from fabrica.recipe.schema import SampleConfig


class Distill(Synthesiser):
    """The student's network is its teacher's: it sees x_t (B, C, *S), and t + k as a number from 0 to 1000 (k + 1),
    where k says how far it steps: 0 for the shortest steps, which the teacher's weights know best."""

    @dataclass
    class Config:
        # in how many the student learns to go all the way: several, e.g. [1, 2, 4], learn together, each worse
        steps: list[int] = field(default_factory=lambda: [4])
        teacher_steps: int = 8  # in how many its teacher goes
        label_drop: float = 0.1  # how often what is told of an image is hidden, so that the student can do without
        guidance: float | None = None  # of the teacher; none: as its recipe samples, as of all that follows
        rescale: float | None = None
        spacing: str = ""
        clip: bool | None = None
        student: dict[str, Any] = field(default_factory=dict)  # the network: the teacher's recipe.method

    validated = True
    keep = "loss"
    choices = ("steps",)
    latent = True
    conditional = True
    learner = True
    config: Config

    def __init__(
        self,
        config: Config,
        shape: tuple[int, ...],
        classes: int = 0,
        conditions: Mapping[str, Condition] | None = None,
        space: Compressor | None = None,
        *,
        student: Denoiser,
        teacher: Teacher | None = None,
    ) -> None:
        """student: a fresh network for images of this shape, of which this is told, or for latents of the space;
        teacher: whose weights it starts from and whose way it learns, while it learns."""
        super().__init__()
        _check(config)
        self.config, self.student, self.ask = config, student, teacher.ask if teacher else None
        if teacher:
            student.load_state_dict(dict(teacher.weights), strict=False)  # all but the space's
        self.ships = tuple(f"student.{name}" for name in student.ships)
        self.players = {"student": self.ships}
        self.times = diffusion.times(student.schedule, config.teacher_steps, config.spacing or "log-snr")
        self.paces = tuple(sorted(set(config.steps), reverse=True))
        self.strides = [config.teacher_steps // steps for steps in self.paces]
        # every step that is learned: from where to where on the teacher's way, and its k
        self.legs = torch.tensor(
            [
                (first, first + stride, k)
                for k, stride in enumerate(self.strides)
                for first in range(0, config.teacher_steps, stride)
            ]
        )

    def turns(self, batch: dict[str, Tensor], rng: torch.Generator) -> Iterator[Turn]:
        """One way of the teacher for each image told of, and all steps along it, as many a turn as images."""
        conditions, count = self._told(batch, rng), len(batch["image"])
        way = self._way(conditions, batch["image"], rng)
        for part in torch.randperm(len(self.legs) * count, generator=rng).view(-1, count):
            yield Turn("student", self._loss(way, conditions, part // count, part % count).mean())

    def validation(self, batch: dict[str, Tensor], rng: torch.Generator) -> Tensor:
        """The loss (B,) of a step drawn at random, of what held-out images are told."""
        conditions, count = self._told(batch), len(batch["image"])
        legs = torch.randint(len(self.legs), (count,), generator=rng)
        return self._loss(self._way(conditions, batch["image"], rng), conditions, legs, torch.arange(count))

    def sample(self, draw: Draw, conditions: Conditions, settings: SampleConfig, device: torch.device) -> Tensor:
        """Images (N, C, *S) in [-1, 1], one a row of noise, in settings.steps steps; of what is not told, the learned
        null."""
        student, k = self.student, self.paces.index(settings.steps)
        start = draw(student.shape).to(device)
        predict = student.predicting(conditions, len(start), device)
        denoise = diffusion.estimates(predict, student.schedule, student.config.objective, later=k)
        found = diffusion.ddim(denoise, start, student.schedule, self.times[:: self.strides[k]])
        return student.space.drawn(found, draw) if student.space else found.clamp(-1, 1)

    def _way(self, conditions: Conditions, images: Tensor, rng: torch.Generator) -> Tensor:
        """(teacher_steps + 1, B, C, *S): from fresh noise to what the teacher makes of it."""
        assert self.ask is not None  # a loaded student is not trained
        count, device = len(images), images.device
        start = torch.randn(count, *self.student.shape, generator=rng).to(device)
        clip = 1.0 if self.config.clip and not self.student.space else None
        ask = self.ask(conditions, count, device)
        way: Tensor = diffusion.way(ask, start, self.student.schedule, self.times, clip)
        return way

    def _loss(self, way: Tensor, conditions: Conditions, legs: Tensor, images: Tensor) -> Tensor:
        """The squared error (N,), in what the network predicts, of these steps (N,) along the ways of these images
        (N,)."""
        student, device = self.student, way.device
        first, last, k = self.legs[legs].to(device).unbind(1)
        images = images.to(device)
        times = torch.tensor(self.times, dtype=torch.float64, device=device)
        x_t, x_s, t = way[first, images], way[last, images], times[first]
        alpha, sigma = diffusion.coefficients(student.schedule, t, x_t)
        x_0 = diffusion.step_target(x_t, x_s, alpha, sigma, *diffusion.coefficients(student.schedule, times[last], x_s))
        wanted = diffusion.target(student.config.objective, x_0, (x_t - alpha * x_0) / sigma, alpha, sigma)
        predict = student.predicting({name: values[images] for name, values in conditions.items()}, len(images), device)
        error: Tensor = predict(x_t, (t + k).float()) - wanted
        return error.square().flatten(1).mean(1)

    def _told(self, batch: Mapping[str, Tensor], rng: torch.Generator | None = None) -> Conditions:
        """What is told of each image; with rng, now and then not all of it."""
        declared, count = self.student.declared, len(batch["image"])
        conditions = {name: batch[name] for name in declared}
        if rng is None or not declared:
            return conditions
        hidden = dropped(count, len(declared), self.config.label_drop, rng).to(batch["image"].device)
        nothing = unknown(declared, count, batch["image"].device)
        found = {}
        for k, (name, values) in enumerate(conditions.items()):
            where = hidden[:, k].view(-1, *[1] * (values.ndim - 1))
            found[name] = torch.where(where, nothing[name], values)
        return found


def _check(config: Distill.Config) -> None:
    steps = config.steps
    if not steps or min(steps) < 1 or any(config.teacher_steps % n or n >= config.teacher_steps for n in steps):
        raise UsageError(
            f"method.steps is {steps} and method.teacher_steps {config.teacher_steps}; expected numbers that are "
            "smaller and divide it, e.g. [2, 4] and 8"
        )
    if config.spacing == "karras":
        raise UsageError(
            "method.spacing is karras, of which a few times are not among many; take method.spacing=log-snr"
        )
