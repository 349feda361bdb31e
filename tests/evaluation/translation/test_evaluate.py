"""A translator that tells the truth scores perfectly, one that does nothing scores as the source does, and the page
says so."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fabrica
from fabrica import io
from fabrica.cli.main import app
from fabrica.data.manifest import Manifest, Row
from fabrica.data.sources import open_source
from fabrica.data.standardise import fitted_to
from fabrica.errors import UsageError
from fabrica.evaluation import Report, scores_table
from fabrica.evaluation.translation.accuracy import on_grid_of
from fabrica.evaluation.translation.gallery import _spearman
from fabrica.geometry import oriented
from fabrica.image import Float32, Image
from fabrica.io.display import tones
from fabrica.model.model import Model
from fabrica.phantoms.head.head import head
from fabrica.recipe.load import load_recipe
from fabrica.report.pictures import enlarged, middle_plane
from fabrica.training.loop import train

pytestmark = pytest.mark.usefixtures("few_asked")

SIZE, N = 32, 20
HOSTILE = '<script>alert("x")</script>'
TINY = (f"data.size={SIZE}", "data.batch=4", "train.keep=last", "train.steps=2", "train.minutes=0",
        "train.validate_every=2", "train.log_every=1")  # fmt: skip
HU = 4095 / 2  # HU a network unit, of the codec [-1024, 3071]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Slices of heads, T1 and CT of each: 24 to train, 4 held out, and N to test."""
    folder, rows = tmp_path_factory.mktemp("slices"), []
    for k in range(24 + 4 + N):
        split = "train" if k < 24 else "val" if k < 28 else "test"
        for domain, image in head(k, SIZE, contrasts=["T1", "CT"]).images.items():
            io.write(image, folder / f"{k}-{domain}.npz")
            modality = "CT" if domain == "CT" else "MR"
            rows.append(Row(f"{k}-{domain}", f"p{k}", f"{k}-{domain}.npz", "", split, modality, domain))
    Manifest(rows, folder).save(folder / "manifest.csv")
    return f"data.source={folder / 'manifest.csv'}"


