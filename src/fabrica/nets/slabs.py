"""The autoencoder's networks over images of any depth, slab by slab: without seams, in the memory of a few planes.

A group norm takes mean and variance over the whole image, so a network that runs on tiles gives other values in each
one; tiled decoders usually blend what overlaps, which hides the seams and keeps the error. Here each layer runs over
all slabs before the next one begins. A slab is read with the planes around it that a convolution reaches, and what is
written is measured on the way, so that the norm behind knows the whole map: the result is that of the whole image to
rounding, for any weights. Feature maps lie in temporary files (in TMPDIR) meanwhile.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from math import prod
from typing import Any, cast

import torch
from monai.networks.blocks import SpatialAttentionBlock, UpSample
from monai.networks.nets.autoencoderkl import AEKLDownsample, AEKLResBlock
from torch import Tensor, nn
from torch.nn.functional import silu

from fabrica.errors import FabricaError
from fabrica.nets.autoencoder import Decoder, Encoder
from fabrica.nets.framing import padded_to

LARGE = {"cpu": 2**28, "cuda": 2**30}  # bytes of the widest feature map; smaller ones are sooner done as a whole
SLAB = 2**26  # bytes of a feature map that are worked on at a time, of which a layer needs some six times as many; few
# planes that are small torch convolves without oneDNN: ten times slower, in more memory


class Map:
    """A feature map (1, C, D, *), made of its slabs (1, C, d, *) in order, and mean and variance of its channels."""

    def __init__(self, slabs: Iterable[Tensor]) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  it lives as long as the map
        weakref.finalize(self, self._file.close)
        self.depth = 0
        means, squares = [], []
        for slab in slabs:
            self.plane = (slab.shape[1], *slab.shape[3:])
            self._dtype, self._device = slab.dtype, slab.device
            self._write(slab)
            self.depth += slab.shape[2]
            variance, mean = torch.var_mean(slab[0].float().flatten(1), dim=1, correction=0)
            means.append(slab.shape[2] * mean.double())
            squares.append(slab.shape[2] * (variance.double() + mean.double().square()))
        self.mean = torch.stack(means).sum(0) / self.depth  # (C,), float64: slabs add up without a loss
        self.variance = torch.stack(squares).sum(0) / self.depth - self.mean.square()

    def read(self, start: int, stop: int) -> Tensor:
        """The planes start to stop, (1, C, stop - start, *)."""
        planes = torch.empty((stop - start, *self.plane), dtype=self._dtype)
        self._file.seek(start * planes[0].nbytes)
        rest = _bytes(planes)
        while rest:
            rest = rest[self._file.readinto(rest) :]
        return planes.to(self._device).transpose(0, 1).contiguous()[None]

    def whole(self) -> Tensor:
        return self.read(0, self.depth)

    def _write(self, slab: Tensor) -> None:
        planes = slab[0].transpose(0, 1).contiguous().cpu()
        rest = _bytes(planes)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise FabricaError(
                f"a feature map does not fit into {tempfile.gettempdir()} ({error.strerror}); free some space, or set "
                "TMPDIR to a larger disk"
            ) from error


def _bytes(planes: Tensor) -> memoryview:
    numbers: Any = planes.view(torch.uint8).numpy()
    return memoryview(numbers).cast("B")


@torch.no_grad()
def decoded(decoder: Decoder, latents: Tensor) -> Tensor:
    """`decoder(latents)` of one image, latents (1, L, *s)."""
    *blocks, last_norm, last = decoder.layers.blocks
    x = _through(blocks, Map([decoder.enter(latents)]))
    norm = _fixed(last_norm, x)
    slabs = _slabs(lambda t: decoder.shown(last(norm(t))), x, halo=1, up=decoder.patch)
    return decoder.completed(torch.cat(list(slabs), dim=2), latents)


@torch.no_grad()
def encoded(encoder: Encoder, images: Tensor) -> Tensor:
    """`encoder(images)` of one image (1, C, *S)."""
    images = padded_to(images, encoder.factor)
    *blocks, last_norm, last = encoder.layers.blocks
    step = 8 * encoder.patch
    parts = (images[:, :, k : k + step] for k in range(0, images.shape[2], step))
    x = _through(blocks, Map(encoder.seen(part) for part in parts))
    norm = _fixed(last_norm, x)
    found = torch.cat(list(_slabs(lambda t: last(norm(t)), x, halo=1)), dim=2)
    means = encoder.means(found)
    if encoder.past:
        means = means + encoder.past.down(images, means.shape[1])
    return torch.cat([means, encoder.log_variances(found)], dim=1)


def _through(blocks: Iterable[nn.Module], x: Map) -> Map:
    for block in blocks:
        if isinstance(block, AEKLResBlock):
            x = _residual(block, x)
        elif isinstance(block, SpatialAttentionBlock):  # every place sees all others, at the deepest level alone
            x = Map([block(x.whole())])
        elif isinstance(block, UpSample):
            x = Map(_slabs(block, x, halo=1, up=2))
        elif isinstance(block, AEKLDownsample):
            x = Map(_slabs(block, x, halo=2, down=2))
        else:
            x = Map(_slabs(block, x, halo=1, wider=cast(nn.Conv3d, block.conv).out_channels))
    return x


def _residual(block: AEKLResBlock, x: Map) -> Map:
    first = _fixed(block.norm1, x)
    h = Map(_slabs(lambda t: block.conv1(silu(first(t))), x, halo=1, wider=block.out_channels))
    second = _fixed(block.norm2, h)
    return Map(_slabs(lambda t, r: block.nin_shortcut(t) + block.conv2(silu(second(r))), x, h, halo=1))


def _fixed(norm: nn.GroupNorm, x: Map) -> Callable[[Tensor], Tensor]:
    """The norm as it is for the whole map: one factor and one shift a channel."""
    means, variances = (values.view(norm.num_groups, -1) for values in (x.mean, x.variance))
    mean = means.mean(1, keepdim=True)
    variance = (variances + means.square()).mean(1, keepdim=True) - mean.square()
    rate = torch.rsqrt(variance + norm.eps).expand_as(means).flatten()
    factor = norm.weight.double() * rate
    shift = norm.bias.double() - factor * mean.expand_as(means).flatten()
    by, plus = (values.float().view(-1, *[1] * len(x.plane)) for values in (factor, shift))
    return lambda slab: slab.float() * by + plus


def _slabs(
    layer: Callable[..., Tensor], *maps: Map, halo: int, up: int = 1, down: int = 1, wider: int = 0
) -> Iterator[Tensor]:
    """The slabs, in order, of layer(*maps), maps of one depth.

    halo   planes that the layer reaches beyond what it makes, rounded up to a multiple of `down`: next to the border
           of the image its own padding is right, elsewhere what it spoils lies in them and is cut off.
    up, down   how many times as many planes come out, or go in. wider: the channels inside, if more.
    """
    depth, widest = maps[0].depth, max(wider, *(each.plane[0] for each in maps))
    plane = 4 * widest * prod(maps[0].plane[1:]) * up ** len(maps[0].plane)
    count = -(-depth // max(down, SLAB // plane))
    bounds = [depth * k // count // down * down for k in range(count + 1)]  # alike: a last slab of few planes is slow
    for start, stop in pairwise(bounds):
        low, high = max(start - halo, 0), min(stop + halo, depth)
        made = layer(*(each.read(low, high) for each in maps))
        first = (start - low) * up // down
        yield made[:, :, first : first + (stop - start) * up // down]
