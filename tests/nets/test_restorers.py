"""Networks of restoration take any size, see as far as they say, can learn, and are the same without their norms."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from fabrica.errors import UsageError
from fabrica.nets import nafnet
from fabrica.nets.framing import middle_of
from fabrica.nets.fusing import fused
from fabrica.nets.nafnet import SIZES, NAFNet
from fabrica.nets.redcnn import REDCNN
from fabrica.nets.srresnet import SRCritic, SRResNet
from fabrica.nets.unetpp import UNetPlusPlus

Maker = Callable[[int, int], nn.Module]
CORRECTING: dict[str, Maker] = {
    "nafnet": lambda c, c2: NAFNet(c, c2, size="tiny"),
    "nafnet of twos": lambda c, c2: NAFNet(c, c2, size="tiny", unshuffle=2),
    "redcnn": lambda c, c2: REDCNN(c, c2, width=16),
    "unet++": lambda c, c2: UNetPlusPlus(c, c2, width=4),
    "resnet34": lambda c, c2: UNetPlusPlus(c, c2, width=4, encoder="resnet34"),
}
FINER: dict[str, Maker] = {
    "twice": lambda c, _: SRResNet(c, 2, width=16, blocks=2),
    "four times": lambda c, _: SRResNet(c, 4, width=16, blocks=2),
}
ALL = {**CORRECTING, **FINER}


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def stirred(net: nn.Module) -> nn.Module:
    """Weights and statistics that no layer starts with: what is zero hides faults."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=rng))
        net.train()
        for _ in range(3):
            net(torch.rand(2, 1, 64, 64, generator=rng) + 0.3)
    return net.eval()


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (7, 90)])
@pytest.mark.parametrize("kind", ALL)
def test_any_size_comes_back_in_its_size(kind: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    channels = 2 if kind in CORRECTING else 1
    with torch.no_grad():
        found = ALL[kind](channels, 1).eval()(noise(2, channels, *size))
    assert found.shape == (2, 1, *size) and torch.isfinite(found).all()


@pytest.mark.parametrize("kind", ALL)
def test_gradients_reach_every_weight(kind: str) -> None:
    torch.manual_seed(0)
    net = stirred(ALL[kind](1, 1)).train()
    (net(noise(2, 1, 64, 60)) - 1).square().mean().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None and float(weight.grad.abs().max()) > 0, name


@pytest.mark.parametrize("kind", ALL)
def test_without_norms_it_is_the_same(kind: str) -> None:
    torch.manual_seed(0)
    net = stirred(ALL[kind](1, 1))
    light, images = fused(copy.deepcopy(net)), noise(1, 1, 64, 52)
    kept = [type(layer).__name__ for layer in light.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert not kept
    with torch.no_grad():
        made, again = net(images), light(images)
    assert float(made.std()) > 0.1
    torch.testing.assert_close(made, again, rtol=1e-5, atol=1e-5)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules()) or kind == "redcnn"  # there was one


def test_a_norm_before_a_convolution_that_pads_stays() -> None:
    """It would have moved the zeros of the border."""
    net = stirred(nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3, padding=1)))
    light = fused(copy.deepcopy(net))
    assert isinstance(light[0], nn.BatchNorm2d)
    torch.testing.assert_close(light(noise(1, 1, 8, 8)), net(noise(1, 1, 8, 8)))


@pytest.mark.parametrize("kind", CORRECTING)
def test_the_middle_slice_is_corrected(kind: str) -> None:
    torch.manual_seed(0)
    net = CORRECTING[kind](3, 1).eval()
    images = noise(1, 3, 48, 48)
    for name, weight in net.named_parameters():  # a network that corrects nothing
        if any(name.startswith(last) for last in ("leave", "decode.4", "heads")):
            nn.init.zeros_(weight)
    assert torch.equal(middle_of(images, images[:, :1]), images[:, 1:2])
    with torch.no_grad():
        torch.testing.assert_close(net(images), images[:, 1:2])


@pytest.mark.parametrize("kind", CORRECTING)
def test_more_channels_than_seen_are_refused(kind: str) -> None:
    with pytest.raises(UsageError, match="pix2pix"):
        CORRECTING[kind](1, 2)


def test_nafnet_starts_as_the_image_itself() -> None:
    images = noise(1, 1, 40, 40)
    assert torch.equal(NAFNet(1, 1, "tiny")(images), images)


