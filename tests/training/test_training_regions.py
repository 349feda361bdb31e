"""Labels that overlap, from nnU-Net's dataset.json or an option to label maps and figures of each region."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fabrica import io
from fabrica.errors import UsageError
from fabrica.evaluation import evaluate
from fabrica.model.loading import load
from fabrica.recipe.found import found_in
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train
from tests.training.test_training_segment import TINY

pytestmark = pytest.mark.usefixtures("few_asked")

REGIONS = {"whole tumour": [1, 2, 3], "core": [2, 3], "enhancing": [3]}


def shells(folder: Path, count: int = 10, told: bool = True, ignored: bool = False) -> Path:
    """Noise with balls of three shells, each brighter than the one around it, labelled 1, 2, 3 from outside."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    places = np.stack(np.meshgrid(*[np.arange(20)] * 3, indexing="ij"))
    for k in range(count):
        away = np.sqrt(((places - rng.uniform(7, 12, 3).reshape(-1, 1, 1, 1)) ** 2).sum(0))
        numbers = sum((away < radius).astype(np.uint8) for radius in (7.0, 5.5, 4.0))
        values = 100 + 60 * numbers + 8 * rng.standard_normal(numbers.shape)
        if ignored:
            numbers[..., :4] = 4
        path = f"case{k:02d}"
        nib.Nifti1Image(values.astype(np.float32), np.eye(4)).to_filename(folder / f"imagesTr/{path}_0000.nii.gz")
        nib.Nifti1Image(numbers, np.eye(4)).to_filename(folder / f"labelsTr/{path}.nii.gz")
    if told:
        labels = {"background": 0, **REGIONS, **({"ignore": 4} if ignored else {})}
        said = {"channel_names": {"0": "FLAIR"}, "labels": labels, "regions_class_order": [1, 2, 3],
                "file_ending": ".nii.gz", "numTraining": count}  # fmt: skip
        (folder / "dataset.json").write_text(json.dumps(said))
    return folder


def asked(data: Path, steps: int, *more: str) -> list[str]:
    return [*TINY, f"data.source={data}", f"train.steps={steps}", "data.size=[16,16,16]", "data.batch=4",
            "train.lr=3e-2", "train.warmup=5", "train.validate_every=20", *more]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("regions")
    data = shells(home / "data")
    return train(load_recipe("segment", asked(data, 120)), home / "run"), data


@pytest.mark.slow
def test_the_plan_has_the_regions_of_dataset_json(trained: tuple[Path, Path]) -> None:
    plan = found_in(trained[0])[1].plan
    assert plan.regions == REGIONS and list(plan.regions) == list(REGIONS) and plan.numbers == [0, 1, 2, 3]
    assert "regions" in (trained[0] / "found.yaml").read_text()
    assert load(trained[0]).label_names == {1: "whole tumour without core", 2: "core without enhancing", 3: "enhancing"}


@pytest.mark.slow
def test_regions_come_back_as_one_label_map(trained: tuple[Path, Path]) -> None:
    run, data = trained
    image = io.read(data / "imagesTr" / "case00_0000.nii.gz")
    truth = io.read(data / "labelsTr" / "case00.nii.gz").data[0]
    applied = load(run).apply(image, uncertainty=True)
    made = applied.result.data[0]
    assert set(np.unique(made)) <= {0, 1, 2, 3}
    for numbers in REGIONS.values():
        one, other = np.isin(made, numbers), np.isin(truth, numbers)
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.6
    assert applied.uncertainty is not None
    doubt = applied.uncertainty.data[0]
    border = (away := np.isin(truth, [1, 2, 3])) ^ np.roll(away, 1, 0)
    assert doubt.min() >= 0 and doubt.max() <= 0.6 and doubt[border].mean() > doubt[~away & ~border].mean()


@pytest.mark.slow
def test_each_region_is_judged(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = trained
    report = evaluate(run, data, tmp_path / "report")
    assert [one["name"] for one in report.scores["classes"]] == list(REGIONS)
    model = load(run)
    rows = list(csv.DictReader((tmp_path / "report" / "scores.csv").read_text().splitlines()))
    for row in rows:
        truth = io.read(data / "labelsTr" / f"{Path(row['id']).name.removesuffix('_0000')}.nii.gz").data[0]
        made = model.apply(io.read(data / "imagesTr" / f"{Path(row['id']).name}.nii.gz")).result.data[0]
        one, other = (np.isin(each, REGIONS[row["class"]]) for each in (made, truth))
        assert float(row["dice"]) == pytest.approx(2 * (one & other).sum() / (one.sum() + other.sum()), abs=1e-5)
    assert {row["class"] for row in rows} == set(REGIONS)


def test_an_option_says_them_and_what_is_ignored_teaches_nothing(tmp_path: Path) -> None:
    data = shells(tmp_path / "data", 6, told=False, ignored=True)
    (data / "labels.csv").write_text("number,name\n1,edema\n2,necrosis\n3,enhancing\n4,ignore\n")
    option = "data.regions={whole: [1, 2, 3], core: [2, 3]}"
    run = train(load_recipe("segment", asked(data, 2, option)), tmp_path / "run")
    plan = found_in(run)[1].plan
    assert plan.regions == {"whole": [1, 2, 3], "core": [2, 3]} and plan.numbers == [0, 1, 2, 3]
    assert plan.names == ["", "edema", "necrosis", "enhancing"]
    assert set(np.unique(load(run).apply(io.read(data / "imagesTr" / "case00_0000.nii.gz")).result.data)) <= {0, 1, 2}
    train(load_recipe("segment", asked(data, 3, option)), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        ("{whole: [1, 2], core: [1, 2, 3]}", "'whole', .1, 2., holds nothing"),
        ("{whole: []}", "whole is ..; expected numbers"),
        ("{whole: [0, 1]}", "expected numbers of the label maps from 1"),
        ("{cyst: [7]}", "no training image has a label of the regions cyst"),
    ],
)
def test_regions_that_cannot_be_are_one_line(tmp_path: Path, regions: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        train(load_recipe("segment", asked(shells(tmp_path / "data", 6), 1, f"data.regions={regions}")), tmp_path / "r")
