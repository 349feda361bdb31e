"""Scores of pairs equal scikit-image, SynthRAD's definitions, and a reference run of FSIM."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage import data
from skimage.metrics import normalized_mutual_information, peak_signal_noise_ratio, structural_similarity

from fabrica.errors import UsageError
from fabrica.image import Float32, Float64
from fabrica.metrics.fsim import fsim, phase_congruency
from fabrica.metrics.paired import HOUNSFIELD, compare, difference, nmi

EIGHT_BIT = (0.0, 255.0)


def camera(rows: int, columns: int) -> Float64:
    whole: Float64 = data.camera().astype(np.float64)
    return whole if rows == 512 else whole[100 : 100 + rows, 200 : 200 + columns]


def ct(seed: int = 0, shape: tuple[int, ...] = (40, 48)) -> Float32:
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=shape), 3)
    return np.asarray(smooth / smooth.std() * 600, dtype=np.float32)[None]


def disc(shape: tuple[int, ...]) -> np.ndarray:
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return np.asarray(sum(a**2 for a in axes) < 0.8)


# a run of piq 0.8.0, fsim(..., data_range=255, chromatic=False), on the same pixels
@pytest.mark.parametrize(
    ("rows", "columns", "expected"), [(128, 128, 0.8121113), (96, 121, 0.8269238), (512, 512, 0.9012922)]
)
def test_fsim_equals_a_reference_run(rows: int, columns: int, expected: float) -> None:
    a = camera(rows, columns)
    found = fsim(a[None, None], gaussian_filter(a, 2)[None, None], EIGHT_BIT)
    assert found[0] == pytest.approx(expected, abs=2e-5)


def test_fsim_knows_the_same_from_the_worse() -> None:
    a = camera(128, 128)[None, None]
    noisy = [a + np.random.default_rng(1).normal(0, sigma, a.shape) for sigma in (5, 20, 60)]
    scores = [fsim(a, b, EIGHT_BIT)[0] for b in noisy]
    assert fsim(a, a, EIGHT_BIT)[0] == pytest.approx(1)
    assert 1 > scores[0] > scores[1] > scores[2] > 0


def test_fsim_does_not_depend_on_the_unit() -> None:
    a = camera(128, 128)[None, None]
    b = gaussian_filter(a, (0, 0, 1, 1))
    in_hu = fsim(a * 10 - 1000, b * 10 - 1000, (-1000.0, 1550.0))
    np.testing.assert_allclose(in_hu, fsim(a, b, EIGHT_BIT), rtol=1e-9)


def test_phase_congruency_is_highest_at_an_edge_whatever_its_contrast() -> None:
    for height in (20.0, 200.0):
        step = np.zeros((64, 64))
        step[:, 32:] = height
        row = phase_congruency(step)[32, 8:56]
        assert row.argmax() + 8 in (31, 32)
        assert row.max() > 0.7
        assert row[24 - 8] < 0.3  # eight pixels from it
    assert not phase_congruency(np.full((64, 64), 7.0)).any()


@pytest.mark.parametrize("shape", [(40, 48), (12, 24, 20)])
def test_scores_follow_synthrad(shape: tuple[int, ...]) -> None:
    truth, mask = ct(0, shape), disc(shape)
    result: Float32 = truth + ct(1, shape) / np.float32(4)
    result[0, 0] = 5000  # outside of the mask, and of what counts
    found = compare(result, truth, HOUNSFIELD, mask)

    a, b = (np.where(mask, np.clip(v[0].astype(np.float64), *HOUNSFIELD), -1024.0) + 1024 for v in (result, truth))
    assert found["mae"] == pytest.approx(np.abs(result[0] - truth[0])[mask].mean(), rel=1e-5)
    assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(b[mask], a[mask], data_range=4024), abs=1e-6)
    _, similarity = structural_similarity(b, a, data_range=4024, full=True)
    rim = (slice(3, -3),) * len(shape)
    assert found["ssim"] == pytest.approx(similarity[rim][mask[rim]].mean(), abs=2e-5)
    assert found["nmi"] == pytest.approx(normalized_mutual_information(a[mask], b[mask], bins=100), abs=1e-6)


def test_the_same_image_is_perfect() -> None:
    found = compare(ct(), ct(), HOUNSFIELD)
    assert found["mae"] == 0
    assert found["psnr"] == np.inf
    assert [found[key] for key in ("ssim", "ms_ssim", "fsim", "nmi")] == pytest.approx([1, 1, 1, 2])


def test_what_lies_outside_of_the_body_does_not_count() -> None:
    truth, mask = ct(), disc((40, 48))
    result = truth + 10
    spoilt = np.where(mask, result, np.float32(-900))
    assert compare(result, truth, HOUNSFIELD, mask) == pytest.approx(compare(spoilt, truth, HOUNSFIELD, mask))
    assert compare(result, truth, HOUNSFIELD, mask)["mae"] == pytest.approx(10, rel=1e-4)


def test_small_images_have_no_score_where_a_window_does_not_fit() -> None:
    found = compare(ct(0, (5, 40)), ct(1, (5, 40)), HOUNSFIELD)
    assert np.isnan(found["ssim"])
    assert np.isnan(found["ms_ssim"])
    assert found["mae"] > 0


def test_nmi_of_independent_values_is_near_one() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200_000))
    assert nmi(a, b) == pytest.approx(1, abs=0.01)
    assert nmi(a, -3 * a) == pytest.approx(2, abs=0.03)
    assert nmi(np.zeros(10), np.zeros(10)) == 2


@pytest.mark.parametrize(
    ("result", "truth", "mask", "said"),
    [
        (ct(), ct(0, (40, 40)), None, "expected two equal"),
        (ct(), ct(), np.zeros((40, 48), dtype=bool), "mask is empty"),
        (ct(), ct(), np.ones((48, 40), dtype=bool), "expected \\(40, 48\\)"),
        (np.where(ct() > 900, np.nan, ct()).astype(np.float32), ct(), None, "result holds .* not finite"),
    ],
)
def test_what_cannot_be_compared_is_said(result: Float32, truth: Float32, mask: None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compare(result, truth, HOUNSFIELD, mask)


def test_paired_tests_see_what_unpaired_ones_cannot() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(60, 20, 30)  # patients differ far more than models
    better, same = hard - 2 + rng.normal(0, 1, 30), hard + rng.normal(0, 1, 30)
    clear, nothing = difference(better, hard), difference(same, hard)
    assert clear.p < 1e-4
    assert clear.high < 0
    assert nothing.p > 0.05
    assert nothing.low < 0 < nothing.high
    assert difference(hard, hard).p == 1
    with pytest.raises(UsageError, match="same ones"):
        difference(hard, hard[1:])
