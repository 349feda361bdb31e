"""Cases in the cache, and patches of them: the right voxels, the same each time, images and label maps alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fabrica.codec import Codec
from fabrica.data.augment import AS_THEY_ARE, Changes
from fabrica.data.cases import UNKNOWN, Cases, build_cases, classes_at
from fabrica.data.patches import FOREGROUND, Patches, one_hot
from fabrica.errors import UsageError
from fabrica.recipe.plan import Plan
from fabrica.recipe.schema import DataConfig

CODEC = Codec("window", -1000, 1000, "HU")
PLAN = Plan(
    spacing=[1.0, 1.0, 1.0], size=[8, 12, 10], numbers=[0, 3], names=["", "ball"], mirror=[0, 1, 2], turned=[0, 1, 2]
)
AUGMENT = Changes(augment=True)


def written(folder: Path, sizes: list[tuple[int, ...]], affine: np.ndarray | None = None, label: int = 3) -> DataConfig:
    """Volumes (W, H, D) with a bright ball that is labelled, as NIfTI, and their manifest."""
    lines = ["id,patient,path,mask,split,modality"]
    for k, size in enumerate(sizes):
        places = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"))
        middle = np.array(size).reshape(-1, 1, 1, 1) / 2 + (k % 3)
        inside = ((places - middle) ** 2).sum(0) < 3.2**2
        values = np.where(inside, 500, -500) + np.random.default_rng(k).integers(-9, 9, size)
        for name, data in (("image", values), ("mask", inside * label)):
            nib.Nifti1Image(data.astype(np.int16), np.eye(4) if affine is None else affine).to_filename(
                folder / f"{name}{k}.nii.gz"
            )
        split = "train" if k < len(sizes) - 1 else "val"
        lines.append(f"c{k},p{k},image{k}.nii.gz,mask{k}.nii.gz,{split},CT")
    (folder / "m.csv").write_text("\n".join(lines))
    return DataConfig(source=str(folder / "m.csv"), a="image", b="mask", paired=True, size=PLAN.size)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Patches]:
    folder = tmp_path_factory.mktemp("cases")
    config = written(folder, [(20, 24, 16), (9, 30, 22), (14, 10, 7), (20, 20, 20)])

    def patches(plan: Plan = PLAN, **choices: int) -> Patches:
        return Patches(build_cases(config, CODEC, plan, "train"), plan, **choices)

    return patches


def test_cases_are_kept_as_they_are_at_their_own_size(opened: Callable[..., Patches]) -> None:
    cases = opened().a
    assert [cases.size(k) for k in range(3)] == [(16, 24, 20), (22, 30, 9), (7, 10, 14)]
    for k in range(3):
        whole, labels = cases.image(k), cases.label(k)
        assert set(np.unique(labels)) == {0, 1} and (whole[0][labels == 1] > 0.4).all()
        assert (whole[0][labels == 0] < -0.4).all()
        first, size = [1, 3, 2], [4, 5, 6]
        part = tuple(slice(f, f + s) for f, s in zip(first, size, strict=True))
        assert np.array_equal(cases.image(k, first, size), whole[:, *part])
        assert np.array_equal(cases.label(k, first, size), labels[part])
        for label, voxels in cases.places(k).items():
            assert (labels[tuple(voxels.T)] == label).all() and len(voxels) == (labels == label).sum()


def test_another_spacing_is_another_size_and_the_same_place(tmp_path: Path) -> None:
    config = written(tmp_path, [(20, 24, 16)] * 2, affine=np.diag([1.0, 1.0, 3.0, 1.0]))
    plan = replace(PLAN, spacing=[1.5, 2.0, 0.95])
    cases = build_cases(config, CODEC, plan, "train")
    assert cases.size(0) == (32, 12, 20)  # W is within a tenth of what it was
    whole, labels = cases.image(0)[0], cases.label(0)
    assert (whole[labels == 1] > -0.1).all() and (whole[labels == 0] < 0.1).all()


def test_label_maps_take_the_largest_share() -> None:
    labels = np.zeros((1, 4, 4), dtype=np.float32)
    labels[0, :, 3] = 9
    labels[0, 0, 0] = 5  # of no class: nobody has said
    found = classes_at(labels, (2, 2), [0, 9])
    assert found.tolist() == [[0, 0], [0, 0]] or found.tolist() == [[0, 1], [0, 1]]
    assert classes_at(labels, (4, 4), [0, 9])[0, 0] == UNKNOWN
    signs = one_hot(np.array([[0, 1, UNKNOWN]], dtype=np.uint8), [[0], [1]])
    assert signs.tolist() == [[[1, -1, 0]], [[-1, 1, 0]]]
    signs = one_hot(np.array([[0, 1]], dtype=np.uint8), [[0], [1], [2]], undrawn=[2])  # the background may be class 2
    assert signs.tolist() == [[[0, -1]], [[-1, 1]], [[0, -1]]]
    numbers = np.array([[0, 1, 2, UNKNOWN]], dtype=np.uint8)
    assert one_hot(numbers, [[1, 2], [2]]).tolist() == [[[-1, 1, 1, 0]], [[-1, -1, 1, 0]]]  # regions overlap
    signs = one_hot(numbers, [[1, 2], [2]], undrawn=[2])  # both regions may be where nothing was drawn
    assert signs.tolist() == [[[0, 1, 1, 0]], [[0, -1, 1, 0]]]


@pytest.mark.parametrize("changes", [AS_THEY_ARE, AUGMENT])
def test_a_patch_depends_on_seed_and_position_alone(opened: Callable[..., Patches], changes: Changes) -> None:
    patches = opened()
    whole = patches.batch(5, np.arange(12), changes)
    assert whole["a"].shape == (12, 1, *PLAN.size) and whole["b"].shape == (12, 2, *PLAN.size)
    parts = [patches.batch(5, np.array([k]), changes) for k in (11, 0, 7)]
    for k, part in zip((11, 0, 7), parts, strict=True):
        for key, values in part.items():
            assert np.array_equal(values[0], whole[key][k])
    other = patches.batch(6, np.arange(12), changes)
    assert not np.array_equal(other["a"], whole["a"])


@pytest.mark.parametrize("changes", [AS_THEY_ARE, AUGMENT])
def test_images_and_label_maps_move_together(opened: Callable[..., Patches], changes: Changes) -> None:
    """The ball is bright: where it is labelled the patch is, whatever was done to both."""
    batch = opened().batch(0, np.arange(60), changes)
    agreed = []
    for a, b in zip(batch["a"], batch["b"], strict=True):
        ball = b[1] > 0
        if 20 < ball.sum() < ball.size - 20:
            middle = (a[0][ball].mean() + a[0][~ball].mean()) / 2
            agreed.append(((a[0] > middle) == ball).mean())
    assert len(agreed) > 20 and np.median(agreed) > 0.98 and np.mean(np.array(agreed) > 0.9) > 0.9


def test_a_third_lies_around_a_class_and_all_voxels_come(tmp_path: Path) -> None:
    config = written(tmp_path, [(60, 60, 60)] * 2)
    patches = Patches(build_cases(config, CODEC, PLAN, "train"), PLAN)
    shown = (patches.batch(0, np.arange(300), AS_THEY_ARE)["b"][:, 1] > 0).any((1, 2, 3)).mean()
    assert FOREGROUND - 0.1 < shown < FOREGROUND + 0.15


def test_slices_come_with_their_neighbours(opened: Callable[..., Patches]) -> None:
    plan = replace(PLAN, size=[12, 10], spacing=[1.0, 1.0], mirror=[0, 1], turned=[0, 1])
    flat = opened(plan, context=1)
    batch = flat.batch(0, np.arange(40), AS_THEY_ARE)
    assert batch["a"].shape == (40, 3, 12, 10) and batch["b"].shape == (40, 2, 12, 10)
    assert all(flat.a.size(k) == size for k, size in enumerate([(16, 24, 20), (22, 30, 9), (7, 10, 14)]))
    for a, b in zip(batch["a"], batch["b"], strict=True):
        ball = b[1] > 0
        assert (a[1][ball] > 0.4).all()  # the middle channel is the slice that is labelled
    assert flat.batch(0, np.arange(4), AUGMENT)["a"].shape == (4, 3, 12, 10)


def test_patches_larger_than_the_image_lie_in_its_middle(opened: Callable[..., Patches]) -> None:
    plan = replace(PLAN, size=[40, 40, 40])
    patches = opened(plan)
    for a, b in zip(*(patches.batch(0, np.arange(6), AS_THEY_ARE)[key] for key in "ab"), strict=True):
        filled = np.argwhere(a[0] > -1)
        low, high = filled.min(0), 39 - filled.max(0)
        assert (np.abs(low - high) <= 1).all() and (b[0][a[0] == -1] == 1).all()


def test_the_folder_is_whole_or_made_anew(tmp_path: Path, opened: Callable[..., Patches]) -> None:
    cases = opened().a
    file = cases.folder / "images.i16"
    kept = file.read_bytes()
    file.write_bytes(kept[:-2])
    try:
        again = opened().a
        assert np.array_equal(again.image(2), Cases(again.folder).image(2))
        assert (again.folder / "images.i16").stat().st_size == len(kept)
    finally:
        file.write_bytes(kept)


def test_other_channels_are_refused(tmp_path: Path) -> None:
    config = replace(written(tmp_path, [(12, 12, 12)] * 2), channels=3)
    with pytest.raises(UsageError, match="1 channels; expected 3"):
        build_cases(config, CODEC, PLAN, "train")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Patches]:
    """Three cases of two contrasts: the second is the first on a scale of its own, and the last case has none."""
    folder = tmp_path_factory.mktemp("several")
    config = written(folder, [(20, 24, 16), (9, 30, 22), (14, 20, 17), (20, 20, 20)])
    lines = [line + ("domain" if k == 0 else "A") for k, line in enumerate(_lines(folder, ","))]
    for k in (0, 1, 3):
        image = nib.load(folder / f"image{k}.nii.gz")
        nib.Nifti1Image(np.asarray(image.dataobj) // 2, image.affine).to_filename(folder / f"other{k}.nii.gz")
        lines.append(f"d{k},p{k},other{k}.nii.gz,,{'val' if k == 3 else 'train'},CT,B")
    (folder / "m.csv").write_text("\n".join(lines))
    config = replace(config, a="A", auxiliary=["B"])
    half = Codec("window", -500, 500, "HU")

    def patches(plan: Plan = PLAN, **choices: int) -> Patches:
        return Patches(build_cases(config, CODEC, plan, "train", auxiliary=[half]), plan, **choices)

    return patches


def _lines(folder: Path, end: str) -> list[str]:
    return [line + end for line in (folder / "m.csv").read_text().splitlines()]


def test_contrasts_move_together_and_change_apart(several: Callable[..., Patches]) -> None:
    patches = several()
    assert patches.beside == 1
    plain = patches.batch(3, np.arange(40), AS_THEY_ARE)
    there = plain["index"] != 2
    np.testing.assert_allclose(plain["a"][there][:, 0], plain["a"][there][:, 1], atol=3e-3)
    batch = patches.batch(3, np.arange(200), AUGMENT)
    gone = batch["index"] == 2
    assert gone.any() and (batch["a"][gone][:, 1] == -1).all()  # what is not there stays so, whatever is changed
    both = batch["a"][~gone]
    apart = np.array([float(np.abs(one - other).max()) for one, other in both])
    assert (apart > 0.05).mean() > 0.5 > 0.05 < (apart < 0.01).mean()  # most changed apart, some not at all
    balls = [(one, other) for one, other in both if one.std() > 0.2 < other.std()]
    agreed = [float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) for one, other in balls]
    assert len(agreed) > 20 and np.median(agreed) > 0.95  # at the same place, turned, scaled and bent alike


def test_slices_see_their_neighbours_and_of_what_lies_beside_themselves(several: Callable[..., Patches]) -> None:
    plan = replace(PLAN, size=[12, 10], spacing=[1.0, 1.0], mirror=[], turned=[0, 1])
    batch = several(plan, context=1).batch(0, np.arange(30), AS_THEY_ARE)
    assert batch["a"].shape == (30, 4, 12, 10)
    there = batch["index"] != 2
    np.testing.assert_allclose(batch["a"][there][:, 1], batch["a"][there][:, 3], atol=3e-3)
    assert not np.allclose(batch["a"][there][:, 0], batch["a"][there][:, 3], atol=3e-3)
    assert (batch["a"][~there][:, 3] == -1).all()
