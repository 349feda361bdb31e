"""Exported synthesisers drawn: by the samplers of the trained model, or refused in one line."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fabrica
from fabrica import diffusion, runtime
from fabrica.data.manifest import Manifest
from fabrica.errors import FabricaError, UsageError
from fabrica.image import Image
from fabrica.io.marks import is_synthetic
from fabrica.methods.noise import seeded
from fabrica.recipe.schema import CodecConfig
from tests.command import call
from tests.handmade import as_openvino, handmade_predicted, handmade_synthesiser, sealed
from tests.runtime.test_folder import edited

CHOICES: list[dict[str, Any]] = [
    {},
    {"sampler": "ddpm", "steps": 5, "guidance": 1.0},
    {"sampler": "heun", "rescale": 0.0, "conditions": {"label": ["ill", None, "well", "ill", "ill"]}},
    {"sampler": "unipc", "guidance": 4.0, "conditions": {"label": "well"}},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade_synthesiser(tmp_path_factory.mktemp("exported") / "model")


def of_torch(n: int, seed: int, sampler: str = "dpmpp-2m", steps: int = 4, **choices: Any) -> Any:
    """The pictures of `handmade_synthesiser`, drawn by PyTorch's tensors from one end to the other."""
    labels = choices.get("conditions", {}).get("label", [("well", "ill")[(seed + k) % 2] for k in range(n)])
    labels = [labels] * n if isinstance(labels, str) else labels
    numbers = np.array([{"well": 0, "ill": 1, None: -1}[label] for label in labels])
    schedule = diffusion.Schedule("cosine")

    def estimating(told: Any) -> Callable[[Any, float], Any]:
        def predict(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(handmade_predicted(x_t.numpy(), t.numpy(), told))

        return diffusion.estimates(predict, schedule, "v")

    denoise = estimating(numbers)
    if (scale := choices.get("guidance", 2.0)) != 1.0:
        denoise = diffusion.guided(denoise, estimating(np.full(n, -1)), scale, choices.get("rescale", 0.5))
    draw = seeded(range(seed, seed + n))
    shape = (1, 16, 16)
    how: dict[str, Any] = {"sampler": sampler, "steps": steps, "noise": lambda: draw(shape), "clip": 1.0}
    return diffusion.sample(denoise, draw(shape), schedule, spacing="log-snr", **how).clamp(-1, 1).numpy()


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_a_seed_gives_the_picture_that_pytorch_draws(folder: Path, choices: dict[str, Any]) -> None:
    model: Any = runtime.opened(folder)
    made = model.sample_array(5, seed=3, batch=2, **choices)
    np.testing.assert_allclose(made, of_torch(5, 3, **choices), atol=2e-5)
    assert made.std() > 0.1 and made.dtype == np.float32


def test_both_runtimes_draw_the_same(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs openvino")
    other: Any = runtime.opened(as_openvino(shutil.copytree(folder, tmp_path / "model")))
    mine: Any = runtime.opened(folder)
    np.testing.assert_allclose(other.sample_array(4, seed=1), mine.sample_array(4, seed=1), atol=2e-5)


def test_an_image_is_drawn_anew_where_it_is_asked(folder: Path) -> None:
    model: Any = runtime.opened(folder)
    start = Image(np.full((1, 16, 16), 100.0, dtype=np.float32), unit="HU", origin={"modality": "CT"})
    where = np.zeros((1, 16, 16), dtype=np.float32)
    where[:, :4] = 1
    made = model.sample(1, start=start, redraw=start.with_data(where))[0].data
    assert np.allclose(made[:, 4:], 100.0, atol=1e-2) and made[:, :4].std() > 1


def test_files_and_their_manifest_are_those_of_any_model(folder: Path, tmp_path: Path) -> None:
    done = call("sample", folder, "-n", 3, "--seed", 5, "--label", "ill", "--as", "dicom", "-o", tmp_path / "out")
    assert done.returncode == 0 and "3 synthetic images (dicom) of model drawn" in done.stdout
    rows = Manifest.load(tmp_path / "out" / "manifest.csv").rows
    assert [row.label for row in rows] == ["ill"] * 3 and rows[0].modality == "CT"
    image = fabrica.read(tmp_path / "out" / rows[0].path)
    assert image.unit == "HU" and is_synthetic(image)
    done = call("sample", folder, "--interpolate", 3, 8, "--frames", 4, "-o", tmp_path / "way")
    assert done.returncode == 0 and (tmp_path / "way" / "interpolation-3-8.gif").is_file()


REFUSED: list[tuple[list[Any], str]] = [
    (["--prompt", "an effusion"], "the model is told no text of an image \\(it is told label\\); leave it out"),
    (["--label", "il"], "did you mean ill"),
    (["--truncation", 1], "model drawn \\(diffusion\\) has no truncation; it has steps, sampler, guidance, rescale"),
    (["--sampler", "dpm"], "no sampler .dpm.; did you mean ddpm"),
    (["--precision", "bf16"], "ONNX Runtime computes in fp32 on this processor, and not in bf16"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=str)
def test_what_it_cannot_be_asked_is_one_line(folder: Path, tmp_path: Path, words: list[Any], said: str) -> None:
    done = call("sample", folder, "-n", 1, *words, "-o", tmp_path / "out")
    assert done.returncode == 2 and re.search(said, done.stderr) and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def truncated(folder: Path) -> None:
    path = folder / "denoiser.onnx"
    path.write_bytes(path.read_bytes()[:-40])
    again(folder)


def foreign(folder: Path) -> None:
    (folder / "denoiser.onnx").write_bytes(b"not a graph")
    again(folder)


def again(folder: Path) -> None:
    from fabrica.runtime import folder as place

    before = place.typed(place.Exported, place.versioned(folder / "exported.yaml", 1, ""))
    sealed(folder, graphs=before.graphs, draws=before.draws)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a graph cut short": (truncated, "denoiser.onnx is not the graph of an exported model"),
    "no graph": (foreign, "denoiser.onnx is not the graph of an exported model"),
    "a schedule that there is not": (edited("kind: cosine", "kind: cosin"), "exported.yaml is damaged: .*cosin"),
    "a shape that is none": (edited("  - 16\n  - 16", "  - x\n  - 16"), "exported.yaml is damaged"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_folder_that_is_not_as_it_was_exported_is_refused_in_one_line(
    folder: Path, tmp_path: Path, what: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    spoil, words = BAD[what]
    spoil(copy)
    done = call("sample", copy, "-n", 1, "-o", tmp_path / "out")
    assert done.returncode == 1 and re.search(words, done.stderr) and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_codec_or_words_that_are_missing_are_said(tmp_path: Path) -> None:
    with pytest.raises(FabricaError, match="has no codec"):
        runtime.opened(handmade_synthesiser(tmp_path / "one", codec=CodecConfig()))
    other = handmade_synthesiser(tmp_path / "other")
    recipe = other / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("  - label\n", "  - text\n"))
    again(other)
    with pytest.raises(FabricaError, match=r"has no vocabulary\.json, by which the model reads prompts"):
        runtime.opened(other)


def test_what_makes_no_images_of_noise_is_said(folder: Path) -> None:
    with pytest.raises(UsageError, match="exported as denoiser, and translates nothing; use it with: fabrica sample"):
        runtime.opened(folder).way()
