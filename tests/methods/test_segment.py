"""Segmentation as its paper has it: losses, critics, unlabelled images, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fabrica.errors import UsageError
from fabrica.methods.segment import Segment
from fabrica.recipe.plan import Plan

FLAT = Plan(size=[32, 32], levels=[[1, 1], [2, 2], [2, 2]], kernels=[[3, 3]] * 3, numbers=[0, 1, 2], names=[""] * 3)
DEEP = Plan(size=[16, 32, 32], levels=[[1] * 3, [1, 2, 2], [2] * 3], kernels=[[1, 3, 3], [3] * 3, [3] * 3],
            numbers=[0, 1, 2], names=[""] * 3)  # fmt: skip


def method(plan: Plan = FLAT, channels: int = 1, **values: object) -> Segment:
    torch.manual_seed(0)
    config = replace(Segment.Config(width=4, critic_width=4), **values)  # type: ignore[arg-type]
    return Segment(config, (channels, *plan.size), (3, *plan.size), plan)


def batch(plan: Plan = FLAT, count: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """Images whose halves along the last axis are of class 1 and 2, with a border of nothing."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.zeros(count, *plan.size, dtype=torch.long)
    labels[..., 4:16], labels[..., 16:28] = 1, 2
    a = labels[:, None].float() - 1 + 0.1 * torch.randn(count, 1, *plan.size, generator=rng)
    b = 2 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float() - 1
    return {"a": a, "b": b, "index": torch.arange(count), "unlabelled": a.flip(0) + 0.01}


def taken(own: Segment, seen: dict[str, Tensor]) -> dict[str, float]:
    """One step of each player by hand; the losses."""
    losses = {}
    for turn in own.turns(seen, torch.Generator().manual_seed(0)):
        nets = [own.get_submodule(name) for name in own.players[turn.player]]
        parameters = [p for net in nets for p in net.parameters()]
        gradients = torch.autograd.grad(turn.loss, parameters)
        assert sum(float(g.abs().sum()) for g in gradients) > 0
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p -= 0.02 * g / (g.norm() + 1e-8) * p.norm()
        losses[turn.player] = float(turn.loss.detach())
    return losses


@pytest.mark.parametrize("plan", [FLAT, DEEP])
@pytest.mark.parametrize("network", ["unet", "residual", "unet++"])
def test_every_network_answers_in_probabilities(plan: Plan, network: str) -> None:
    own, seen = method(plan, network=network), batch(plan)
    first = taken(own, seen)["network"]
    assert first > 0
    own.eval()
    made = own.translate(seen["a"], "a2b")
    assert made.shape == seen["b"].shape and made.min() >= -1 and made.max() <= 1
    torch.testing.assert_close(((made + 1) / 2).sum(1), torch.ones(4, *plan.size))
    loss = own.validation(seen, torch.Generator())
    assert loss.shape == (4,) and (loss >= 0).all() and (loss <= 1).all()


NESTED = replace(FLAT, regions={"both": [1, 2], "inner": [2]})


