"""Random changes: the same for both sides of a pair, repeatable, in range, and what they say they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fabrica.data.augment import AS_THEY_ARE, COIL, GAIN, NOISE, POWER, Changes, as_other_scanner, changed
from fabrica.image import Float32

AT = np.arange(40)


def blobs(count: int = 40, *shape: int) -> Float32:
    """Smooth images (N, 1, *S) in [-1, 1], of which no part is like another."""
    axes = np.meshgrid(*(np.linspace(0, 3 + k, n) for k, n in enumerate(shape or (48, 40))), indexing="ij")
    phases = np.random.default_rng(0).uniform(0, 6, (count, *[1] * len(axes)))
    waves = np.sin(sum((k + 1) * axis for k, axis in enumerate(axes)) + phases) * np.cos(axes[0] - phases)
    return np.asarray(waves[:, None], dtype=np.float32)


@pytest.mark.parametrize(
    "changes",
    [
        Changes(crop=16),
        Changes(flip=True, jitter=3),
        Changes(turn=15.0),
        Changes(bend=2.0),
        Changes(zoom=0.2),
        Changes(crop=16, flip=True, jitter=2, turn=15.0, zoom=0.1, bend=1.0),
    ],
)
@pytest.mark.parametrize("shape", [(48, 40), (18, 26, 20)])
def test_two_sides_move_alike_and_every_position_in_its_own_way(changes: Changes, shape: tuple[int, ...]) -> None:
    images = blobs(5, *shape)
    here = AT[:5]
    a, b = changed(images.copy(), 3, here, changes), changed(-images, 3, here, changes)
    np.testing.assert_allclose(a, -b, atol=1e-6)
    np.testing.assert_array_equal(changed(images[2:3].copy(), 3, here[2:3], changes), a[2:3])
    same = np.repeat(images[:1], 5, axis=0)
    assert len({image.tobytes() for image in changed(same, 3, here, changes)}) >= 4
    assert np.abs(a).max() <= 1 and a.shape[1] == 1


def test_nothing_is_changed_without_being_asked_for() -> None:
    images = blobs(4)
    assert changed(images, 0, AT[:4], AS_THEY_ARE) is images


def test_crops_are_parts_of_the_image_from_everywhere() -> None:
    image = np.arange(20 * 30, dtype=np.float32).reshape(1, 1, 20, 30)
    parts = changed(np.repeat(image, 400, axis=0), 0, np.arange(400), Changes(crop=16))
    corners = parts[:, 0, 0, 0]
    rows, columns = np.divmod(corners.astype(int), 30)
    assert set(rows) == {0, 4} and set(columns) == {0, 4, 8, 12}
    for part, row, column in zip(parts, rows, columns, strict=True):
        np.testing.assert_array_equal(part, image[0, :, row : row + 16, column : column + 16])


def test_turns_are_rotations_of_up_to_so_many_degrees() -> None:
    y, x = np.mgrid[-32:33, -32:33].astype(np.float32)
    wedge = np.where(np.abs(np.arctan2(y, x)) < 0.2, 1.0, -1.0)[None].astype(np.float32)
    turned = changed(np.repeat(wedge[None], 40, axis=0), 0, AT, Changes(turn=15.0))
    angles = [np.rad2deg(np.arctan2((y * (one[0] > 0)).sum(), (x * (one[0] > 0)).sum())) for one in turned]
    assert np.abs(angles).max() <= 15.5 and np.std(angles) == pytest.approx(15 / 3**0.5, rel=0.3)
    np.testing.assert_allclose(turned[:, 0, 32, 32], 1.0, atol=1e-5)  # the middle stays


def test_zooms_are_by_up_to_the_share_either_way_about_the_middle() -> None:
    y, x = np.mgrid[-32:33, -32:33].astype(np.float32)
    disc = np.where(np.hypot(x, y) < 16, 1.0, -1.0)[None].astype(np.float32)
    zoomed = changed(np.repeat(disc[None], 40, axis=0), 0, AT, Changes(zoom=0.25))
    radii = np.sqrt((zoomed[:, 0] > 0).sum((1, 2)) / (disc > 0).sum())
    assert 1 / 1.25 - 0.02 <= radii.min() < 0.9 and 1.1 < radii.max() <= 1.25 + 0.02
    logarithms = np.log(radii) / np.log(1.25)  # even either way
    assert abs(logarithms.mean()) < 0.25 and logarithms.std() == pytest.approx(1 / 3**0.5, rel=0.3)
    middles = [np.average(axis, weights=one[0] > 0) for one in zoomed for axis in (x, y)]
    np.testing.assert_allclose(middles, 0, atol=0.3)


def test_bends_are_smooth_and_of_the_wanted_size() -> None:
    _, x = np.mgrid[0:64, 0:64].astype(np.float32)
    places = np.stack([x / 32 - 1])[None]
    bent = changed(np.repeat(places, 40, axis=0), 0, AT, Changes(bend=2.0))
    moved = (bent[:, 0, :, 16:48] - places[:, 0, :, 16:48]) * 32
    assert float(moved.std()) == pytest.approx(2.0, rel=0.2)
    assert np.abs(np.diff(moved, axis=1)).max() < 1.5


def test_labels_stay_labels_and_lie_where_the_image_does() -> None:
    images = blobs(8)
    one_hot = np.concatenate([np.where(images > 0, 1, -1), np.where(images > 0, -1, 1)], axis=1).astype(np.float32)
    changes = Changes(crop=32, turn=15.0, bend=2.0, flip=True, gamma=0.3)
    labels = changed(one_hot, 0, AT[:8], changes, labels=True)
    assert set(np.unique(labels)) == {-1.0, 1.0} and (labels.sum(1) == 0).all()
    grey = changed(images, 0, AT[:8], replace(changes, gamma=0.0))
    assert ((grey > 0) == (labels[:, :1] > 0)).mean() > 0.97


def test_gamma_keeps_black_and_white_and_the_order_of_greys() -> None:
    ramp = np.linspace(-1, 1, 101, dtype=np.float32).reshape(1, 1, 1, 101)
    changed_ramps = changed(np.repeat(ramp, 40, axis=0), 0, AT, Changes(gamma=0.3))[:, 0, 0]
    np.testing.assert_allclose(changed_ramps[:, [0, -1]], [[-1, 1]] * 40, atol=1e-6)
    assert (np.diff(changed_ramps, axis=1) > 0).all()
    middles = (changed_ramps[:, 50] + 1) / 2
    assert middles.min() >= 0.5**1.3 - 1e-3 and middles.max() <= 0.5 ** (1 / 1.3) + 1e-3 and np.std(middles) > 0.03


@pytest.mark.parametrize("shape", [(48, 40), (6, 26, 20)])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_another_scanner_is_a_power_a_gain_a_smooth_coil_and_noise(shape: tuple[int, ...], strength: float) -> None:
    for level in (0.1, 0.4):  # of a range from 0 to 1
        flat = np.full((40, 1, *shape), 2 * level - 1, dtype=np.float32)
        given = (as_other_scanner(flat.copy(), 5, AT, strength) + 1) / 2
        coarse = given.reshape(40, -1).mean(1)
        most = GAIN**strength * np.exp(strength * COIL)
        assert coarse.min() >= level ** (POWER**strength) / most - 0.02
        assert coarse.max() <= level ** (POWER**-strength) * most + 0.02 and coarse.std() > 0.02 * strength * level
        neighbours = np.diff(given, axis=-1)  # noise alone: a coil's field is flat from pixel to pixel
        assert neighbours.std() < 2**0.5 * strength * NOISE and neighbours.std() > 0.2 * strength * NOISE
    one = as_other_scanner(flat[3:4].copy(), 5, AT[3:4], strength)
    np.testing.assert_array_equal((one + 1) / 2, given[3:4])  # whatever the batch


def test_padding_stays_padding_on_another_scanner() -> None:
    images = blobs(10)
    images[..., :12] = -1
    given = as_other_scanner(images.copy(), 0, AT[:10], 1.0)
    assert (given[..., :12] == -1).all() and np.abs(given).max() <= 1 and not np.array_equal(given, images)
