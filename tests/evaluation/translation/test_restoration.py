"""What restores is judged beside what came in and the best that needs no learning, and the page shows all of them."""

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
from torch import nn

import fabrica
from fabrica import io
from fabrica.codec import Codec
from fabrica.data.manifest import Manifest, Row
from fabrica.evaluation import Report, scores_table
from fabrica.evaluation.translation.cases import learnt, open_cases
from fabrica.evaluation.translation.restoration_panels import busiest
from fabrica.model.model import Model
from fabrica.phantoms.chest.chest import chest
from fabrica.phantoms.head.head import head

pytestmark = pytest.mark.usefixtures("few_asked")

SIZE, N = 64, 8
SPLITS = {"train": 2, "val": 3, "test": N}
NOISE = [{"name": "gaussian", "sigma": 0.05}]
GREYS = Codec("window", 0.0, 4095.0)


class Smooth(nn.Module):
    """The binomial mean of 3 x 3 pixels: better than noise, worse than total variation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.tensor([1.0, 2.0, 1.0]) / 4
        around = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
        return nn.functional.conv2d(around, torch.outer(weights, weights)[None, None])


def stored(folder: Path, draw: Callable[[int], Any], suffix: str, counts: dict[str, int]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for split, count in counts.items():
        for k in range(count):
            image, name = draw(len(rows)), f"{split}{k}"
            io.write(image, folder / f"{name}{suffix}")
            rows.append(Row(name, name, f"{name}{suffix}", "", split, image.origin["modality"]))
    Manifest(rows, folder).save(folder / "manifest.csv")
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def lungs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chest phantoms without a word on their own noise."""
    return stored(tmp_path_factory.mktemp("lungs"), lambda k: chest(k, SIZE).image, ".png", SPLITS)


def asked(unchanged: Callable[..., Model], codec: Codec, source: Path, **data: Any) -> Model:
    values = {"a": "degraded", "b": "image", "source": str(source), "size": [SIZE, SIZE], **data}
    return unchanged(codec, codec, **values)


@pytest.fixture
def smooth(unchanged: Callable[..., Model], lungs: Path) -> Model:
    codec = replace(GREYS, high=float(io.read(lungs.parent / "test0.png").origin["range"][1]))
    model = asked(unchanged, codec, lungs, degrade=NOISE)
    model.method.generator = Smooth()  # type: ignore[attr-defined]
    return model


@pytest.fixture(scope="module")
def kept() -> list[Report]:
    return []


