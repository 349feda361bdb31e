"""The autoencoder: its losses are what they say, it learns, any size comes back, and latents have their scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import interpolate

from fabrica.errors import UsageError
from fabrica.methods.autoencoder import Autoencoder, at_random, kl
from fabrica.nets.losses import frequency_distance, ms_ssim
from fabrica.nets.patches import pixel_unshuffle
from fabrica.nets.perceptual import seen_otherwise
from fabrica.phantoms import chest

SMALL: dict[str, Any] = {"channels": [8, 16], "res_blocks": 1, "norm_groups": 8, "critic_width": 4, "pretrain": 0}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(shape: tuple[int, ...] = (1, 32, 32), **config: Any) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(Autoencoder.Config(**{**SMALL, **config}), shape)


def chests(n: int, side: int = 32) -> Tensor:
    return torch.stack([torch.from_numpy(chest(seed, side).image.data) for seed in range(n)]) / 2047.5 - 1


def test_the_divergence_is_that_of_a_known_gaussian() -> None:
    mean, log_variance = torch.randn(3, 2, 4, 5, generator=rng()), torch.randn(3, 2, 4, 5, generator=rng(1))
    known = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).flatten(1).sum(1)
    torch.testing.assert_close(kl(mean, log_variance), known)
    assert torch.equal(kl(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)), torch.zeros(2))


def test_the_distance_is_the_sum_of_its_weighted_terms() -> None:
    one, other = chests(4), chests(4).flip(0)
    found = small(l1=0.7, ms_ssim=0.2, frequency=0.3)._distance(one, other)
    l1 = (one - other).abs().mean((1, 2, 3))
    torch.testing.assert_close(found, 0.7 * l1 + 0.2 * (1 - ms_ssim(one, other)) + 0.3 * frequency_distance(one, other))
    volumes, others = (x.reshape(2, 2, 32, 32)[:, None] for x in (one, other))  # two volumes of two axial slices
    torch.testing.assert_close(
        small((1, 24, 32, 32), l1=0.7, ms_ssim=0.2, frequency=0.3)._distance(volumes, others),
        found.reshape(2, 2).mean(1),
    )


@pytest.mark.parametrize("size", [(40, 64), (24, 31), (30, 24, 47)])
@pytest.mark.parametrize("side", [0, 24, 37, 100])
def test_the_critic_sees_the_same_piece_of_real_and_made(size: tuple[int, ...], side: int) -> None:
    """Of the side that is asked for, as far as the image has it; at every place sooner or later, and all for 0."""
    method, images = small((1, *size), critic_side=side), torch.rand(2, 1, *size, generator=rng())
    seen: list[Tensor] = []
    method.critic.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    method.encoder, method.decoder = AsItIs(), Returned()  # type: ignore[assignment]
    touched = torch.zeros(size)
    for seed in range(60):
        list(method.turns({"image": images}, rng(seed)))
        pieces = seen[-1][:2]
        assert pieces.shape[2:] == tuple(min(side or each, each) for each in size)
        torch.testing.assert_close(seen[-1][2:], pieces, atol=1e-4, rtol=0)  # what was made here is what was given
        at = [slice(None)] * 2 + [
            slice(k, k + n) for k, n in zip(corner(images, pieces), pieces.shape[2:], strict=True)
        ]
        assert torch.equal(images[tuple(at)], pieces)
        touched[tuple(at[2:])] = 1
    assert touched.mean() > 0.9


@pytest.mark.parametrize("grid", [1, 8])
@pytest.mark.parametrize(("size", "side"), [((256, 256), 160), ((96, 200), 48), ((80, 64, 72), 40)])
def test_pieces_reach_the_corners(size: tuple[int, ...], side: int, grid: int) -> None:
    """Letters stand in corners, which pieces that lie inside hardly ever see."""
    seen = np.zeros(size)
    for seed in range(600):
        piece = at_random(size, side, rng(seed), grid)[2:]
        assert all(each.start % grid == 0 and 0 <= each.start <= n - side for each, n in zip(piece, size, strict=True))
        seen[piece] += 1 / 600
    for corner in np.ndindex(*[2] * len(size)):
        share = seen[tuple(-k for k in corner)]
        wanted = np.prod([(side / 2 + (1 if last else grid)) / (n + 1) for last, n in zip(corner, size, strict=True)])
        assert share == pytest.approx(wanted, abs=0.05)
    assert seen.max() < 1.01


class AsItIs(nn.Module):
    """Latents that are the images, of hardly any variance."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images, torch.full_like(images, -30.0)], 1)


