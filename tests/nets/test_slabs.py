"""Slab by slab is the same as the whole, seams and statistics included, and takes the memory of a few planes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm

from fabrica.errors import FabricaError
from fabrica.methods.autoencoder import Autoencoder
from fabrica.nets import slabs

SMALL: dict[str, Any] = {"channels": [8, 16], "res_blocks": 1, "norm_groups": 4, "critic_width": 4}


def method(dims: int, **config: Any) -> Autoencoder:
    """An autoencoder whose weights are nowhere as they were at first, where much is zero."""
    torch.manual_seed(0)
    made = Autoencoder(Autoencoder.Config(**{**SMALL, **config}), (1, *(32,) * dims)).eval().requires_grad_(False)
    for weight in made.parameters():
        weight += 0.1 * torch.randn_like(weight)
    return made


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def small(monkeypatch: pytest.MonkeyPatch, slab: int = 1, large: int = 0) -> None:
    monkeypatch.setattr(slabs, "SLAB", slab)
    monkeypatch.setattr(slabs, "LARGE", {"cpu": large})


@pytest.mark.parametrize(
    ("size", "config"),
    [
        ((22, 12, 14), {"res_blocks": 2}),
        ((33, 17, 20), {"channels": [8, 16, 16], "shortcut": True, "latent_channels": 4}),
        ((40, 32, 32), {"patch": 2, "shortcut": True, "latent_channels": 8}),
        ((97, 66), {"channels": [8, 8, 16]}),
        ((16, 24, 16), {"attention": True}),
    ],
)
@pytest.mark.parametrize("slab", [1, 2**15])
def test_slabs_give_what_the_whole_gives(
    size: tuple[int, ...], config: dict[str, Any], slab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, images = method(len(size), **config), random(2, 1, *size)
    latents = net.encode(images)
    made = net.decode(latents, size)
    small(monkeypatch, slab)
    found = net.encode(images)
    torch.testing.assert_close(found, latents, atol=2e-5, rtol=0)
    torch.testing.assert_close(net.decode(latents, size), made, atol=2e-5, rtol=0)
    assert float(made.std()) > 0.1 and float((made.abs() < 1).float().mean()) > 0.3  # not all clipped, hence alike
    assert float(latents.std()) > 0.1


def test_tiles_on_their_own_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    net = method(3)
    latents = random(1, 3, 12, 8, 8) * torch.linspace(0.2, 2, 12)[:, None, None]
    whole = net.decoder(latents)
    apart = torch.cat([net.decoder(latents[:, :, :8])[:, :, :12], net.decoder(latents[:, :, 4:])[:, :, 4:]], dim=2)
    small(monkeypatch)
    assert float((slabs.decoded(net.decoder, latents) - whole).abs().max()) < 2e-5
    assert float((apart - whole)[:, :, :6].abs().max()) > 0.1  # far from every border


def test_in_bfloat16_slabs_are_as_near_to_the_truth_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    net, latents = method(3), random(1, 3, 12, 8, 8)
    exact = net.decode(latents, (24, 16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        whole = net.decode(latents, (24, 16, 16))
        small(monkeypatch)
        found = net.decode(latents, (24, 16, 16))
    assert float((found - exact).abs().mean()) < 1.2 * float((whole - exact).abs().mean())


def test_the_moments_of_many_slabs_lose_nothing() -> None:
    x = torch.cat([1000 + random(1, 8, 1, 30, 30, seed=k) * (1 + k) for k in range(9)], dim=2)
    norm = nn.GroupNorm(4, 8)
    nn.init.normal_(norm.weight)
    wanted = group_norm(x.double(), 4, norm.weight.double(), norm.bias.double(), norm.eps)
    found = slabs._fixed(norm, slabs.Map(x.split(2, dim=2)))(x)
    torch.testing.assert_close(found.double(), wanted, atol=1e-3, rtol=0)  # float32 knows 1000 to 6e-5


def test_few_images_at_once_where_all_would_be_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    net, images, seen = method(2), random(5, 1, 32, 32), list[int]()
    latents = net.encode(images)
    small(monkeypatch, large=2 * 4 * 16 * 32 * 32)  # two of them
    net.encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    torch.testing.assert_close(net.encode(images), latents)
    assert seen == [2, 2, 1]


def test_gradients_need_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    net, latents = method(2), random(1, 3, 16, 16).requires_grad_()
    small(monkeypatch)
    net.decode(latents, (32, 32)).sum().backward()
    assert latents.grad is not None and latents.grad.any()


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    net = method(2)
    small(monkeypatch)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # every file ends there, as on a full disk
    try:
        with pytest.raises(FabricaError, match=r"a feature map does not fit into .*; free some space, or set TMPDIR"):
            net.decode(random(1, 3, 16, 16), (32, 32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


PEAKS = """
import ctypes
from pathlib import Path
from fabrica.cli.importing import importing
with importing():
    import torch
    from fabrica.methods.autoencoder import Autoencoder
    from fabrica.nets import slabs

def kept(what):
    return 1024 * int(Path("/proc/self/status").read_text().split(what + ":")[1].split()[0])

net = Autoencoder(Autoencoder.Config(channels=[16, 16], res_blocks=1, norm_groups=8, critic_width=4), (1, 32, 32, 32))
net.eval()
slabs.SLAB = 2**22
with torch.inference_mode():
    for depth, large in ((16, 0), (96, 0), (192, 0), (96, 2**40)):  # the first for what libraries take
        slabs.LARGE, latents = {"cpu": large}, torch.randn(1, 3, depth // 2, 96, 16)
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = kept("VmRSS")
        net.decode(latents, (depth, 192, 32))
        print(kept("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="this system does not tell peaks of memory")
def test_memory_is_bounded(tmp_path: Path) -> None:
    """The widest map is 16 channels of the image in float32; twice the depth takes more for the image itself alone."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PEAKS], check=True, capture_output=True, text=True, env=environment)
    _, by_slabs, twice, whole = map(int, done.stdout.split())
    widest = 4 * 16 * 96 * 192 * 32
    assert by_slabs < whole / 2, done.stdout
    assert twice - by_slabs < widest, done.stdout  # beside what the allocator holds; the whole keeps several
    assert not list(tmp_path.iterdir())
