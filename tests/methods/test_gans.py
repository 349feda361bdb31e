"""The adversarial methods: what fits, who learns in whose turn, that seeds and labels decide the image, and that
neither of two kinds of image is forgotten."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from fabrica.errors import UsageError
from fabrica.methods.dcgan import DCGAN
from fabrica.methods.mlp_gan import MLPGAN
from fabrica.methods.modern_gan import ModernGAN
from fabrica.methods.noise import seeded
from fabrica.methods.wgan_gp import WGANGP
from fabrica.recipe.schema import SampleConfig

SMALL: dict[type, dict[str, Any]] = {
    MLPGAN: {"latent": 8, "dropout": 0.0},
    DCGAN: {"latent": 8, "width": 8},
    WGANGP: {"latent": 8, "width": 8},
    ModernGAN: {"latent": 8, "width": 8},
}
GANS = pytest.mark.parametrize("gan", SMALL, ids=lambda cls: cls.__name__)
CPU = torch.device("cpu")


def small(gan: type, shape: tuple[int, ...] = (1, 32, 32), classes: int = 0, **config: Any) -> Any:
    torch.manual_seed(0)
    return gan(gan.Config(**{**SMALL[gan], **config}), shape, classes)


def used(gan: type, classes: int = 0) -> Any:
    """Ready to draw, with the statistics that batch norm gathers in a step: without, first images are all but grey."""
    method = small(gan, classes=classes)
    for layer in method.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the mean of all batches
    images, labels = halves(40, seed=0)
    list(method.turns({"image": images, "label": labels} if classes else {"image": images}, rng()))
    return method.eval()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def halves(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (n, 1, 32, 32) whose left (label 0) or right half (label 1) is bright."""
    labels = torch.randint(0, 2, (n,), generator=rng(seed + 10_000))  # other numbers than the method's own
    return bright_halves()[labels], labels


def bright_halves() -> Tensor:
    left = torch.full((1, 32, 32), -0.8)
    left[..., :16] = 0.8
    return torch.stack([left, left.flip(-1)])


