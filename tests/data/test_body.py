"""The body is one piece without holes, found in Hounsfield units where there are any."""

from __future__ import annotations

import numpy as np
import pytest

from fabrica.codec import Codec
from fabrica.data.body import body, threshold

HU = Codec("window", -1024, 3071, "HU")


def disc(side: int, radius: float, at: tuple[float, float]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    y, x = np.ogrid[:side, :side]
    found: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (y - at[0]) ** 2 + (x - at[1]) ** 2 <= radius**2
    return found


def test_holes_are_filled_and_only_the_largest_piece_is_kept() -> None:
    chest, lung, arm = disc(64, 20, (32, 30)), disc(64, 8, (32, 30)), disc(64, 4, (32, 58))
    values = np.where((chest & ~lung) | arm, 0.5, -1).astype(np.float32)
    assert np.array_equal(body(values[None], -0.9), chest)


def test_holes_of_volumes_are_filled_slice_by_slice() -> None:
    """An airway that is open at the ends of a volume is no hole of the whole, and one of each slice."""
    chest, airway = disc(32, 12, (16, 16)), disc(32, 3, (16, 16))
    values = np.where(np.stack([chest & ~airway] * 3), 0.5, -1).astype(np.float32)
    assert np.array_equal(body(values[None], -0.9), np.stack([chest] * 3))


def test_pieces_of_a_volume_hang_together_across_slices() -> None:
    values = np.full((1, 4, 16, 16), -1, np.float32)
    values[0, :, 2:6, 2:6] = 0  # 4 x 16 voxels
    values[0, 0, 9:15, 9:15] = 0  # 36 in its slice
    found = body(values, -0.9)
    assert found[:, 2:6, 2:6].all() and found.sum() == 64


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 3, 8, 8)])
def test_an_image_of_air_alone_counts_whole(shape: tuple[int, ...]) -> None:
    found = body(np.full(shape, -1, np.float32), -0.9)
    assert found.shape == shape[1:] and found.dtype == bool and found.all()


def test_the_first_channel_decides() -> None:
    values = np.full((2, 8, 8), -1, np.float32)
    values[0, :4], values[1, 4:] = 1, 1
    assert np.array_equal(body(values, 0.0)[:, 0], np.arange(8) < 4)


def test_minus_500_hounsfield_is_where_air_ends() -> None:
    values = (np.array([-501.0, -499.0]) + 1024) / 4095 * 2 - 1
    assert values[0] < threshold(HU) < values[1]
    assert threshold(Codec("window", -1000, 0, "HU")) == 0.0


@pytest.mark.parametrize(
    "codec",
    [
        Codec("window", 0, 255),
        Codec("percentile", 0.5, 99.5),
        Codec("window", -160, 240, "HU"),
        Codec("label", classes=3),
    ],
)
def test_without_air_in_hounsfield_units_it_is_a_twentieth_of_the_range(codec: Codec) -> None:
    assert threshold(codec) == -0.9
