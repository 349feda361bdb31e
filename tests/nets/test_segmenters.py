"""U-Nets that segment: sizes, resolutions, and that they learn."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from fabrica.errors import UsageError
from fabrica.nets.overlap import cross_entropy
from fabrica.nets.segmenters import MaskCritic, SegmenterUNet

FLAT = ([[1, 1], [2, 2], [2, 2]], [[3, 3]] * 3)
THICK = ([[1, 1, 1], [1, 2, 2], [2, 2, 2]], [[1, 3, 3], [1, 3, 3], [3, 3, 3]])


def unet(
    how: tuple[list[list[int]], list[list[int]]], blocks: Sequence[int] = (0, 0, 0), **choices: object
) -> SegmenterUNet:
    torch.manual_seed(0)
    return SegmenterUNet(1, 3, (4, 8, 12), *how, blocks, **choices)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("blocks", [(0, 0, 0), (1, 2, 2)])
@pytest.mark.parametrize(
    ("how", "size"), [(FLAT, (17, 22)), (FLAT, (4, 5)), (THICK, (3, 18, 13)), (THICK, (8, 16, 16))]
)
def test_every_size_comes_back(
    how: tuple[list[list[int]], list[list[int]]], size: tuple[int, ...], blocks: tuple[int, ...], norm: str
) -> None:
    net, x = unet(how, blocks, norm=norm), torch.randn(2, 1, *size)
    coarse, fine = net(x)
    assert fine.shape == (2, 3, *size)
    padded = [-(-n // m) * m for n, m in zip(size, net.multiple, strict=True)]
    assert coarse.shape[2:] == tuple(n // s for n, s in zip(padded, how[0][1], strict=True))
    net.eval()
    assert net(x).shape == (2, 3, *size)


def test_thick_slices_are_not_mixed_at_full_resolution() -> None:
    """With kernels of 1 and no stride through the slices on both finest levels, their first layers see one slice."""
    net, x = unet(THICK).eval(), torch.zeros(1, 1, 4, 16, 16)
    other = x.clone()
    other[:, :, 0] = 1
    first = net.encode[1](net.encode[0](x)) - net.encode[1](net.encode[0](other))
    assert first[:, :, 0].abs().max() > 0 and first[:, :, 1:].abs().max() == 0


def test_it_learns_where_a_square_is() -> None:
    net = unet(FLAT)
    steps = torch.optim.AdamW(net.parameters(), 1e-2)
    rng = torch.Generator().manual_seed(1)
    for _ in range(60):
        x, labels = squares(rng)
        loss = cross_entropy(net(x)[-1], labels).mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
    net.eval()
    x, labels = squares(rng)
    assert (net(x).argmax(1) == labels.argmax(1)).float().mean() > 0.97


def squares(rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images with a bright square, class 1, and a dark one, class 2."""
    x, labels = torch.zeros(8, 1, 24, 24), torch.zeros(8, 24, 24, dtype=torch.long)
    for k in range(8):
        for label, value in ((1, 1.0), (2, -1.0)):
            i, j = torch.randint(0, 16, (2,), generator=rng).tolist()
            x[k, 0, i : i + 8, j : j + 8] = value
            labels[k, i : i + 8, j : j + 8] = label
    x += 0.2 * torch.randn(x.shape, generator=rng)
    return x, 2 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float() - 1


def test_the_critic_of_masks_sees_where_they_differ() -> None:
    critic = MaskCritic(1, 4, dims=3)
    x = torch.ones(2, 1, 16, 16, 16)
    other = x.clone()
    other[1, :, :8] = 0
    found = [(a - b).abs().amax(1) for a, b in zip(critic.eval()(x), critic(other), strict=True)]
    assert len(found) == 4 and all(each[0] == 0 and each[1] > 0 for each in found)


def test_what_does_not_fit_together_is_one_line() -> None:
    with pytest.raises(UsageError, match="norm"):
        unet(FLAT, norm="layer")
    with pytest.raises(UsageError, match="3 widths, 3 strides, 3 kernels and 2 numbers"):
        unet(FLAT, (1, 1))
