"""A network that changes nothing gives every voxel back, whatever the grid; what a network does, it does in place."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from fabrica.codec import Codec
from fabrica.errors import UsageError
from fabrica.geometry import faced
from fabrica.image import Float32, Float64, Image
from fabrica.inference.test_time import with_uncertainty, with_way_back
from fabrica.inference.translation import enlarged
from fabrica.model.model import Model
from fabrica.phantoms.head.head import head
from fabrica.recipe.found import Fingerprint

Made = Callable[..., Model]


def hounsfield(*size: int) -> Float32:
    return np.random.default_rng(0).integers(-1024, 3000, (1, *size)).astype(np.float32)


def placed(data: Float32, affine: Float64) -> Image:
    return Image(data, affine, "HU", {"format": "nifti", "modality": "CT"})


AFFINES = {
    "RAS": np.diag([1.0, 1.0, 3.0, 1.0]),
    "LPS": np.diag([-1.0, -1.0, 3.0, 1.0]),
    "sagittal": np.array([[0, 0, 3.0, 0], [1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("turn", AFFINES)
@pytest.mark.parametrize("size", [[32, 32], [8, 32, 32]])
def test_nothing_changed_is_nothing_changed_in_any_orientation(unchanged: Made, turn: str, size: list[int]) -> None:
    image = placed(hounsfield(9, 40, 50), AFFINES[turn])
    found = unchanged(size=size).apply(image).result
    assert found.unit == "HU" and found.origin["modality"] == "CT"
    assert np.array_equal(found.affine, image.affine)
    assert float(np.abs(found.data - image.data).max()) < 0.01


def test_slices_smaller_and_larger_than_the_window_and_alone(unchanged: Made) -> None:
    for size in [(20, 25), (32, 32), (45, 77)]:
        image = placed(hounsfield(*size), np.eye(4))
        assert float(np.abs(unchanged().apply(image).result.data - image.data).max()) < 0.01


@pytest.mark.parametrize("turn", AFFINES)
def test_a_slice_in_space_is_shown_upright_and_comes_back_as_it_lay(unchanged: Made, turn: str) -> None:
    """What the network saw is what a radiologist sees; what it gave lies on the pixels of the source again."""
    image = placed(hounsfield(32, 32), AFFINES[turn] @ np.array(np.eye(4) + np.eye(4, k=3)))
    model = unchanged()
    seen: list[Float32] = []

    def looked(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.numpy())
        return x

    model.method.generator.forward = looked
    found = model.apply(image).result
    assert float(np.abs(found.data - image.data).max()) < 0.01 and np.array_equal(found.affine, image.affine)
    upright = model.codec.scaled(faced(image).data, model.codec.span)
    np.testing.assert_array_equal(seen[0][0], upright)


def test_neighbours_are_seen_and_the_middle_one_answers(unchanged: Made) -> None:
    image = placed(hounsfield(5, 32, 32), AFFINES["LPS"])
    assert float(np.abs(unchanged(context=2).apply(image).result.data - image.data).max()) < 0.01
    with pytest.raises(UsageError, match="one slice and this model sees 2 slices on each side"):
        unchanged(context=2).apply(placed(hounsfield(32, 32), np.eye(4)))


def test_images_are_seen_at_the_millimetres_of_training(unchanged: Made) -> None:
    smooth = np.add.outer(np.arange(64.0), np.arange(64.0)).astype(np.float32)[None] * 10
    image = placed(smooth, np.diag([0.5, 0.5, 1.0, 1.0]))
    fine = unchanged(fit="pad", seen=Fingerprint(spacing=[1.0, 1.0]))
    seen: list[tuple[int, ...]] = []
    fine.method.generator.register_forward_hook(lambda net, given, made: seen.append(tuple(given[0].shape)))  # type: ignore[attr-defined]
    found = fine.apply(image).result
    assert seen == [(1, 1, 32, 32)]  # 64 pixels of half a millimetre are 32 of one
    assert found.size == (64, 64)
    assert float(np.abs(found.data - image.data)[:, 4:-4, 4:-4].max()) < 1.0  # a ramp survives the way there and back
    almost = placed(smooth, np.diag([0.95, 0.95, 1.0, 1.0]))
    assert np.allclose(fine.apply(almost).result.data, smooth, atol=0.01)  # near enough: nothing is interpolated


def test_the_result_has_the_targets_values(unchanged: Made) -> None:
    ramp = np.linspace(0, 700, 32 * 32, dtype=np.float32).reshape(1, 32, 32)
    mr = Image(ramp, np.eye(4), "arbitrary", {"modality": "MR"})
    found = unchanged(codec=Codec("percentile", 0.0, 100.0, default_limits=(0.0, 700.0))).apply(mr).result
    assert found.unit == "HU" and found.origin["modality"] == "CT"
    assert found.data.min() == pytest.approx(-1024, abs=0.1) and found.data.max() == pytest.approx(3071, abs=0.1)


def test_what_a_network_cannot_see_is_refused(unchanged: Made) -> None:
    with pytest.raises(UsageError, match="3 channels; this model sees 1"):
        unchanged().apply(Image(np.zeros((3, 32, 32), np.float32)))
    with pytest.raises(UsageError, match="a slice and this model sees volumes"):
        unchanged(size=[8, 32, 32]).apply(placed(hounsfield(32, 32), np.eye(4)))
    with pytest.raises(UsageError, match=r"goes a2b \(MR-CT\); found direction 'b2a'"):
        unchanged().apply(placed(hounsfield(32, 32), np.eye(4)), direction="b2a")


def test_a_direction_may_be_said_by_its_sides(unchanged: Callable[..., Model]) -> None:
    model = unchanged()
    assert model.way("MR-CT").direction == model.way("a2b").direction == "a2b"
    with pytest.raises(UsageError, match="found direction 'MR-CR'; did you mean MR-CT"):
        model.way("MR-CR")
    with pytest.raises(UsageError, match="found direction 'CT-MR'"):
        model.way("CT-MR")


def test_doubt_is_nothing_where_the_answer_moves_with_the_question_and_grows_where_it_does_not() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (2, 1, 16, 16)).astype(np.float32)

    def fixed(windows: Float32) -> Float32:
        return np.broadcast_to(np.linspace(-1, 1, 16, dtype=np.float32), windows.shape)

    sure = with_uncertainty(lambda w: np.full_like(w, 0.25))(x)
    assert np.array_equal(sure[:, 0], np.full_like(x[:, 0], 0.25)) and not sure[:, 1].any()
    assert float(with_uncertainty(fixed)(x)[:, 1].mean()) > 0.1  # the same left to right, though the image was mirrored


def test_the_uncertainty_and_the_round_trip_have_units(unchanged: Made) -> None:
    image = placed(hounsfield(32, 32), np.eye(4))
    found = unchanged().apply(image, uncertainty=True)
    assert found.uncertainty is not None and found.uncertainty.unit == "HU"
    assert 1 < float(found.uncertainty.data.mean()) < 500
    error = with_way_back(lambda w: w + np.float32(0.25), lambda w: w)(np.zeros((1, 1, 8, 8), np.float32))
    assert np.allclose(error[:, 1], 0.25)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_a_trained_looking_network_has_no_seams(unchanged: Made, overlap: float) -> None:
    """A convolution of three pixels in windows of 32 against the same on the whole slice, in shares of the range."""
    torch.manual_seed(0)
    tiled = unchanged()
    layer = nn.Conv2d(1, 1, 3, padding=1, padding_mode="replicate")
    tiled.method.generator = layer.requires_grad_(False)  # type: ignore[attr-defined]
    image = head(2, 96, contrasts=["CT"]).images["CT"]
    whole = unchanged(size=[96, 96])
    whole.method.generator = layer  # type: ignore[attr-defined]
    gap = np.abs(tiled.apply(image, overlap=overlap).result.data - whole.apply(image).result.data) / 4095
    if overlap:
        assert float(gap.mean()) < 1e-4 and float(np.quantile(gap, 0.99)) < 1e-3
    else:
        assert float(np.quantile(gap, 0.99)) > 1e-3  # the test can fail: without overlap the borders show


@pytest.mark.parametrize("turn", AFFINES)
def test_enlarged_volumes_lie_where_they_did_and_keep_their_slices(turn: str) -> None:
    image = placed(hounsfield(3, 4, 5), AFFINES[turn])
    fine = enlarged(image, 2)
    thick = {"RAS": 0, "LPS": 0, "sagittal": 1}[turn]  # the array axis of the slices
    assert [n for axis, n in enumerate(fine.size) if axis == thick] == [image.size[thick]]
    assert sorted(fine.size) == sorted(n if axis == thick else 2 * n for axis, n in enumerate(image.size))
    # each old voxel is the mean of the places of its new ones, whose values it has
    for corner in np.ndindex(3, 4, 5):
        steps = [range(1) if axis == thick else range(2) for axis in range(3)]
        inside = [
            tuple(k if axis == thick else 2 * k + step[axis] for axis, k in enumerate(corner))
            for step in itertools.product(*steps)
        ]
        places = [fine.affine @ [*place[::-1], 1] for place in inside]
        np.testing.assert_allclose(np.mean(places, axis=0), image.affine @ [*corner[::-1], 1], atol=1e-9)
        assert {float(fine.data[(0, *place)]) for place in inside} == {float(image.data[(0, *corner)])}


def test_a_network_that_is_local_sees_slices_whole(unchanged: Made) -> None:
    model = unchanged(size=[32, 32])
    seen: list[tuple[int, ...]] = []
    model.method.generator.register_forward_hook(lambda net, given, made: seen.append(tuple(given[0].shape)))  # type: ignore[attr-defined]
    image = placed(hounsfield(50, 70), np.eye(4))
    model.method.local = True  # type: ignore[attr-defined]
    assert float(np.abs(model.apply(image).result.data - image.data).max()) < 0.01
    assert seen == [(1, 1, 50, 70)]


def test_a_restored_image_keeps_its_own_scale_and_display(unchanged: Made) -> None:
    percentiles = Codec("percentile", 0, 100, default_limits=(0.0, 1.0))
    model = unchanged(percentiles, percentiles, a="degraded", b="T1", degrade=[{"name": "rician"}])
    image = placed(hounsfield(40, 40) + 5000, np.eye(4))
    image = image.with_data(image.data, unit="arbitrary", origin={"modality": "MR", "window": (1.0, 2.0), "step": 1.0})
    found = model.apply(image, uncertainty=True)
    assert float(np.abs(found.result.data - image.data).max()) < 0.01 and found.result.origin == image.origin
    assert found.uncertainty is not None and float(found.uncertainty.data.max()) > 10  # in the image's unit, not of 1