@pytest.fixture(scope="module")
def one_way(slices: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pix2pix from T1 to CT, hardly trained."""
    method = ("method.network=residual", "method.width=8", "method.levels=2", "method.adversarial=0")
    return train(load_recipe("pix2pix-head", [*TINY, slices, *method]), tmp_path_factory.mktemp("pix2pix") / "run")


@pytest.fixture(scope="module")
def both_ways(slices: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CycleGAN between T1 and CT, hardly trained."""
    method = ("method.width=8", "method.critic_width=8")
    return train(load_recipe("cyclegan-head", [*TINY, slices, *method]), tmp_path_factory.mktemp("cyclegan") / "run")


def answering(run: Path, answer: Callable[[Float32], Float32]) -> Model:
    """The model with another network: images (B, C, H, W) in, images out."""
    model = fabrica.load(run, device="cpu")

    def translate(images: torch.Tensor, direction: str) -> torch.Tensor:
        return torch.from_numpy(answer(images.numpy()).astype(np.float32))

    model.method.translate = translate  # type: ignore[attr-defined]
    return model


@pytest.fixture(scope="module")
def truth(one_way: Path) -> Callable[[Float32], Float32]:
    """The network that knows every test image: T1 -> the CT of the same phantom."""
    model = fabrica.load(one_way, device="cpu")
    sides = {}
    for side, codec in (("a", model.codec), ("b", model.codec_b)):
        samples = open_source(model.recipe.data, "test", side).samples()
        sides[side] = np.stack([codec.encode(sample.image) for sample in samples])

    def answer(images: Float32) -> Float32:
        gaps = ((images[:, None] - sides["a"][None]) ** 2).sum((2, 3, 4))
        return sides["b"][gaps.argmin(1)]

    return answer


@pytest.fixture(scope="module")
def perfect(one_way: Path, truth: Callable[[Float32], Float32], tmp_path_factory: pytest.TempPathFactory) -> Report:
    idle = answering(one_way, lambda images: images)
    idle = replace(idle, recipe=replace(idle.recipe, name=HOSTILE))
    out = tmp_path_factory.mktemp("perfect")
    return fabrica.evaluate(answering(one_way, truth), out=out, n=N, versus=idle)


def test_the_truth_scores_perfectly(perfect: Report) -> None:
    scores = perfect.scores
    assert scores["mae"]["value"] < 0.01
    assert scores["ssim"]["value"] == pytest.approx(1, abs=1e-4)
    assert scores["nmi"]["value"] > 1.99
    assert scores["frechet"]["value"] < 0.01 * scores["frechet"]["real"]  # they are the same images
    assert scores["frechet"]["baselines"]["identity"] > 2 * scores["frechet"]["real"]
    for who in ("identity", "mean"):
        assert scores["mae"]["baselines"][who] > 50
    assert not any("worse" in warning or "hardly" in warning for warning in perfect.warnings)
    assert scores["paired"] is True and scores["n_images"] == scores["n_patients"] == N


def test_doing_nothing_scores_as_the_source_itself(one_way: Path, tmp_path: Path) -> None:
    report = fabrica.evaluate(answering(one_way, lambda images: images), out=tmp_path, n=N)
    for row in report.rows:
        if "identity" in row.baselines:
            assert row.value == pytest.approx(row.baselines["identity"], rel=2e-3, abs=2e-3), row.key
    assert any("worse than the mean training CT" in warning for warning in report.warnings)
    assert "HU" in report.verdict and "the T1 as it is" in report.verdict


def test_an_error_of_known_size_is_measured_in_hounsfield_units(
    one_way: Path, truth: Callable[[Float32], Float32], tmp_path: Path
) -> None:
    shifted = answering(one_way, lambda images: np.clip(truth(images) + np.float32(0.05), -1, 1))
    row = next(row for row in fabrica.evaluate(shifted, out=tmp_path, n=N).rows if row.key == "mae")
    assert row.name == "MAE, HU"
    assert row.value == pytest.approx(0.05 * HU, abs=1)
    assert row.low is not None and row.high is not None and row.low <= row.value <= row.high


def test_a_second_model_is_compared_patient_by_patient(perfect: Report) -> None:
    found = {item.key: item for item in perfect.comparisons}
    mae = found["mae"]
    assert mae.mean == pytest.approx(mae.one - mae.two) and mae.high < 0 and mae.p < 0.001
    assert found["ssim"].low > 0
    assert mae.two == pytest.approx(perfect.scores["mae"]["baselines"]["identity"], rel=1e-4)
    assert "lower than that of" in perfect.verdict and "p < 0.001" in perfect.verdict
    assert perfect.scores["versus"]["mae"]["p"] == mae.p


def test_what_is_written_agrees_and_asks_for_nothing(perfect: Report) -> None:
    out = perfect.page.parent
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "scores.csv", "scores.json"]
    assert json.loads((out / "scores.json").read_text(encoding="utf-8")) == perfect.scores
    with (out / "scores.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == N and len({line["patient"] for line in lines}) == N
    each = [float(line["identity_mae"]) for line in lines]
    assert np.mean(each) == pytest.approx(perfect.scores["mae"]["baselines"]["identity"], rel=1e-4)

    page = perfect.page.read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page  # the other model's name
    assert "http" not in page.replace("http://www.w3.org", "")
    for words in ("Smallest error", "Median error", "Largest error", "soft tissue", "uncertainty", "−500 HU"):
        assert words in page
    assert page.count("<img") == 2 + 6 * 7
    table = scores_table(perfect)
    for words in ("source as it is", "mean image", "real images", "against <script>"):
        assert words in table


def store(folder: Path, patients: dict[str, str], domains: dict[str, str], mask: str = "") -> Path:
    """Volumes of head phantoms of 6 slices and a manifest. patients: name -> split; domains: patient -> "T1 CT"."""
    folder.mkdir(parents=True)
    rows = []
    for seed, (patient, split) in enumerate(patients.items()):
        drawn = head(seed, SIZE, 6, contrasts=["T1", "CT"])
        ct = drawn.images["CT"]
        inside = drawn.tissue.data > 0 if mask == "body" else np.indices(ct.data.shape)[-1] == 12
        if mask:
            io.write(ct.with_data(inside.astype(np.float32), unit="label"), folder / f"{patient}-mask.nii.gz")
        for domain in domains[patient].split():
            path = folder / f"{patient}-{domain}.nii.gz"
            io.write(drawn.images[domain], path)
            modality = "CT" if domain == "CT" else "MR"
            named = f"{patient}-mask.nii.gz" if mask else ""
            rows.append(Row(f"{patient}-{domain}", patient, path.name, "", split, modality, domain, mask=named))
    Manifest(rows, folder).save(folder / "manifest.csv")
    return folder / "manifest.csv"


@pytest.mark.parametrize("mask", ["", "body", "lesion"])
def test_volumes_of_few_patients_are_judged_in_the_masks_given(mask: str, one_way: Path, tmp_path: Path) -> None:
    patients = {f"p{k}": "val" for k in range(3)}
    manifest = store(tmp_path / "data", patients, dict.fromkeys(patients, "T1 CT"), mask)
    report = fabrica.evaluate(one_way, manifest, tmp_path / "report")
    assert report.scores["split"] == "val"
    assert report.scores["n_body_masks"] == (3 if mask == "body" else 0)  # a line of voxels is no body
    assert report.scores["n_patients"] == report.scores["n_images"] == 3
    assert "frechet" not in report.scores
    for words in ("no test images", "3 patients are too few", "6 test images are too few"):
        assert any(words in warning for warning in report.warnings), words
    assert "middle axial slice" in report.page.read_text(encoding="utf-8")


def test_without_pairs_sets_and_the_way_back_are_judged(both_ways: Path, tmp_path: Path) -> None:
    patients = {f"p{k}": "test" for k in range(16)}
    domains = {patient: "T1" if k % 2 else "CT" for k, patient in enumerate(patients)}
    manifest = store(tmp_path / "data", patients, domains)
    report = fabrica.evaluate(answering(both_ways, lambda images: images), manifest, tmp_path / "report")
    scores = report.scores
    assert scores["paired"] is False and "mae" not in scores and "uncertainty_spearman" not in scores
    assert any("no pairs" in warning for warning in report.warnings)
    for prefix in ("", "b2a_"):
        frechet = scores[f"{prefix}frechet"]
        assert frechet["value"] == pytest.approx(frechet["baselines"]["identity"], rel=1e-6)
        assert 0 < frechet["real"] < frechet["value"]  # training images of the model's own
        assert scores[f"{prefix}round_trip"]["value"] < 1e-2
    assert "untranslated images score" in report.verdict
    page = report.page.read_text(encoding="utf-8")
    for words in ("T1, there and back", "CT, there and back", "CT → T1"):
        assert words in page
    with pytest.raises(UsageError, match="needs test images in pairs"):
        fabrica.evaluate(both_ways, manifest, tmp_path / "report", versus=both_ways)


def test_both_ways_are_scored_where_there_are_pairs(both_ways: Path, tmp_path: Path) -> None:
    idle = answering(both_ways, lambda images: images)
    report = fabrica.evaluate(idle, out=tmp_path, n=2, versus=idle)
    scores = report.scores
    assert scores["paired"] is True
    for key in ("mae", "b2a_mae", "round_trip", "b2a_round_trip", "b2a_uncertainty_spearman"):
        assert scores[key]["value"] is not None
    assert all(item.mean == 0 and item.p == 1 for item in report.comparisons)
    assert {item.key for item in report.comparisons} >= {"mae", "b2a_mae"}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"steps_curve": [2]}, "no sampler steps"),
        ({"n": 0}, "asked for 0 test images"),
        ({"split": "train"}, "expected test or val"),
        ({"against": "nowhere"}, "no data at nowhere"),
        ({"versus": "nowhere"}, "no ready model .nowhere."),
    ],
)
def test_wrong_use_is_one_readable_error(one_way: Path, tmp_path: Path, choices: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        fabrica.evaluate(one_way, out=tmp_path / "report", **choices)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report").exists()


def test_versus_is_for_two_models_of_the_same_task(one_way: Path, tmp_path: Path) -> None:
    model = fabrica.load(one_way, device="cpu")
    other = replace(model, recipe=replace(model.recipe, data=replace(model.recipe.data, b="PET")))
    with pytest.raises(UsageError, match="two models of the same task"):
        fabrica.evaluate(model, out=tmp_path, versus=other)
    with pytest.raises(UsageError, match="judge other models one by one"):
        fabrica.evaluate(tmp_path, out=tmp_path, versus=model)


def test_the_command_line(one_way: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", one_way, "--versus", one_way, "-n", 2, "-o", tmp_path / "report"]
    app([str(word) for word in arguments], standalone_mode=False)
    said = capsys.readouterr().out
    assert "against pix2pix-head, the same patients" in said and str(tmp_path / "report" / "report.html") in said


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch", "exact"])
def test_the_mean_image_finds_its_way_back_to_the_grid_of_an_image(one_way: Path, fit: str) -> None:
    model = fabrica.load(one_way, device="cpu")
    way = replace(model.way("a2b"), data=replace(model.recipe.data, fit=fit))
    rows, columns = np.mgrid[:20, :30] / 30
    values = np.float32(np.sin(3 * rows) * np.cos(2 * columns))[None]
    affine = np.diag([-2.0, -4.0, 1.0, 1.0])
    seen, _ = fitted_to(values, way.data.size, fit, (4.0, 2.0))
    found = on_grid_of(seen, Image(values, affine), way)
    assert found.shape == values.shape
    inside = (slice(None), slice(4, 16), slice(8, 22))  # what "crop" keeps
    np.testing.assert_allclose(found[inside], values[inside], atol=0.03)


def test_uncertainty_is_compared_with_the_error_inside_the_body_only() -> None:
    rng = np.random.default_rng(0)
    error = rng.random((1, 20, 20), dtype=np.float32)
    body = np.zeros((20, 20), dtype=bool)
    body[5:15, 5:15] = True
    doubt = np.where(body, error**3, -error)
    assert _spearman(doubt, error, body) == pytest.approx(1)
    assert _spearman(-doubt, error, body) == pytest.approx(-1)
    assert abs(_spearman(rng.random((1, 20, 20), dtype=np.float32), error, body)) < 0.4
    assert np.isnan(_spearman(np.zeros_like(error), error, body))


def test_the_middle_slice_is_turned_as_a_radiologist_looks_at_it() -> None:
    data = np.zeros((1, 5, 7, 9), dtype=np.float32)
    data[0, 2, 6, 8] = 1  # RAS+: the last row is anterior, the last column the patient's right
    plane = middle_plane(Image(data, np.diag([2.0, 3.0, 5.0, 1.0])))
    assert plane.size == (7, 9) and plane.spacing == (3.0, 2.0)
    assert plane.data[0, 0, 0] == 1  # anterior at the top, the patient's right on the left


def test_the_other_planes_keep_their_voxels_in_mm() -> None:
    data = np.zeros((1, 5, 7, 9), dtype=np.float32)
    data[0, 4, 3, 8] = data[0, 4, 6, 4] = 1  # at the top; far to the right in one plane, to the front in the other
    image = Image(data, np.diag([2.0, 3.0, 5.0, 1.0]))
    for view, size, spacing in (("coronal", (5, 9), (5.0, 2.0)), ("sagittal", (5, 7), (5.0, 3.0))):
        for seen in (image, oriented(image, "PIL")):  # however it lies in the file
            plane = middle_plane(seen, view)
            assert (plane.size, plane.spacing) == (size, spacing)
            assert plane.data[0, 0, 0] == 1  # the head at the top, the right or the front on the left
    wide = enlarged(tones(middle_plane(image, "sagittal").data, (0.0, 1.0)), middle_plane(image, "sagittal"))
    assert wide.shape[0] / wide.shape[1] == pytest.approx(5 * 5 / (7 * 3), abs=0.01)