@pytest.mark.parametrize("side", [32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
@GANS
def test_powers_of_two_fit_and_images_come_in_their_shape(gan: type, channels: int, side: int) -> None:
    device = torch.device("meta" if gan is MLPGAN else "cpu")  # its weights for 3 x 256 x 256 fill 2 GB
    with device:
        method = small(gan, (channels, side, side))
    images = method.sample(seeded([0, 1]), {}, SampleConfig(), device)
    assert images.shape == (2, channels, side, side) and images.dtype == torch.float32
    scores = method.critic(images, None) if gan is ModernGAN else method.critic(images)
    assert scores.shape == (2,)
    if device == CPU:
        assert float(images.detach().abs().max()) <= 1 and float(images.detach().std()) > 0


@pytest.mark.parametrize("sides", [(48, 48), (30, 30), (64, 32), (512, 512), (32, 32, 32)])
@GANS
def test_other_sizes_are_refused_in_one_line(gan: type, sides: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="takes squares of 32, 64, 128, 256 pixels") as refused:
        small(gan, (1, *sides))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("gan", "config", "message"),
    [
        (DCGAN, {"norm": "layer"}, "method.norm is 'layer'; expected batch or spectral"),
        (WGANGP, {"critic_turns": 0}, "method.critic_turns is 0; expected at least 1"),
        (ModernGAN, {"lazy": 0}, "method.lazy is 0; expected 1 (penalties in every step) or more"),
        (ModernGAN, {"augment": ["brightness", "transation"]}, "'transation'; did you mean translation?"),
    ],
)
def test_impossible_values_are_refused_in_words(gan: type, config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        small(gan, **config)
    assert message in str(refused.value)


@pytest.mark.parametrize("gan", [MLPGAN, DCGAN, WGANGP])
def test_classic_gans_refuse_labels_and_name_the_one_that_takes_them(gan: type) -> None:
    with pytest.raises(UsageError, match=r"takes no labels; set data\.condition='' or take method\.name=modern-gan"):
        small(gan, classes=2)


@pytest.mark.parametrize(
    ("gan", "classes", "config"),
    [
        (MLPGAN, 0, {}),
        (DCGAN, 0, {}),
        (DCGAN, 0, {"norm": "spectral"}),
        (WGANGP, 0, {}),
        (ModernGAN, 0, {}),
        (ModernGAN, 2, {"augment": ["brightness", "contrast", "translation", "cutout"]}),
    ],
)
def test_each_player_learns_in_its_own_turn_only(gan: type, classes: int, config: dict[str, Any]) -> None:
    method = small(gan, classes=classes, **config)
    images, labels = halves(10, seed=0)
    batch = {"image": images, "label": labels} if classes else {"image": images}
    moved = []
    for turn in method.turns(batch, rng()):
        method.zero_grad(set_to_none=True)
        turn.loss.backward()
        for player in ("critic", "generator"):
            slopes = [p.grad for p in method.get_submodule(player).parameters()]
            if player == turn.player:
                assert all(slope is not None and bool(slope.isfinite().all()) for slope in slopes)
                assert any(bool((slope != 0).any()) for slope in slopes)
            else:
                assert all(slope is None for slope in slopes)
        moved.append(turn.player)
        if turn.player == "critic":
            assert set(turn.metrics) == {"real_accuracy", "fake_accuracy"}
    assert moved == ["critic"] * (5 if gan is WGANGP else 1) + ["generator"]
    assert all(p.requires_grad for p in method.parameters())


@pytest.mark.parametrize("gan", [MLPGAN, DCGAN])
def test_classic_losses_are_cross_entropies(gan: type) -> None:
    method = small(gan, smoothing=0.1)
    real, _ = halves(6, seed=0)
    critic, generator = (turn.loss for turn in method.turns({"image": real}, rng(1)))
    fake = method.generator(torch.randn(6, 8, generator=rng(1)))
    on_real, on_fake = method.critic(real), method.critic(fake)
    wanted = binary_cross_entropy_with_logits(on_real, torch.full((6,), 0.9))
    wanted = wanted + binary_cross_entropy_with_logits(on_fake, torch.zeros(6))
    torch.testing.assert_close(critic, wanted)
    torch.testing.assert_close(generator, binary_cross_entropy_with_logits(on_fake, torch.ones(6)))


class Linear(nn.Module):
    """Stands where the critic stands: a score whose slope is known, and a note of what it was shown."""

    def __init__(self, steepness: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 32, 32), steepness / 32))  # of norm `steepness`
        self.shown: list[Tensor] = []
        self.told: list[Tensor | None] = []

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        self.shown.append(images.detach())
        self.told.append(labels)
        return (images * self.weight).sum(dim=(1, 2, 3))


def test_wasserstein_critics_share_the_batch_and_pay_for_slopes_other_than_one() -> None:
    method = small(WGANGP)
    method.critic = critic = Linear(3.0)
    real = torch.randn(13, 1, 32, 32, generator=rng())
    *critics, generator = method.turns({"image": real}, rng())
    assert len(critics) == 5
    mixed, reals, fakes = critic.shown[:-1:3], critic.shown[1:-1:3], critic.shown[2:-1:3]
    assert torch.equal(torch.cat(reals), real)  # each image once, in order
    for turn, x, y, between in zip(critics, reals, fakes, mixed, strict=True):
        assert len(x) == len(y) >= 2
        distance = float(((y - x) * critic.weight).sum(dim=(1, 2, 3)).mean().detach())
        assert float(turn.loss.detach()) == pytest.approx(distance + 10 * (3 - 1) ** 2, rel=1e-4)
        share = ((between - x) / (y - x)).flatten(1)  # on the straight line, one place an image
        middle = share.median(dim=1, keepdim=True).values
        assert float(middle.min()) >= 0 and float(middle.max()) <= 1 and len(middle.unique()) == len(x)
        torch.testing.assert_close(x + middle[:, :, None, None] * (y - x), between, rtol=0, atol=1e-4)
    on_fake = (critic.shown[-1] * critic.weight).sum(dim=(1, 2, 3))
    torch.testing.assert_close(generator.loss, -on_fake.mean())


def test_the_least_batch_leaves_two_images_for_each_turn() -> None:
    for turns in (1, 3, 5):
        method = small(WGANGP, critic_turns=turns)
        method.critic = critic = Linear(1.0)
        *critics, _ = method.turns({"image": torch.zeros(method.least_batch, 1, 32, 32)}, rng())
        assert len(critics) == turns
        assert [len(images) for images in critic.shown] == [2] * (3 * turns + 1)


