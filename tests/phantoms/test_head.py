"""The head phantom: its physics, its geometry, and that what is asked for changes nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from fabrica.errors import UsageError
from fabrica.image import Float32, Float64, Image
from fabrica.phantoms import mri
from fabrica.phantoms.head.anatomy import INDEX, TISSUES, Tumour, draw_subject, fractions, from_head, to_head
from fabrica.phantoms.head.head import Head, head
from fabrica.phantoms.head.scan import CONTRASTS, SCANNERS
from fabrica.phantoms.head.shapes import waves
from tests.real import DATA

Mask = npt.NDArray[np.bool_]
BRAIN = ("grey matter", "white matter", "deep grey matter")


def pure(result: Head, *names: str, depth: int = 1) -> Mask:
    """Pixels (H, W) of these tissues that lie `depth` pixels inside: away from partial volume and blur."""
    found = np.isin(result.tissue.data[0], [INDEX[name] for name in names])
    inside: Mask = ndimage.binary_erosion(found, iterations=depth)
    return inside


def pooled(contrast: str, tissue: str, seeds: Iterable[int], scanner: str = "A") -> Float32:
    """The values of a contrast in pure pixels of a tissue, over several healthy heads."""
    depth = 2 if tissue in ("CSF", "fat") else 1  # thin layers of strong contrast: stay clear of the blur
    heads = [head(s, size=192, contrasts=(contrast,), tumour=False, scanner=scanner) for s in seeds]
    return np.concatenate([h.images[contrast].data[0][pure(h, tissue, depth=depth)] for h in heads])


# --- physics ------------------------------------------------------------------------------------------------


def test_spin_echo_by_hand() -> None:
    tissue = mri.Relaxation(t1=500, t2=80, pd=0.8)
    # exp(-(500-10)/500) = 0.375311, exp(-1) = 0.367879, exp(-20/80) = 0.778801
    assert mri.spin_echo(tissue, tr=500, te=20) == pytest.approx(0.8 * 0.617257 * 0.778801, rel=1e-5)


def test_inversion_recovery_by_hand() -> None:
    tissue = mri.Relaxation(t1=1000, t2=100, pd=0.5)
    # exp(-0.5) = 0.606531, exp(-2) = 0.135335, exp(-1) = 0.367879: negative before the null
    expected = 0.5 * (1 - 1.213061 + 0.135335) * 0.367879
    assert mri.inversion_recovery(tissue, tr=2000, te=100, ti=500) == pytest.approx(expected, rel=1e-4)
    assert mri.signal(tissue, mri.Sequence(2000, 100, 500)) == pytest.approx(-expected, rel=1e-4)


def test_null_time_nulls() -> None:
    ti = mri.null_time(4300, 9000)
    assert 2000 < ti < 2600
    assert mri.inversion_recovery(mri.Relaxation(4300, 2000, 1), 9000, 100, ti) == pytest.approx(0, abs=1e-9)


def test_rician_noise_is_rayleigh_without_signal_and_normal_with_much() -> None:
    rng = np.random.default_rng(0)
    empty = mri.rician(np.zeros((400, 400), np.float32), 3.0, rng)
    assert empty.mean() == pytest.approx(3 * math.sqrt(math.pi / 2), rel=0.01)
    assert empty.std() == pytest.approx(3 * math.sqrt(2 - math.pi / 2), rel=0.01)
    full = mri.rician(np.full((400, 400), 90, np.float32), 3.0, rng)
    assert full.mean() == pytest.approx(90 + 9 / (2 * 90), abs=0.05)
    assert full.std() == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize("scanner", ["A", "B"])
def test_background_of_a_picture_is_rayleigh(scanner: str) -> None:
    machine = SCANNERS[scanner]
    picture = head(3, contrasts=("T2",), scanner=scanner, tumour=False)
    air = ndimage.binary_erosion(picture.tissue.data[0] == INDEX["air"], iterations=4)
    white = mri.signal(mri.relaxation("white matter", machine.tesla), machine.sequences["T2"])
    sigma = machine.noise * white * machine.gain
    assert picture.images["T2"].data[0][air].mean() == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.03)


def test_coil_bias_is_smooth_and_positive() -> None:
    axis = np.arange(-110, 110, 5.0, dtype=np.float32)
    places = np.stack(np.meshgrid(axis, axis, [0.0], indexing="ij"), axis=-1).astype(np.float32)
    bias = mri.coil_bias(places, 0.15, np.random.default_rng(2))[..., 0]
    assert bias.min() > 0.5
    assert bias.max() < 2
    assert bias.max() / bias.min() > 1.05
    assert np.abs(np.diff(np.log(bias), axis=0)).max() < 0.15 * math.sqrt(8) * 2 * math.pi / 250 * 5


# --- contrast -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scanner", ["A", "B"])
def test_magnetic_contrasts(scanner: str) -> None:
    seeds = range(4)
    mean = {
        (contrast, tissue): pooled(contrast, tissue, seeds, scanner).mean()
        for contrast in ("T1", "T2", "FLAIR")
        for tissue in ("grey matter", "white matter", "CSF")
    }
    assert mean["T1", "white matter"] > 1.08 * mean["T1", "grey matter"] > 1.5 * mean["T1", "CSF"]
    assert mean["T2", "CSF"] > 1.5 * mean["T2", "grey matter"] > 1.5 * 1.15 * mean["T2", "white matter"]
    assert mean["FLAIR", "grey matter"] > 1.1 * mean["FLAIR", "white matter"] > 3 * mean["FLAIR", "CSF"]


def test_lesion_in_each_contrast() -> None:
    heads = [head(seed, tumour=True) for seed in range(8)]

    def ratio(contrast: str, tissue: str) -> float:
        lesion = [h.images[contrast].data[0][h.tissue.data[0] == INDEX[tissue]].mean() for h in heads]
        white = [h.images[contrast].data[0][pure(h, "white matter")].mean() for h in heads]
        return float(np.median(np.divide(lesion, white)))

    assert ratio("FLAIR", "oedema") > 1.4
    assert ratio("T1", "tumour core") < 0.8
    assert ratio("T1", "tumour rim") > 1.0  # gadolinium
    assert ratio("T2", "tumour core") > 1.5
    assert ratio("CT", "oedema") < 0.95
    assert ratio("PET", "tumour rim") > 1.8


@pytest.mark.parametrize(
    ("tissue", "low", "high"),
    [
        ("air", -1000, -995),
        ("fat", -112, -88),
        ("CSF", 5, 15),
        ("white matter", 25, 32),
        ("grey matter", 34, 42),
        ("deep grey matter", 34, 42),
        ("eye", 0, 20),
    ],
)
def test_ct_numbers(tissue: str, low: float, high: float) -> None:
    seeds: Iterable[int] = range(4)
    if tissue in ("eye", "fat"):  # slices through the orbits
        seeds = [s for s in range(60) if head(s, size=16, contrasts=()).labels["level"] < -20]
    values = pooled("CT", tissue, seeds)
    assert len(values) > 30
    assert low <= np.median(values) <= high


def test_skull_numbers() -> None:
    result = head(1, size=512, contrasts=("CT",), tumour=False)
    ct = result.images["CT"].data[0]
    assert 700 < np.percentile(ct[pure(result, "cortical bone")], 80) < 1500
    assert 200 < np.median(ct[pure(result, "marrow")]) < 450


def test_uptake() -> None:
    seeds = range(4)
    grey = pooled("PET", "deep grey matter", seeds).mean()
    white = pooled("PET", "white matter", seeds)
    assert grey > 1.8 * np.percentile(white, 20)  # 5.5 mm of blur brings the factor of 4 down
    assert white.min() >= 0


# --- geometry -----------------------------------------------------------------------------------------------


def test_pictures_share_one_grid() -> None:
    result = head(2, size=96)
    assert set(result.images) == set(CONTRASTS)
    for image in (*result.images.values(), result.tissue):
        assert image.data.shape == (1, 96, 96)
        np.testing.assert_array_equal(image.affine, result.tissue.affine)
    assert 220 / 96 <= result.tissue.spacing[0] <= 240 / 96
    assert result.images["CT"].unit == "HU"
    assert result.tissue.unit == "label"
    assert result.images["PET"].origin["modality"] == "PT"


@pytest.mark.parametrize("other", ["T2", "FLAIR", "PD", "CT", "PET"])
def test_mutual_information_peaks_without_a_shift(other: str) -> None:
    """What a registration program would find between two contrasts: nothing to move."""
    result = head(5, contrasts=("T1", other))
    first, second = (image.data[0] for image in result.images.values())
    if other == "CT":
        second = np.clip(second, -200, 300)

    def information(row: int, column: int) -> float:
        counts, _, _ = np.histogram2d(first.ravel(), np.roll(second, (row, column), (0, 1)).ravel(), bins=40)
        joint = counts / counts.sum()
        apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
        return float((joint[joint > 0] * np.log(joint[joint > 0] / apart[joint > 0])).sum())

    shifts = [(row, column) for row in range(-2, 3) for column in range(-2, 3)]
    assert max(shifts, key=lambda shift: information(*shift)) == (0, 0)


def test_orientation_follows_the_affine() -> None:
    """Eyes are anterior and low; columns run from right to left, rows backward, slices upward."""
    result = head(0, size=96, slices=48, contrasts=("T1",), tumour=False)
    affine = result.tissue.affine
    assert np.linalg.det(affine[:3, :3]) > 0

    def mean_place(tissue: str) -> Float64:
        d, h, w = np.nonzero(result.tissue.data[0] == INDEX[tissue])
        index = np.stack([w, h, d, np.ones_like(w)])
        place: Float64 = (affine @ index).mean(axis=1)[:3]
        return place

    eyes, brain = mean_place("eye"), mean_place("white matter")
    assert eyes[1] > brain[1] + 50
    assert eyes[2] < brain[2] - 25
    assert abs(eyes[0]) < 10
    _, h, _ = np.nonzero(result.tissue.data[0] == INDEX["eye"])
    assert h.mean() < 48  # row 0 is anterior
    assert (affine @ [0, 48, 24, 1])[0] > 100  # column 0 is to the right


@pytest.mark.parametrize("seed", range(6))
def test_tumour_side_and_centre_agree_with_the_mask(seed: int) -> None:
    result = head(seed, contrasts=(), tumour=True)
    mask = np.isin(result.tissue.data[0], [INDEX["tumour core"], INDEX["tumour rim"]])
    h, w = np.nonzero(mask)
    where = result.tissue.affine @ [w.mean(), h.mean(), 0, 1]
    centre = result.labels["centre_mm"]
    assert np.hypot(*(where[:2] - centre[:2])) < 0.6 * result.labels["radius_mm"]
    assert abs(where[2] - centre[2]) <= 0.3 * result.labels["radius_mm"] + 1e-3
    middle = from_head(draw_subject(_anatomy_rng(seed)), np.array([[0.0, *to_mni(seed, centre)[1:]]]))[0, 0]
    assert (centre[0] > middle) == (result.labels["side"] == "right")
    voxel = np.prod(result.tissue.spacing) * 5.0
    assert result.labels["volume_mm3"] == pytest.approx(mask.sum() * voxel)
    assert result.labels["volume_mm3"] > 0


def _anatomy_rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed).spawn(5)[0])


def to_mni(seed: int, place: tuple[float, float, float]) -> Float32:
    mni: Float32 = to_head(draw_subject(_anatomy_rng(seed)), np.array([place], dtype=np.float32))[0]
    return mni


def test_tumour_volume_in_a_volume() -> None:
    result = head(7, size=96, slices=72, contrasts=(), tumour=True)
    labels = result.labels
    mask = np.isin(result.tissue.data, [INDEX["tumour core"], INDEX["tumour rim"]])
    voxel = float(np.prod(result.tissue.spacing))
    assert labels["volume_mm3"] == pytest.approx(mask.sum() * voxel)
    ball = 4 / 3 * math.pi * labels["radius_mm"] ** 3
    assert 0.2 * ball < labels["volume_mm3"] < 2.5 * ball  # irregular, and scaled with the head


@pytest.mark.parametrize("seed", range(12))
def test_deformation_keeps_orientation_and_can_be_undone(seed: int) -> None:
    subject = draw_subject(np.random.default_rng(seed))
    axis = np.arange(-100, 101, 12.5)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    step = 0.5
    columns = [
        to_head(subject, (points + step * e).astype(np.float32)).astype(np.float64)
        - to_head(subject, (points - step * e).astype(np.float32))
        for e in np.eye(3)
    ]
    determinant = np.linalg.det(np.stack(columns, axis=-1) / (2 * step))
    assert determinant.min() > 0.3
    back = to_head(subject, from_head(subject, points).astype(np.float32))
    np.testing.assert_allclose(back, points, atol=1e-2)


@pytest.mark.parametrize("diseased", [False, True])
def test_fractions_sum_to_one_and_are_not_negative(diseased: bool) -> None:
    rng = np.random.default_rng(4)
    subject = draw_subject(rng)
    tumour = Tumour(np.array([30.0, 0, 20]), 15, 3, 25, waves(rng, 8, 20, 40), waves(rng, 8, 20, 40))
    points = rng.uniform(-110, 110, (20000, 3)).astype(np.float32)
    parts = fractions(subject, points, 2.0, tumour if diseased else None)
    assert (parts[INDEX["tumour core"]] > 0.9).any() == diseased
    np.testing.assert_allclose(parts.sum(axis=0), 1, atol=1e-5)
    assert parts.min() > -1e-6


def test_every_tissue_occurs_in_a_volume_in_human_amounts() -> None:
    result = head(1, size=128, slices=44, contrasts=(), tumour=True)
    counts = np.bincount(result.tissue.data.astype(int).ravel(), minlength=len(TISSUES))
    assert (counts > 0).all(), [name for name, n in zip(TISSUES, counts, strict=True) if n == 0]
    litres = counts * np.prod(result.tissue.spacing) / 1e6
    brain = sum(litres[INDEX[name]] for name in (*BRAIN, "oedema", "tumour core", "tumour rim"))
    assert 0.9 < brain < 1.7
    assert 0.6 < litres[INDEX["grey matter"]] / litres[INDEX["white matter"]] < 2.0


@pytest.mark.parametrize("seed", range(6))
def test_layers_lie_in_order(seed: int) -> None:
    """From the right ear's side inward, at the level of the vault, sampled every 0.2 mm."""
    subject = draw_subject(np.random.default_rng(seed))
    mni = np.stack([np.linspace(95, 40, 276), np.full(276, -30.0), np.full(276, 35.0)], axis=1)
    names = np.argmax(fractions(subject, from_head(subject, mni).astype(np.float32), 0.2), axis=0)
    layers = [TISSUES[names[0]]]
    for name in names[1:]:
        if TISSUES[name] != layers[-1]:
            layers.append(TISSUES[name])
    bone = ["cortical bone", "marrow", "cortical bone"]
    assert layers[:8] == ["air", "skin", "fat", *bone, "CSF", "grey matter"]


