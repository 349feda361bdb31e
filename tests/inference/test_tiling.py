"""Windows over large images: exact for an exact network, seamless for a real one, in flat memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fabrica.errors import UsageError
from fabrica.image import Float32
from fabrica.inference.tiling import whole, windowed


def image(*shape: int) -> Float32:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def identity(windows: Float32) -> Float32:
    return windows


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((64, 64), (32, 32)),
        ((65, 97), (32, 48)),
        ((20, 100), (32, 32)),  # smaller than the window on one side
        ((5, 7), (32, 16)),
        ((31, 33), (31, 33)),
        ((9, 40, 37), (4, 16, 16)),
        ((3, 16, 50), (8, 32, 16)),
    ],
)
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.8])
def test_an_exact_network_gives_the_image_back(size: tuple[int, ...], window: tuple[int, ...], overlap: float) -> None:
    values = image(2, *size)
    np.testing.assert_allclose(whole(identity, values, window, overlap=overlap), values, atol=1e-5)


def test_the_batch_does_not_matter() -> None:
    values = image(1, 50, 60)
    one, four = (whole(identity, values, (16, 16), batch=n) for n in (1, 4))
    np.testing.assert_array_equal(one, four)


def test_channels_may_change_and_every_voxel_is_covered() -> None:
    def net(windows: Float32) -> Float32:
        return np.repeat(windows[:, :1], 3, axis=1) + 1

    values = image(2, 40, 40)
    found = whole(net, values, (16, 16))
    assert found.shape == (3, 40, 40)
    np.testing.assert_allclose(found, np.repeat(values[:1], 3, axis=0) + 1, atol=1e-5)


def test_seams_are_far_below_what_a_border_does() -> None:
    """A blur that sees no further than its window errs at window borders; blended, it hardly does."""

    def blur(windows: Float32) -> Float32:
        return gaussian_filter(windows, (0, 0, 2, 2), mode="constant")

    values = np.ones((1, 96, 96), dtype=np.float32)
    middle = (0, slice(32, 64), slice(32, 64))
    hard = np.abs(whole(blur, values, (32, 32), overlap=0)[middle] - 1).max()
    soft = np.abs(whole(blur, values, (32, 32), overlap=0.5)[middle] - 1).max()
    assert hard > 0.4
    assert soft < 0.01


def test_padding_is_what_was_asked_for() -> None:
    seen = []

    def net(windows: Float32) -> Float32:
        seen.append(windows)
        return windows

    whole(net, image(1, 4, 4), (8, 8), fill=-7)
    assert (seen[0] == -7).sum() == 64 - 16


class Endless:
    """A volume too large to be held, read a slab at a time."""

    shape = (1, 4000, 64, 64)

    def __getitem__(self, where: tuple[slice, ...]) -> Float32:
        planes = range(*where[1].indices(self.shape[1]))
        return np.stack([np.full((64, 64), k / 4000, dtype=np.float32) for k in planes])[None]


def test_memory_does_not_grow_with_depth() -> None:
    tracemalloc.start()
    depth = 0
    for slab in windowed(identity, Endless(), (16, 64, 64)):
        expected = np.arange(depth, depth + slab.shape[1]) / 4000
        np.testing.assert_allclose(slab[0, :, 5, 5], expected, atol=1e-5)
        depth += slab.shape[1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert depth == 4000
    assert peak < 16 * 2**20 < 4000 * 64 * 64 * 4


def test_progress_ends_at_the_number_of_windows() -> None:
    told: list[tuple[int, int]] = []
    whole(identity, image(1, 40, 40), (16, 16), batch=3, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] == 16


@pytest.mark.parametrize(("window", "overlap", "said"), [((8, 8, 8), 0.5, "2 dimensions"), ((8, 8), 1.0, "overlap")])
def test_wrong_use_is_said(window: tuple[int, ...], overlap: float, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        whole(identity, image(1, 20, 20), window, overlap=overlap)
