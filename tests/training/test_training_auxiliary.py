"""Contrasts beside a degraded image at work: put where the network saw them, missing ones done without, and judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fabrica
from fabrica import io
from fabrica.cli.main import app
from fabrica.codec import Codec
from fabrica.data.manifest import Manifest, Row
from fabrica.errors import UsageError
from fabrica.image import Image
from fabrica.inference.files import apply
from fabrica.methods import build
from fabrica.model.model import Model
from fabrica.model.translation import TranslationModel
from fabrica.phantoms.head.head import head
from fabrica.recipe.codecs import codec_config
from fabrica.recipe.found import Found, found_in
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import DataConfig, Recipe, TrainConfig
from fabrica.training.loop import train

pytestmark = pytest.mark.usefixtures("few_held_out", "few_asked")

WIDE, NARROW = Codec("window", 0.0, 4095.0), Codec("window", 0.0, 2047.0)
NOISE = [{"name": "rician", "sigma": 0.2}]


class Pick(nn.Module):
    """Of what the network sees, one channel; where that is empty, the first."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own, wanted = x[:, :1], x[:, self.channel : self.channel + 1]
        empty = (wanted == -1).flatten(1).all(1)[:, None, None, None]
        return torch.where(empty, own, wanted)


def picking(channel: int, **data: Any) -> Model:
    """A model whose result is what it sees in this channel: 0 the image itself, 1 T2 (half the range), 2 FLAIR."""
    values = {"source": "phantom:head", "auxiliary": ["T2", "FLAIR"], "size": [32, 32], "fit": "exact", **data}
    recipe = Recipe(
        name="picking",
        method={"name": "restore", "network": "redcnn", "width": 4},
        data=DataConfig(a="degraded", b="T1", paired=True, degrade=NOISE, **values),
        train=TrainConfig(precision="fp32"),
    )
    method = build(recipe)
    method.network = Pick(channel)
    wide, auxiliary = codec_config(WIDE), [codec_config(NARROW), codec_config(WIDE)][: len(recipe.data.auxiliary)]
    found = replace(Found.asked(recipe), codec=wide, codec_b=wide, codecs_auxiliary=auxiliary)
    return TranslationModel(Path("picking"), recipe, found, method, torch.device("cpu"), "0" * 12)


@pytest.fixture(scope="module")
def patient() -> dict[str, Image]:
    """Volumes of one head, FLAIR in finer voxels, T2 turned: its slices run from the top down."""
    found = dict(head(5, 32, 4, contrasts=["T1", "T2"]).images)
    found["FLAIR"] = head(5, 64, 4, contrasts=["FLAIR"]).images["FLAIR"]
    t2 = found["T2"]
    affine = t2.affine.copy()
    affine[:, 3] += 3 * affine[:, 2]
    affine[:, 2] *= -1
    found["T2"] = t2.with_data(t2.data[:, ::-1], affine=affine)
    return found


def test_each_contrast_goes_through_its_own_codec_into_its_own_channel(patient: dict[str, Image]) -> None:
    image, auxiliary = patient["T1"], {name: patient[name] for name in ("FLAIR", "T2")}  # in any order
    same = picking(0).apply(image, auxiliary=auxiliary).result
    np.testing.assert_allclose(same.data, image.data, atol=0.01)
    t2 = picking(1).apply(image, auxiliary=auxiliary).result
    upright = patient["T2"].data[:, ::-1]
    np.testing.assert_allclose(t2.data, 2 * np.clip(upright, 0, 2047), rtol=1e-3, atol=0.1)  # read on the scale of T1
    flair = picking(2).apply(image, auxiliary=auxiliary).result.data
    wanted = head(5, 32, 4, contrasts=["FLAIR"]).images["FLAIR"].data
    assert float(np.corrcoef(flair.ravel(), wanted.ravel())[0, 1]) > 0.97
    for result in (same, t2):
        assert np.array_equal(result.affine, image.affine) and result.origin == image.origin


