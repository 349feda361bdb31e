"""The translators: their losses are those of the papers, each player learns in its own turn, and they learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, normalize

from fabrica.errors import UsageError
from fabrica.methods import build
from fabrica.methods.cut import CUT, TEMPERATURE, patch_nce
from fabrica.methods.cyclegan import CycleGAN
from fabrica.methods.pix2pix import OUTSIDE, Pix2Pix
from fabrica.nets import losses
from fabrica.nets.registration import roughness, warped
from fabrica.recipe.load import load_recipe

SMALL: dict[type, dict[str, Any]] = {
    CycleGAN: {"width": 8, "blocks": 1, "critic_width": 8},
    CUT: {"width": 8, "blocks": 1, "critic_width": 8, "patches": 32},
    Pix2Pix: {"width": 8, "levels": 3, "critic_width": 8, "dropout": 0.0},
}
ALL = pytest.mark.parametrize("cls", SMALL, ids=lambda cls: cls.__name__)
GREY = (1, 32, 32)


def small(cls: type, a: tuple[int, ...] = GREY, b: tuple[int, ...] = GREY, **config: Any) -> Any:
    torch.manual_seed(0)
    return cls(cls.Config(**{**SMALL[cls], **config}), a, b)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(n: int, seed: int = 0, side: int = 32, details: int = 8) -> Tensor:
    """(n, 1, side, side) in [-1, 1]: blobs of side / details pixels."""
    coarse = torch.rand(n, 1, details, details, generator=rng(seed + 10_000)) * 2 - 1
    return interpolate(coarse, size=side, mode="bilinear")


def trained(method: Any, lr: float, batches: Callable[[int], dict[str, Tensor]], steps: int) -> dict[str, list[float]]:
    """Play all turns for some steps by Adam; what was seen, and the losses by player."""
    optimisers = {
        player: torch.optim.Adam([p for n in names for p in getattr(method, n).parameters()], lr, betas=(0.5, 0.99))
        for player, names in method.players.items()
    }
    told: dict[str, list[float]] = {}
    for step in range(steps):
        for turn in method.turns(batches(step), rng(step)):
            optimisers[turn.player].zero_grad()
            turn.loss.backward()
            optimisers[turn.player].step()
            for key, value in {turn.player: float(turn.loss.detach()), **turn.metrics}.items():
                told.setdefault(key, []).append(value)
    method.eval()
    return told


# --- turns


@pytest.mark.parametrize(
    ("cls", "config", "order"),
    [
        (CycleGAN, {}, ["generator", "critic"]),  # as in the paper's own code
        (CycleGAN, {"identity": 0.0, "history": 0}, ["generator", "critic"]),
        (CUT, {}, ["critic", "generator"]),
        (CUT, {"identity": False}, ["critic", "generator"]),
        (Pix2Pix, {}, ["critic", "generator"]),
        (Pix2Pix, {"network": "residual", "masked": True, "registration": 1.0}, ["critic", "generator"]),
        (Pix2Pix, {"network": "unet++"}, ["critic", "generator"]),
        (Pix2Pix, {"adversarial": 0.0}, ["generator"]),
        (Pix2Pix, {"adversarial": 0.0, "drifting": 0.5}, ["generator"]),
        (Pix2Pix, {"drifting": 0.5}, ["critic", "generator"]),
    ],
)
def test_each_player_learns_in_its_own_turn_only(cls: type, config: dict[str, Any], order: list[str]) -> None:
    method = small(cls, **config)
    batch = {"a": smooth(2), "b": smooth(2, 1), "body": torch.ones(2, 1, 32, 32, dtype=torch.bool)}
    moved = []
    for turn in method.turns(batch, rng()):
        method.zero_grad(set_to_none=True)
        turn.loss.backward()
        for player, names in method.players.items():
            slopes = [p.grad for n in names for p in getattr(method, n).parameters()]
            if player == turn.player:
                found = [slope for slope in slopes if slope is not None]
                assert all(bool(slope.isfinite().all()) for slope in found)
                assert sum(bool((slope != 0).any()) for slope in found) > len(slopes) / 4
                for n in names:  # every network of the player learns
                    assert any(
                        p.grad is not None and bool((p.grad != 0).any()) for p in getattr(method, n).parameters()
                    )
            else:
                assert all(slope is None for slope in slopes)
        if turn.player == "critic":
            assert set(turn.metrics) == {"real_accuracy", "fake_accuracy"}
        moved.append(turn.player)
    assert moved == order and set(method.players) == set(order)
    assert all(p.requires_grad for p in method.parameters())


@ALL
def test_what_ships_translates_and_stays_in_range(cls: type) -> None:
    method = small(cls).eval()
    assert all(isinstance(getattr(method, name), nn.Module) for name in method.ships)
    for direction in method.directions:
        with torch.no_grad():
            found = method.translate(smooth(2), direction)
        assert found.shape == (2, *GREY) and float(found.abs().max()) <= 1 and float(found.std()) > 0


def test_both_ways_are_networks_of_their_own() -> None:
    method = small(CycleGAN).eval()
    with torch.no_grad():
        there, back = (method.translate(smooth(1), direction) for direction in ("a2b", "b2a"))
        assert torch.equal(there, method.a2b(smooth(1))) and torch.equal(back, method.b2a(smooth(1)))
    assert not torch.equal(there, back)


# --- losses, with networks whose answers are known


class Scale(nn.Module):
    """Stands where a generator stands."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.by


