"""A window of what a network sees, and its way back onto the image."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fabrica.codec import Codec
from fabrica.errors import UsageError
from fabrica.image import Image
from fabrica.inference.seeing import seen
from fabrica.inference.translation import Way

GREY = Codec("window", 0.0, 255.0)


def image(size: tuple[int, ...], affine: np.ndarray | None = None) -> Image:
    data = np.random.default_rng(0).uniform(0, 255, (1, *size)).astype(np.float32)
    return Image(data, np.eye(4) if affine is None else affine, origin={"format": "nifti"})


@pytest.mark.parametrize("flips", list(itertools.product([1, -1], repeat=3)))
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_a_voxel_that_is_asked_about_is_found_and_comes_back(
    unchanged: Callable[..., Any], order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    """However the volume is stored."""
    turn = np.eye(4)
    turn[:3, :3] = np.eye(3)[list(order)] * np.array(flips)
    volume = image((10, 12, 14), turn)
    way = replace(unchanged(GREY, GREY).way(), local=True)
    found = seen(volume, way, at=(3, 5, 7))
    assert found.region.sum() == 1 and found.values[0][found.region] == pytest.approx(
        GREY.scaled(volume.data, (0.0, 255.0))[0, 7, 5, 3], abs=1e-5
    )
    back = found.on_image(found.region)
    assert np.argwhere(back.data[0] > 0).tolist() == [[7, 5, 3]] and back.data[0].max() == 1
    shown = found.on_image(found.values[0])
    plane = shown.data != 0
    assert np.allclose(shown.data[plane], GREY.scaled(volume.data, (0.0, 255.0))[plane], atol=1e-5)
    assert plane.sum() in (10 * 12, 10 * 14, 12 * 14)


@pytest.mark.parametrize(
    ("size", "at"), [((20, 24), (0, 0)), ((20, 24), (23, 19)), ((50, 70), (69, 0)), ((50, 70), (30, 30))]
)
def test_windows_lie_within_larger_images_and_smaller_ones_are_padded(
    unchanged: Callable[..., Any], size: tuple[int, int], at: tuple[int, int]
) -> None:
    picture = image(size)
    found = seen(picture, unchanged(GREY, GREY).way(), at=at, radius=0)
    assert found.values.shape == (1, 32, 32) and found.region.sum() == 1
    assert found.inside.sum() == min(size[0], 32) * min(size[1], 32) and (found.values[0][~found.inside] == -1).all()
    back = found.on_image(found.values[0] + 2).data[0]
    there = back != 0
    assert there.sum() == found.inside.sum() and there[at[1], at[0]]
    assert np.allclose(back[there] - 2, picture.data[0][there] / 127.5 - 1, atol=1e-5)


def test_volumes_are_seen_as_volumes_around_the_region(unchanged: Callable[..., Any]) -> None:
    way: Way = replace(unchanged(GREY, GREY).way(), local=False)
    way = replace(way, data=replace(way.data, size=[8, 8, 8]))
    volume = image((20, 20, 6))
    marked = np.zeros((1, 20, 20, 6), np.float32)
    marked[0, 17:19, 2:4, 1:3] = 1
    found = seen(volume, way, region=volume.with_data(marked))
    assert found.values.shape == (1, 8, 8, 8) and found.region.sum() == 8 and found.inside.sum() == 8 * 8 * 6
    assert np.array_equal(found.on_image(found.region).data, marked)


def test_what_cannot_be_looked_at_is_refused(unchanged: Callable[..., Any]) -> None:
    way, picture = unchanged(GREY, GREY).way(), image((16, 16))
    nothing = picture.with_data(np.zeros_like(picture.data))
    for more, words in (
        ({"at": (16, 0)}, "no voxel 16,0"),
        ({"at": (1, 2, 3)}, "expected x,y from 0 to 15,15"),
        ({"region": nothing}, "0 everywhere"),
        ({"at": (1, 1), "region": nothing}, "leave one out"),
    ):
        with pytest.raises(UsageError, match=words):
            seen(picture, way, **more)
    with pytest.raises(UsageError, match="3 channels"):
        seen(Image(np.zeros((3, 16, 16), np.float32)), way)
