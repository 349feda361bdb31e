"""Detail: what latents do not hold is learned, and drawn anew from seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fabrica.errors import UsageError
from fabrica.methods.autoencoder import TURNS, Autoencoder
from fabrica.metrics.spectrum import power_kept
from fabrica.nets import slabs
from fabrica.nets.detail import Detail, Velocity, adams_bashforth


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=rng(seed))


class Gaussian(nn.Module):
    """The velocity where what is left over is Gaussian of this spread, as a multiple of its scale: exact."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.spread = spread

    def forward(self, u: Tensor, images: Tensor, scale: Tensor, t: Tensor) -> Tensor:
        t, s = t.view(-1, 1, 1, 1), self.spread
        return u * (t * s**2 - (1 - t)) / ((1 - t) ** 2 + (t * s) ** 2)


@pytest.mark.parametrize(
    ("spread", "off"),
    [(0.1, 0.15), (0.15, 0.06), (0.3, 0.006), (0.5, 0.006), (0.7, 0.006), (1.0, 0.006), (1.4, 0.006), (2.0, 0.006)],
)
@pytest.mark.parametrize("size", [(32, 32), (24, 44)])
def test_the_steps_end_where_the_flow_does(spread: float, off: float, size: tuple[int, int]) -> None:
    """That of a Gaussian takes noise to noise times its spread; strength is of place, and images are added to. A small
    spread is the finest detail's, which coarser steps make too weak."""
    detail = Detail(2, 4)
    detail.velocity = Gaussian(spread)  # type: ignore[assignment]
    scale = torch.linspace(0.01, 0.09, size[1]).expand(1, 2, *size)
    images, given = noise(1, 2, *size, seed=1), noise(1, 2 * 16, size[0] // 4, size[1] // 4)
    found = detail(images, scale.log() - Detail.FAINT, given)
    white = (found - images) / scale / spread
    wanted = torch.nn.functional.pixel_shuffle(given, 4)
    assert float((white - wanted).abs().max()) < off * float(wanted.abs().max())


@pytest.mark.parametrize("times", [[0.0], [0.2, 0.3], [0.0, 0.1, 0.3], [-0.4, 0.0, 0.1, 0.15]])
@pytest.mark.parametrize("step", [0.1, 0.7])
def test_a_step_is_exact_for_velocities_of_as_high_a_degree_as_it_looks_back_on(
    times: list[float], step: float
) -> None:
    weights, then = adams_bashforth(times, times[-1] + step), times[-1] + step
    for degree in range(len(times)):
        wanted = (then ** (degree + 1) - times[-1] ** (degree + 1)) / (degree + 1)
        assert sum(w * t**degree for w, t in zip(weights, times, strict=True)) == pytest.approx(wanted, abs=1e-9)


def test_untrained_it_is_noise_as_strong_as_its_scale() -> None:
    torch.manual_seed(0)
    detail, strength = Detail(1, 2), torch.full((4, 1, 32, 32), np.log(0.05) - Detail.FAINT)
    with torch.no_grad():
        found = detail(torch.zeros(4, 1, 32, 32), strength, noise(4, 4, 16, 16))
    assert float(found.std()) == pytest.approx(0.05, rel=0.05)


def test_what_it_draws_at_a_place_hangs_on_what_lies_around_alone() -> None:
    torch.manual_seed(0)
    net = Velocity(1)
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.1)
    u, images = noise(1, 1, 128, 128), noise(1, 1, 128, 128, seed=1)
    scale, t = noise(1, 1, 128, 128, seed=2).exp(), torch.tensor([0.3])
    part = (..., slice(32, 128), slice(24, 128))
    with torch.no_grad():
        whole, apart = net(u, images, scale, t), net(u[part], images[part], scale[part], t)
    inside = (..., slice(64, 96), slice(64, 104))  # away from the borders that were cut
    torch.testing.assert_close(whole[part][inside], apart[inside], atol=1e-4, rtol=1e-4)
    assert float((whole[part] - apart).abs().max()) > 1e-3


@pytest.mark.parametrize("spread", [0.003, 0.02, 0.09])
def test_the_surprise_is_smallest_where_the_scale_is_the_spread(spread: float) -> None:
    detail, left_over = Detail(1, 2), spread * noise(1, 1, 64, 64)
    tried = torch.linspace(np.log(spread) - 0.1, np.log(spread) + 0.1, 81) - Detail.FAINT
    found = [float(detail.surprise(each.expand(1, 1, 64, 64), left_over).mean()) for each in tried]
    best = float(tried[int(np.argmin(found))]) + Detail.FAINT
    assert np.exp(best) == pytest.approx(float(left_over.square().mean().sqrt()), rel=0.03)