class Mean(nn.Module):
    """Stands where a critic stands: one score an image, and a note of what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(1.0))
        self.shown: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append(images.detach())
        return images[:, -1:].mean(dim=tuple(range(2, images.ndim)), keepdim=True) * self.by


def flat(value: float) -> Tensor:
    return torch.full((2, *GREY), value)


@pytest.mark.parametrize(
    ("back", "identity", "wanted"),
    [
        (0.5, 0.5, (0.1 - 1) ** 2 + (0.8 - 1) ** 2 + 10 * 0.0 + 5 * (0.2 + 0.2)),  # each undoes the other
        (1.0, 0.5, (0.2 - 1) ** 2 + (0.8 - 1) ** 2 + 10 * (0.4 + 0.2) + 5 * (0.2 + 0.0)),
        (1.0, 0.0, (0.2 - 1) ** 2 + (0.8 - 1) ** 2 + 10 * (0.4 + 0.2)),
    ],
)
def test_cyclegan_adds_both_cycles_and_half_of_them_for_identity(back: float, identity: float, wanted: float) -> None:
    method = small(CycleGAN, identity=identity)
    method.a2b, method.b2a, method.critic_a, method.critic_b = Scale(2.0), Scale(back), Mean(), Mean()
    generator, critic = method.turns({"a": flat(0.4), "b": flat(0.2)}, rng())
    assert float(generator.loss.detach()) == pytest.approx(wanted, rel=1e-5)
    fake_a = 0.2 * back
    halves = 0.5 * ((0.4 - 1) ** 2 + fake_a**2) + 0.5 * ((0.2 - 1) ** 2 + 0.8**2)
    assert float(critic.loss.detach()) == pytest.approx(halves, rel=1e-5)
    assert generator.metrics["cycle"] == pytest.approx(0.0 if back == 0.5 else 0.3, abs=1e-6)


def test_cyclegans_critics_are_shown_older_images_too() -> None:
    method = small(CycleGAN, history=4)
    method.a2b, method.b2a, method.critic_a, method.critic_b = Scale(1.0), Scale(1.0), Mean(), Mean()
    older = total = 0
    for step in range(60):
        list(method.turns({"a": flat(step / 100), "b": flat(-step / 100)}, rng(step)))
        real, fake = method.critic_b.shown[-1].chunk(2)
        assert torch.equal(real, flat(-step / 100))
        if step >= 2:
            older += int((fake[:, 0, 0, 0] < step / 100 - 1e-6).sum())
            total += 2
    assert older / total == pytest.approx(0.5, abs=4 * 0.5 / total**0.5)


def test_pix2pix_is_l1_and_half_of_the_critics_cross_entropy() -> None:
    method = small(Pix2Pix)
    method.generator, method.critic = Scale(2.0), Mean()
    critic, generator = method.turns({"a": flat(0.4), "b": flat(0.2)}, rng())
    real, fake, one = torch.tensor(0.2), torch.tensor(0.8), torch.tensor(1.0)
    entropy = binary_cross_entropy_with_logits
    torch.testing.assert_close(critic.loss.detach(), 0.5 * (entropy(real, one) + entropy(fake, 1 - one)))
    torch.testing.assert_close(generator.loss.detach(), 100 * (fake - real) + entropy(fake, one))
    assert generator.metrics["l1"] == pytest.approx(0.6)
    assert all(torch.equal(pair[:, :1], flat(0.4)) for pair in method.critic.shown)  # it sees a beside b


def test_masked_l1_counts_the_body_and_a_tenth_of_the_air() -> None:
    method = small(Pix2Pix, masked=True, adversarial=0.0, l1=1.0)
    assert method.needs == ("body",) and small(Pix2Pix).needs == ()
    method.generator = Scale(1.0)
    a, b, body = flat(0.0), flat(0.0), torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    body[:, :, :8] = True  # a quarter
    b[:, :, :8], b[:, :, 8:] = 0.3, 0.7
    wanted = (0.25 * 0.3 + OUTSIDE * 0.75 * 0.7) / (0.25 + OUTSIDE * 0.75)
    batch = {"a": a, "b": b, "body": body}
    (turn,) = method.turns(batch, rng())
    assert float(turn.loss.detach()) == pytest.approx(wanted, rel=1e-5)
    assert method.validation(batch, rng()).tolist() == pytest.approx([wanted] * 2, rel=1e-5)
    plain = method.validation({"a": a, "b": b}, rng())
    assert plain.tolist() == pytest.approx([0.25 * 0.3 + 0.75 * 0.7] * 2, rel=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (3, 16, 24)])
def test_pix2pix_weighs_structural_similarity_beside_l1(size: tuple[int, ...]) -> None:
    """Of volumes it is the mean over slices; held-out pairs are judged in the shares of training."""
    method = small(Pix2Pix, a=(1, *size), b=(1, *size), adversarial=0.0, l1=10.0, ssim=5.0, levels=2)
    method.generator = Scale(1.0)
    a, b = (torch.rand(2, 1, *size, generator=rng(k)) * 2 - 1 for k in (1, 2))
    slices = [volume.reshape(-1, 1, *size[-2:]) for volume in (a, b)]
    unlike = 1 - losses.ssim(*slices).reshape(2, -1).mean(1)
    (turn,) = method.turns({"a": a, "b": b}, rng())
    l1 = (a - b).abs().flatten(1).mean(1)
    torch.testing.assert_close(turn.loss.detach(), 10 * l1.mean() + 5 * unlike.mean())
    torch.testing.assert_close(method.validation({"a": a, "b": b}, rng()), l1 + 0.5 * unlike)


@pytest.mark.parametrize("size", [(32, 32), (8, 16, 16)])
def test_an_answer_that_is_mirrored_does_not_know_left_from_right(size: tuple[int, ...]) -> None:
    made = {}
    for mirror in (False, True):
        method = small(Pix2Pix, a=(1, *size), b=(1, *size), adversarial=0.0, levels=2, mirror=mirror).eval()
        images = torch.rand(2, 1, *size, generator=rng(3)) * 2 - 1
        with torch.no_grad():
            made[mirror], turned = (method.translate(x, "a2b") for x in (images, images.flip(-1)))
        assert torch.allclose(turned.flip(-1), made[mirror], atol=1e-5) == mirror
    assert not torch.allclose(made[True], made[False], atol=1e-3)


def test_validation_is_each_images_own_distance() -> None:
    method = small(Pix2Pix)
    method.generator = Scale(1.0)
    a = torch.stack([torch.zeros(GREY), torch.full(GREY, 0.5)])
    assert method.validation({"a": a, "b": flat(0.5)}, rng()).tolist() == pytest.approx([0.5, 0.0])


def test_registration_is_paid_for_by_its_roughness_and_spares_the_critic() -> None:
    method = small(Pix2Pix, registration=7.0, l1=3.0)
    moved = torch.zeros(2, 2, 32, 32)
    moved[:, 1] = 0.5 * torch.arange(32.0)
    method.generator, method.critic = Scale(1.0), Mean()
    method.registrar = nn.Module()
    method.registrar.forward = lambda made, fixed: moved  # type: ignore[method-assign]
    a, b = smooth(2), smooth(2, 1)
    _, generator = method.turns({"a": a, "b": b}, rng())
    distance = (warped(a, moved) - b).abs().mean()
    scores = a.mean(dim=(2, 3))
    wanted = 3 * distance + 7 * roughness(moved) + binary_cross_entropy_with_logits(scores, torch.ones_like(scores))
    torch.testing.assert_close(generator.loss.detach(), wanted)
    assert torch.equal(method.critic.shown[-1], torch.cat([a, a], 1))  # as it was made, not as it was moved


# --- contrast


def test_patches_that_know_their_places_cost_next_to_nothing() -> None:
    features = torch.eye(6, 16).expand(3, -1, -1)  # six places, at right angles to one another
    least = math.log(1 + 5 * math.exp(-1 / TEMPERATURE))
    assert float(patch_nce(features, features)) == pytest.approx(least, abs=1e-6)


def test_patches_that_tell_nothing_cost_the_logarithm_of_their_number() -> None:
    same = normalize(torch.ones(2, 40, 16), dim=-1)
    assert float(patch_nce(same, same)) == pytest.approx(math.log(40), rel=1e-5)


def test_identical_features_are_the_best_and_exchanged_ones_the_worst() -> None:
    features = normalize(torch.randn(2, 20, 16, generator=rng()), dim=-1)
    least = float(patch_nce(features, features))
    assert least < float(patch_nce(normalize(features + 0.3 * features.flip(1), dim=-1), features))
    assert float(patch_nce(features.flip(1), features)) > math.log(20)


def test_patches_are_contrasted_within_their_own_image() -> None:
    """The same features in every image of a batch are no rivals of one another."""
    features = torch.eye(6, 16)[None]
    alone, many = patch_nce(features, features), patch_nce(features.expand(9, -1, -1), features.expand(9, -1, -1))
    torch.testing.assert_close(alone, many)


def test_cut_weighs_contrast_against_the_critic() -> None:
    method = small(CUT, nce=3.0)
    method.critic = Mean()
    _, generator = method.turns({"a": smooth(2), "b": smooth(2, 1)}, rng())
    fooled = (method.critic.shown[-1].mean(dim=(1, 2, 3)) - 1).square().mean()
    assert float(generator.loss.detach()) == pytest.approx(float(fooled) + 3 * generator.metrics["nce"], rel=1e-4)
    assert generator.metrics["nce"] > 0


def test_cut_contrasts_the_same_places_for_the_same_generator_of_numbers() -> None:
    batch = {"a": smooth(2), "b": smooth(2, 1)}
    found = [[turn.metrics for turn in small(CUT).turns(batch, rng(seed))][1]["nce"] for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_no_gradient_reaches_the_source_of_a_contrast() -> None:
    """The translation is drawn to its source, the source's features are not drawn to the translation (eq. 3)."""
    method = small(CUT, identity=False)
    made, *seen = method.generator(smooth(1), method.taps)
    contrast = method._contrast(seen, made.detach().requires_grad_(), rng())
    assert all(slope is None for slope in torch.autograd.grad(contrast, seen, allow_unused=True))


