"""`fabrica explain` of models whose answers are known: a mean of four neighbours, a label that adds to every pixel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fabrica
from fabrica import runtime
from fabrica.codec import Codec
from fabrica.errors import UsageError
from fabrica.evaluation.explanation.lesions import numbers, scored, truth
from fabrica.image import Image
from fabrica.phantoms.chest.chest import FINDINGS, chest
from tests.command import call
from tests.handmade import handmade, handmade_synthesiser

GREY = Codec("window", 0.0, 255.0)


def refused(done: Any, *words: str) -> None:
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith("fabrica: "), done.stderr
    for word in words:
        assert word in lines[0]


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    return handmade(tmp_path_factory.mktemp("applied") / "model")


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    return handmade_synthesiser(tmp_path_factory.mktemp("drawing") / "model")


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ct") / "ct.nii.gz"
    values = np.random.default_rng(0).uniform(-200, 200, (1, 20, 24)).astype(np.float32)
    fabrica.write(Image(values, unit="HU", origin={"modality": "CT"}), path)
    return path


def test_an_exported_model_is_explained_pixel_by_pixel(applied: Path, ct: Path, tmp_path: Path) -> None:
    """The answer at a pixel is the mean of its four neighbours: hiding one of them by air takes a quarter of it."""
    words = ["--at", "10,12", "--radius", 0, "--window", 1, "--fill", "empty", "--force"]
    done = call("explain", applied, ct, *words, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert facts["parts"][0]["unit"] == "HU" and facts["parts"][0]["gradients"] is None
    source = fabrica.read(ct).data[0]
    with np.load(tmp_path / "out" / "result.npz") as maps:
        moved, added = maps["occlusion"], maps["contribution"]
    expected = np.zeros_like(source)
    for row, column in ((11, 10), (13, 10), (12, 9), (12, 11)):
        expected[row, column] = (source[row, column] + 1024) / 4
    assert np.allclose(moved, expected, atol=0.05) and np.allclose(added, expected, atol=0.05)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"result-input.png", "result-answer.png", "result-occlusion.png", "seen.npz", "report.html"} <= names
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 4 and "http" not in page.replace("http-equiv", "")


def test_gradients_of_a_model_that_changes_nothing_are_the_image_itself(
    unchanged: Callable[..., Any], tmp_path: Path
) -> None:
    model = unchanged(GREY, GREY)
    picture = Image(np.random.default_rng(1).uniform(0, 255, (1, 32, 32)).astype(np.float32))
    done = fabrica.explain(model, picture, tmp_path / "out", at=(9, 4), radius=1, fill="empty", window=1)
    (part,) = done.facts["parts"]
    assert part["gradients"]["complete"] and part["gradients"]["steps"] == 16
    with np.load(tmp_path / "out" / "result.npz") as maps:
        for name in ("gradients", "occlusion", "contribution"):
            expected = np.zeros((32, 32))
            expected[3:6, 8:11] = picture.data[0, 3:6, 8:11] / 9
            assert np.allclose(maps[name], expected, atol=1e-3), name
    assert part["gradients"]["sum"] == pytest.approx(picture.data[0, 3:6, 8:11].mean(), rel=1e-4)
    assert part["share_near"] == pytest.approx(1.0) and part["chance_near"] < 0.1


def test_what_a_label_adds_is_seen_in_every_pixel(drawing: Path, tmp_path: Path) -> None:
    """The handmade denoiser answers with the label everywhere alike, so that the difference is one number an image."""
    done = call("explain", drawing, "--label", "ill", "-n", 3, "--seed", 4, "-o", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)["comparisons"]
    assert one["name"] == "ill instead of well" and one["seeds"] == [4, 6] and one["unit"] == "HU"
    assert one["score"] is None and one["told"] == [{"label": "ill"}] * 3
    with np.load(tmp_path / "out" / one["files"][1]) as arrays:
        assert np.allclose(arrays["difference"], (arrays["told"] - arrays["instead"])[:, 0], atol=1e-3)
        assert np.allclose(arrays["mean"], arrays["difference"].mean(0), atol=1e-2)
        told = arrays["told"]
        inner = np.abs(arrays["instead"][:, 0]) < 500
        inner &= np.abs(arrays["told"][:, 0]) < 500
        assert inner.any() and np.ptp(arrays["difference"][inner]) < 200 and (arrays["difference"][inner] != 0).all()
    assert one["mean_difference"] == pytest.approx(float(np.abs(arrays_of(tmp_path, one)).mean()), rel=1e-4)
    drawn = call("sample", drawing, "--label", "ill", "-n", 1, "--seed", 5, "--as", "npz", "-o", tmp_path / "sampled")
    assert drawn.returncode == 0, drawn.stderr
    (file,) = (tmp_path / "sampled").glob("*.npz")
    assert np.allclose(fabrica.read(file).data, told[1], atol=1e-2), "the image that `sample` draws of this seed"


def arrays_of(home: Path, one: Any) -> np.ndarray:
    with np.load(home / "out" / one["files"][1]) as arrays:
        return np.asarray(arrays["difference"])


def test_bad_input_is_one_line(applied: Path, drawing: Path, ct: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out")
    refused(call("explain", applied, *out), "say of which image", "fabrica explain MODEL IN")
    refused(call("explain", applied, ct, "--label", "ill", *out), "is applied to images", "--label")
    refused(call("explain", applied, ct, "--class", "liver", "--force", *out), "no label maps", "--class")
    refused(call("explain", applied, ct, "--at", "40,2", "--force", *out), "no voxel 40,2", "from 0 to 23,19")
    refused(call("explain", applied, ct, "--at", "middle", *out), "the place of a voxel")
    refused(call("explain", applied, ct, "--fill", "grey", "--force", *out), "expected mean or empty")
    refused(call("explain", applied, ct, "--window", 4, "--stride", 5, "--force", *out), "in steps of [5, 5]")
    refused(call("explain", drawing, ct, *out), "makes images of noise", "IN")
    refused(call("explain", drawing, "--label", "il", *out), "no label 'il'; did you mean ill?")
    refused(call("explain", drawing, "--label", "ill", "--instead", "ill", *out), "told on both sides")
    refused(call("explain", drawing, "--prompt", "A nodule.", *out), "told no text")
    refused(call("explain", drawing, "--word", "nodule", *out), "give the text, too")
    refused(call("explain", drawing, "--instead", "well", *out), "of what?")
    refused(call("explain", drawing, "--finding", "nodul", *out), "no finding 'nodul'; did you mean nodule?")
    refused(call("explain", drawing, "--finding", "nodule", *out), "was not trained on square chest phantoms")
    refused(call("explain", drawing, "-n", 0, *out), "asked for 0 seeds")
    with pytest.raises(UsageError, match="has no gradients"):
        fabrica.explain(runtime.opened(applied), ct, tmp_path / "out", gradients=True, force=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_perfect_map_of_a_phantom_scores_full_and_noise_scores_nothing(finding: str) -> None:
    known = truth(finding, 4, 0, 48, stated=True)
    noise = np.random.default_rng(0).random(known.changes.shape).astype(np.float32)
    found = scored(finding, known.changes, noise, known)
    assert found.area_under_curve == (1.0, 1.0, 1.0) and found.hits[0] == 1.0 and found.count == 4
    assert abs(found.between_seeds - 0.5) < 0.25 and 0 < found.chance < 0.3
    assert found.perfect > 0.6, "others of which the same is true lie near, and not in the same place"
    for number, area in zip(numbers(4, 0), known.areas, strict=True):
        own = chest(number, 48, [finding])
        lesion = own.lesions.data[0] > 0
        assert (area & lesion).sum() > 0.3 * min(area.sum(), lesion.sum()), "it lies where the lesion map says"