def test_the_slice_is_a_cut_through_the_volume() -> None:
    flat = head(9, size=64, contrasts=(), tumour=True).tissue
    volume = head(9, size=64, slices=160, contrasts=(), tumour=True).tissue
    nearest = round((flat.affine[2, 3] - volume.affine[2, 3]) / volume.affine[2, 2])
    np.testing.assert_allclose(flat.affine[:2], volume.affine[:2])
    assert (volume.data[0, nearest] == flat.data[0]).mean() > 0.93


# --- randomness ---------------------------------------------------------------------------------------------


def test_same_seed_same_head_other_seed_other_head() -> None:
    first, again, other = head(11), head(11), head(12)
    for name, image in first.images.items():
        np.testing.assert_array_equal(image.data, again.images[name].data)
        assert (image.data != other.images[name].data).mean() > 0.2
    assert first.labels == again.labels


def test_contrasts_do_not_disturb_each_other() -> None:
    everything, alone = head(13), head(13, contrasts=("PET", "T2"))
    assert list(alone.images) == ["PET", "T2"]
    for name, image in alone.images.items():
        np.testing.assert_array_equal(image.data, everything.images[name].data)


def test_the_scanner_changes_mr_only() -> None:
    a, b = head(14, scanner="A"), head(14, scanner="B")
    np.testing.assert_array_equal(a.tissue.data, b.tissue.data)
    for name in ("CT", "PET"):
        np.testing.assert_array_equal(a.images[name].data, b.images[name].data)
    brain = pure(a, *BRAIN)
    for name in ("T1", "T2", "FLAIR", "PD"):
        ratio = b.images[name].data[0][brain].mean() / a.images[name].data[0][brain].mean()
        assert not 0.8 < ratio < 1.25


