"""The chest phantom: closed forms of its projections, its truth against its masks, its words against its labels."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.phantoms import Chest, chest
from fabrica.phantoms.chest.anatomy import MU_TISSUE
from fabrica.phantoms.chest.bodies import ellipsoid_chord, free_length, stack_chord
from fabrica.phantoms.chest.chest import FINDINGS, LESIONS, ORGANS
from fabrica.phantoms.chest.curves import tube_points
from fabrica.phantoms.chest.detector import detect
from fabrica.phantoms.chest.truth import heart_thorax_ratio
from tests.real import DATA


def organ(made: Chest, name: str) -> np.ndarray:
    return made.organs.data[0] == ORGANS.index(name)


def lesion(made: Chest, name: str) -> np.ndarray:
    return made.lesions.data[0] == LESIONS.index(name)


@pytest.fixture(scope="module")
def normals() -> list[Chest]:
    return [chest(seed, 128, ()) for seed in range(12)]


# --- closed forms -------------------------------------------------------------------------------------------


def test_sphere_chord_is_the_line_integral_and_fills_the_volume() -> None:
    at = (np.arange(-60, 60, 0.5) + 0.25).astype(np.float32)
    x, z = at[None, :], at[:, None]
    chord = ellipsoid_chord(x, z, (3.0, -2.0), (40.0, 40.0, 40.0))
    away = np.hypot(x - 3, z + 2)
    expected = np.where(away < 40, 2 * np.sqrt(np.maximum(40.0**2 - away**2, 0)), 0)
    np.testing.assert_allclose(chord, expected, atol=0.05)
    assert chord.sum() * 0.25 == pytest.approx(4 / 3 * np.pi * 40**3, rel=2e-3)


def test_ellipsoid_chord_agrees_with_marching_along_the_beam() -> None:
    axes, y = (30.0, 12.0, 50.0), np.arange(-20, 20, 0.01)
    for x, z in ((0, 0), (10, 20), (-25, 5), (29, 30)):
        marched = 0.01 * np.sum((x / axes[0]) ** 2 + (y / axes[1]) ** 2 + (z / axes[2]) ** 2 < 1)
        chord = ellipsoid_chord(np.float32([[x]]), np.float32([[z]]), (0.0, 0.0), axes)
        assert chord[0, 0] == pytest.approx(marched, abs=0.03)


def test_stack_chord_is_the_depth_on_the_axis_and_nothing_beyond_the_border() -> None:
    x = np.float32([-51, -50, 0, 25, 50, 51])
    half = stack_chord(x, np.float32(0), np.float32(50), np.float32(80))
    np.testing.assert_allclose(half, [0, 0, 80, 80 * np.sqrt(1 - 0.5**3), 0, 0], atol=1e-3)


def test_free_length_is_what_no_block_covers() -> None:
    rng = np.random.default_rng(0)
    low, high = np.float32(rng.uniform(-90, -60, 200)), np.float32(rng.uniform(60, 90, 200))
    blocks = []
    for _ in range(4):
        start = np.float32(rng.uniform(-110, 90, 200))
        blocks.append((start, start + np.float32(rng.uniform(0, 70, 200))))
    y = np.arange(-120, 120, 0.05)[:, None]
    free = (y > low) & (y < high)
    for start, end in blocks:
        free &= ~((y > start) & (y < end))
    np.testing.assert_allclose(free_length(low, high, blocks), free.sum(0) * 0.05, atol=0.5)


def test_tube_points_carry_the_volume_of_the_tube_at_every_step() -> None:
    path = np.stack([np.linspace(0, 60, 9), np.linspace(0, 20, 9), np.linspace(0, -80, 9)], -1)[None]
    length = np.linalg.norm(path[0, -1] - path[0, 0])
    for step in (0.4, 1.0, 3.0):
        points, volume = tube_points(path, np.full((1, 9), 2.5), step)
        assert volume.sum() == pytest.approx(np.pi * 2.5**2 * length, rel=1e-5)
        flat = points[0, :, :, [0, 2]].reshape(2, -1)
        across = np.abs(flat[0] * 80 + flat[1] * 60) / 100  # distance from the axis in the picture
        assert across.max() <= 2.5 + 1e-4


def test_slab_transmits_by_beer_lambert_with_its_scatter() -> None:
    thick = 150.0
    slab = np.full((48, 48), MU_TISSUE * thick, np.float32)
    seen = detect(slab, 3.0, 1e12, np.random.default_rng(0))
    expected = MU_TISSUE * thick - np.log1p(0.08 * MU_TISSUE * thick)
    np.testing.assert_allclose(seen, expected, atol=2e-3)


def test_noise_follows_the_number_of_quanta() -> None:
    slab = np.full((96, 96), 2.0, np.float32)
    for photons, pixel in ((20000.0, 1.0), (5000.0, 3.0)):
        seen = detect(slab, pixel, photons, np.random.default_rng(1))
        quanta = photons * pixel**2 * np.exp(-2.0) * 1.16
        assert seen.std() == pytest.approx(1 / np.sqrt(quanta), rel=0.05)


# --- the picture --------------------------------------------------------------------------------------------


def test_image_is_what_a_detector_would_store() -> None:
    made = chest(5, 96)
    assert made.image.data.shape == made.organs.data.shape == made.lesions.data.shape == (1, 96, 96)
    assert made.image.unit == "arbitrary" and made.organs.unit == made.lesions.unit == "label"
    assert np.array_equal(made.image.data, np.rint(made.image.data))
    assert made.image.data.min() >= 0 and made.image.data.max() <= 4095
    assert made.image.origin == {
        "format": "phantom",
        "modality": "DX",
        "range": (0, 4095),
        "step": 1.0,
        "patient": "chest-5",
    }
    assert 350 <= made.image.spacing[0] * 96 <= 400
    assert made.image.spacing[0] == pytest.approx(made.image.spacing[1])


def test_affine_points_to_the_patients_right_and_up() -> None:
    affine = chest(5, 64).image.affine
    first, last = affine @ [0, 0, 0, 1], affine @ [63, 63, 0, 1]
    assert first[0] > 0 > last[0], "image left is the patient's right, +x"
    assert first[2] > 0 > last[2], "the first row is superior"
    assert np.linalg.det(affine[:3, :3]) > 0


def test_same_seed_same_chest_other_seed_other_chest() -> None:
    one, same, other = chest(7, 64), chest(7, 64), chest(8, 64)
    assert np.array_equal(one.image.data, same.image.data)
    assert np.array_equal(one.lesions.data, same.lesions.data)
    assert one.labels == same.labels and one.text == same.text
    assert not np.array_equal(one.image.data, other.image.data)


def test_anatomy_does_not_depend_on_size() -> None:
    for seed in (1, 2, 3):
        small, large = chest(seed, 64, FINDINGS), chest(seed, 256, FINDINGS)
        for coarse, fine in ((small.organs, large.organs), (small.lesions, large.lesions)):
            centres = fine.data[0, 1::4, 1::4]
            assert np.mean(coarse.data[0] == centres) > 0.94
        blocks = large.image.data[0].reshape(64, 4, 64, 4).mean((1, 3))
        assert np.corrcoef(blocks.ravel(), small.image.data.ravel())[0, 1] > 0.985
        measured = "heart_thorax_ratio"
        assert small.labels[measured] == pytest.approx(large.labels[measured], abs=0.05)
        nodule = "nodule_mm"
        np.testing.assert_allclose(small.labels[nodule], large.labels[nodule], atol=0.01)
        rest = {k: v for k, v in small.labels.items() if k not in (measured, nodule)}
        assert rest == {k: large.labels[k] for k in rest}
        assert small.text == large.text and small.label == large.label


def test_tones_of_a_radiograph(normals: list[Chest]) -> None:
    for made in normals:
        picture = made.image.data[0]
        lungs = picture[organ(made, "right lung") | organ(made, "left lung")].mean()
        heart, spine = picture[organ(made, "heart")].mean(), picture[organ(made, "spine")].mean()
        air = np.median(picture[organ(made, "background")])
        assert air < 0.5 * lungs and lungs < 0.55 * heart and heart < 1.15 * spine
        assert np.mean(picture == 4095) < 0.01, "nothing burnt out"


def test_lungs_are_not_empty(normals: list[Chest]) -> None:
    """Ribs and vessels: the lungs' detail exceeds by far what the abdomen shows, which is mostly noise."""
    for made in normals[:6]:
        picture = made.image.data[0].reshape(64, 2, 64, 2).mean((1, 3))  # halves the noise
        detail = picture[1:-1, 1:-1] - (picture[:-2, 1:-1] + picture[2:, 1:-1]) / 2
        lung = organ(made, "right lung")[::2, ::2][1:-1, 1:-1]
        assert detail[lung].std() > 2 * detail[-6:, 20:28].std()