def test_cut_that_corrects_begins_with_the_image_itself() -> None:
    method, images = small(CUT, residual=True), smooth(2)
    torch.testing.assert_close(method.translate(images, "a2b"), images)
    told = trained(method, 1e-3, lambda step: {"a": smooth(4, step), "b": 0.5 * smooth(4, -step)}, steps=5)
    assert len(told["nce"]) == 5 and not torch.equal(method.translate(images, "a2b"), images)
    bright = torch.ones(1, 1, 32, 32)
    method.generator.forward = lambda x: x + 0.5  # type: ignore[method-assign]
    assert torch.equal(method.translate(bright, "a2b"), bright)  # never brighter than the scale


# --- learning


def test_pix2pix_learns_to_invert() -> None:
    method = small(Pix2Pix, width=16)
    told = trained(method, 2e-3, lambda step: {"a": smooth(4, step), "b": -smooth(4, step)}, steps=60)
    assert told["l1"][-1] < 0.4 * told["l1"][0]
    new = smooth(8, seed=999)
    with torch.no_grad():
        assert float((method.translate(new, "a2b") + new).abs().mean()) < 0.4 * float(new.abs().mean())


@pytest.mark.parametrize("network", ["residual", "unet++"])
def test_strong_networks_learn_to_invert(network: str) -> None:
    method = small(Pix2Pix, network=network, adversarial=0.1)
    told = trained(method, 5e-3, lambda step: {"a": smooth(4, step), "b": -smooth(4, step)}, steps=60)
    assert sum(told["l1"][-10:]) < 0.5 * sum(told["l1"][:10])