@pytest.fixture
def judged(smooth: Model, kept: list[Report], tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report on `smooth`, written once."""
    if not kept:
        kept.append(fabrica.evaluate(smooth, out=tmp_path_factory.mktemp("smooth") / "report"))
    return kept[0]


def test_a_little_smoothing_is_better_than_noise_and_worse_than_the_best_classic(judged: Report) -> None:
    scores = judged.scores
    psnr, gain = scores["psnr"], scores["psnr_gain"]
    assert set(psnr["baselines"]) == {"identity", "bilateral", "nlm", "tv"}  # no mean image
    assert gain["value"] == pytest.approx(psnr["value"] - psnr["baselines"]["identity"])
    assert gain["low"] > 1 and gain["baselines"]["identity"] == 0
    best = scores["best_classic"]
    assert best["name"] == max(("bilateral", "nlm", "tv"), key=psnr["baselines"].get)
    assert best["psnr"]["two"] == pytest.approx(psnr["baselines"][best["name"]])
    assert best["psnr"]["high"] < 0 and best["psnr"]["p"] < 0.05
    assert scores["gain"]["psnr"]["mean"] == pytest.approx(gain["value"]) and scores["gain"]["ssim"]["low"] > 0
    assert set(scores["classics"]) == {"bilateral", "nlm", "tv"}


def test_the_words_are_those_of_restoration(judged: Report) -> None:
    gain, best = judged.scores["psnr_gain"], judged.scores["best_classic"]
    assert f"+{gain['value']:.2f} dB [" in judged.verdict and "over what came in" in judged.verdict
    assert "best classic" in judged.verdict and "dB lower than" in judged.verdict
    assert any("no better than the best classic" in warning for warning in judged.warnings)
    assert not any("what came in" in warning for warning in judged.warnings)
    table = scores_table(judged)
    for words in ("restored", "non-local means", "against what came in, the same", "against the best classic"):
        assert words in table
    assert "translated" not in table and best["name"] not in ("identity", "bilateral")


def test_the_page_shows_before_and_after_near_and_tells_the_strengths(judged: Report) -> None:
    page = judged.page.read_text(encoding="utf-8")
    for words in ("before", "after less truth", "truth, near", "weight 0.", "BM3D", "gaussian (sigma 0.05)",
                  "the middle 64 pixels of 3 val images", "restores degraded images"):  # fmt: skip
        assert words in page, words
    assert page.count("<img") == 2 + 3 * (4 + 4 + 4)
    assert "ranslated" not in page and "mean image" not in page
    with (judged.page.parent / "scores.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    means = [np.mean([float(line[f"{who}psnr"]) for line in lines]) for who in ("", "identity_", "tv_")]
    assert means[0] == pytest.approx(judged.scores["psnr"]["value"], rel=1e-4)
    assert means[1] < means[0] < means[2]
    assert json.loads((judged.page.parent / "scores.json").read_text(encoding="utf-8")) == judged.scores


def test_strengths_are_chosen_on_images_that_are_not_judged(smooth: Model) -> None:
    source = smooth.recipe.data.source
    for split, other, count in (("test", "val", 3), ("val", "train", 2)):
        held_out = open_cases(smooth, source, split, None, 0)
        cases, used = learnt(smooth, held_out, 0, 8)
        assert used == other and len(cases) == count
        assert {case.id for case in cases.read()}.isdisjoint(case.id for case in held_out.cases["a2b"].read())


def test_two_models_and_the_classics_side_by_side(
    smooth: Model, unchanged: Callable[..., Model], lungs: Path, tmp_path: Path
) -> None:
    idle = asked(unchanged, smooth.codec, lungs, degrade=NOISE)
    report = fabrica.evaluate(idle, out=tmp_path, n=2, versus=smooth)
    assert [name for name, _ in report.rivals][::2] == ["what came in", "unchanged"]
    assert [len(items) for _, items in report.rivals] == [6, 6, 6]
    gap = report.scores["versus"]["psnr"]
    assert gap["one"] == pytest.approx(report.scores["psnr"]["baselines"]["identity"], abs=0.05) and gap["mean"] < -1
    assert "dB lower than that of unchanged" in report.verdict
    assert any("no better than what came in" in warning or "hardly" in warning for warning in report.warnings)


def test_bicubic_stands_beside_where_images_were_downsampled(
    smooth: Model, unchanged: Callable[..., Model], lungs: Path, tmp_path: Path
) -> None:
    steps = [{"name": "downsample", "factor": 2}, {"name": "gaussian", "sigma": 0.05}]
    report = fabrica.evaluate(asked(unchanged, smooth.codec, lungs, degrade=steps), out=tmp_path, n=3)
    beside = report.scores["psnr"]["baselines"]
    assert beside["bicubic"] > beside["identity"] + 0.3
    assert max(beside["tv"], beside["nlm"]) > beside["bicubic"] + 1  # of noisy small images a filter is worth more
    page = report.page.read_text(encoding="utf-8")
    assert "bicubic, near" in page and "--columns: 5" in page and "then interpolated (bicubic)" in page
    assert page.count("<img") == 2 + 3 * (5 + 5 + 5)


def test_ct_volumes_are_shown_in_soft_tissue_too(unchanged: Callable[..., Model], tmp_path: Path) -> None:
    def draw(k: int) -> Any:
        return head(k, 48, 3, contrasts=["CT"]).images["CT"]

    source = stored(tmp_path / "data", draw, ".nii.gz", {"test": 2})
    codec = Codec("window", -1024.0, 3071.0, "HU")
    model = asked(unchanged, codec, source, size=[48, 48], degrade=[{"name": "gaussian", "sigma": 0.01}])
    report = fabrica.evaluate(model, out=tmp_path / "report")
    page = report.page.read_text(encoding="utf-8")
    for words in ("after, soft tissue", "middle axial slice", "20 dB lower", "100 HU", "2 test images"):
        assert words in page, words
    assert page.count("<img") == 2 + 2 * (4 * 4)
    assert "SSIM nan" not in page  # three slices are too few for its window
    assert report.scores["psnr"]["baselines"]["nlm"] > report.scores["psnr"]["value"] + 1.5
    assert any("tuned on the very images" in warning for warning in report.warnings)  # there are no others


def test_the_busiest_square_has_the_structure_and_lies_in_the_body() -> None:
    picture = np.full((200, 160), 80, dtype=np.uint8)
    picture[120:150, 90:120:4] = 160
    picture[10:60, 10:60:2] = 255  # outside of the body
    inside = np.zeros(picture.shape, dtype=bool)
    inside[70:190, 20:150] = True
    rows, columns = busiest(picture, inside)
    assert rows.stop - rows.start == columns.stop - columns.start == 50
    assert rows.start <= 120 and rows.stop >= 150 and columns.start <= 90 and columns.stop >= 117
