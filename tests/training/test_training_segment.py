"""A segmenter from a folder of images and masks to label maps, by the command line's own road."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file

from fabrica import io
from fabrica.errors import UsageError
from fabrica.evaluation import evaluate
from fabrica.model.loading import load
from fabrica.recipe.found import found_in
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train

pytestmark = pytest.mark.usefixtures("few_asked")

TINY = [
    "method.width=2",
    "train.minutes=0",
    "train.validate_every=3",
    "train.checkpoint_every=3",
    "train.precision=fp32",
]

SMALL = ["data.size=[16,16,16]", "data.batch=2"]


def volumes(folder: Path, count: int = 8, labels: tuple[int, int] = (2, 5), mm: float = 1.0) -> Path:
    """Volumes of noise with a bright and a dark ball, labelled, as nnU-Net has them."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(count):
        size = tuple(int(n) for n in rng.integers(20, 28, 3))
        places = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"))
        numbers = np.zeros(size, dtype=np.uint8)
        for label, middle in zip(labels, (0.3, 0.7), strict=True):
            centre = (np.array(size) * middle + rng.uniform(-1, 1, 3)).reshape(-1, 1, 1, 1)
            numbers[((places - centre) ** 2).sum(0) < 16] = label
        values = 100 + 10 * rng.standard_normal(size) + 60 * (numbers == labels[0]) - 60 * (numbers == labels[1])
        affine = np.diag([mm, mm, mm, 1.0])
        nib.Nifti1Image(values.astype(np.float32), affine).to_filename(folder / f"imagesTr/case{k:02d}.nii.gz")
        nib.Nifti1Image(numbers, affine).to_filename(folder / f"labelsTr/case{k:02d}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("segment")
    data = volumes(home / "data")
    recipe = load_recipe(
        "segment",
        [
            *TINY,
            f"data.source={data}",
            "train.steps=100",
            "method.width=4",
            "train.validate_every=20",
            "data.batch=2",
            "train.lr=3e-2",
            "train.warmup=10",
        ],
    )
    return train(recipe, home / "run"), data


def test_data_alone_is_enough(trained: tuple[Path, Path]) -> None:
    run, _ = trained
    recipe, found = found_in(run)
    assert recipe.data.size == []  # as it was asked
    plan = found.plan
    assert len(plan.size) == 3 and plan.batch == 2 and plan.numbers == [0, 2, 5] and plan.reasons
    assert found.codec_b.numbers == [0, 2, 5] and found.codec_b.classes == 3
    assert (run / "samples.png").is_file() and "label maps" in (run / "README.md").read_text().lower()


def test_label_maps_have_the_numbers_of_training_in_their_place(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = trained
    model = load(run)
    dice = []
    for path in sorted((data / "imagesTr").iterdir())[:4]:
        result = model.apply(io.read(path)).result
        truth = nib.load(data / "labelsTr" / path.name)
        assert set(np.unique(result.data)) <= {0, 2, 5} and result.unit == "label"
        io.write(result, tmp_path / path.name)
        made = nib.load(tmp_path / path.name)
        assert np.allclose(made.affine, truth.affine) and made.shape == truth.shape
        values, wanted = np.asarray(made.dataobj), np.asarray(truth.dataobj)
        assert values.dtype.kind in "ui" or np.array_equal(values, np.rint(values))
        dice += [
            2 * ((values == n) & (wanted == n)).sum() / ((values == n).sum() + (wanted == n).sum()) for n in (2, 5)
        ]
    assert np.mean(dice) > 0.8


@pytest.mark.parametrize("mm", [0.5, 2.0])
def test_another_spacing_comes_back_on_its_own_grid(trained: tuple[Path, Path], tmp_path: Path, mm: float) -> None:
    """The same volume with voxels repeated or left out, at its true size in mm."""
    run, data = trained
    image = io.read(data / "imagesTr" / "case00.nii.gz")
    truth = io.read(data / "labelsTr" / "case00.nii.gz").data[0]
    values = image.data
    if mm < 1:
        values, truth = (x.repeat(2, -1).repeat(2, -2).repeat(2, -3) for x in (values, truth))
    else:
        values, truth = values[:, ::2, ::2, ::2], truth[::2, ::2, ::2]
    affine = image.affine.copy()
    affine[:3, :3] *= mm
    result = load(run).apply(image.with_data(values, affine=affine)).result
    assert result.data.shape == values.shape
    both = [(result.data[0] == n).sum() + (truth == n).sum() for n in (2, 5)]
    common = [2 * ((result.data[0] == n) & (truth == n)).sum() for n in (2, 5)]
    assert sum(common) / sum(both) > 0.6


def test_a_resumed_run_is_bit_exact(tmp_path: Path) -> None:
    data = volumes(tmp_path / "data", 6)
    asked = [*TINY, *SMALL, f"data.source={data}", "method.adversarial=0.1", "train.decay=constant"]
    train(load_recipe("segment", [*asked, "train.steps=3"]), tmp_path / "part")
    train(load_recipe("segment", [*asked, "train.steps=6"]), tmp_path / "part", resume=True)
    train(load_recipe("segment", [*asked, "train.steps=6"]), tmp_path / "whole")
    one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("part", "whole"))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.size=[16,16]", "data.context=2", "data.batch=0"], ""),
        (["method.network=unet++", "data.size=[16,16,16]", "data.batch=2"], ""),
        (["method.network=residual", "method.adversarial=0.01", "method.critic=patch", "data.size=[24,24,24]"], ""),
        (["data.paired=false"], "data.paired=true"),
        (["data.b=T2"], "no image of 'T2'"),
    ],
)
def test_what_is_asked_is_done_or_refused(tmp_path: Path, overrides: list[str], said: str) -> None:
    data = volumes(tmp_path / "data", 6)
    recipe = load_recipe("segment", [*TINY, f"data.source={data}", "train.steps=2", *overrides])
    if said:
        with pytest.raises(UsageError, match=said):
            train(recipe, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return
    run = train(recipe, tmp_path / "run")
    result = load(run).apply(io.read(data / "imagesTr" / "case00.nii.gz")).result
    assert set(np.unique(result.data)) <= {0, 2, 5}


def test_masks_without_anything_are_one_line(tmp_path: Path) -> None:
    data = volumes(tmp_path / "data", 6, labels=(0, 0))
    with pytest.raises(UsageError, match="empty"):
        train(load_recipe("segment", [*TINY, f"data.source={data}", "train.steps=2"]), tmp_path / "run")


def test_images_without_label_maps_are_learned_from(tmp_path: Path) -> None:
    data = volumes(tmp_path / "data", 12)
    for k in (1, 2, 4, 5, 7):
        (data / "labelsTr" / f"case{k:02d}.nii.gz").unlink()
    asked = [*TINY, *SMALL, f"data.source={data}", "train.steps=2", "data.size=[24,24,24]"]
    semi = ["method.adversarial=0.01", "method.critic=patch", "method.unlabelled=0.1"]
    said: list[str] = []
    run = train(load_recipe("segment", [*asked, *semi]), tmp_path / "run", warn=said.append)
    assert "real_accuracy" in (run / "log.csv").read_text().splitlines()[0]
    assert any("training images have no label map: the critic" in note for note in said)
    whole = volumes(tmp_path / "whole", 6)
    with pytest.raises(UsageError, match="every training image has a label map"):
        train(load_recipe("segment", [*asked, *semi, f"data.source={whole}"]), tmp_path / "other")


def test_a_folder_of_one_file_an_organ_may_lack_some(tmp_path: Path) -> None:
    """As TotalSegmentator has them: numbers are each case's own, names are not; what has no file was not drawn."""
    flat = volumes(tmp_path / "flat", 8)
    for k, path in enumerate(sorted((flat / "imagesTr").iterdir())):
        case = tmp_path / "data" / f"s{k:04d}"
        (case / "segmentations").mkdir(parents=True)
        path.rename(case / "ct.nii.gz")
        labels = nib.load(flat / "labelsTr" / path.name)
        for name, number in (("liver", 2), ("spleen", 5)):
            if not (name == "liver" and k % 2):
                organ = nib.Nifti1Image((np.asarray(labels.dataobj) == number).astype(np.uint8), labels.affine)
                organ.to_filename(case / "segmentations" / f"{name}.nii.gz")
    said: list[str] = []
    asked = [*TINY, *SMALL, f"data.source={tmp_path / 'data'}", "train.steps=2"]
    run = train(load_recipe("segment", asked), tmp_path / "run", warn=said.append)
    plan = found_in(run)[1].plan
    assert plan.names == ["", "liver", "spleen"] and plan.numbers == [0, 1, 2]
    result = load(run).apply(io.read(tmp_path / "data" / "s0000" / "ct.nii.gz")).result
    assert result.origin["labels"] == {1: "liver", 2: "spleen"}
    report = evaluate(run, out=tmp_path / "report", split="val")
    for patient in report.scores["patients"]:  # what nobody drew is not judged, and what is there has its own number
        assert patient["false_alarms"] == 0
    by_class = {one["name"]: one for one in report.scores["classes"]}
    lacking = sum(int(one["patient"][-1]) % 2 for one in report.scores["patients"])
    assert by_class["liver"]["absent"] == lacking and by_class["spleen"]["absent"] == 0


def test_a_picture_is_outlined_alike_in_8_bits_and_in_12(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for k in range(8):
        values = rng.integers(0, 120, (32, 32)).astype(np.uint8)
        values[8:20, 8:20] += np.uint8(100)
        mask = np.zeros((32, 32), dtype=np.uint8)
        mask[8:20, 8:20] = 255
        for name, picture in (("images", values), ("masks", mask)):
            PIL.Image.fromarray(picture).save(tmp_path / "data" / name / f"{k}.png")
    wanted = [*TINY, f"data.source={tmp_path / 'data'}", "data.size=32", "data.batch=4", "train.steps=6"]
    model = load(train(load_recipe("segment", wanted), tmp_path / "run"))
    assert model.codec.kind == "percentile"
    image = io.read(tmp_path / "data" / "images" / "0.png")
    once, again = (model.apply(image.with_data(image.data * by)).result.data for by in (1.0, 16.0))
    np.testing.assert_array_equal(once, again)
