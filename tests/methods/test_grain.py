"""Grain: the spectrum and the strength of what latents do not hold are found, and drawn anew from seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from fabrica.errors import UsageError
from fabrica.methods.autoencoder import Autoencoder
from fabrica.metrics.spectrum import power_kept
from fabrica.nets.autoencoder import Grain


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, kernel: Tensor | None = None, seed: int = 0) -> Tensor:
    """White, or of the spectrum of a kernel, of standard deviation 1."""
    white = torch.randn(shape, generator=rng(seed))
    if kernel is None:
        return white
    found = conv2d(white.flatten(0, 1)[:, None], kernel[None, None] / kernel.norm(), padding="same")
    return found.view(shape)


KERNELS = {
    "white": torch.tensor([[1.0]]),
    "smooth": torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]),
    "fine": torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]),
    "along one axis": torch.tensor([[1.0, 1, 1]]),
}


@pytest.mark.parametrize("kind", list(KERNELS))
@pytest.mark.parametrize("factor", [2, 8])
def test_what_is_drawn_has_the_spectrum_and_the_strength_that_was_measured(kind: str, factor: int) -> None:
    """Strength as a multiple of what the decoder gives: it learned of uncertain latents."""
    grain, left_over = Grain(factor), noise(40, 1, 64, 64, kernel=KERNELS[kind])
    grain.measure((0.7 * left_over).split(16))
    strength = torch.full((40, 1, 64, 64), np.log(0.05) - Grain.FAINT)
    side = 64 // factor
    made = grain(strength, noise(40, factor**2, side, side, seed=1)) / (0.7 * 0.05)
    assert float(made.std()) == pytest.approx(1, abs=0.02)
    _, ratios = power_kept(made.numpy(), left_over.numpy())
    share = power_kept(left_over.numpy(), noise(40, 1, 64, 64).numpy())[1]  # where there is hardly any, none counts
    np.testing.assert_allclose(ratios[2:][share[2:] > 0.2], 1, atol=0.2)  # the first rings hold few frequencies
    along, across = (float((made * made.roll(1, axis)).mean()) for axis in (-1, -2))
    known = tuple(float((left_over * left_over.roll(1, axis)).mean()) for axis in (-1, -2))
    assert (along, across) == pytest.approx(known, abs=0.06)


@pytest.mark.parametrize("lowest", [0.15, 0.25, 0.35])
def test_a_spectrum_that_begins_where_latents_end_is_not_blurred(lowest: float) -> None:
    """Nothing below, as much everywhere above: what lies next to the edge keeps four fifths of its power."""
    white = torch.fft.fft2(noise(60, 1, 96, 96))
    along = torch.fft.fftfreq(96).abs()
    inside = torch.maximum(along[:, None], along) >= lowest / 2  # of squares, as means of blocks are
    left_over = torch.fft.ifft2(white * inside).real
    grain = Grain(4)
    grain.measure(left_over.split(20))
    strength = torch.full((60, 1, 96, 96), np.log(0.05) - Grain.FAINT)
    made = grain(strength, noise(60, 16, 24, 24, seed=1)) / 0.05
    found, wanted = (torch.fft.fft2(each).abs().square().mean((0, 1)) for each in (made, left_over))
    near = inside & (torch.maximum(along[:, None], along) < lowest / 2 + 0.05)
    far = torch.maximum(along[:, None], along) < lowest / 2 - 0.05
    assert float(found[near].mean() / wanted[near].mean()) > 0.8
    assert float(found[far].mean() / wanted[near].mean()) < 0.03


@pytest.mark.parametrize("spread", [0.003, 0.02, 0.09])
def test_the_surprise_is_smallest_where_the_strength_is_the_spread(spread: float) -> None:
    grain, left_over = Grain(2), spread * noise(1, 1, 64, 64)
    tried = torch.linspace(np.log(spread) - 0.1, np.log(spread) + 0.1, 81) - Grain.FAINT
    found = [float(grain.surprise(each.expand(1, 1, 64, 64), left_over).mean()) for each in tried]
    best = float(tried[int(np.argmin(found))]) + Grain.FAINT
    assert np.exp(best) == pytest.approx(float(left_over.square().mean().sqrt()), rel=0.03)


def textured(n: int, side: int = 32) -> Tensor:
    """Smooth images, each brighter to one side, with grain that is strong in the left half and weak in the right."""
    ramp = torch.linspace(-0.5, 0.5, side).expand(n, 1, side, side) * torch.randn(n, 1, 1, 1, generator=rng(5)).sign()
    strength = torch.where(torch.arange(side) < side // 2, 0.09, 0.01)
    return ramp + strength * noise(n, 1, side, side, seed=6)


def test_an_autoencoder_learns_how_strong_grain_is_and_where() -> None:
    torch.manual_seed(0)
    config = {"channels": [16, 16], "res_blocks": 1, "norm_groups": 4, "latent_channels": 1, "patch": 2}
    off = {"adversarial": 0.0, "features": 0.0}
    method = Autoencoder(Autoencoder.Config(**config, **off, shortcut=True, grain=True), (1, 32, 32))  # type: ignore[arg-type]
    images = textured(64)
    optimiser = torch.optim.Adam(method.parameters(), 3e-3)
    for step in range(250):
        (turn,) = method.turns({"image": images[torch.randint(64, (16,), generator=rng(step))]}, rng(step))
        optimiser.zero_grad()
        turn.loss.backward()
        optimiser.step()
    method.eval()
    with torch.no_grad():
        method.measure(images.split(16))
        latents = method.encode(images)
        plain = method.decode(latents)
        grainy = method.decode(latents, noise=noise(64, *method.noise_shape, seed=7))
    assert method.noise_shape == (16, 8, 8)
    added = (grainy - plain)[..., 4:-4]
    left, right = (float(half.std()) for half in added.chunk(2, dim=-1))
    assert 0.05 < left < 0.12 and right < 0.03
    fine = [power_kept(each.numpy(), images.numpy())[1][-3:].mean() for each in (plain, grainy)]
    assert fine[0] < 0.5 and 0.7 < fine[1] < 1.4


@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_noise_is_what_there_is_to_draw_and_without_it_nothing_is(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    config = Autoencoder.Config([8, 16], norm_groups=4, res_blocks=1, adversarial=0.0, features=0.0, grain=True)
    method, images = Autoencoder(config, (2, 32, 32)).eval(), torch.rand(2, 2, *size, generator=rng()) * 2 - 1
    with torch.no_grad():
        latents = method.encode(images)
        shape = (2, *method.noise_shape[:1], *latents.shape[2:])
        one, again, other, none = (
            method.decode(latents, size, given) for given in (noise(*shape), noise(*shape), noise(*shape, seed=1), None)
        )
    assert one.shape == images.shape and torch.equal(one, again)
    assert not torch.equal(one, other) and not torch.equal(one, none)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 32, 32, 32), "set method.grain=false for volumes"), ((1, 32, 24), "takes 31 pixels or more along each axis")],
)
def test_grain_is_refused_for_what_it_is_not_of(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        Autoencoder(Autoencoder.Config([8, 16], norm_groups=4, adversarial=0, features=0, grain=True), shape)
    assert message in str(refused.value)