@pytest.mark.skipif(not (DATA / "cxr_hannover_243").is_dir(), reason=f"no real radiographs below {DATA}")
def test_mean_phantom_resembles_the_mean_radiograph() -> None:
    from PIL import Image as Picture

    files = sorted((DATA / "cxr_hannover_243" / "images").glob("*.jpg"))[:80]
    real = np.mean([np.asarray(Picture.open(f).convert("L").resize((64, 64)), float) for f in files], 0)
    made = np.mean([chest(seed, 64).image.data[0] for seed in range(40)], 0)
    assert np.corrcoef(real.ravel(), made.ravel())[0, 1] > 0.6


# --- the truth ----------------------------------------------------------------------------------------------


def test_organs_are_plausible(normals: list[Chest]) -> None:
    for made in normals:
        area = np.prod(made.image.spacing) / 100  # cm^2 a pixel
        columns = np.arange(128)
        right, left, heart = organ(made, "right lung"), organ(made, "left lung"), organ(made, "heart")
        assert 170 < right.sum() * area < 420 and 130 < left.sum() * area < 380
        assert 70 < heart.sum() * area < 210
        centre = {name: (organ(made, name).sum(0) @ columns) / organ(made, name).sum() for name in ORGANS[1:]}
        assert centre["right lung"] < centre["spine"] < centre["left lung"]
        assert centre["right lung"] < centre["trachea"] < centre["left lung"]
        assert centre["heart"] > centre["spine"] + 1, "the heart lies to the patient's left"
        bottom = [np.flatnonzero(mask.any(1))[-1] for mask in (right, left)]
        assert min(bottom) > 64, "the lungs reach below the middle of the picture"


