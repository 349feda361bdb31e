"""What a network says of an image that is changed as should make no difference (test-time augmentation), or brought
back by the network of the other direction: means, and maps of doubt beside the result."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from fabrica.codec import ABSENT, Codec
from fabrica.image import Float32
from fabrica.inference.tiling import Net

MOVED = 2  # voxels
BRIGHTER = 0.03
NOISE = 0.005  # of the range's half


def with_uncertainty(net: Net, reach: float = 1.0, target: Codec | None = None) -> Net:
    """The network, and after its result the standard deviation of its answers to slightly changed images; of labels,
    one channel: 1 less the mean probability of the class that it gives, of regions 1 less that of the answer, in or
    out, that is least sure.

    Changed by what should make no difference: mirrored, moved by a few voxels, a little brighter or darker, a little
    noise (test-time augmentation: Wang et al. 2019). Where answers differ, the network is guessing. A channel that is
    empty (ABSENT) stays so. reach: of the codec, beyond which no changed value lies; target: the codec of the result.
    """

    def doubting(windows: Float32) -> Float32:
        plain = net(windows)
        answers = [plain, net(windows[..., ::-1])[..., ::-1]]
        for axis, by in itertools.product(range(2, windows.ndim), (-MOVED, MOVED)):
            answers.append(_moved(net(_moved(windows, axis, by)), axis, -by))
        for gain in (1 - BRIGHTER, 1 + BRIGHTER):  # air stays air
            answers.append(net(np.clip((windows + 1) * np.float32(gain) - 1, -reach, reach)))
        noise = np.random.default_rng(0).standard_normal(windows.shape, dtype=np.float32)
        noise *= (windows > ABSENT).any(axis=tuple(range(2, windows.ndim)), keepdims=True)
        answers.append(net(np.clip(windows + np.float32(NOISE) * noise, -reach, reach)))
        if target and target.kind == "label":
            mean = np.mean(answers, axis=0)
            if target.regions:
                given = np.where(plain > 0, mean, -mean).min(1, keepdims=True)
            else:
                given = np.take_along_axis(mean, plain.argmax(1)[:, None], axis=1)
            return np.concatenate([plain, (1 - given) / 2], axis=1)
        spread: Float32 = np.std(np.stack(answers), axis=0)
        return np.concatenate([plain, spread], axis=1)

    return doubting


def with_mirrors(net: Net, axes: Sequence[int]) -> Net:
    """The mean of the network's answers to the image and to it mirrored along every combination of these axes."""

    def mirrored(windows: Float32) -> Float32:
        total = net(windows)
        for count in range(1, len(axes) + 1):
            for some in itertools.combinations([axis + 2 for axis in axes], count):
                total = total + np.flip(net(np.flip(windows, some)), some)
        mean: Float32 = total / np.float32(2 ** len(axes))
        return mean

    return mirrored


def with_way_back(net: Net, back: Net) -> Net:
    """The network, and after all it gives the error of the round trip, |x - back(net(x))|, in the source's range."""

    def there_and_back(windows: Float32) -> Float32:
        given = net(windows)
        error = np.abs(windows - back(given[:, : windows.shape[1]]))
        return np.concatenate([given, error], axis=1)

    return there_and_back


def _moved(values: Float32, axis: int, by: int) -> Float32:
    """values (B, C, *S) moved along an axis, the border repeated."""
    side = values.shape[axis]
    return values.take(np.clip(np.arange(side) - by, 0, side - 1), axis)
