"""The audit finds planted copies, however disguised, and leaves honest images alone."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image as Pil
from scipy.ndimage import gaussian_filter

from fabrica.errors import UsageError
from fabrica.image import Float32
from fabrica.metrics.memorisation import audit, shrunk, wilson
from tests.real import DATA


def bodies(n: int, size: int = 64, seed: int = 0) -> Float32:
    """One fixed anatomy plus smooth variation: alike, as radiographs are. (n, 1, size, size)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    anatomy = 0.8 * (np.hypot(x, y * 0.8) < 0.4) - 0.5 * (np.hypot(np.abs(x) - 0.18, y) < 0.15)
    coarse = gaussian_filter(rng.normal(size=(n, 1, size, size)), 5, axes=(2, 3)) * 3
    fine = gaussian_filter(rng.normal(size=(n, 1, size, size)), 1.5, axes=(2, 3)) * 0.4
    return np.asarray(np.clip(anatomy - 0.4 + coarse + fine, -1, 1), dtype=np.float32)


@pytest.fixture(scope="module")
def train() -> Float32:
    return bodies(800, seed=1)


@pytest.fixture(scope="module")
def heldout() -> Float32:
    return bodies(300, seed=2)


DISGUISES: dict[str, Callable[[Float32], Float32]] = {
    "exact": lambda x: x,
    "noise": lambda x: x + np.random.default_rng(0).normal(0, 0.1, x.shape).astype(np.float32),
    "brightness": lambda x: np.clip(x * np.float32(0.8) + np.float32(0.15), -1, 1),
    "mirror": lambda x: x[..., ::-1],
    "shift": lambda x: np.roll(x, (1, -1), (2, 3)),
    "blur": lambda x: gaussian_filter(x, 1.0, axes=(2, 3)),
    "all": lambda x: (
        np.roll(x[..., ::-1] * np.float32(0.8), 1, 2)
        + np.random.default_rng(0).normal(0, 0.1, x.shape).astype(np.float32)
    ),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_planted_copies_are_found(disguise: str, train: Float32, heldout: Float32) -> None:
    sources = np.random.default_rng(3).choice(len(train), 60, replace=False)
    honest = bodies(140, seed=4)
    samples = np.concatenate([DISGUISES[disguise](train[sources]), honest])
    found = audit(samples, train, heldout)
    assert len({i for i in found.copies if i < 60}) >= 57
    nearest = {i: j for i, j, _ in found.pairs}
    assert np.mean([nearest[i] == sources[i] for i in range(60)]) >= 0.95
    assert found.copy_rate == len(found.copies) / 200
    assert found.copy_interval[0] < found.copy_rate < found.copy_interval[1]
    assert found.p_value < 1e-6
    assert found.memorised


def test_honest_images_raise_no_more_alarms_than_stated(train: Float32) -> None:
    rates, stated, control, accused = [], [], [], []
    for seed in range(12):
        found = audit(bodies(150, seed=100 + seed), train, bodies(150, seed=200 + seed), seed=seed)
        rates.append(found.copy_rate)
        stated.append(found.false_alarm)
        control.append(found.control_rate)
        accused.append(found.memorised)
    assert stated[0] == pytest.approx(1 / 151)
    # The mean rate of 1,800 honest images, with room for the chance of the twelve thresholds.
    assert np.mean(rates) < stated[0] + 0.007
    # Halves of 75 allow one alarm in 76.
    assert np.mean(control) < 1 / 76 + 0.008
    assert not any(accused)


def test_averaged_samples_are_no_copies(train: Float32, heldout: Float32) -> None:
    """They are nearer to every training image than real ones: a plain distance would call them copies."""
    means = bodies(800, seed=7).reshape(100, 8, 1, 64, 64).mean(1)
    found = audit(means, train, heldout)
    plain = np.median([d for _, _, d in found.pairs])
    assert plain < min(d for _, _, d in found.control_pairs), "the trap itself"
    assert found.copy_rate <= 0.02  # stated: 1 %
    assert found.p_value > 0.01


def test_a_leak_between_the_splits_shows_in_the_control_and_not_in_the_threshold(
    train: Float32, heldout: Float32
) -> None:
    honest = audit(bodies(50, seed=5), train, heldout)
    leaking = audit(bodies(50, seed=5), train, np.concatenate([heldout, train[:60]]))
    assert leaking.threshold == honest.threshold
    assert leaking.control_rate > 60 / 360 - 0.001
    assert honest.control_rate < 0.05


def test_a_copy_of_an_image_that_stands_in_the_training_set_many_times_is_found(
    train: Float32, heldout: Float32
) -> None:
    crowded = np.concatenate([train, np.repeat(train[:1], 60, axis=0)])
    found = audit(np.concatenate([train[:1], bodies(20, seed=6)]), crowded, heldout)
    assert found.ratios[0] > 0.5 or found.ratios[0] == 0  # the ratio alone may be blind to it
    assert 0 in found.copies


def test_pairs_are_sorted_and_name_real_neighbours(train: Float32, heldout: Float32) -> None:
    found = audit(train[[5, 700]], train, heldout)
    assert {(i, j) for i, j, _ in found.pairs} == {(0, 5), (1, 700)}
    distances = [d for _, _, d in found.control_pairs]
    assert distances == sorted(distances)
    assert len(distances) == len(heldout) == len(found.control_ratios)


def test_volumes() -> None:
    rng = np.random.default_rng(0)

    def volumes(n: int) -> Float32:
        noise = gaussian_filter(rng.normal(size=(n, 1, 20, 24, 24)), 3, axes=(2, 3, 4)) * 5
        return np.asarray(noise, dtype=np.float32)

    train, heldout = volumes(60), volumes(30)
    samples = np.concatenate([np.roll(train[:5, ..., ::-1], 1, 3), volumes(10)])
    found = audit(samples, train, heldout)
    assert set(found.copies) >= {0, 1, 2, 3, 4}
    assert len(found.copies) <= 6


def test_flat_images_do_not_break_it(train: Float32, heldout: Float32) -> None:
    found = audit(np.full((3, 1, 64, 64), -1, dtype=np.float32), train, heldout)
    assert found.copies == ()
    assert np.isfinite(found.ratios).all()


def test_what_cannot_be_audited_is_refused(train: Float32, heldout: Float32) -> None:
    with pytest.raises(UsageError, match="expected one"):
        audit(bodies(3, size=32), train, heldout)
    with pytest.raises(UsageError, match="3 held-out images; at least 10"):
        audit(train[:5], train, heldout[:3])
    with pytest.raises(UsageError, match="check the split"):
        audit(bodies(5), train, train[:40])


def test_shrinking_averages_areas() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 1, 48, 64)).astype(np.float32)
    blocks = image.reshape(1, 1, 24, 2, 32, 2).mean((3, 5))
    np.testing.assert_allclose(shrunk(image[:, :, :, :48], 24)[0, 0], blocks[0, 0, :, :24], atol=1e-6)
    odd = shrunk(image, 27)
    assert odd.shape == (1, 1, 27, 27)
    assert odd.mean() == pytest.approx(float(image.mean()), abs=1e-6)
    assert shrunk(image, 100).shape == image.shape


