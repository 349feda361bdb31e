"""Whose words are whose: the loss in closed form, who is passed over, and that text is understood by it."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from fabrica.methods.diffusion import Diffusion
from fabrica.nets.alignment import Alignment, contrastive
from fabrica.nets.conditions import known
from fabrica.recipe.conditions import Category, Mask, Text


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_loss_is_clips() -> None:
    alike = torch.randn(6, 6, generator=rng())
    own = torch.arange(6)
    expected = (cross_entropy(alike, own) + cross_entropy(alike.T, own)) / 2
    torch.testing.assert_close(contrastive(alike, torch.ones(6, dtype=torch.bool)), expected)
    assert contrastive(torch.zeros(6, 6), own >= 0).item() == pytest.approx(math.log(6))


def test_images_of_which_nothing_is_told_are_passed_over() -> None:
    alike = torch.randn(6, 6, generator=rng(), requires_grad=True)
    told = torch.tensor([True, False, True, True, False, True])
    found = contrastive(alike, told)
    some = alike.detach()[told][:, told]
    torch.testing.assert_close(found.detach(), contrastive(some, torch.ones(4, dtype=torch.bool)))
    found.backward()
    assert alike.grad is not None and not alike.grad[~told].any() and not alike.grad[:, ~told].any()
    for few in (0, 1):  # nobody to be mistaken for
        alone = contrastive(alike, torch.arange(6) < few)
        assert alone.item() == 0 and torch.isfinite(alone)


def test_what_is_told_of_an_image_is_more_than_a_null() -> None:
    declared = {"text": Text(300, 8), "sex": Category(2)}
    words = torch.tensor([[1, 9, 2], [1, 2, 0], [1, 2, 0]])
    values = {"text": words, "sex": torch.tensor([-1, 1, -1])}
    hidden = torch.zeros(3, 2, dtype=torch.bool)
    assert known(declared, values, hidden).tolist() == [True, True, False]
    hidden[0, 0] = hidden[1, 0] = True
    assert known(declared, values, hidden).tolist() == [False, True, False]


@pytest.mark.parametrize("shape", [(4, 16, 16), (1, 64, 40), (2, 8, 16, 12), (3, 3, 5)])
def test_images_of_any_size_and_left_is_not_right(shape: tuple[int, ...]) -> None:
    alignment, images = Alignment(12, shape), torch.randn(3, *shape, generator=rng())
    gists = torch.randn(3, 12, generator=rng(1))
    with torch.autocast("cpu", torch.bfloat16):
        found = alignment(gists, images)
    assert found.shape == (3, 3) and found.dtype == torch.float32 and found.abs().max() <= 1 / 0.07 * 1.01
    assert not torch.allclose(found, alignment(gists, images.flip(-1)), atol=0.1)
    assert alignment(gists, images[..., : max(3, shape[-1] - 2)]).shape == (3, 3), "a crop"


def pairs(count: int, seed: int) -> dict[str, torch.Tensor]:
    """Noise with a bright square, and two tokens that say where, among others that say nothing."""
    draw = rng(seed)
    images = 0.8 * torch.randn(count, 1, 16, 16, generator=draw)
    right, low = torch.randint(2, (2, count), generator=draw)
    for image, x, y in zip(images, right, low, strict=True):
        image[:, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] += 0.8
    filler = torch.randint(20, 60, (count, 2), generator=draw)
    words = torch.stack([torch.ones_like(right), filler[:, 0], 3 + right, filler[:, 1], 5 + low, 2 + 0 * right], dim=1)
    return {"image": images, "text": words}


@pytest.mark.slow
def test_by_it_text_is_understood_sooner() -> None:
    """The reader alone, for a hundred steps: what it says of a text lies where the square of its image lies."""
    apart = []
    for align in (0.5, 0.0):
        torch.manual_seed(0)
        config = Diffusion.Config(
            channels=[8, 8], attention=[False, True], head_channels=8, norm_groups=4, context_width=24, align=align
        )
        method = Diffusion(config, (1, 16, 16), conditions={"text": Text(64, 6, layers=1, heads=2)})
        optimiser = torch.optim.Adam(method.parameters(), 3e-3)
        for step in range(100):
            (turn,) = method.turns(pairs(32, step), rng(step))
            optimiser.zero_grad()
            turn.loss.backward()
            optimiser.step()
        asked = pairs(200, 1000)
        assert method.conditions is not None
        with torch.no_grad():
            gist = method.conditions({"text": asked["text"]})[1]
        place = 2 * (asked["text"][:, 2] - 3) + asked["text"][:, 4] - 5
        means = torch.stack([gist[place == k].mean(0) for k in range(4)])
        between, within = means.var(0).sum(), (gist - means[place]).var(0).sum()
        apart.append(float(between / within))
    assert apart[0] > 3 * apart[1], apart


def test_nothing_but_a_mask_or_a_label_needs_no_words() -> None:
    small = Diffusion.Config(channels=[8, 16], attention=[False, False], head_channels=8, norm_groups=8, mask_width=4)
    masked = Diffusion(small, (1, 8, 8), conditions={"mask": Mask(2, (8, 8))})
    labelled = Diffusion(small, (1, 8, 8), classes=3)
    assert masked.alignment is None and labelled.alignment is None
    assert masked.players == {"denoiser": ("denoiser",)}
