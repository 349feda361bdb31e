"""The student's mathematics: one step of its own leads where several of its teacher's do."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from fabrica import diffusion
from fabrica.errors import UsageError
from fabrica.methods import Teacher
from fabrica.methods.diffusion import Diffusion
from fabrica.methods.distill import Distill
from fabrica.methods.noise import seeded
from fabrica.recipe.schema import SampleConfig

CPU = torch.device("cpu")
SCHEDULE = diffusion.Schedule("cosine")
MEAN = torch.tensor([0.3, -0.4]).view(1, 1, 2)
ROOT = torch.tensor([[0.5, 0.0], [0.3, 0.2]])  # of the covariance


def exact(x_t: Tensor, t: float) -> Tensor:
    """The mean of x_0 ~ N(MEAN, ROOT ROOT') given x_t (B, 1, 1, 2)."""
    alpha, sigma = (float(level) for level in SCHEDULE.alpha_sigma(torch.tensor(t)))
    covariance = ROOT @ ROOT.T
    gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(2))
    return MEAN + (x_t - alpha * MEAN) @ gain.T


class Affine(nn.Module):
    """The network of a student of Gaussian data: a matrix and a shift for every number that stands for t and k."""

    config = Diffusion.Config()
    shape, schedule, space = (1, 1, 2), SCHEDULE, None
    declared: Mapping[str, object] = {}
    ships = ("denoiser",)

    def __init__(self) -> None:
        super().__init__()
        self.denoiser = nn.Embedding(4000, 6)
        nn.init.zeros_(self.denoiser.weight)

    def predicting(self, conditions: Mapping[str, Tensor], count: int, device: torch.device) -> diffusion.Predict:
        def predict(x_t: Tensor, t: Tensor) -> Tensor:
            values = self.denoiser((t * 1000).round().long())
            moved = torch.einsum("bij,bj->bi", values[:, :4].view(-1, 2, 2), x_t.flatten(1)) + values[:, 4:]
            return moved.view_as(x_t)

        return predict


def test_a_gaussian_is_drawn_in_one_two_and_four_steps() -> None:
    student = Affine()
    ask = Teacher({}, lambda told, count, device: exact)
    method = Distill(Distill.Config([1, 2, 4], 32, spacing="log-snr"), (1, 1, 2), student=student, teacher=ask)
    optimiser = torch.optim.Adam(method.parameters(), 0.05)
    for step in range(60):
        for turn in method.turns({"image": torch.zeros(64, 1, 1, 2)}, torch.Generator().manual_seed(step)):
            optimiser.zero_grad()
            turn.loss.backward()
            optimiser.step()
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / 60)
    for steps in (1, 2, 4):
        with torch.no_grad():
            predict = student.predicting({}, 2, CPU)
            ends = _drawn(method, predict, steps)
        # what it makes of noise is affine, so that mean and covariance are those of what it makes of a few points
        mean, root = ends[0], ends[1:] - ends[0]
        torch.testing.assert_close(mean, MEAN.flatten(), atol=0.02, rtol=0)
        torch.testing.assert_close(root.T @ root, ROOT @ ROOT.T, atol=0.03, rtol=0)


def _drawn(method: Distill, predict: diffusion.Predict, steps: int) -> Tensor:
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).view(3, 1, 1, 2)
    return method.sample(lambda shape: points, {}, SampleConfig(steps=steps), CPU).flatten(1)


def test_one_step_to_the_target_ends_where_the_way_does() -> None:
    x, times = seeded(range(3))((1, 4, 4)), diffusion.times(SCHEDULE, 6, "log-snr")
    way = diffusion.way(lambda x_t, t: 0.9 * torch.tanh(x_t) * (1 - t / 2), x, SCHEDULE, times)
    assert way.shape == (7, 3, 1, 4, 4) and torch.equal(way[0], x)
    for first, last in ((0, 1), (0, 3), (2, 5), (4, 6), (0, 6)):
        levels = [SCHEDULE.alpha_sigma(torch.tensor(times[k], dtype=torch.float64)) for k in (first, last)]
        (alpha_t, sigma_t), (alpha_s, sigma_s) = [(float(a), float(s)) for a, s in levels]
        x_0 = diffusion.step_target(way[first], way[last], alpha_t, sigma_t, alpha_s, sigma_s)
        one = diffusion.ddim(lambda x_t, t, x_0=x_0: x_0, way[first], SCHEDULE, [times[first], times[last]])
        torch.testing.assert_close(one, way[last], atol=1e-4, rtol=0)


def test_estimates_of_pixels_are_clipped_on_the_way() -> None:
    x, times = seeded(range(2))((1, 2, 2)), diffusion.times(SCHEDULE, 4, "log-snr")
    found = [diffusion.way(lambda x_t, t: 3 * torch.sign(x_t), x, SCHEDULE, times, clip)[-1] for clip in (1.0, None)]
    assert float(found[0].abs().max()) <= 1.0 < float(found[1].abs().max())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"steps": [3]}, r"method\.steps is \[3\] and method\.teacher_steps 8; expected numbers that"),
        ({"steps": []}, "expected numbers"),
        ({"steps": [8]}, "smaller"),
        ({"spacing": "karras"}, "take method.spacing=log-snr"),
    ],
)
def test_steps_that_do_not_fit_are_refused(config: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Distill(Distill.Config(**config), (1, 1, 2), student=Affine())
