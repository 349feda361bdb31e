"""The whole way: folders and models in, a report out, and the figures mean what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import fabrica.model.model
from fabrica import io
from fabrica.data.manifest import Manifest, Row
from fabrica.data.manifest_cache import load_manifest
from fabrica.errors import UsageError
from fabrica.evaluation import Report, evaluate, scores_table
from fabrica.evaluation.sets import spread
from fabrica.image import Image
from fabrica.phantoms import chest
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train
from tests.real import DATA

SIZE = 32
TRAIN, TEST = 96, 64
HOSTILE = '<script>alert("x")</script>'

Labelled = list[tuple[Image, str]]


@cache
def phantom(seed: int) -> tuple[Image, str]:
    drawn = chest(seed, SIZE)
    return drawn.image, "normal" if drawn.label == "normal" else "abnormal"


def phantoms(first: int, count: int) -> Labelled:
    return [phantom(first + k) for k in range(count)]


def noise(count: int) -> Labelled:
    rng = np.random.default_rng(0)
    like = chest(0, SIZE).image
    return [
        (like.with_data(np.rint(rng.uniform(0, 4095, like.data.shape)).astype(np.float32)), "normal")
        for _ in range(count)
    ]


def store(folder: Path, name: str, splits: dict[str, Labelled], labelled: bool = True, suffix: str = ".png") -> Path:
    """Write images (PNGs of 16 bits) and a manifest; patient and image are named after `name`, which may be hostile."""
    folder.mkdir(parents=True)
    rows = []
    for split, images in splits.items():
        for k, (image, label) in enumerate(images):
            path = folder / f"{split}-{k:03d}{suffix}"
            io.write(image, path, bits=16 if suffix == ".png" else None)
            id_ = f"{name} {split} {k}"
            rows.append(Row(id=id_, patient=id_, path=path.name, split=split, label=label if labelled else ""))
    Manifest(rows, folder).save(folder / "manifest.csv")
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of chest phantoms with train and test; no val."""
    home = tmp_path_factory.mktemp("real") / "chests"
    return store(home, HOSTILE, {"train": phantoms(0, TRAIN), "test": phantoms(1000, TEST)})