def test_ratio_is_measured_in_the_mask() -> None:
    for seed in range(20):
        for wanted in ((), ("cardiomegaly",)):
            made = chest(seed, 96, wanted)
            heart = np.flatnonzero(organ(made, "heart").any(0))
            widths = []
            for right, left in zip(organ(made, "right lung"), organ(made, "left lung"), strict=True):
                if right.any() and left.any():
                    widths.append(np.flatnonzero(left)[-1] - np.flatnonzero(right)[0] + 1)
            measured = (heart[-1] - heart[0] + 1) / max(widths)
            assert made.labels["heart_thorax_ratio"] == pytest.approx(measured, abs=1e-9)
            assert measured > 0.55 if wanted else 0.37 < measured < 0.5
            assert made.labels["cardiomegaly"] is bool(wanted)


def test_ratio_of_a_drawn_map() -> None:
    organs = np.zeros((20, 40), np.float32)
    organs[4:16, 4:12], organs[4:16, 28:36] = ORGANS.index("right lung"), ORGANS.index("left lung")
    organs[8:14, 14:30] = ORGANS.index("heart")
    assert heart_thorax_ratio(organs) == pytest.approx(16 / 32)
    with pytest.raises(ValueError, match="lacks"):
        heart_thorax_ratio(np.zeros((20, 40), np.float32))


