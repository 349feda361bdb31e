"""The diffusion method: what the network sees, what it is told, and that it can fit a handful of images."""

import pytest
import torch
from torch import Tensor

from fabrica.errors import UsageError
from fabrica.methods.diffusion import Diffusion, pixel_shuffle, pixel_unshuffle
from fabrica.methods.noise import seeded
from fabrica.phantoms import chest
from fabrica.recipe.schema import SampleConfig

SMALL = {"channels": [16, 32], "attention": [False, True], "head_channels": 16, "norm_groups": 8}
CPU = torch.device("cpu")


def test_folding_is_pixel_unshuffle_and_is_undone() -> None:
    flat, volume = torch.randn(2, 3, 8, 12), torch.randn(2, 1, 4, 8, 12)
    assert torch.equal(pixel_unshuffle(flat, 2), torch.nn.functional.pixel_unshuffle(flat, 2))
    assert pixel_unshuffle(volume, 2).shape == (2, 8, 2, 4, 6)
    for x in (flat, volume):
        assert torch.equal(pixel_shuffle(pixel_unshuffle(x, 2), 2), x)


@pytest.mark.slow
def test_four_chests_are_learned_by_heart() -> None:
    torch.manual_seed(0)
    images = torch.stack([torch.from_numpy(chest(seed, 16).image.data) for seed in range(4)]) / 2047.5 - 1
    method = Diffusion(Diffusion.Config(**SMALL), (1, 16, 16))
    optimiser = torch.optim.AdamW(method.parameters(), 3e-3)
    for step in range(250):
        rng = torch.Generator().manual_seed(step)
        for turn in method.turns({"image": images.repeat(4, 1, 1, 1)}, rng):
            optimiser.zero_grad()
            turn.loss.backward()
            optimiser.step()
    with torch.no_grad():
        drawn = method.sample(seeded(range(8)), {}, SampleConfig(), CPU)
    nearest = (drawn[:, None] - images[None]).square().mean(dim=(2, 3, 4)).min(dim=1).values
    apart = (images[:, None] - images[None]).square().mean(dim=(2, 3, 4))[0, 1:].min()
    assert nearest.median() < 0.5 * apart  # each sample is one of the four, not their mean


class LabelShown(torch.nn.Module):
    """Stands where the network stands and notes which labels it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[Tensor] = []

    def forward(self, x: Tensor, times: Tensor, class_labels: Tensor) -> Tensor:
        self.labels.append(class_labels)
        return torch.zeros_like(x)


def test_labels_are_hidden_now_and_then_in_training_never_in_validation() -> None:
    method = Diffusion(Diffusion.Config(**SMALL, label_drop=0.25), (1, 8, 8), classes=3)
    method.denoiser = shown = LabelShown()
    batch = {"image": torch.zeros(4000, 1, 8, 8), "label": torch.ones(4000, dtype=torch.int64)}
    list(method.turns(batch, torch.Generator().manual_seed(0)))
    hidden = shown.labels[-1] == 3
    assert 0.22 < hidden.float().mean() < 0.28 and set(shown.labels[-1].tolist()) == {1, 3}
    method.validation(batch, torch.Generator().manual_seed(0))
    assert set(shown.labels[-1].tolist()) == {1}


def test_guidance_asks_with_and_without_the_label() -> None:
    method = Diffusion(Diffusion.Config(**SMALL), (1, 8, 8), classes=3)
    method.denoiser = shown = LabelShown()
    labels = torch.tensor([0, 2])
    method.sample(seeded([1, 2]), {"label": labels}, SampleConfig(steps=2, guidance=2.0), CPU)
    asked = {tuple(call.tolist()) for call in shown.labels}
    assert asked == {(0, 2), (3, 3)}
    shown.labels.clear()
    method.sample(seeded([1, 2]), {}, SampleConfig(steps=2), CPU)
    assert {tuple(call.tolist()) for call in shown.labels} == {(3, 3)}


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        ({"attention": [True]}, (1, 16, 16), "give one for each level"),
        ({"norm_groups": 7}, (1, 16, 16), "not multiples of method.norm_groups 7"),
        ({"head_channels": 5}, (1, 16, 16), "not a multiple of method.head_channels 5"),
        ({"patch": 4}, (1, 20, 20), r"multiples of 8, e\.g\. data\.size=\[16, 16\]"),
        ({"patch": 2}, (1, 8, 16, 16), r"leaves \[2, 4, 4\] voxels"),
        ({"schedule": "flw"}, (1, 16, 16), "did you mean flow"),
        ({"objective": "epsilon", "schedule": "flow"}, (1, 16, 16), "epsilon"),
    ],
)
def test_impossible_networks_are_refused_in_words(config: dict, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Diffusion(Diffusion.Config(**{**SMALL, **config}), shape)