class Returned(nn.Module):
    """Images that are the latents."""

    def forward(self, latents: Tensor) -> Tensor:
        return latents


def corner(images: Tensor, piece: Tensor) -> list[int]:
    """Where the piece's first value lies in the images; every value is another."""
    return [int(each[0]) for each in torch.nonzero(images[0, 0] == piece[0, 0].flatten()[0], as_tuple=True)]


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 24, 24, 24)])
def test_the_critic_begins_after_its_steps_and_each_player_moves_in_its_own_turn(shape: tuple[int, ...]) -> None:
    method, images = small(shape, pretrain=2, ms_ssim=0.1, frequency=0.1), torch.rand(2, *shape, generator=rng())
    for method.step, wanted in enumerate([["autoencoder"], ["autoencoder"], ["autoencoder", "critic"]]):
        moved = []
        for turn in method.turns({"image": images}, rng(method.step)):
            method.zero_grad()
            turn.loss.backward()
            names = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
            assert names == set(method.players[turn.player])
            moved.append(turn.player)
        assert moved == wanted
    assert "critic" not in small(adversarial=0.0, features=0.0).players


def test_chests_are_learned_by_heart_and_latents_have_their_scale() -> None:
    images = chests(8)
    method = small(channels=[16, 32], adversarial=0.0, features=0.0, patch=2)
    optimiser = torch.optim.Adam(method.parameters(), 5e-3)
    for step in range(150):
        (turn,) = method.turns({"image": images}, rng(step))
        optimiser.zero_grad()
        turn.loss.backward()
        optimiser.step()
    method.eval()
    with torch.no_grad():
        error = method.validation({"image": images}, rng())
        before = method.decode(method.encode(images))
        method.measure(images.split(3))
        latents = method.encode(images)
        after = method.decode(latents)
    spread = (images - images.mean()).abs().mean()
    assert float(error.max()) < 0.35 * float(spread)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(3), atol=1e-2, rtol=0)
    assert latents.shape == (8, *method.latent_shape) == (8, 3, 8, 8)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=0)  # the scale is taken back