@pytest.mark.parametrize("auxiliary", [None, {}, ["FLAIR"]])
def test_a_contrast_that_is_missing_is_an_empty_channel(patient: dict[str, Image], auxiliary: Any) -> None:
    given = {name: patient[name] for name in auxiliary} if auxiliary else auxiliary
    found = picking(1).apply(patient["T1"], auxiliary=given).result.data
    np.testing.assert_allclose(found, patient["T1"].data, atol=0.01)


def test_an_empty_channel_stays_empty_when_doubt_is_measured(patient: dict[str, Image]) -> None:
    model, plane = picking(1), patient["T1"].with_data(patient["T1"].data[:, 2])
    seen: list[torch.Tensor] = []
    model.method.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))  # type: ignore[attr-defined]
    other = plane.with_data(patient["FLAIR"].data[:, 2, ::2, ::2])
    model.apply(plane, auxiliary={"FLAIR": other}, uncertainty=True)
    assert len(seen) > 6
    assert all(bool((given[:, 1] == -1).all()) and float(given[:, 2].std()) > 0.01 for given in seen)


@pytest.fixture(scope="module")
def run(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny `nafnet-multi`, far enough from its start that all channels count."""
    tiny = [f"data.source={heads}", "data.size=32", "data.crop=32", "data.batch=4", "method.size=tiny"]
    steps = ["train.steps=6", "train.minutes=0", "train.lr=0.005", "train.warmup=0", "train.ema=0", "train.keep=last"]
    return train(load_recipe("nafnet-multi", [*tiny, *steps]), tmp_path_factory.mktemp("multi") / "run")


def test_a_model_saved_and_loaded_sees_them_in_the_order_of_training(run: Path) -> None:
    recipe, found = found_in(run)
    assert recipe.data.auxiliary == ["T2", "FLAIR"] and [c.high for c in found.codecs_auxiliary] == [4095.0, 4095.0]
    assert "T2 (window codec [0.0, 4095.0]" in (run / "README.md").read_text(encoding="utf-8")
    model = fabrica.load(run, device="cpu")
    drawn = head(1, 32, contrasts=["T1", "T2", "FLAIR"]).images
    both = model.apply(drawn["T1"], auxiliary={name: drawn[name] for name in ("FLAIR", "T2")}).result.data
    swapped = model.apply(drawn["T1"], auxiliary={"T2": drawn["FLAIR"], "FLAIR": drawn["T2"]}).result.data
    none = model.apply(drawn["T1"]).result.data
    seen = np.stack([WIDE.encode(drawn[name])[0] for name in ("T1", "T2", "FLAIR")])
    np.testing.assert_allclose(both, WIDE.decode(model.way("a2b").net(seen[None])[0]), atol=0.01)
    assert float(np.abs(both - none).max()) > 1 and float(np.abs(both - swapped).max()) > 1


def test_the_command_line_from_nifti_to_nifti(patient: dict[str, Image], run: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.nii.gz" for name in patient}
    for name, path in files.items():
        io.write(patient[name], path)
    io.write(patient["T2"], tmp_path / "T2", as_="dicom")
    told = ["--force", "--auxiliary", f"FLAIR={files['FLAIR']}"]

    def applied(out: str, *words: str) -> Image:
        app(["apply", str(run), str(files["T1"]), "-o", str(tmp_path / out), *words], standalone_mode=False)
        return io.read(tmp_path / out)

    with_both = applied("both.nii.gz", *told, "--beside", f"T2={files['T2']}")
    from_series = applied("series.nii.gz", *told, "--auxiliary", f"T2={tmp_path / 'T2'}")
    alone = applied("alone.nii.gz", "--force")
    model, read = fabrica.load(run, device="cpu"), {name: io.read(path) for name, path in files.items()}
    wanted = model.apply(read["T1"], auxiliary={name: read[name] for name in ("T2", "FLAIR")}).result
    np.testing.assert_allclose(with_both.data, wanted.data, atol=1)
    assert np.allclose(with_both.affine, read["T1"].affine, atol=1e-4)
    assert float(np.abs(from_series.data - with_both.data).mean()) < 2  # DICOM holds whole numbers
    assert float(np.abs(alone.data - with_both.data).max()) > 5
    said = json.loads((tmp_path / "both.json").read_text(encoding="utf-8"))["results"][0]
    assert said["auxiliary"] == {"FLAIR": str(files["FLAIR"]), "T2": str(files["T2"])}
    assert json.loads((tmp_path / "alone.json").read_text(encoding="utf-8"))["results"][0]["auxiliary"] == {}


def test_what_cannot_stand_beside_is_one_line_and_nothing_is_written(patient: dict[str, Image], tmp_path: Path) -> None:
    files = {name: tmp_path / "in" / f"{name}.nii.gz" for name in ("T1", "T2")}
    for name, path in files.items():
        path.parent.mkdir(exist_ok=True)
        io.write(patient[name], path)
    io.write(head(5, 32, contrasts=["T2"]).images["T2"], tmp_path / "slice.png")
    broken = patient["T2"].data.copy()
    broken[0, 1, 2, 3] = np.nan
    np.savez(tmp_path / "broken.npz", images=broken[0, 1:2])
    moved = patient["T2"].affine.copy()
    moved[:3, 3] += 900
    io.write(patient["T2"].with_data(patient["T2"].data, affine=moved), tmp_path / "apart.nii.gz")
    (tmp_path / "set.csv").write_text("patient,path,split\np,in/T1.nii.gz,test\n")
    t1, t2 = files["T1"], files["T2"]
    cases: list[tuple[Path, dict[str, Path], str]] = [
        (t1, {"FLAIRE": t2}, r"model picking sees no 'FLAIRE' beside the image; did you mean FLAIR\?"),
        (t1, {"T2": tmp_path / "none.nii"}, r"nothing at .*none.nii"),
        (t1, {"T2": tmp_path / "in"}, r"in holds 2 images; expected one, the T2 of .*T1.nii.gz"),
        (tmp_path / "in", {"T2": t2}, r"in holds 2 images, and auxiliary .* give an image or a DICOM series"),
        (tmp_path / "set.csv", {"T2": t2}, r"set.csv holds 1 image, and auxiliary"),
        (t1, {"T2": tmp_path / "slice.png"}, "cannot be brought together"),
        (t1, {"T2": tmp_path / "apart.nii.gz"}, "lie apart in the patient"),
        (t1, {"T2": tmp_path / "broken.npz"}, "of T2 beside it, 1 of its values are no numbers"),
    ]
    for source, auxiliary, words in cases:
        with pytest.raises(UsageError, match=words) as refused:
            apply(picking(1), source, tmp_path / "out", auxiliary=auxiliary)
        assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="model picking sees one image, and nothing beside it; leave 'T2' out"):
        apply(picking(0, auxiliary=[]), t1, tmp_path / "out", auxiliary={"T2": t2})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["T2"], "--auxiliary T2; expected NAME=FILE, e.g. --auxiliary T2=t2.nii.gz"),
        (["=a.nii"], "--auxiliary =a.nii; expected NAME=FILE"),
        (["T2=a.nii", "T2=b.nii"], "--auxiliary gives T2 twice, a.nii and b.nii; leave one out"),
    ],
)
def test_a_wrong_option_is_told(words: list[str], message: str) -> None:
    options = [part for word in words for part in ("--auxiliary", word)]
    with pytest.raises(UsageError) as refused:
        app(["apply", "model", "in", *options], standalone_mode=False)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.auxiliary=[T2,T2]"],
            "data.auxiliary is ['T2', 'T2']; expected contrasts other than T1 (data.b), each once",
        ),
        (["data.auxiliary=[T1]"], "expected contrasts other than T1 (data.b)"),
        (["data.auxiliary=[mask]"], "take 'mask' out"),
        (
            ["data.a=T1", "data.b=CT", "data.degrade=[]"],
            "data.auxiliary is for restoration and segmentation; set data.a=degraded",
        ),
        (["codecs_auxiliary=[{kind: auto}]"], "codecs_auxiliary holds 1 codecs for 2 contrasts"),
        (["codecs_auxiliary=[{kind: label}, {kind: auto}]"], "codecs_auxiliary: kind is label"),
        (["data.auxiliary=[T2,FLAIRE]"], "no contrast 'FLAIRE'; did you mean FLAIR?"),
        (["data.source=phantom:chest", "data.b=image"], "chest phantoms have one contrast: leave it empty"),
        (
            ["data.source=phantom:head", "data.b=T1", "data.auxiliary=[T2]"],
            "srgan sees one contrast; leave data.auxiliary empty",
        ),
        (["method.drop=1"], "method.drop is 1.0; expected a share from 0 to below 1"),
    ],
)
def test_a_recipe_that_cannot_run_is_one_line_and_leaves_nothing(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    name = "srgan-xray" if "data.auxiliary=[T2]" in overrides else "nafnet-multi"
    with pytest.raises(UsageError) as refused:
        train(load_recipe(name, ["data.count=4", "data.size=32", "data.crop=32", *overrides]), tmp_path / "run")
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_the_report_says_what_each_contrast_is_worth(tmp_path: Path) -> None:
    """T2 is the truth but for a little, FLAIR is of no use, and the second patient has no T2."""
    rows = []
    for k in range(4):
        truth = head(k, 48, contrasts=["T1"]).images["T1"]
        near = truth.with_data(truth.data / 2 + 5)
        for domain, image in (("T1", truth), ("T2", near), ("FLAIR", truth.with_data(truth.data * 0 + 9))):
            path = f"{k}-{domain}.nii.gz"
            io.write(image, tmp_path / path)
            if (k, domain) != (1, "T2"):
                rows.append(Row(f"{k}-{domain}", f"p{k}", path, "", "val" if k == 3 else "test", "MR", domain))
    Manifest(rows, tmp_path).save(tmp_path / "set.csv")
    model = picking(1, source=str(tmp_path / "set.csv"), size=[48, 48])
    report = fabrica.evaluate(model, out=tmp_path / "report")
    scores, before = report.scores, report.scores["psnr"]["baselines"]["identity"]
    assert scores["psnr"]["value"] > before + 5
    assert scores["psnr_without_T2"]["value"] == pytest.approx(before, abs=0.1)
    assert scores["psnr_without_FLAIR"]["value"] == pytest.approx(scores["psnr"]["value"])
    assert scores["psnr_without_all"]["value"] == pytest.approx(scores["psnr_without_T2"]["value"])
    assert set(scores["psnr"]["baselines"]) == {"identity", "bilateral", "nlm", "tv"}
    page = report.page.read_text(encoding="utf-8")
    assert "PSNR without T2, dB" in page and "What stands beside the image, taken away" in page
    lost = scores["psnr"]["value"] - scores["psnr_without_T2"]["value"]
    assert f"T2 taken away: {lost:.2f} dB less [" in page
    assert any("1 of 3 images of 'T1' have no 'T2' beside them" in note for note in report.warnings)
    rival = picking(2, source=str(tmp_path / "set.csv"), size=[48, 48], auxiliary=["T2", "FLAIR"])
    single = picking(0, source=str(tmp_path / "set.csv"), size=[48, 48], auxiliary=[])
    with pytest.raises(UsageError, match="sees T2, FLAIR beside the image and picking does not; judge picking, versus"):
        fabrica.evaluate(single, out=tmp_path / "no", versus=rival)