@pytest.mark.parametrize("finding", FINDINGS)
def test_finding_changes_the_picture_there_and_only_there(finding: str) -> None:
    brighter = -1 if finding == "pneumothorax" else 1
    for seed in range(5):
        without, made = chest(seed, 128, ()), chest(seed, 128, (finding,))
        mask = lesion(made, finding)
        if finding == "cardiomegaly":
            mask &= ~organ(without, "heart")  # what the heart has gained
        assert mask.any() and not without.lesions.data.any()
        change = made.image.data[0] - without.image.data[0]
        near = mask.copy()
        for axis in (0, 1):  # the lead, the pleural line and the fading rim of the fluid lie beside the mask
            for shift in range(-4, 5):
                near |= np.roll(mask, shift, axis)
        inside, outside = np.mean(change[mask]), np.abs(change[~near]).mean()
        assert brighter * inside > 60, f"seed {seed}: {inside}"
        assert abs(inside) > 4 * outside, f"seed {seed}: {inside} inside, {outside} outside"
        if finding != "cardiomegaly":
            assert np.array_equal(made.organs.data, without.organs.data), "the anatomy must not shift"


@pytest.mark.parametrize("finding", FINDINGS)
def test_labels_and_masks_name_the_same_findings(finding: str) -> None:
    for seed in range(4):
        made = chest(seed, 64, [finding])
        assert [name for name in FINDINGS if made.labels[name]] == [finding]
        assert {LESIONS[int(k)] for k in np.unique(made.lesions.data)} == {"none", finding}
        assert made.label == finding


def test_sides_and_places() -> None:
    for seed in range(12):
        made = chest(seed, 128, ("nodule", "pneumothorax", "left_effusion", "pacemaker"))
        middle = organ(made, "spine").nonzero()[1].mean()
        for name, side in (
            ("pneumothorax", made.labels["pneumothorax_side"]),
            ("pacemaker", made.labels["device_side"]),
            ("left_effusion", "left"),
            ("nodule", made.labels["nodule_side"]),
        ):
            column = lesion(made, name).nonzero()[1].mean()
            assert (column > middle) == (side == "left"), name
        alone = chest(seed, 128, ("nodule",))
        column, row = np.linalg.solve(alone.image.affine, [*alone.labels["nodule_mm"], 1.0])[:2]
        rows, columns = lesion(alone, "nodule").nonzero()
        assert abs(column - columns.mean()) < 1 and abs(row - rows.mean()) < 1
        field = organ(alone, f"{alone.labels['nodule_side']} lung")
        assert field[round(row), round(column)], "the nodule lies in its lung field"
        down = (row - np.flatnonzero(field.any(1))[0]) / np.ptp(np.flatnonzero(field.any(1)))
        assert {"upper": down < 0.4, "mid": 0.2 < down < 0.7, "lower": down > 0.45}[alone.labels["nodule_zone"]]
        diameter = alone.labels["nodule_diameter_mm"]
        assert 7 < diameter < 27
        assert rows.size * alone.image.spacing[0] ** 2 == pytest.approx(np.pi / 4 * diameter**2, rel=0.6)


@pytest.mark.parametrize(
    "first", ["from fabrica.phantoms import chest", "from fabrica.phantoms.chest.chest import FINDINGS"]
)
def test_the_function_and_its_module_share_a_name(first: str) -> None:
    """In a fresh interpreter, whichever is imported first."""
    both = "from fabrica.phantoms.chest.chest import FINDINGS; from fabrica.phantoms import chest"
    subprocess.run([sys.executable, "-c", f"{first}; {both}; chest(0, 16, FINDINGS)"], check=True, timeout=60)


def test_normal_is_normal() -> None:
    made = chest(3, 64, ())
    assert made.label == "normal" and not made.lesions.data.any()
    assert made.labels["nodule_mm"] is None and made.labels["effusion_sides"] == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"findings": ["nodul"]}, "did you mean nodule\\?"),
        ({"findings": ["xyz"]}, "expected one of cardiomegaly, "),
        ({"findings": "nodule"}, "expected a list"),
        ({"size": 8}, "at least 16"),
    ],
)
def test_wrong_use_is_explained(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chest(0, **arguments)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="seed"):
        chest(-1)