@pytest.mark.parametrize(
    ("size", "config"),
    [
        ((97, 66), {"channels": [8, 8, 16]}),
        ((33, 47), {"patch": 2}),
        ((31, 40), {"attention": True}),
        ((9, 33, 26), {}),
    ],
)
def test_any_size_comes_back_in_its_size(size: tuple[int, ...], config: dict[str, Any]) -> None:
    method = small((2, *(24,) * len(size)), **config).eval()
    images = torch.rand(2, 2, *size, generator=rng()) * 2 - 1
    with torch.no_grad():
        latents = method.encode(images)
        made = method.decode(latents, size)
    assert latents.shape == (2, 3, *(-(-side // method.factor) for side in size))
    assert made.shape == images.shape and float(made.abs().max()) <= 1 and float(made.std()) > 0
    with pytest.raises(UsageError, match="give the size of what was encoded"):
        method.decode(latents)


@pytest.mark.parametrize("dims", [2, 3])
def test_with_the_shortcut_it_starts_as_means_of_blocks(dims: int) -> None:
    kept, latent_channels = {2: (2, 5), 3: (1, 4)}[dims]
    method = small((1, *(24,) * dims), patch=2, latent_channels=latent_channels, shortcut=True)
    assert method.encoder.past == (1, 4, kept)
    blocks = torch.rand(2, 1, *(6 * kept,) * dims, generator=rng()) * 2 - 1
    images = blocks
    for axis in range(2, 2 + dims):
        images = images.repeat_interleave(4 // kept, dim=axis)
    with torch.no_grad():
        latents = method.encode(images)
        made = method.decode(latents)
    torch.testing.assert_close(latents[:, : kept**dims], pixel_unshuffle(blocks, kept))
    assert not latents[:, kept**dims :].any()
    mode = "bilinear" if dims == 2 else "trilinear"
    torch.testing.assert_close(made, interpolate(blocks, scale_factor=4 // kept, mode=mode))
    moved = next(method.turns({"image": images}, rng())).loss
    moved.backward()  # and what is silent at first learns
    assert method.encoder.means.conv.weight.grad.any()
    assert method.decoder.layers.blocks[-1].conv.weight.grad.any()


def test_at_work_there_is_no_noise() -> None:
    method, images = small().eval(), chests(2)
    with torch.no_grad():
        assert torch.equal(method.encode(images), method.encode(images))


def scripted(path: Path, network: nn.Module) -> str:
    with pytest.warns(DeprecationWarning):
        torch.jit.script(network).save(str(path))  # type: ignore[no-untyped-call]
    return str(path)


@pytest.mark.parametrize(
    ("shape", "network"),
    [
        ((1, 32, 32), nn.Conv2d(1, 4, 3)),
        ((1, 32, 32), nn.Conv2d(3, 4, 3)),  # of photographs: sees grey three times
        ((1, 8, 32, 24), nn.Conv2d(3, 4, 3)),  # planes across an axis drawn at random
        ((1, 8, 32, 24), nn.Conv3d(1, 4, 3)),  # volumes as they are
    ],
)
def test_a_network_file_sees_in_the_critics_place(shape: tuple[int, ...], network: nn.Module, tmp_path: Path) -> None:
    only = {"adversarial": 0.0, "kl": 0.0, "network": scripted(tmp_path / "seer.pt", network)}
    images = torch.rand(2, *shape, generator=rng())
    plain, seeing = (
        next(small(shape, **only, features=weight).turns({"image": images}, rng())).loss for weight in (0.0, 1.0)
    )
    assert float((seeing - plain).detach()) > 0


def test_what_a_network_file_sees_is_the_squared_distance_of_its_features(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    file = scripted(tmp_path / "seer.pt", network)
    made, wanted = torch.rand(2, 2, 1, 6, 7, 8, generator=rng())
    for axis in range(3):
        planes = [x.movedim(2 + axis, 1).flatten(0, 1).repeat(1, 3, 1, 1) for x in (made, wanted)]
        expected = (network(planes[0]) - network(planes[1])).square().mean()
        torch.testing.assert_close(seen_otherwise(file, made, wanted, axis), expected)
    deep = scripted(tmp_path / "deep.pt", nn.Conv3d(1, 4, 3))
    for one, images, message in (
        (deep, torch.zeros(1, 1, 9, 9), "takes 3-D images of 1 channels; found 2-D ones of 1"),
        (file, torch.zeros(1, 2, 9, 9), "takes 2-D images of 3 channels; found 2-D ones of 2"),
        (file, torch.zeros(1, 1, 2, 2), "cannot see images"),
    ):
        with pytest.raises(UsageError, match=message) as refused:
            seen_otherwise(one, images, images)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("shape", "config", "message"),
    [
        ((1, 32, 32), {"channels": [8, 20]}, "each must be a multiple of method.norm_groups, 8: take e.g. "),
        ((1, 32, 32), {"channels": []}, "are counts: 1 or more"),
        ((1, 32, 32), {"latent_channels": 0}, "are counts: 1 or more"),
        ((1, 32, 32), {"kl": -1.0}, "are weights: 0 or more"),
        ((1, 32, 32), {"l1": 0.0}, "one of the first three above 0"),
        ((1, 32, 32), {"adversarial": 0.0}, "set method.features=0, or method.network"),
        ((1, 32, 32), {"detail": True}, "set method.adversarial=0 method.features=0, or method.detail=false"),
        ((1, 32, 32), {"critic_side": 16}, "method.critic_side is 16; the critic takes 24 or more"),
        ((1, 32, 32), {"critic_side": -1}, "the critic takes 24 or more, 0: all"),
        ((1, 16, 32), {}, "the critic of autoencoder takes 24 or more"),
        ((1, 6, 32, 32), {}, "leaves [3, 16, 16] voxels of latents; it needs 4 a side"),
    ],
)
def test_wrong_settings_are_one_line(shape: tuple[int, ...], config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        small(shape, **config)
    assert message in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(UsageError, match="takes no labels"):
        Autoencoder(Autoencoder.Config(**SMALL), (1, 32, 32), classes=2)
