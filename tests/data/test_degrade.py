"""Degradations of images: the physics' effect, determinism, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fabrica.data.degradations import STEPS
from fabrica.data.degrade import check, degraded
from fabrica.data.resolution import scale
from fabrica.errors import UsageError
from fabrica.geometry import as_seen
from fabrica.image import Float32, Image
from tests.draws import draws

AFFINE = np.diag([0.8, 0.8, 3.0, 1.0])


def water(side: int = 96, slices: int = 0) -> Image:
    """A cylinder of water, 40 HU, in air."""
    at = np.arange(side) - (side - 1) / 2
    plane = np.where(np.hypot(at[:, None], at) < side * 0.4, 40, -1000).astype(np.float32)
    data = plane[None] if not slices else np.repeat(plane[None, None], slices, 1)
    return Image(data, AFFINE, "HU", {"modality": "CT"})


def smooth(modality: str, side: int = 64, **origin: Any) -> Image:
    at = np.linspace(0, 3, side, dtype=np.float32)
    data = 100 + 80 * np.sin(at[:, None] * 2) * np.cos(at) + np.random.default_rng(1).random((side, side)) * 9
    return Image(data[None].astype(np.float32), AFFINE, origin={"modality": modality, **origin})


def fitting(step: str, side: int = 64) -> Image:
    subject = STEPS[step].subject
    return water(side) if subject == "CT" else smooth({"MR": "MR", "X-ray": "DX", "any": "PT"}[subject], side)


def one(image: Image, seed: int = 0, **step: Any) -> Float32:
    return degraded(image, [step], seed).data


ALL = sorted(STEPS)
RANDOM = ["low-dose", "undersample", "ghost", "rician", "bias", "quantum", "gaussian"]


@pytest.mark.parametrize("name", ALL)
def test_every_step_changes_keeps_and_repeats(name: str) -> None:
    image = fitting(name)
    before = image.data.copy()
    first, again, other = (degraded(image, [{"name": name}], seed) for seed in (3, 3, 4))
    assert np.array_equal(first.data, again.data) and first.data.dtype == np.float32
    assert np.array_equal(image.data, before) and not np.array_equal(first.data, before)
    assert np.array_equal(first.data, other.data) is (name not in RANDOM)
    assert np.isfinite(first.data).all() and first.data.shape == before.shape
    assert np.array_equal(first.affine, image.affine) and first.unit == image.unit
    assert first.origin == {**image.origin, "degraded": name}


def test_names_are_told_in_their_order_and_each_step_draws_on_its_own() -> None:
    image = smooth("MR")
    both = degraded(image, [{"name": "rician"}, {"name": "blur"}], 0)
    assert both.origin["degraded"] == "rician, blur"
    assert degraded(both, [{"name": "gibbs"}], 0).origin["degraded"] == "rician, blur, gibbs"
    flat = Image(np.zeros((1, 64, 64), np.float32), origin={"range": (-100, 100)})
    once = one(flat, name="gaussian")
    twice = degraded(flat, [{"name": "gaussian"}, {"name": "gaussian"}], 0).data
    assert twice.std() / once.std() == pytest.approx(np.sqrt(2), rel=0.05)


def test_no_steps_give_the_image_itself() -> None:
    image = smooth("MR")
    assert degraded(image, [], 0) is image and scale([]) == 1


def test_noise_insertion_keeps_the_mean_and_falls_with_the_photons() -> None:
    image = water()
    middle = np.s_[0, 30:66, 30:66]
    noise = {n: one(image, name="low-dose", photons=n, electronic=0) - image.data for n in (1e5, 1e7)}
    spread = {n: noise[n][middle].std() for n in noise}
    assert abs(noise[1e5][middle].mean()) < spread[1e5] / 10
    assert (spread[1e5] / spread[1e7]) ** 2 == pytest.approx(100, rel=0.25)


def test_noise_falls_as_the_missing_dose() -> None:
    image = water()
    quarter, half = (
        (one(image, name="low-dose", dose=d, electronic=0) - image.data)[0, 20:76, 20:76].var() for d in (0.25, 0.5)
    )
    assert quarter / half == pytest.approx(3, rel=0.1)  # (1 - a) / a
    np.testing.assert_allclose(one(image, name="low-dose", dose=1.0), image.data, atol=1e-3)


def test_inserted_noise_is_the_missing_part_of_a_whole_scans() -> None:
    image = water()
    missing = one(image, name="low-dose", dose=0.5) - image.data
    whole = one(image, name="low-dose", dose=0.5, full=True) - one(image, 1, name="low-dose", dose=0.5, full=True)
    middle = np.s_[0, 20:76, 20:76]
    assert missing[middle].var() / (whole[middle].var() / 2) == pytest.approx(0.5, rel=0.15)


def test_noise_of_an_abdomen_is_that_of_the_defaults() -> None:
    at = np.arange(256) - 127.5  # 350 x 260 mm of water, as an abdomen in 512 x 512 pixels of 0.75 mm, half the rows
    ellipse = np.hypot(at[:, None] * 1.5 / 130, at * 1.5 / 175) < 1
    hu = np.where(ellipse, 40, -1000).astype(np.float32).repeat(2, 0).repeat(2, 1)
    image = Image(hu[None], np.diag([0.75, 0.75, 5, 1]), "HU", {"modality": "CT"})
    noise = one(image, name="low-dose") - image.data
    assert 20 < noise[0, 206:306, 206:306].std() < 50


@pytest.mark.parametrize("geometry", ["parallel", "fan"])
def test_low_dose_in_both_geometries(geometry: str) -> None:
    image = water()
    noise = one(image, name="low-dose", geometry=geometry) - image.data
    parallel = one(image, name="low-dose") - image.data
    middle = np.s_[0, 24:72, 24:72]
    assert noise[middle].std() == pytest.approx(parallel[middle].std(), rel=0.3)
    plain = one(image, name="low-dose", geometry=geometry, full=True, dose=1.0, photons=1e9, electronic=0)
    assert plain[middle].mean() == pytest.approx(40, abs=3)


def test_what_lies_outside_of_the_scanner_stays() -> None:
    image = water()
    data = image.data.copy()
    data[0, :8] = -3024
    for name in ("low-dose", "sparse-view"):
        assert (one(image.with_data(data), name=name)[0, :8] == -3024).all()


def test_sparse_views_make_streaks_that_more_views_take_away() -> None:
    image = water()
    errors = [
        np.abs(one(image, name="sparse-view", views=v) - image.data)[0, 24:72, 24:72].mean() for v in (10, 40, 200)
    ]
    assert errors[0] > 2 * errors[1] > 2 * errors[2]


def test_rician_background_and_full_sampling() -> None:
    data = np.zeros((1, 200, 200), np.float32)
    data[0, :20] = 1000
    image = Image(data, origin={"modality": "MR"})
    found = one(image, name="rician", sigma=0.05)[0, 20:]
    assert found.mean() == pytest.approx(50 * np.sqrt(np.pi / 2), rel=0.02)
    np.testing.assert_allclose(one(image, name="undersample", acceleration=1.0), data, atol=1e-2)
    np.testing.assert_allclose(one(image, name="ghost", shift=0.0), data, atol=1e-2)
    np.testing.assert_allclose(one(image, name="gibbs", keep=1.0), data, atol=1e-2)


def test_negative_values_are_not_folded() -> None:
    image = smooth("MR")
    lower = image.with_data(image.data - 500)
    found = one(lower, name="undersample", acceleration=1.0)
    np.testing.assert_allclose(found, lower.data, atol=1e-3)


def test_phase_encoding_runs_along_its_axis() -> None:
    image = Image(np.zeros((1, 32, 32), np.float32), origin={"modality": "MR"})
    image.data[0, 10:14, 12:20] = 1
    assert one(image, name="ghost", phase="vertical")[0, :, :11].max() < 1e-5
    assert one(image, name="ghost", phase="horizontal")[0, :9].max() < 1e-5


@pytest.mark.parametrize("slices", [0, 6])
def test_bias_is_smooth_positive_and_of_mean_one(slices: int) -> None:
    shape = (1, slices, 64, 80) if slices else (1, 64, 80)
    image = Image(np.ones(shape, np.float32), AFFINE, origin={"modality": "MR"})
    field = one(image, name="bias", strength=0.5)
    assert field.min() > 0 and field.mean() == pytest.approx(1, rel=1e-4) and field.std() > 0.02
    for axis in range(1, field.ndim):  # from slice to slice it is further than from pixel to pixel
        assert np.abs(np.diff(np.log(field), axis=axis)).max() < (0.2 if axis == field.ndim - 3 else 0.06)


def test_gaussian_is_relative_to_eight_bits_or_to_the_values() -> None:
    data = smooth("DX", 128).data
    eight = Image(data, origin={"range": (0, 255)})
    assert (one(eight, name="gaussian", sigma=0.05) - data).std() == pytest.approx(0.05 * 255, rel=0.05)
    span = np.subtract(*np.percentile(data, [99.5, 0.5]))
    for origin in ({}, {"range": (0, 65535)}):
        noise = one(Image(data, origin=dict(origin)), name="gaussian", sigma=0.05) - data
        assert noise.std() == pytest.approx(0.05 * span, rel=0.05)


@settings(max_examples=draws(30), deadline=None)
@given(st.integers(1, 23), st.integers(1, 23), st.lists(st.sampled_from([2, 4]), min_size=1, max_size=2))
def test_downsample_gives_area_means_repeated(h: int, w: int, factors: list[int]) -> None:
    data = np.random.default_rng(h * 100 + w).random((2, h, w), np.float32)
    steps = [{"name": "downsample", "factor": f} for f in factors]
    found, f = degraded(Image(data), steps, 0).data, scale(steps)
    assert f == np.prod(factors)
    small = found[:, ::f, ::f]
    assert np.array_equal(small.repeat(f, 1).repeat(f, 2)[:, :h, :w], found)
    whole = data[:, : h // f * f, : w // f * f].reshape(2, h // f, f, w // f, f).mean((2, 4))
    np.testing.assert_allclose(small[:, : h // f, : w // f], whole, atol=1e-6)


def test_downsample_repeats_the_last_pixels_for_the_mean() -> None:
    image = Image(np.float32([[[0, 2, 6]]]))
    assert np.array_equal(one(image, name="downsample", factor=2), np.float32([[[1, 1, 6]]]))


def test_noise_after_downsampling_is_that_of_the_smaller_image() -> None:
    found = degraded(smooth("DX"), [{"name": "downsample"}, {"name": "gaussian"}], 0).data
    assert np.array_equal(found[:, ::2, ::2].repeat(2, 1).repeat(2, 2), found)


SAME = [n for n in ALL if n not in RANDOM and n != "scatter"]


@pytest.mark.parametrize("name", SAME)
def test_a_volume_is_its_axial_slices(name: str) -> None:
    """A coronal volume: slices run along its second axis, from head to feet."""
    affine = np.array([[0.8, 0, 0, 0], [0, 0, 1.1, 0], [0, -0.8, 0, 0], [0, 0, 0, 1.0]])
    plane = fitting(name, 24).data[0]
    data = np.stack([plane[:, :20] * (1 + k / 30) for k in range(6)], 1)[None]  # (1, A, S, R): rows from P to A
    data = np.ascontiguousarray(data, np.float32)
    image = Image(data, affine, fitting(name).unit, fitting(name).origin)
    found = as_seen(one(image, name=name), affine, "LPS")
    seen = as_seen(data, affine, "LPS")
    assert seen.shape == (1, 6, 24, 20)
    flat = np.diag([0.8, 1.1, 1, 1])
    for k in range(6):
        slice_ = Image(np.ascontiguousarray(seen[:, k]), flat, image.unit, image.origin)
        if STEPS[name].subject == "MR":
            assert slice_.data.min() >= 0
        np.testing.assert_allclose(found[:, k], one(slice_, name=name), atol=1e-2)


def test_the_first_slice_of_a_volume_has_the_noise_of_a_picture_and_the_others_their_own() -> None:
    volume = one(water(48, 3), name="low-dose")
    oriented = as_seen(volume, AFFINE, "LPS")
    seen = as_seen(water(48, 3).data, AFFINE, "LPS")
    single = one(Image(np.ascontiguousarray(seen[:, 0]), AFFINE, "HU"), name="low-dose")
    np.testing.assert_allclose(oriented[:, 0], single, atol=1e-3)
    assert not np.allclose(oriented[:, 0], oriented[:, 1])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("level", [0.0, 3071.0])
def test_constant_images_stay_finite_and_in_their_range(name: str, level: float) -> None:
    image = fitting(name)
    flat = image.with_data(np.full((1, 20, 21), level, np.float32), origin={**image.origin, "range": (-1024.0, 3071.0)})
    found = one(flat, name=name)
    assert np.isfinite(found).all() and found.min() >= -1024 and found.max() <= 3071


BAD: list[tuple[Any, str]] = [
    ({"name": "low-dose"}, "expected a list"),
    ("low-dose", "expected a list"),
    (["low-dose"], "expected a mapping"),
    ([{"dose": 1}], "expected a mapping"),
    ([{"name": "lowdose"}], "did you mean low-dose"),
    ([{"name": 3}], "no degradation 3"),
    ([{"name": "low-dose", "photon": 3}], "did you mean photons"),
    ([{"name": "low-dose", "photons": 0}], "from 1 to 1e"),
    ([{"name": "low-dose", "photons": -5.0}], "from 1"),
    ([{"name": "low-dose", "photons": "2e4"}], "a number"),
    ([{"name": "low-dose", "photons": float("nan")}], "a number"),
    ([{"name": "low-dose", "dose": 1.5}], "to 1,"),
    ([{"name": "low-dose", "dose": True}], "a number"),
    ([{"name": "low-dose", "geometry": "cone"}], "parallel or fan"),
    ([{"name": "low-dose", "full": 1}], "false or true"),
    ([{"name": "sparse-view", "views": 0}], "whole number from 1"),
    ([{"name": "sparse-view", "views": 30.5}], "whole number"),
    ([{"name": "undersample", "acceleration": 0.5}], "from 1 to 64"),
    ([{"name": "undersample", "centre": 2}], "from 0 to 1"),
    ([{"name": "gibbs", "keep": 0}], "from 0.02"),
    ([{"name": "downsample", "factor": 3}], "2 or 4"),
    ([{"name": "downsample", "factor": 2.0}], "2 or 4"),
    ([{"name": "gaussian"}, {"name": "blur", "sigma": -1}], "blur: sigma"),
]


@pytest.mark.parametrize(("steps", "told"), BAD)
def test_check_refuses_what_makes_no_sense(steps: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        check(steps)
    with pytest.raises(UsageError):
        degraded(water(16), steps, 0)


def test_check_takes_every_default_and_what_omegaconf_reads() -> None:
    check([{"name": name} for name in STEPS])
    steps = OmegaConf.create("- {name: low-dose, photons: 2e4, dose: 1}\n- {name: downsample, factor: 4}")
    check(steps)
    assert scale(steps) == 4  # type: ignore[arg-type]
    assert degraded(water(16), steps, 0).origin["degraded"] == "low-dose, downsample"  # type: ignore[arg-type]


WRONG: list[tuple[str, Mapping[str, Any], str]] = [
    ("low-dose", {"unit": "arbitrary", "origin": {"modality": "MR", "path": "head.nii"}}, "head.nii .* MR"),
    ("sparse-view", {"unit": "arbitrary", "origin": {"modality": "CT"}}, "CT in HU"),
    ("rician", {"unit": "HU", "origin": {"modality": "CT"}}, "unit HU.*expects an MR image"),
    ("undersample", {"unit": "arbitrary", "origin": {"modality": "DX"}}, "modality DX"),
    ("quantum", {"unit": "arbitrary", "origin": {"modality": "MR"}}, "radiograph"),
    ("scatter", {"unit": "HU", "origin": {}}, "not known"),
    ("blur", {"unit": "label", "origin": {}}, "labels"),
    ("gaussian", {"unit": "arbitrary", "origin": {"modality": "SEG"}}, "labels"),
]


@pytest.mark.parametrize(("name", "image", "told"), WRONG)
def test_steps_refuse_what_is_not_theirs(name: str, image: Mapping[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        one(Image(np.zeros((1, 8, 8), np.float32), **image), name=name)