@pytest.mark.parametrize(("size", "unshuffle"), [("tiny", 4), ("tiny", 2), ("small", 2)])
def test_a_window_shows_no_seam(size: str, unshuffle: int) -> None:
    """Beyond its reach a window's result is that of the whole image, bit by bit but for rounding."""
    torch.manual_seed(0)
    net = stirred(NAFNet(1, 1, size, unshuffle))
    assert isinstance(net, NAFNet)
    reach, step = net.reach, net.stride
    side = 2 * step * (reach // step + 1) + 2 * step
    images = noise(1, 1, side, side + 3 * step)
    with torch.no_grad():
        whole, part = net(images), net(images[..., 2 * step :])
    assert not torch.allclose(whole[..., 2 * step :][..., :step], part[..., :step], atol=1e-4)
    torch.testing.assert_close(whole[..., 2 * step :][..., reach:], part[..., reach:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_what_nafnet_has_never_seen_does_not_blow_up(size: str) -> None:
    """A white letter on black, for a network that has seen hardly any contrast."""
    net = NAFNet(1, 1, size=size, unshuffle=2)
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            if name.endswith("running_var"):
                buffer.fill_(1e-4)
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    image = torch.full((1, 1, 64, 64), -1.0)
    image[..., 20:40, 28:32] = 1.0
    for given in (image, 1000 * image, noise(1, 1, 64, 64)):
        with torch.inference_mode():
            assert bool(net.eval()(given).isfinite().all())


def test_nafnet_sees_no_further_than_it_says() -> None:
    torch.manual_seed(0)
    net = stirred(NAFNet(1, 1, "tiny"))
    assert isinstance(net, NAFNet)
    image = noise(1, 1, 320, 320).requires_grad_()
    seen = []
    for k in range(160, 160 + net.stride, 5):
        (slope,) = torch.autograd.grad(net(image)[0, 0, k, k], image)
        touched = slope[0, 0].abs().sum(1).nonzero().flatten()
        seen.append(max(k - int(touched.min()), int(touched.max()) - k))
    assert 0.7 * net.reach < max(seen) <= net.reach


def test_red_cnn_sees_forty_one_pixels() -> None:
    """Ten convolutions of side 5: two pixels more on each side of every one."""
    torch.manual_seed(0)
    image = noise(1, 1, 64, 64).requires_grad_()
    stirred(REDCNN(1, 1, width=8))(image)[0, 0, 32, 32].backward()
    assert image.grad is not None
    touched = image.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert (int(touched.min()), int(touched.max())) == (12, 52)


def test_depths_are_supervised_in_training_alone() -> None:
    torch.manual_seed(0)
    net = UNetPlusPlus(1, 1, width=4, supervised=True)
    images = noise(2, 1, 37, 40)
    depths = net(images)
    assert [one.shape for one in depths] == [images.shape] * 4
    sum((one - 1).square().mean() for one in depths).backward()
    assert all(weight.grad is not None for weight in net.parameters())
    net.eval()
    with torch.no_grad():
        for name in ("0_1", "0_2", "0_3"):  # the answer is the deepest one
            nn.init.zeros_(net.heads[name[-1]].weight)
        assert net(images).shape == images.shape
        assert len(UNetPlusPlus(1, 1, width=4).heads) == 1


def test_the_encoder_has_the_blocks_of_resnet34() -> None:
    net = UNetPlusPlus(1, 1, width=32, encoder="resnet34")
    assert [len(stage) for stage in net.encode][1:] == [3, 4, 6, 3]
    assert [stage[0].layers[0].out_channels for stage in list(net.encode)[1:]] == [64, 128, 256, 512]


def test_unetpp_takes_volumes() -> None:
    assert UNetPlusPlus(1, 1, width=2, dims=3)(noise(2, 1, 18, 20, 24)).shape == (2, 1, 18, 20, 24)


@pytest.mark.parametrize("scale", [2, 4])
def test_only_one_pixel_of_each_square_is_looked_at(scale: int) -> None:
    torch.manual_seed(0)
    net = SRResNet(1, scale, width=8, blocks=1).eval()
    low = noise(1, 1, 12, 11)
    fine = low.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    other = fine.clone()
    other[..., 1::scale, :] = 1
    with torch.no_grad():
        assert net(fine).shape == fine.shape and torch.equal(net(fine), net(other))


def test_doubled_resolution_starts_without_a_checkerboard() -> None:
    torch.manual_seed(0)
    net = SRResNet(1, 4, width=8, blocks=1).eval()
    with torch.no_grad():
        fine = net.leave[:-1](noise(1, 8, 10, 10))
    fine = fine[..., 4:-4, 4:-4]
    squares = fine.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    torch.testing.assert_close(squares, squares[..., :1].expand_as(squares), rtol=0, atol=1e-6)
    assert float(fine.std()) > 0


def test_the_critic_takes_crops_of_any_size_from_32() -> None:
    torch.manual_seed(0)
    critic = SRCritic(1, width=8)
    for size in ((32, 32), (45, 70)):
        images = noise(3, 1, *size)
        _, *found = critic(images, features=True)
        assert critic(images).shape == (3,) and [one.shape[1] for one in found] == [8, 8, 16, 16, 32, 32, 64, 64]
        assert found[-1].shape[2:] == (-(-size[0] // 16), -(-size[1] // 16))
    with pytest.raises(UsageError, match="32 or more"):
        critic(noise(1, 1, 31, 40))


def test_the_critic_learns_to_tell_sharp_from_blurred() -> None:
    torch.manual_seed(0)
    critic = SRCritic(1, width=8)
    optimiser = torch.optim.Adam(critic.parameters(), 2e-3)
    sharp = noise(8, 1, 32, 32)
    blurred = nn.functional.interpolate(nn.functional.avg_pool2d(sharp, 2), scale_factor=2)
    for _ in range(25):
        loss = nn.functional.softplus(-critic(sharp)).mean() + nn.functional.softplus(critic(blurred)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.5
    for p in critic.parameters():
        assert p.grad is not None


@pytest.mark.parametrize("kind", ALL)
def test_each_can_learn(kind: str) -> None:
    """Few images by heart: noise taken away, or resolution brought back."""
    torch.manual_seed(0)
    net = ALL[kind](1, 1)
    clean = nn.functional.interpolate(noise(2, 1, 6, 6), size=32, mode="bicubic")
    worse = clean + 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    if kind in FINER:
        scale = 2 if kind == "twice" else 4
        worse = clean[..., ::scale, ::scale].repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    before = float((worse - clean).abs().mean())
    for _ in range(40):
        loss = (net(worse) - clean).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.6 * before


def test_sizes_grow() -> None:
    counts = [sum(p.numel() for p in NAFNet(1, 1, size).parameters()) for size in SIZES]
    assert all(2 * small < large for small, large in pairwise(counts))
    assert list(nafnet.SIZES) == ["tiny", "small", "base"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NAFNet(1, 1, "smal"), "small"),
        (lambda: NAFNet(1, 1, unshuffle=3), "4, 2 or 1"),
        (lambda: UNetPlusPlus(1, 1, encoder="resnet"), "resnet34"),
        (lambda: SRResNet(1, 3), "2 or 4"),
        (lambda: SRResNet(1, 2, blocks=0), "at least 1"),
    ],
)
def test_values_that_cannot_be_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


AUXILIARY: dict[str, Callable[[int], nn.Module]] = {
    "nafnet": lambda auxiliary: NAFNet(5, 1, size="tiny", auxiliary=auxiliary),
    "redcnn": lambda auxiliary: REDCNN(5, 1, width=16, auxiliary=auxiliary),
    "unet++": lambda auxiliary: UNetPlusPlus(5, 1, width=4, auxiliary=auxiliary),
}


@pytest.mark.parametrize(("auxiliary", "corrected"), [(0, 2), (2, 1), (4, 0)])
@pytest.mark.parametrize("kind", AUXILIARY)
def test_what_is_beside_is_seen_and_not_corrected(kind: str, auxiliary: int, corrected: int) -> None:
    torch.manual_seed(0)
    net = AUXILIARY[kind](auxiliary).eval()
    images = noise(1, 5, 48, 48).requires_grad_()
    for name, weight in net.named_parameters():
        if any(name.startswith(last) for last in ("leave", "decode.4", "heads")):
            nn.init.zeros_(weight)
    with torch.no_grad():
        torch.testing.assert_close(net(images), images[:, corrected : corrected + 1])
        for weight in net.parameters():
            weight.add_(0.05 * noise(*weight.shape))
    net(images).sum().backward()
    assert images.grad is not None and (images.grad.abs().amax((0, 2, 3)) > 0).all()  # every channel counts
    with pytest.raises(UsageError, match="cannot give 1"):
        AUXILIARY[kind](5)