def test_the_tumour_changes_the_tumour_only() -> None:
    without, with_one = head(15, tumour=False), head(15, tumour=True)
    changed = without.tissue.data != with_one.tissue.data
    lesion = np.isin(with_one.tissue.data, [INDEX[n] for n in ("tumour core", "tumour rim", "oedema")])
    assert lesion.sum() > 20
    assert not (lesion & ~changed).any()
    assert (changed & ~ndimage.binary_dilation(lesion, iterations=3)).sum() == 0
    away = np.hypot(*(plane - centre for plane, centre in zip(_plane(with_one.tissue), _centre(with_one), strict=True)))
    far = away[None] > 75
    for name in ("T1", "FLAIR"):
        np.testing.assert_array_equal(without.images[name].data[far], with_one.images[name].data[far])
    assert without.labels["volume_mm3"] == 0
    assert without.labels["side"] == "none"


def _plane(image: Image) -> tuple[Float64, Float64]:
    """x and y in mm of every pixel, (H, W) each."""
    h, w = np.indices(image.size)
    affine = image.affine
    return affine[0, 0] * w + affine[0, 3], affine[1, 1] * h + affine[1, 3]


def _centre(result: Head) -> tuple[float, float]:
    x, y, _ = result.labels["centre_mm"]
    return x, y