@pytest.fixture(scope="module")
def honest(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Other phantoms of the same kind, as a perfect generator would draw them."""
    home = tmp_path_factory.mktemp("honest")
    store(home / "images", "good", {"test": phantoms(5000, 48), "train": phantoms(5048, 16)})
    return evaluate(home / "images", real, home / "report")


@pytest.fixture(scope="module")
def awful(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    home = tmp_path_factory.mktemp("awful")
    manifest = store(home / "images", "noise", {"test": noise(64)})
    return evaluate(manifest, real, home / "report")


def test_real_images_score_as_the_real_column_and_noise_far_worse(honest: Report, awful: Report) -> None:
    good, bad = honest.scores, awful.scores
    assert good["n_synthetic"] == good["n_reference"] == 64  # all splits of the folder are judged
    assert good["frechet"]["value"] < 1.5 * good["frechet"]["real"]
    assert bad["frechet"]["value"] > 20 * bad["frechet"]["real"]
    assert abs(good["kid_x1000"]["value"]) < 0.05 * bad["kid_x1000"]["value"]
    for key in ("precision", "recall", "coverage"):
        assert good[key]["value"] > 0.7
        assert bad[key]["value"] < 0.1
    assert good["ms_ssim"]["value"] == pytest.approx(good["ms_ssim"]["real"], abs=0.1)
    assert bad["ms_ssim"]["value"] < 0.5 * bad["ms_ssim"]["real"]
    assert good["frechet"]["real"] == bad["frechet"]["real"]  # the real column does not know what is judged


def test_intervals_hold_the_value(honest: Report) -> None:
    for row in honest.rows:
        if row.low is not None and row.high is not None:
            assert row.low <= row.value <= row.high
            assert row.low < row.high


def test_few_images_are_said_to_be_few(honest: Report) -> None:
    assert any("64 images are few" in warning for warning in honest.warnings)
    assert "At N = 64" in honest.verdict
    assert "0 of 64" in honest.verdict or "of 64, where about 1.0" in honest.verdict


def test_classes_are_scored_apart_where_there_are_enough(honest: Report) -> None:
    items = {item["name"]: item for item in honest.scores["classes"]}
    assert set(items) == {"normal", "abnormal"}
    assert sum(item["synthetic_count"] for item in items.values()) == 64
    for item in items.values():
        enough = min(item["real_count"], item["synthetic_count"]) >= 32
        assert (item["value"] is not None) == enough


def test_hostile_ids_of_a_manifest_are_text(honest: Report) -> None:
    page = honest.page.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page  # the id of a nearest training image


def test_the_report_says_what_stands_on_the_disk(honest: Report) -> None:
    assert json.loads((honest.page.parent / "scores.json").read_text(encoding="utf-8")) == honest.scores
    assert honest.verdict in scores_table(honest).replace("\n", " ")
    assert sorted(path.name for path in honest.page.parent.iterdir()) == ["report.html", "scores.json"]


def test_planted_copies_are_found(real: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def disguised(image: Image) -> Image:
        grain = rng.normal(0, 20, image.data.shape)
        return image.with_data(np.clip(np.rint(image.data * 0.9 + 50 + grain), 0, 4095).astype(np.float32))

    copied = [(disguised(image), label) for image, label in phantoms(0, TRAIN)[:32]]
    store(tmp_path / "copies", "copy", {"test": copied + phantoms(5000, 48)[:32]})
    report = evaluate(tmp_path / "copies", real, tmp_path / "report")
    assert 28 <= report.scores["copies"] <= 36
    assert any("copies training images" in warning for warning in report.warnings)
    assert "more than chance" in report.verdict
    assert "Copy." in report.page.read_text(encoding="utf-8")


def test_val_stands_in_for_a_missing_test_split(tmp_path: Path) -> None:
    manifest = store(tmp_path / "real", "p", {"train": phantoms(0, 32), "val": phantoms(1000, 20)}, labelled=False)
    store(tmp_path / "fake", "f", {"test": phantoms(5000, 20)})
    report = evaluate(tmp_path / "fake", manifest, tmp_path / "report")
    assert report.scores["split"] == "val"
    assert any("no test images, so its val images are used" in warning for warning in report.warnings)
    assert report.scores["classes"] == []


def test_without_training_images_two_halves_stand_in(tmp_path: Path) -> None:
    manifest = store(tmp_path / "real", "p", {"test": phantoms(0, 32), "train": phantoms(1000, 3)}, labelled=False)
    store(tmp_path / "fake", "f", {"test": phantoms(5000, 20)})
    report = evaluate(tmp_path / "fake", manifest, tmp_path / "report", n=18)
    assert report.scores["n_synthetic"] == 18
    assert any("two halves of 16" in warning for warning in report.warnings)
    assert "copy_rate" not in report.scores
    assert "Copies of training images were not looked for" in report.verdict


def test_eight_bit_images_are_read_on_their_own_scale(real: Path, tmp_path: Path) -> None:
    def eight(image: Image) -> Image:
        return replace(image, data=np.rint(image.data / 4095 * 255), origin={"range": (0, 255), "step": 1.0})

    folder = tmp_path / "eight"
    folder.mkdir()
    for k, (image, _) in enumerate(phantoms(5000, 48) + phantoms(5048, 16)):
        io.write(eight(image), folder / f"{k:03d}.png")
    report = evaluate(folder, real, tmp_path / "report")
    assert any("read on its own scale" in warning for warning in report.warnings)
    assert report.scores["precision"]["value"] > 0.7


def test_volumes_go_the_same_way(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def volumes(count: int) -> Labelled:
        grain = gaussian_filter(rng.normal(size=(count, 1, 16, 18, 20)), (0, 0, 2, 2, 2)).astype(np.float32)
        return [(Image(volume), "") for volume in grain]

    parts = {"train": volumes(24), "test": volumes(20)}
    manifest = store(tmp_path / "real", "v", parts, suffix=".nii.gz")
    store(tmp_path / "fake", "f", {"test": volumes(18) + parts["train"][:2]}, suffix=".nii.gz")
    report = evaluate(tmp_path / "fake", manifest, tmp_path / "report")
    assert report.scores["frechet"]["value"] < 1.5 * report.scores["frechet"]["real"]
    assert 2 <= report.scores["copies"] <= 4  # those planted, and about one false alarm
    assert "axial, coronal and sagittal" in report.page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"split": "train"}, "expected test or val"),
        ({"n": 3}, "at least 16"),
        ({"steps_curve": [2]}, "needs a model"),
        ({"extractor": "nonsense"}, "no extractor"),
        ({"against": None}, "name the real ones"),
    ],
)
def test_wrong_use_is_one_readable_error(real: Path, tmp_path: Path, choices: dict[str, Any], message: str) -> None:
    against = choices.pop("against", real)
    with pytest.raises(UsageError, match=message) as caught:
        evaluate(real.parent, against, tmp_path / "report", **choices)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report").exists()


def test_a_conditional_model_is_asked_for_the_real_proportions(real: Path, tmp_path: Path) -> None:
    images = phantoms(0, TRAIN) + phantoms(1000, TEST)
    normal = [pair for pair in images if pair[1] == "normal"]
    other = [pair for pair in images if pair[1] != "normal"]
    splits = {
        "train": normal[:20] + other[:20],
        "val": normal[20:24] + other[20:24],
        "test": normal[24:30] + other[24:42],
    }
    manifest = store(tmp_path / "real", "p", splits)
    overrides = [
        *("method.channels=[8,16]", "method.attention=[false,false]", "method.head_channels=8", "method.norm_groups=8"),
        *("data.size=16", "data.batch=8", "data.condition=label", f"data.source={manifest}"),
        *("train.steps=2", "train.minutes=0", "train.validate_every=2", "train.log_every=1", "sample.steps=2"),
    ]
    train(load_recipe("ddpm-chest", overrides), tmp_path / "run")
    seen: list[str] = []
    report = evaluate(
        fabrica.model.loading.load(tmp_path / "run", device="cpu"),
        out=tmp_path / "report",
        n=16,
        steps_curve=[1, 2],
        progress=lambda what, done, total: seen.append(what),
    )
    assert {item["name"]: item["synthetic_count"] for item in report.scores["classes"]} == {"abnormal": 12, "normal": 4}
    curve = report.scores["steps_curve"]
    assert [point["steps"] for point in curve] == [1, 2]
    assert curve[1]["value"] == report.scores["frechet"]["value"]  # the same seeds and steps give the same images
    assert report.scores["milliseconds_per_image"]["value"] > 0
    assert report.scores["model_hash"] == fabrica.model.loading.load(tmp_path / "run", device="cpu").hash
    page = report.page.read_text(encoding="utf-8")
    shown = "The same seeds: abnormal instead of normal"
    for words in ("Loss: training from", "against sampler steps", "fabrica evaluate", "--curve 1,2", shown):
        assert words in page
    assert "sampling" in seen

    elsewhere = evaluate(tmp_path / "run", real, tmp_path / "other", n=16)
    assert elsewhere.scores["n_real"] == TEST
    assert elsewhere.scores["n_searched"] == 40  # copies are looked for in what it was trained on
    assert any("own training images" in warning for warning in elsewhere.warnings)


def test_a_gan_is_judged_without_steps_and_its_alarms_are_told(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\nmethod: {name: mlp-gan}\ndata: {source: 'phantom:chest', size: 32, count: 64, batch: 16}\n"
        "train: {steps: 4, validate_every: 2, monitor_every: 2, log_every: 1}\nsample: {truncation: 0.7}\n"
    )
    run = train(load_recipe(tmp_path / "tiny.yaml"), tmp_path / "run")
    (run / "alarms.txt").write_text(f"step 450: the samples are alike {HOSTILE}\n\nstep 900: no gradient\n")
    with pytest.raises(UsageError, match=r"tiny \(mlp-gan\) makes images in one pass; leave the steps curve"):
        evaluate(run, out=tmp_path / "report", steps_curve=[2, 5])
    assert not (tmp_path / "report").exists()

    report = evaluate(run, out=tmp_path / "report", n=16)
    assert report.scores["steps_curve"] == []
    for alarm in (f"step 450: the samples are alike {HOSTILE}.", "step 900: no gradient."):
        assert any(warning.endswith(alarm) for warning in report.warnings)
    page = report.page.read_text(encoding="utf-8")
    for words in (
        "one pass, latents within 0.7 SD",
        "held-out FRD: from",
        "that the critic told apart",
        "among samples",
    ):
        assert words in page
    for words in ("<script", "Loss: ", "sampler steps", "--curve", "dpmpp"):
        assert words not in page


def shared(name: str) -> Path:
    home = DATA
    if not (home / name).is_dir():
        pytest.skip(f"no {name} in {home}; set FABRICA_DATA to the folder of the real data sets")
    return home / name


@pytest.mark.slow
def test_real_radiographs_tell_a_slight_blur(tmp_path: Path) -> None:
    folder = shared("cxr_nih1000_64")
    manifest = load_manifest(str(folder)).select(split="val")
    images = [io.read(manifest.file(row), row.frame) for row in manifest.rows]
    for name, sigma in (("as they are", 0.0), ("blurred", 0.7)):
        (tmp_path / name).mkdir()
        for k, image in enumerate(images):
            soft = gaussian_filter(image.data, (0, sigma, sigma)) if sigma else image.data
            io.write(image.with_data(np.rint(soft)), tmp_path / name / f"{k:04d}.png")
    sharp, soft = (evaluate(tmp_path / name, folder, tmp_path / "r").scores for name in ("as they are", "blurred"))
    assert soft["frechet"]["low"] > 1.5 * sharp["frechet"]["high"]
    assert sharp["coverage"]["value"] > 0.5
    assert soft["coverage"]["value"] < 0.1


def test_spread_keeps_proportions_and_the_sum() -> None:
    labels = np.repeat([0, 1, 2], [70, 29, 1])
    for n in (1, 10, 16, 99, 1000):
        counts = np.bincount(spread(labels, 4, n), minlength=4)
        assert counts.sum() == n
        assert np.abs(counts - np.array([0.7, 0.29, 0.01, 0]) * n).max() < 1


def test_what_is_given_is_judged_whole_copies_and_all(real: Path, tmp_path: Path) -> None:
    """Mode collapse: a scan would take exact copies out of all its splits but one."""
    folder = tmp_path / "collapsed"
    folder.mkdir()
    for k, (image, _) in enumerate(phantoms(5000, 20)):
        io.write(image, folder / f"d{k:02d}.png", bits=16)
    for k in range(30):
        (folder / f"z{k:02d}.png").write_bytes((folder / "d00.png").read_bytes())
    (folder / "broken.png").write_bytes((folder / "d00.png").read_bytes()[:60])
    report = evaluate(folder, real, tmp_path / "report")
    scores = report.scores
    assert (scores["n_given"], scores["n_synthetic"], scores["n_distinct"], scores["n_unread"]) == (50, 50, 20, 1)
    assert scores["distinct"]["value"] == pytest.approx(0.4) and scores["distinct"]["real"] == 1.0
    assert [len(group) for group in scores["repeats"]] == [31] and scores["repeats"][0][:2] == ["d00", "z00"]
    page, screen = report.page.read_text(encoding="utf-8"), scores_table(report).replace("\n  ", " ")
    for said in (page, screen):
        assert "30 of 50 synthetic images are exact copies" in said and "d00, z00, z01" in said
        assert "1 file given could not be read and is not judged, the first is broken.png" in said
    assert "Different images" in page


def test_a_manifest_of_copies_is_judged_whole_too(real: Path, tmp_path: Path) -> None:
    home = tmp_path / "listed"
    home.mkdir()
    rows = []
    for k, (image, _) in enumerate(phantoms(5000, 18)):
        io.write(image, home / f"{k:02d}.png", bits=16)
        rows.append(Row(f"{k}", f"{k}", f"{k:02d}.png", split="train" if k < 16 else ""))  # as a scan leaves copies
    rows.append(Row("mask", "mask", "00.png", kind="mask"))
    Manifest(rows, home).save(home / "synthetic.csv")
    report = evaluate(home / "synthetic.csv", real, tmp_path / "report")
    assert report.scores["n_synthetic"] == 18 and report.scores["repeats"] == []
    assert any("1 of the files given are no pictures (mask)" in warning for warning in report.warnings)


def test_images_that_a_folder_does_not_list_are_said(real: Path, tmp_path: Path) -> None:
    store(tmp_path / "listed", "l", {"test": phantoms(5000, 16)})
    io.write(phantoms(5020, 1)[0][0], tmp_path / "listed" / "more.png", bits=16)
    report = evaluate(tmp_path / "listed", real, tmp_path / "report")
    assert report.scores["n_synthetic"] == 16
    assert any("1 images in" in warning and "the first is more.png" in warning for warning in report.warnings)