# --- the words ----------------------------------------------------------------------------------------------

WORDS = {
    "cardiomegaly": r"cardiomegaly|enlarge|increased|widened",
    "left_effusion": r"(left|bilateral)[^.]*effusion|effusion[^.]*left",
    "right_effusion": r"(right|bilateral)[^.]*effusion|effusion[^.]*right",
    "nodule": r"nodule|nodular",
    "pneumothorax": r"pneumothorax",
    "pacemaker": r"pacemaker",
}
NEGATION = r"\b(no|not|without|neither|free of|normal|unremarkable)\b"


def affirmed(text: str, finding: str) -> bool:
    """Whether a sentence names the finding without a negation."""
    sentences = re.split(r"(?<!\d)\.(?!\d)|\.\s", text.lower())
    return any(re.search(WORDS[finding], s) and not re.search(NEGATION, s) for s in sentences)


@pytest.fixture(scope="module")
def many() -> list[Chest]:
    return [chest(seed, 24) for seed in range(300)]


@pytest.mark.slow
def test_report_says_what_the_labels_say(many: list[Chest]) -> None:
    for made in many:
        found, _, impression = made.text.partition(" IMPRESSION: ")
        assert found.startswith("FINDINGS: ") and impression.endswith(".")
        for finding in FINDINGS:
            present = made.labels[finding]
            if finding == "cardiomegaly":
                impression = impression.replace("enlargement", "enlarge")
            assert affirmed(found, finding) == present, (finding, made.text)
            assert affirmed(impression, finding) == present, (finding, made.text)


def test_report_names_sides_sizes_and_zones(many: list[Chest]) -> None:
    for made in many:
        text, labels = made.text.lower(), made.labels
        if labels["nodule"]:
            assert f"{labels['nodule_zone']} zone" in text or f"{labels['nodule_zone']} lung zone" in text
            millimetres = round(float(str(labels["nodule_diameter_mm"])))
            assert f"{millimetres} mm" in text or f"{millimetres / 10:.1f} cm" in text
        if labels["pneumothorax"]:
            sides = re.findall(r"(left|right)[^.]*pneumothorax|(left|right) (?:apex|pleural space)", text)
            assert {side for pair in sides for side in pair if side} == {labels["pneumothorax_side"]}
        for size in dict(labels["effusion_sizes"]).values():  # type: ignore[call-overload]
            assert size in text
        assert f"{labels['device_side']}" in text or not labels["pacemaker"]


def test_reports_vary_and_read_well(many: list[Chest]) -> None:
    texts = [made.text for made in many]
    assert len(set(texts)) >= 290
    sentences = {s for text in texts for s in re.split(r"(?<=[a-z)])\. ", text)}
    assert len(sentences) > 250
    for text in texts:
        assert "  " not in text and "None" not in text and " ." not in text and ".." not in text
        assert not re.search(r"\ba (8|11 |18 |[aeio])", text.lower()), text
        assert not re.search(r"[.] [a-z]", text), text


def test_about_a_third_is_normal_and_every_finding_occurs(many: list[Chest]) -> None:
    assert 0.27 < np.mean([made.label == "normal" for made in many]) < 0.43
    for finding in FINDINGS:
        assert np.mean([made.labels[finding] for made in many]) > 0.08


# --- the price ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cost_scales_with_pixels_and_stays_small() -> None:
    """In units of a reference measured alongside: a 128 x 128 complex Fourier transform."""

    def seconds(size: int) -> float:
        best = np.inf
        for seed in range(6):
            start = time.process_time()
            chest(seed, size)
            best = min(best, time.process_time() - start)
        return best

    noise = np.random.default_rng(0).standard_normal((128, 128))
    transform = np.inf
    for _ in range(20):
        start = time.process_time()
        for _ in range(10):
            np.fft.fft2(noise)
        transform = min(transform, (time.process_time() - start) / 10)
    assert seconds(256) < 6 * seconds(128)
    assert seconds(128) < 5 * seconds(64)
    assert seconds(128) < 450 * transform