def dots(n: int, side: int = 32) -> Tensor:
    """What no Gaussian is: squares of two pixels, one in sixteen white or black, mean 0 and standard deviation 1."""
    values = noise(n, 1, side // 2, side // 2, seed=3).sign() * 4
    kept = torch.rand(values.shape, generator=rng(4)) < 1 / 16
    return (values * kept).repeat_interleave(2, 2).repeat_interleave(2, 3)


def kurtosis(x: Tensor) -> float:
    return float(x.pow(4).mean() / x.square().mean() ** 2)


def test_it_learns_what_no_noise_of_a_spectrum_is() -> None:
    torch.manual_seed(0)
    detail, left_over = Detail(1, 2), 0.05 * dots(256)
    optimiser = torch.optim.Adam(detail.parameters(), 3e-3)
    strength = torch.full((16, 1, 32, 32), np.log(0.05) - Detail.FAINT)
    for step in range(300):
        part = left_over[torch.randint(256, (16,), generator=rng(step))]
        optimiser.zero_grad()
        detail.loss(part, torch.zeros_like(part), strength, rng(step)).backward()
        optimiser.step()
    with torch.no_grad():
        drawn = detail(torch.zeros(64, 1, 32, 32), strength[:1].expand(64, -1, -1, -1), noise(64, 4, 16, 16))
    assert kurtosis(left_over) > 14 and kurtosis(drawn) > 8  # a Gaussian's is 3
    assert float(drawn.std()) == pytest.approx(0.05, rel=0.15)
    within, across = (drawn[..., k:-1:2] - drawn[..., k + 1 :: 2][..., : drawn[..., k:-1:2].shape[-1]] for k in (0, 1))
    assert float(within.square().mean()) < 0.3 * float(across.square().mean())  # it knows where squares are


def textured(n: int, side: int = 32) -> Tensor:
    """Smooth images, each brighter to one side, with texture that is strong in the left half and weak in the right."""
    ramp = torch.linspace(-0.5, 0.5, side).expand(n, 1, side, side) * torch.randn(n, 1, 1, 1, generator=rng(5)).sign()
    strength = torch.where(torch.arange(side) < side // 2, 0.09, 0.01)
    return ramp + strength * noise(n, 1, side, side, seed=6)


def test_an_autoencoder_learns_how_strong_detail_is_and_where() -> None:
    torch.manual_seed(0)
    config = {"channels": [16, 16], "res_blocks": 1, "norm_groups": 4, "latent_channels": 1, "patch": 2}
    off = {"adversarial": 0.0, "features": 0.0}
    method = Autoencoder(Autoencoder.Config(**config, **off, shortcut=True, detail=True), (1, 32, 32))  # type: ignore[arg-type]
    images = textured(64)
    optimiser = torch.optim.Adam(method.parameters(), 3e-3)
    for step in range(200):
        turns = method.turns({"image": images[torch.randint(64, (16,), generator=rng(step))]}, rng(step))
        players = []
        for turn in turns:
            optimiser.zero_grad()
            turn.loss.backward()
            optimiser.step()
            players.append(turn.player)
        assert players == ["autoencoder", *["detail"] * TURNS]
    method.eval()
    with torch.no_grad():
        method.measure(images.split(16))
        latents = method.encode(images)
        plain = method.decode(latents)
        detailed = method.decode(latents, noise=noise(64, *method.noise_shape, seed=7))
    assert method.noise_shape == (16, 8, 8)
    added = (detailed - plain)[..., 4:-4]
    left, right = (float(half.std()) for half in added.chunk(2, dim=-1))
    assert 0.05 < left < 0.12 and right < 0.03
    fine = [power_kept(each.numpy(), images.numpy())[1][-3:].mean() for each in (plain, detailed)]
    assert fine[0] < 0.5 and 0.7 < fine[1] < 1.4


@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_noise_is_what_there_is_to_draw_and_without_it_nothing_is(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    config = Autoencoder.Config([8, 16], norm_groups=4, res_blocks=1, adversarial=0.0, features=0.0, detail=True)
    method, images = Autoencoder(config, (2, 32, 32)).eval(), torch.rand(2, 2, *size, generator=rng()) * 2 - 1
    with torch.no_grad():
        latents = method.encode(images)
        shape = (2, *method.noise_shape[:1], *latents.shape[2:])
        one, again, other, none = (
            method.decode(latents, size, given) for given in (noise(*shape), noise(*shape), noise(*shape, seed=1), None)
        )
    assert one.shape == images.shape and torch.equal(one, again)
    assert not torch.equal(one, other) and not torch.equal(one, none)


@pytest.mark.parametrize(("most", "counts"), [(1, [1] * 5), (70_000, [2, 2, 1])])
def test_many_images_are_drawn_a_few_at_a_time(most: int, counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = Autoencoder.Config([8, 16], norm_groups=4, res_blocks=1, adversarial=0.0, features=0.0, detail=True)
    method = Autoencoder(config, (1, 32, 32)).eval()
    nn.init.normal_(method.detail.velocity.leave.weight, std=0.1)
    latents, given = noise(5, *method.latent_shape), noise(5, *method.noise_shape, seed=1)
    with torch.no_grad():
        whole = method.decode(latents, noise=given)
        asked: list[int] = []
        method.detail.register_forward_pre_hook(lambda module, inputs: asked.append(len(inputs[0])))
        monkeypatch.setitem(slabs.LARGE, "cpu", most)
        parts = method.decode(latents, noise=given)
    assert asked == counts
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (37, 29)])
def test_it_learns_of_images_of_any_size(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    config = Autoencoder.Config([8, 16], norm_groups=4, res_blocks=1, adversarial=0.0, features=0.0, detail=True)
    method = Autoencoder(config, (1, *size))
    turns = list(method.turns({"image": torch.rand(2, 1, *size, generator=rng()) * 2 - 1}, rng()))
    turns[-1].loss.backward()
    told = [weight.grad is not None for weight in method.detail.parameters()]
    assert any(told) and not any(weight.grad is not None for weight in method.encoder.parameters())


def test_detail_is_refused_for_volumes() -> None:
    with pytest.raises(UsageError) as refused:
        Autoencoder(Autoencoder.Config([8, 16], norm_groups=4, adversarial=0, features=0, detail=True), (1, 32, 32, 32))
    assert "set method.detail=false for volumes" in str(refused.value)