def test_wilson_interval_of_known_cases() -> None:
    # Newcombe 1998, table I.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(29, 29) == pytest.approx((0.8830, 1.0), abs=1e-4)


@pytest.mark.slow
def test_ten_thousand_training_images_take_seconds() -> None:
    rng = np.random.default_rng(0)
    many = rng.normal(size=(10_000, 1, 64, 64)).astype(np.float32)
    made = rng.normal(size=(1000, 4096)).astype(np.float32)
    start = time.process_time()
    audit(many[:1000], many, rng.normal(size=(300, 1, 64, 64)).astype(np.float32))
    taken = time.process_time() - start
    start = time.process_time()
    made @ many.reshape(10_000, -1).T  # every image against every other, at the least
    assert taken < 50 * (time.process_time() - start)


@pytest.fixture(scope="module")
def radiographs() -> Float32:
    path = DATA / "mednist_64" / "CXR.zip"
    if not path.is_file():
        pytest.skip(f"needs the real radiographs of MedNIST at {path} (set FABRICA_DATA)")
    with zipfile.ZipFile(path) as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".jpeg"))[:3000]
        pixels = [np.asarray(Pil.open(io.BytesIO(archive.read(n))).convert("L")) for n in names]
    return np.asarray(np.stack(pixels)[:, None] / np.float32(127.5) - 1, dtype=np.float32)


def test_real_radiographs(radiographs: Float32) -> None:
    train, heldout, fresh = radiographs[:2000], radiographs[2000:2500], radiographs[2500:]
    sources = np.random.default_rng(0).choice(2000, 100, replace=False)
    copies = DISGUISES["all"](train[sources])
    found = audit(np.concatenate([copies, fresh]), train, heldout)
    assert sum(i < 100 for i in found.copies) >= 95
    honest = audit(fresh, train, heldout)
    assert honest.copy_rate < 0.03  # stated: 1 %
    assert not honest.memorised
