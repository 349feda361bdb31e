"""U-Nets that segment: plain, or with a residual encoder, for any spacing.

Ronneberger et al. 2015; Isensee et al. 2021 (nnU-Net, Nature Methods) and 2024 (nnU-Net revisited): strides and kernels
follow the spacing, so that an axis of thick slices is neither convolved nor halved before the others are as coarse, and
the decoder answers at each of its resolutions in training (deep supervision).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError, unknown
from fabrica.nets.convolutions import BATCH_NORMS, CONVOLUTIONS, TRANSPOSED
from fabrica.nets.framing import cropped_to, padded_to

NORMS: dict[str, dict[int, Any]] = {
    "batch": {**BATCH_NORMS},
    "instance": {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d},
}
LAYERS: dict[int, Any] = {**CONVOLUTIONS}  # whose sides differ from axis to axis
POOLS: dict[int, Any] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
SLOPE = 0.01
Steps = Sequence[Sequence[int]]


class SegmenterUNet(nn.Module):
    """images (B, C, *S) -> logits (B, K, *S), S of any size; in supervised training a list of them, the finest last,
    each coarser one at its own resolution.

    widths    channels of each level, the finest first.
    strides   of each level along each axis: how much coarser it is than the one before; the first is all 1.
    kernels   of each level along each axis: 3, or 1 along an axis that is too coarse to be mixed yet.
    blocks    of each level's encoder: 0: two convolutions (plain); n: n residual blocks (He et al. 2016).
    norm      "batch", which folds into the convolution before it once trained, or "instance".
    supervised  whether the decoder's coarser levels answer, too.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: Sequence[int],
        strides: Steps,
        kernels: Steps,
        blocks: Sequence[int],
        norm: str = "batch",
        supervised: bool = True,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise unknown("norm", norm, NORMS)
        if not len(widths) == len(strides) == len(kernels) == len(blocks):
            raise UsageError(
                f"{len(widths)} widths, {len(strides)} strides, {len(kernels)} kernels and {len(blocks)} numbers of "
                "blocks; expected one each for every level"
            )
        self.multiple = [prod(along) for along in zip(*strides, strict=True)]
        self.encode, self.decode, self.grow = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for before, after, stride, kernel, count in zip(
            [channels, *widths], widths, strides, kernels, blocks, strict=False
        ):
            self.encode.append(_stage(before, after, kernel, stride, count, norm))
        for (fine, coarse), stride, kernel in zip(pairwise(widths), strides[1:], kernels, strict=False):
            self.grow.append(TRANSPOSED[len(stride)](coarse, fine, tuple(stride), tuple(stride), bias=False))
            self.decode.append(_plain(2 * fine, fine, kernel, [1] * len(stride), norm))
        answering = range(len(widths) - 1) if supervised and len(widths) > 2 else range(1)
        self.heads = nn.ModuleDict({str(k): nn.Conv1d(widths[k], classes, 1) for k in answering})

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        y = padded_to(x, self.multiple)
        passed = []
        for stage in self.encode:
            y = stage(y)
            passed.append(y)
        passed.pop()  # the coarsest is y; each is let go where it was used: of the finest that is a quarter of all
        answers = []
        for k in reversed(range(len(self.decode))):
            y = self.decode[k](torch.cat([self.grow[k](y), passed.pop()], dim=1))
            if str(k) in self.heads and (k == 0 or self.training):
                # of voxels in a row: each class lies in one piece then, where softmax is three times as fast
                answers.append(self.heads[str(k)](y.flatten(2)).unflatten(2, y.shape[2:]))
        answers[-1] = cropped_to(answers[-1], x)
        return answers if len(answers) > 1 else answers[0]


class _Residual(nn.Module):
    """Two convolutions, added to their input, which means and a convolution of side 1 bring to their size if they
    must."""

    def __init__(self, before: int, after: int, kernel: Sequence[int], stride: Sequence[int], norm: str) -> None:
        super().__init__()
        dims = len(kernel)
        self.layers = nn.Sequential(
            *_normed(before, after, kernel, stride, norm), *_normed(after, after, kernel, [1] * dims, norm)[:-1]
        )
        past: list[nn.Module] = []
        if max(stride) > 1:
            past.append(POOLS[dims](tuple(stride)))
        if before != after:
            past += [CONVOLUTIONS[dims](before, after, 1, bias=False), NORMS[norm][dims](after, affine=True)]
        self.past = nn.Sequential(*past)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu_(self.layers(x) + self.past(x), SLOPE)


def _normed(before: int, after: int, kernel: Sequence[int], stride: Sequence[int], norm: str) -> list[nn.Module]:
    dims = len(kernel)
    padding = tuple(side // 2 for side in kernel)
    return [
        LAYERS[dims](before, after, tuple(kernel), stride=tuple(stride), padding=padding, bias=False),
        NORMS[norm][dims](after, affine=True),
        nn.LeakyReLU(SLOPE, inplace=True),
    ]


def _plain(before: int, after: int, kernel: Sequence[int], stride: Sequence[int], norm: str) -> nn.Sequential:
    return nn.Sequential(
        *_normed(before, after, kernel, stride, norm), *_normed(after, after, kernel, [1] * len(kernel), norm)
    )


def _stage(
    before: int, after: int, kernel: Sequence[int], stride: Sequence[int], blocks: int, norm: str
) -> nn.Sequential:
    if not blocks:
        return _plain(before, after, kernel, stride, norm)
    first = _Residual(before, after, kernel, stride, norm)
    return nn.Sequential(first, *(_Residual(after, after, kernel, [1] * len(kernel), norm) for _ in range(blocks - 1)))


class MaskCritic(nn.Module):
    """How far apart two maps of classes look, through each of which an image is seen (SegAN: Xue et al. 2018, section
    2.1): strided convolutions of image x mask, class by class, to be compared at every depth."""

    def __init__(self, channels: int, width: int = 32, dims: int = 2, levels: int = 3) -> None:
        super().__init__()
        layers, before = nn.ModuleList(), channels
        for k in range(levels):
            after = width * 2**k
            norm = [NORMS["batch"][dims](after)] if k else []
            convolution = CONVOLUTIONS[dims](before, after, 4, stride=2, padding=1)
            layers.append(nn.Sequential(convolution, *norm, nn.LeakyReLU(0.2, inplace=True)))
            before = after
        self.layers = layers

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (B, C, *S) and what each depth makes of it, flat: (B, n) each."""
        found = [x.flatten(1)]
        for layer in self.layers:
            x = layer(x)
            found.append(x.flatten(1))
        return found
