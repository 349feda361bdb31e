"""A segmenter of several contrasts: from a folder alone to label maps, with some missing in training and at work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import fabrica
from fabrica import io
from fabrica.cli.main import app
from fabrica.data.embedded import write_phantoms
from fabrica.errors import UsageError
from fabrica.model.loading import load
from fabrica.recipe.found import found_in
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train

pytestmark = pytest.mark.usefixtures("few_asked")

TINY = ["method.width=2", "train.minutes=0", "train.precision=fp32", "train.validate_every=20"]
CASE = "BraTS20_Training_{:03}"
BRIGHT = {"t1": 0, "t1ce": 60, "t2": -60, "flair": 60}  # over what surrounds it; t1 shows nothing


def brats(folder: Path, count: int = 10, without: Callable[[int, str], bool] = lambda k, name: False) -> Path:
    """Cases of noise with a ball that three of four contrasts show, T2 in slices half as many as the others have."""
    rng = np.random.default_rng(0)
    for k in range(count):
        home = folder / CASE.format(k)
        home.mkdir(parents=True)
        size = tuple(int(n) for n in rng.integers(20, 26, 3) // 2 * 2)
        places = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"))
        centre = np.array(size).reshape(-1, 1, 1, 1) * rng.uniform(0.35, 0.65, (3, 1, 1, 1))
        ball = ((places - centre) ** 2).sum(0) < 25
        for name, more in BRIGHT.items():
            values, affine = 100 + 10 * rng.standard_normal(size) + more * ball, np.eye(4)
            if name == "t2":
                values, affine = (values[..., ::2] + values[..., 1::2]) / 2, np.diag([1.0, 1.0, 2.0, 1.0])
                affine[2, 3] = 0.5
            if not without(k, name):
                image = nib.Nifti1Image(values.astype(np.float32), affine)
                image.to_filename(home / f"{home.name}_{name}.nii.gz")
        nib.Nifti1Image(4 * ball.astype(np.uint8), np.eye(4)).to_filename(home / f"{home.name}_seg.nii.gz")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("contrasts")
    data = brats(home / "data")
    said: list[str] = []
    asked = [*TINY, f"data.source={data}", "data.batch=2", "train.steps=240", "train.lr=2e-2", "train.warmup=10"]
    asked += ["method.drop=0.6", "method.width=4"]
    run = train(load_recipe("segment", asked), home / "run", say=said.append)
    assert any("contrasts  flair, t1, t1ce, t2" in each for each in said)
    return run, data


@pytest.mark.slow
def test_a_folder_alone_is_enough(trained: tuple[Path, Path]) -> None:
    run, _ = trained
    recipe, found = found_in(run)
    assert recipe.data.a == "image" and recipe.data.auxiliary == []  # as it was asked
    asked = found.data(recipe.data)
    # the label maps were not drawn on T2, and flair is the first of the others
    assert [asked.a, *asked.auxiliary] == found.plan.contrasts == ["flair", "t1", "t1ce", "t2"]
    assert "training cases have them: seen together, as channels" in found.plan.reasons["contrasts"]
    assert len(found.codecs_auxiliary) == 3 and found.plan.numbers == [0, 4]
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "--auxiliary t1=FILE --auxiliary t1ce=FILE --auxiliary t2=FILE" in card
    first = next(iter(load(run).method.parameters()))
    assert first.shape[1] == 4


def dice(made: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * ((made == 4) & (truth == 4)).sum() / ((made == 4).sum() + (truth == 4).sum()))


@pytest.mark.slow
def test_label_maps_lie_on_the_image_with_any_contrast_missing(trained: tuple[Path, Path]) -> None:
    run, data = trained
    model, found = load(run), {}
    for k in range(3):
        home = data / CASE.format(k)
        images = {name: io.read(home / f"{home.name}_{name}.nii.gz") for name in BRIGHT}
        truth = io.read(home / f"{home.name}_seg.nii.gz").data
        kept = {"all": list(BRIGHT), "no t1": ["flair", "t1ce", "t2"], "no flair": ["t1ce", "t1", "t2"]}
        for what, names in kept.items():
            (first, *rest) = names if what != "all" else ["flair", "t1", "t1ce", "t2"]
            result = model.apply(images[first], contrast=first, auxiliary={name: images[name] for name in rest}).result
            assert result.data.shape == truth.shape and np.array_equal(result.affine, images[first].affine)
            found.setdefault(what, []).append(dice(result.data, truth))
        on_t2 = model.apply(images["t2"], contrast="t2", auxiliary={"flair": images["flair"]}).result
        assert on_t2.size == images["t2"].size  # on the voxels of what was given
    assert np.mean(found["all"]) > 0.9 and all(np.mean(values) > 0.75 for values in found.values()), found
    with pytest.raises(UsageError, match="sees flair, t1, t1ce, t2; found contrast 'pd'"):
        model.apply(images["t1"], contrast="pd")
    with pytest.raises(UsageError, match="sees no 't1' beside the image"):
        model.apply(images["t1"], contrast="t1", auxiliary={"t1": images["t1"]})


@pytest.mark.slow
def test_a_folder_of_cases_is_applied_to_case_by_case(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = trained
    for k in range(2):
        (tmp_path / "new" / CASE.format(k)).mkdir(parents=True)
        for name in BRIGHT:
            if (k, name) != (1, "t1ce"):
                file = f"{CASE.format(k)}/{CASE.format(k)}_{name}.nii.gz"
                (tmp_path / "new" / file).write_bytes((data / file).read_bytes())
    app(["apply", str(run), str(tmp_path / "new"), "-o", str(tmp_path / "out")], standalone_mode=False)
    results = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))["results"]
    assert [set(result["auxiliary"]) for result in results] == [{"t1", "t1ce", "t2"}, {"t1", "t2"}]
    for k, result in enumerate(results):
        truth = nib.load(data / CASE.format(k) / f"{CASE.format(k)}_seg.nii.gz")
        made = nib.load(tmp_path / "out" / result["output"])
        assert dice(np.asarray(made.dataobj), np.asarray(truth.dataobj)) > 0.7


@pytest.mark.slow
def test_one_image_of_another_contrast_is_named(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = trained
    home = data / CASE.format(0)
    given = {name: str(home / f"{home.name}_{name}.nii.gz") for name in BRIGHT}
    words = ["apply", str(run), given["t1ce"], "-o", str(tmp_path / "out.nii.gz"), "--contrast", "t1ce"]
    app([*words, "--auxiliary", f"t2={given['t2']}"], standalone_mode=False)
    (told,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["results"]
    assert told["contrast"] == "t1ce" and told["auxiliary"] == {"t2": given["t2"]}
    truth = np.asarray(nib.load(home / f"{home.name}_seg.nii.gz").dataobj)
    assert dice(np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj), truth) > 0.6


@pytest.mark.slow
def test_evaluation_says_what_each_contrast_is_worth(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = trained
    report = fabrica.evaluate(run, out=tmp_path / "report")
    whole = report.scores["dice"]["value"]
    left = {name: report.scores[f"dice_without_{name}"]["value"] for name in BRIGHT}
    assert whole > 0.8 and all(value <= whole + 0.1 for value in left.values())
    page = report.page.read_text(encoding="utf-8")
    assert "One contrast taken away" in page and "Dice without t1ce" in page and "t1ce taken away: " in page


@pytest.mark.parametrize("overrides", [["data.size=[16,16]", "data.context=1", "data.batch=4"], ["method.drop=0.9"]])
def test_slices_and_named_contrasts_are_learned_from(tmp_path: Path, overrides: list[str]) -> None:
    """Cases 1 and 3 lack T2: named, they are kept; found by itself, each image stands alone, and that is said."""
    data = brats(tmp_path / "data", 8, lambda k, name: k in (1, 2, 3, 4) and name == "t2")
    small = ["data.size=[16,16,16]", "data.batch=2", "train.steps=2"]
    named = ["data.a=t1ce", "data.auxiliary=[t2]"]
    said: list[str] = []
    asked = [*TINY, *small, f"data.source={data}"]
    run = train(load_recipe("segment", [*asked, *named, *overrides]), tmp_path / "run", warn=said.append)
    assert any("have no 't2' beside them: kept, without it" in note for note in said)
    assert found_in(run)[1].plan.contrasts == ["t1ce", "t2"]
    home = data / CASE.format(1)
    result = load(run).apply(io.read(home / f"{home.name}_t1ce.nii.gz")).result
    assert set(np.unique(result.data)) <= {0, 4}
    alone = train(load_recipe("segment", [*asked, *overrides]), tmp_path / "alone")
    plan = found_in(alone)[1].plan
    assert plan.contrasts == [] and "cases differ (" in plan.reasons["contrasts"]


def test_channels_of_nnunet_and_images_without_masks(tmp_path: Path) -> None:
    data, rng = tmp_path / "data", np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (data / name).mkdir(parents=True)
    for k in range(9):
        for channel in range(2):
            values = 100 + 10 * rng.standard_normal((18, 18, 18))
            values[5:12, 5:12, 5:12] += 50 * (1 + channel)
            image = nib.Nifti1Image(values.astype(np.float32), np.eye(4))
            image.to_filename(data / "imagesTr" / f"case_{k:03}_{channel:04}.nii.gz")
        labels = np.zeros((18, 18, 18), np.uint8)
        labels[5:12, 5:12, 5:12] = 1
        if k not in (2, 3, 4, 6):
            nib.Nifti1Image(labels, np.eye(4)).to_filename(data / "labelsTr" / f"case_{k:03}.nii.gz")
    told = {"channel_names": {"0": "T2", "1": "ADC"}, "labels": {"background": 0, "prostate": 1}, "numTraining": 9}
    (data / "dataset.json").write_text(json.dumps({**told, "file_ending": ".nii.gz"}))
    asked = [*TINY, f"data.source={data}", "train.steps=2", "data.size=[24,24,24]", "data.batch=2"]
    semi = ["method.adversarial=0.01", "method.critic=patch", "method.unlabelled=0.1"]
    said: list[str] = []
    run = train(load_recipe("segment", [*asked, *semi]), tmp_path / "run", warn=said.append)
    assert any("training images have no label map: the critic" in note for note in said)
    found = found_in(run)[1]
    assert found.plan.contrasts == ["T2", "ADC"] and found.plan.names == ["", "prostate"]
    first, second = (io.read(data / "imagesTr" / f"case_000_{channel:04}.nii.gz") for channel in range(2))
    model = load(run)
    with_both = model.way().net(np.zeros((1, 2, 24, 24, 24), np.float32))
    assert with_both.shape == (1, 2, 24, 24, 24)
    result = model.apply(first, auxiliary={"ADC": second}).result
    assert result.origin["labels"] == {1: "prostate"}


def test_heads_with_tumours_are_a_set_of_five_contrasts(tmp_path: Path) -> None:
    write_phantoms("head", 16, tmp_path / "heads", size=32, masks="lesions")
    asked = [*TINY, f"data.source={tmp_path / 'heads'}", "train.steps=2", "data.batch=4"]
    run = train(load_recipe("segment", asked), tmp_path / "run", warn=lambda note: None)  # few are held out
    plan = found_in(run)[1].plan
    assert plan.contrasts == ["T1", "T2", "FLAIR", "PD", "CT", "PET"]
    assert plan.names == ["", "tumour core", "tumour rim", "oedema"]
    assert [codec.unit for codec in found_in(run)[1].codecs_auxiliary] == ["arbitrary"] * 3 + ["HU", "arbitrary"]
    assert torch.is_tensor(next(iter(load(run).method.parameters())))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.auxiliary=[t2]"], "name the contrast that these stand beside, e.g. data.a=t1"),
        (["data.a=t1", "data.auxiliary=[t1]"], "expected contrasts other than t1 (data.a), each once"),
        (["data.a=t1", "data.auxiliary=[mask]"], "take 'mask' out"),
        (["data.a=t1", "data.auxiliary=[t3]"], "no image of 't3'"),
        (["method.drop=1"], "method.drop is 1.0; expected a share from 0 to below 1"),
    ],
)
def test_a_recipe_that_cannot_run_is_one_line(overrides: list[str], said: str, tmp_path: Path) -> None:
    data = brats(tmp_path / "data", 5)
    with pytest.raises(UsageError) as refused:
        train(load_recipe("segment", [*TINY, f"data.source={data}", "train.steps=2", *overrides]), tmp_path / "run")
    assert said in str(refused.value) and "\n" not in str(refused.value) and not (tmp_path / "run").exists()