def heaps(step: int) -> dict[str, Tensor]:
    """Dark blobs, and bright ones that belong to none of them."""
    a, b = (0.4 * smooth(4, 2 * step + k, side=24, details=6) for k in (0, 1))
    return {"a": a - 0.5, "b": b + 0.5}


@pytest.mark.parametrize(("cls", "key"), [(CycleGAN, "cycle"), (CUT, "nce")])
def test_heaps_become_alike_and_what_must_be_kept_is_kept(cls: type, key: str) -> None:
    method = small(cls, (1, 24, 24), (1, 24, 24))
    told = trained(method, 3e-3, heaps, steps=40)
    assert sum(told[key][-10:]) < 0.7 * sum(told[key][:10])
    assert sum(told["generator"][-10:]) < 0.7 * sum(told["generator"][:10])
    with torch.no_grad():
        a = heaps(999)["a"]
        made = method.translate(a, "a2b")
    assert float(made.mean()) > 0.1  # b lies around 0.5, a around -0.5
    alike = torch.corrcoef(torch.stack([a.flatten(), made.flatten()]))[0, 1]
    assert float(alike) > 0.5  # each is the translation of its own source


def displaced(step: int) -> dict[str, Tensor]:
    """b is -a, off by up to three pixels, each pair by its own."""
    wide = smooth(8, step, side=40, details=12)
    by = torch.randint(-3, 4, (8, 2), generator=rng(step))
    moved = [image[:, 4 + y : 36 + y, 4 + x : 36 + x] for image, (y, x) in zip(wide, by.tolist(), strict=True)]
    return {"a": wide[..., 4:36, 4:36], "b": -torch.stack(moved)}