def nested(seen: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with regions for classes: what is of class 1 or 2, and of class 2."""
    return {**seen, "b": torch.stack([torch.maximum(seen["b"][:, 1], seen["b"][:, 2]), seen["b"][:, 2]], 1)}


@pytest.mark.parametrize(
    "values", [{}, {"adversarial": 0.1}, {"adversarial": 0.1, "critic": "patch", "unlabelled": 0.1}]
)
def test_regions_are_learned_each_for_itself(values: dict[str, object]) -> None:
    torch.manual_seed(0)
    config = replace(Segment.Config(width=4, critic_width=4), **values)  # type: ignore[arg-type]
    own, seen = Segment(config, (1, 32, 32), (2, 32, 32), NESTED), nested(batch())
    seen["b"][:, 1, :, :4] = 0  # nobody has said where the inner one ends
    history = [taken(own, seen)["network"] for _ in range(25)]
    assert history[-1] < 0.75 * history[0]
    own.eval()
    made = own.translate(seen["a"], "a2b")
    assert made.shape == (4, 2, 32, 32) and ((made > 0).sum(1) == 2).any()  # both at one place


def test_of_regions_every_one_counts_in_validation() -> None:
    own, seen = Segment(Segment.Config(width=4), (1, 32, 32), (2, 32, 32), NESTED), nested(batch())
    own.network = _Answers(seen["b"])
    assert own.validation(seen, torch.Generator()).abs().max() < 1e-5
    half = seen["b"].clone()
    half[:, 0] = -1
    own.network = _Answers(half)
    torch.testing.assert_close(own.validation(seen, torch.Generator()), torch.full((4,), 0.5), rtol=0, atol=1e-4)


@pytest.mark.parametrize("critic", ["segan", "patch"])
def test_both_players_learn(critic: str) -> None:
    own, seen = method(adversarial=0.1, critic=critic), batch()
    assert [turn.player for turn in own.turns(seen, torch.Generator())] == ["critic", "network"]
    history = [taken(own, seen) for _ in range(25)]
    assert history[-1]["network"] < 0.7 * history[0]["network"]


def test_segans_critic_sees_no_difference_between_equal_maps() -> None:
    own, seen = method(adversarial=0.1), batch()
    drawn = (seen["b"] + 1) / 2
    assert float(own._apart(seen["a"], seen["b"], drawn).detach()) == 0
    assert float(own._apart(seen["a"], seen["b"], drawn.flip(1)).detach()) > 0


def test_of_unlabelled_images_only_sure_answers_are_learned() -> None:
    own, seen = method(adversarial=0.1, critic="patch", unlabelled=1.0), batch()
    assert set(taken(own, seen)) == {"critic", "network"}
    made = torch.full((2, 3, 32, 32), 1 / 3, requires_grad=True)
    own.config.sure = 1.0  # nothing looks as sure as that
    assert float(own._taught(seen["a"][:2], made).detach()) == 0
    own.config.sure = 0.0
    assert float(own._taught(seen["a"][:2], made).detach()) == pytest.approx(1.0986, abs=1e-3)  # log 3


def test_validation_is_one_less_dice_of_what_is_shown() -> None:
    own, seen = method(), batch()
    own.network = _Answers(seen["b"])
    assert own.validation(seen, torch.Generator()).abs().max() < 1e-5
    wrong = seen["b"].clone()
    wrong[:, [1, 2]] = wrong[:, [2, 1]]
    own.network = _Answers(wrong)
    torch.testing.assert_close(own.validation(seen, torch.Generator()), torch.ones(4), rtol=0, atol=1e-4)


class _Answers(torch.nn.Module):
    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"network": "unett"}, "unett"),
        ({"critic": "segann", "adversarial": 1.0}, "segann"),
        ({"dice": 0.0, "cross_entropy": 0.0}, "both 0"),
        ({"unlabelled": 1.0}, "method.critic=patch"),
        ({"dice": -1.0}, "0 or more"),
    ],
)
def test_what_cannot_be_is_one_line(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        method(**values)


def test_one_contrast_at_most_is_left_out_each_as_often() -> None:
    torch.manual_seed(0)
    config = Segment.Config(width=4, drop=0.4)
    own = Segment(config, (5, 32, 32), (3, 32, 32), FLAT, [3, 1, 1])  # slices with neighbours, and two beside
    images = torch.rand(2000, 5, 4, 4) + 0.1
    made = own._dropped(images, torch.Generator().manual_seed(0))
    gone = (made == -1).flatten(2).all(2)
    assert torch.equal(made[~gone], images[~gone])
    groups = torch.stack([gone[:, :3].all(1), gone[:, 3], gone[:, 4]], 1)
    assert torch.equal(groups[:, 0], gone[:, :3].any(1)) and int(groups.sum(1).max()) == 1
    torch.testing.assert_close(groups.float().mean(0), torch.full((3,), 0.4 / 3), atol=0.03, rtol=0)
    alone = method(drop=0.4)
    assert torch.equal(alone._dropped(images, torch.Generator()), images)
    with pytest.raises(UsageError, match=r"method.drop is 1.0; expected a share from 0 to below 1"):
        method(drop=1.0)