def test_the_modern_loss_is_of_pairs_with_penalties_on_real_and_on_fake() -> None:
    """R3GAN: E softplus(D(fake) - D(real)) + gamma / 2 (R1 + R2), each R here the square of the known slope."""
    method = small(ModernGAN, penalty=0.5, lazy=1)
    method.critic = critic = Linear(3.0)
    real, _ = halves(6, seed=0)
    first, second = (turn.loss.detach() for turn in method.turns({"image": real}, rng()))
    x, fake = critic.shown[:2]
    assert torch.equal(x, real)
    apart = ((fake - real) * critic.weight).sum(dim=(1, 2, 3)).detach()
    assert float(first) == pytest.approx(float(softplus(apart).mean()) + 0.5 / 2 * (9 + 9), rel=1e-5)
    assert float(second) == pytest.approx(float(softplus(-apart).mean()), rel=1e-5)


def test_the_critic_is_told_each_images_own_label() -> None:
    method = small(ModernGAN, classes=2)
    method.critic = critic = Linear(1.0)
    labels = torch.tensor([0, 0, 1])
    list(method.turns({"image": torch.zeros(3, 1, 32, 32), "label": labels}, rng()))
    told = [None if asked is None else asked.tolist() for asked in critic.told]
    assert told == [[0, 0, 1]] * 4  # real and fake in the critic's turn, and in the generator's


def test_lazy_penalties_come_seldom_and_weigh_the_same_in_the_long_run() -> None:
    method = small(ModernGAN, penalty=1.0, lazy=4)
    method.critic = Linear(3.0)
    real, _ = halves(2, seed=0)
    paid = []
    for step in range(200):
        turn = next(method.turns({"image": real}, rng(step)))
        fake = method.generator(torch.randn(2, 8, generator=rng(step)), None)
        apart = ((fake - real) * method.critic.weight).sum(dim=(1, 2, 3))
        paid.append(float((turn.loss - softplus(apart).mean()).detach()))
    dues = torch.tensor(paid)
    assert bool(((dues.abs() < 1e-3) | ((dues - 4 * 9).abs() < 1e-3)).all())
    assert float(dues.mean()) == pytest.approx(9, abs=4 * 9 * (3 / 200) ** 0.5)  # four standard errors


def test_augmentation_reaches_what_the_critic_sees_of_both_and_only_that() -> None:
    method = small(ModernGAN, augment=["cutout"])
    method.critic = critic = Linear(1.0)
    list(method.turns({"image": torch.ones(4, 1, 32, 32)}, rng()))
    real, fake = critic.shown[:2]
    assert torch.equal(real, critic.shown[2]) and torch.equal(fake, critic.shown[3])  # answers to what the critic saw
    assert bool((real == 0).flatten(1).any(dim=1).all()) and bool((fake == 0).flatten(1).any(dim=1).all())
    assert not bool((method.sample(seeded([0]), {}, SampleConfig(), CPU) == 0).any())


@GANS
def test_a_seed_gives_its_image_whatever_the_batch(gan: type) -> None:
    method = used(gan)

    def images(seeds: list[int]) -> Tensor:
        with torch.no_grad():
            drawn: Tensor = method.sample(seeded(seeds), {}, SampleConfig(), CPU)
        return drawn

    together = images([3, 1, 4, 1, 5])
    torch.testing.assert_close(together[2:3], images([4]), rtol=0, atol=1e-6)
    assert torch.equal(together, images([3, 1, 4, 1, 5]))
    torch.testing.assert_close(together[1], together[3], rtol=0, atol=1e-6)
    assert float((together[0] - together[1]).abs().max()) > 1e-4


@GANS
def test_truncation_draws_images_together(gan: type) -> None:
    method = used(gan)
    with torch.no_grad():
        spread = [
            float(method.sample(seeded(range(16)), {}, SampleConfig(truncation=limit), CPU).std(dim=0).mean())
            for limit in (0.05, 0.7, 0.0)
        ]
    assert spread[0] < 0.5 * spread[1] and spread[1] < 0.9 * spread[2]


def test_labels_change_the_image_of_the_same_noise_and_its_score() -> None:
    method = used(ModernGAN, classes=3)
    with torch.no_grad():
        images = method.sample(seeded([7, 7, 7]), {"label": torch.tensor([0, 1, 2])}, SampleConfig(), CPU)
        scores = method.critic(images[:1].repeat(3, 1, 1, 1), torch.tensor([0, 1, 2]))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert float((images[one] - images[other]).abs().max()) > 1e-4
        assert float(scores[one]) != float(scores[other])