@pytest.mark.slow
def test_registration_learns_sharper_images_of_pairs_that_are_off() -> None:
    errors = []
    for registration in (0.0, 10.0):
        method = small(Pix2Pix, network="residual", adversarial=0.0, registration=registration)
        trained(method, 2e-3, displaced, steps=250)
        new = displaced(9999)["a"]
        with torch.no_grad():
            errors.append(float((method.translate(new, "a2b") + new).abs().mean()))
    assert errors[1] < 0.9 * errors[0]  # a fifth lower here; the last digits depend on threads


# --- shapes


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 32, 32), (1, 32, 32)),  # 2.5-D
        ((1, 37, 51), (1, 37, 51)),
        ((1, 24, 32, 32), (1, 24, 32, 32)),
        ((1, 25, 30, 27), (4, 25, 30, 27)),
    ],
)
@pytest.mark.parametrize("network", ["unet", "residual", "unet++"])
def test_pix2pix_takes_slices_with_neighbours_and_volumes_of_any_size(
    network: str, a: tuple[int, ...], b: tuple[int, ...]
) -> None:
    method = small(Pix2Pix, a, b, network=network, width=4, registration=1.0 if network == "unet" else 0.0)
    images = {"a": torch.randn(1, *a, generator=rng()).clamp(-1, 1), "b": torch.zeros(1, *b)}
    for turn in method.turns(images, rng()):
        turn.loss.backward()
        assert math.isfinite(float(turn.loss.detach()))
    assert method.eval().translate(images["a"], "a2b").shape == (1, *b)


@pytest.mark.parametrize("cls", [CycleGAN, CUT])
def test_odd_sizes_come_back_in_their_size(cls: type) -> None:
    method = (
        small(cls, (1, 33, 46), (1, 33, 46), history=2) if cls is CycleGAN else small(cls, (1, 33, 46), (1, 33, 46))
    )
    batch = {"a": torch.zeros(1, 1, 33, 46), "b": torch.ones(1, 1, 33, 46)}
    assert all(math.isfinite(float(turn.loss.detach())) for turn in method.turns(batch, rng()))
    assert method.translate(batch["a"], "a2b").shape == (1, 1, 33, 46)


def test_without_identity_the_sides_may_have_other_channels() -> None:
    method = small(CycleGAN, (3, 32, 32), (1, 32, 32), identity=0.0)
    batch = {"a": torch.randn(2, 3, 32, 32, generator=rng()), "b": smooth(2)}
    assert len(list(method.turns(batch, rng()))) == 2
    assert method.translate(batch["b"], "b2a").shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("config", "size", "least"),
    [
        ({"network": "unet", "levels": 5}, 32, 1),  # no norm where one voxel is left
        ({"network": "residual", "levels": 5}, 64, 1),
        ({"network": "residual", "levels": 6}, 32, 2),
        ({"network": "unet++", "adversarial": 0.0}, 16, 2),
    ],
)
def test_a_single_image_is_enough_where_batch_norm_has_two_voxels(
    config: dict[str, Any], size: int, least: int
) -> None:
    method = small(Pix2Pix, (1, size, size), (1, size, size), **{"width": 4, **config})
    assert method.least_batch == least
    batch = {key: torch.randn(least, 1, size, size, generator=rng()) for key in ("a", "b")}
    assert all(math.isfinite(float(turn.loss.detach())) for turn in method.turns(batch, rng()))