def test_half_of_the_seeds_have_a_tumour() -> None:
    present = [head(seed, size=16, contrasts=()).labels["tumour"] for seed in range(100)]
    assert 30 < sum(present) < 70


def test_pictures_are_storable_integers() -> None:
    for image in head(16).images.values():
        low, high = image.origin["range"]
        assert image.data.min() >= low
        assert image.data.max() <= high
        np.testing.assert_array_equal(image.data, np.rint(image.data))


@pytest.mark.parametrize(
    "options",
    [
        {"contrasts": ("T3",)},
        {"contrasts": "T1"},
        {"scanner": "C"},
        {"slices": 0},
        {"size": 4},
        {"seed": -1},
    ],
)
def test_wrong_use_is_told(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        head(**{"seed": 0, **options})  # type: ignore[arg-type]


# --- beside a real head -------------------------------------------------------------------------------------


def test_a_real_head_lies_within_the_population() -> None:
    path = DATA / "mri_fernando/t2.nii.gz"
    if not path.exists():
        pytest.skip(f"no real head at {path}: set FABRICA_DATA to the folder of the data sets")
    import nibabel

    real = nibabel.as_closest_canonical(nibabel.load(path))
    values = np.asarray(real.dataobj)
    outline = values > 0.25 * np.median(values[values > np.percentile(values, 70)])
    plane = ndimage.binary_fill_holes(ndimage.binary_opening(outline[..., 16], iterations=2))
    spans = [np.ptp(np.nonzero(plane.any(axis=1 - k))[0]) * real.header.get_zooms()[k] for k in (0, 1)]
    widths, lengths = [], []
    for seed in range(60):
        result = head(seed, contrasts=())
        if not 5 < result.labels["level"] < 35:
            continue
        rows, columns = np.nonzero(result.tissue.data[0])
        widths.append(np.ptp(columns) * result.tissue.spacing[1])
        lengths.append(np.ptp(rows) * result.tissue.spacing[0])
    assert len(widths) > 10
    assert min(widths) < spans[0] < max(widths)
    assert min(lengths) < spans[1] < max(lengths)