def test_the_modern_critic_normalises_or_does_not() -> None:
    for norm, expected in (("batch", 2), ("none", 0)):
        critic = small(ModernGAN, norm=norm).critic
        assert sum(isinstance(layer, nn.BatchNorm2d) for layer in critic.modules()) == expected
    for wrong, said in (({"norm": "layer"}, "expected batch or none"), ({"penalty": -1.0}, "0 \\(none\\) or more")):
        with pytest.raises(UsageError, match=said):
            small(ModernGAN, **wrong)


def test_a_label_starts_as_a_whisper_beside_the_noise() -> None:
    """As loud as the noise it drowns it, and every image of a class comes out the same."""
    method = used(ModernGAN, classes=2)
    with torch.no_grad():
        images = method.sample(seeded(range(32)), {"label": torch.arange(2).repeat_interleave(16)}, SampleConfig(), CPU)
    within = float(images[:16].std(dim=0).mean())
    between = float((images[:16].mean(dim=0) - images[16:].mean(dim=0)).abs().mean())
    assert between < within


def test_dcgan_starts_from_the_papers_distribution() -> None:
    method = small(DCGAN, width=32).requires_grad_(False)
    for layer in method.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            few = 4 / (2 * layer.weight.numel()) ** 0.5  # four standard errors
            assert float(layer.weight.std()) == pytest.approx(0.02, rel=few)
            assert abs(float(layer.weight.mean())) < 4 * 0.02 / layer.weight.numel() ** 0.5
        elif isinstance(layer, nn.BatchNorm2d):
            assert float(layer.weight.mean()) == pytest.approx(1.0, abs=0.02)
            assert 0.01 < float(layer.weight.std()) < 0.03


def test_spectral_norm_bounds_the_largest_singular_value_of_every_weight() -> None:
    method = small(DCGAN, norm="spectral")
    layers = [layer for layer in method.critic.modules() if isinstance(layer, nn.Conv2d)]
    assert len(layers) == 4 and not any(isinstance(layer, nn.BatchNorm2d) for layer in method.critic.modules())
    with torch.no_grad():
        for layer in layers:
            layer.parametrizations.weight.original.mul_(50)  # as a learning rate much too large would
        for _ in range(30):
            method.critic(torch.randn(2, 1, 32, 32, generator=rng()))
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
        assert float(largest) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("gan", "steps", "batch", "lr", "classes", "config"),
    [
        (DCGAN, 160, 16, 1e-3, 0, {}),
        (WGANGP, 50, 30, 3e-3, 0, {}),
        pytest.param(  # as in the paper
            ModernGAN, 160, 16, 2e-3, 0, {"norm": "none", "penalty": 0.3, "lazy": 1}, marks=pytest.mark.slow
        ),
        (ModernGAN, 60, 8, 2e-3, 2, {}),
        (MLPGAN, 60, 16, 5e-4, 0, {}),
    ],
)
def test_two_kinds_of_image_are_learned_and_neither_is_forgotten(
    gan: type, steps: int, batch: int, lr: float, classes: int, config: dict[str, Any]
) -> None:
    method = small(gan, classes=classes, **config)
    optimisers = {
        player: torch.optim.Adam(method.get_submodule(player).parameters(), lr, betas=(0.5, 0.99))
        for player in ("critic", "generator")
    }
    for step in range(steps):
        images, labels = halves(batch, step)
        for turn in method.turns({"image": images, "label": labels} if classes else {"image": images}, rng(step)):
            optimiser = optimisers[turn.player]
            optimiser.zero_grad()
            turn.loss.backward()
            optimiser.step()
    asked = torch.arange(64) % 2
    with torch.no_grad():
        drawn = method.eval().sample(seeded(range(64)), {"label": asked} if classes else {}, SampleConfig(), CPU)
    distance = (drawn[:, None] - bright_halves()).square().mean(dim=(2, 3, 4))
    grey = 0.8**2  # how far the mean of the two is from either
    good = distance < grey / 2
    assert float(good.any(dim=1).float().mean()) > 0.5
    if gan is not MLPGAN:  # which on another seed may well keep one kind only
        assert bool((good.float().mean(dim=0) > 0.1).all())
    if classes:
        assert torch.equal(distance.argmin(dim=1), asked)