# --- refusals


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("cyclegan-head", ["data.size=[32,32,32]"], "cyclegan sees slices; give data.size as [H, W], or take"),
        ("cut-head", ["data.size=[32,32,32]"], "method.name=pix2pix for volumes"),
        ("cyclegan-head", ["data.size=16"], "data.size is [16, 16]; the critic of cyclegan takes 24 or more"),
        ("cut-head", ["data.size=[64,20]"], "data.size is [64, 20]; the critic of cut takes 24 or more"),
        ("pix2pix-head", ["data.size=[8,32,32]"], "the critic of pix2pix takes 24 or more along each axis"),
        (
            "cyclegan-head",
            ["codec_b.kind=label", "codec_b.classes=3", "method.identity=0.5"],
            "the sides have 1 and 3 channels; set method.identity=0",
        ),
        ("cut-head", ["codec.kind=label", "codec.classes=3"], "the sides have 3 and 1 channels; cut has one encoder"),
        ("cut-head", ["data.context=1"], "the sides have 3 and 1 channels"),
        ("pix2pix-head", ["data.a="], "pix2pix translates; say from what to what by data.a and data.b"),
        ("cyclegan-head", ["data.b="], "cyclegan translates; say from what to what"),
        ("cut-head", ["data.b=T1"], "found 'T1' and 'T1'"),
        ("pix2pix-head", ["data.paired=false"], "pix2pix learns from pairs; set data.paired=true, or take"),
        ("cyclegan-head", ["data.context=1"], "cyclegan goes both ways, and data.context is for one; take"),
        ("cut-head", ["data.condition=label"], "cut takes no labels; set data.condition=''"),
        ("pix2pix-head", ["data.condition=label"], "pix2pix takes no labels"),
        ("pix2pix-head", ["method.network=unett"], "no network 'unett'; did you mean unet?"),
        ("pix2pix-head", ["method.l1=0", "method.adversarial=0"], "weights: 0 or more, and not all 0"),
        ("pix2pix-head", ["method.drifting=1", "data.size=[8,32,32]", "method.levels=3"], "set method.drifting=0"),
        ("pix2pix-head", ["method.registration=-1"], "weights: 0 or more"),
        ("pix2pix-head", ["method.levels=1"], "method.levels is 1; expected at least 2"),
        ("strong-head", ["method.levels=1"], "method.levels is 1; expected at least 2"),
        ("cyclegan-head", ["method.blocks=0"], "method.blocks is 0; expected at least 1"),
        ("dcgan-chest", ["data.a=T1", "data.b=CT"], "dcgan makes images of noise; leave data.a and data.b empty"),
    ],
)
def test_what_a_translator_cannot_do_is_one_line(recipe: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        build(load_recipe(recipe, overrides))
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_without_a_critic_volumes_may_be_thin() -> None:
    method = build(load_recipe("pix2pix-head", ["data.size=[8,32,32]", "method.adversarial=0", "method.levels=3"]))
    assert list(method.players) == ["generator"]


def test_pix2pix_draws_what_a_mask_leaves_open_from_noise() -> None:
    method = small(Pix2Pix, noise=2).eval()
    flat_mask = torch.zeros(2, *GREY)
    with torch.no_grad():
        found = method.translate(flat_mask, "a2b")
        assert torch.equal(found, method.translate(flat_mask, "a2b"))
        torch.testing.assert_close(method.translate(flat_mask[:1], "a2b"), found[:1])
        plain = small(Pix2Pix).eval().translate(flat_mask, "a2b")
    inner = (..., slice(8, 24), slice(8, 24))
    assert float(found[inner].std()) > 3 * float(plain[inner].std())
    shown: list[Tensor] = []
    method.generator.register_forward_hook(lambda net, given, made: shown.append(given[0]))
    for seed in (0, 0, 1):
        list(method.turns({"a": flat_mask, "b": flat_mask}, rng(seed)))
    assert torch.equal(shown[0], shown[1]) and not torch.equal(shown[1], shown[2])
    with pytest.raises(UsageError, match=r"method\.noise is -1"):
        small(Pix2Pix, noise=-1)
