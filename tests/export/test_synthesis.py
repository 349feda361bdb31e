"""Synthesisers exported: the same pictures of the same seeds without PyTorch, told the same, by the same samplers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from torch import nn

from fabrica import io, runtime
from fabrica.conditioning.encoder import condition_encoder
from fabrica.conditioning.vocabulary import learned, save_words
from fabrica.errors import FabricaError, UsageError
from fabrica.export import export
from fabrica.export.images import images
from fabrica.export.networks import networks, sizes
from fabrica.image import Image
from fabrica.methods import build
from fabrica.model.loading import load, load_autoencoder
from fabrica.model.model import Model
from fabrica.model.saving import save_model
from fabrica.phantoms.chest.chest import chest
from fabrica.recipe.codecs import codec_config
from fabrica.recipe.folder import AUTOENCODER, WORDS
from fabrica.recipe.found import Found
from fabrica.recipe.schema import CodecConfig, DataConfig, Recipe, SampleConfig, TextConfig, TrainConfig
from tests.command import call
from tests.handmade import HU

SMALL: dict[str, Any] = {
    "name": "diffusion",
    **{"channels": [8, 16], "attention": [False, True], "head_channels": 8, "norm_groups": 4, "context_width": 12},
    "mask_width": 4,
}
CODER = {"name": "autoencoder", "channels": [8, 16], "norm_groups": 4, "res_blocks": 1, "adversarial": 0, "features": 0}
REPORTS = ["There is a large left pleural effusion.", "The lungs are clear. No effusion."]
EVERYTHING = ["label", "text", "age", "sex", "view", "mask"]
SEX = {"sex": ["F", "M"], "view": ["AP", "PA"]}
OF_PIXELS = (
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "PatientName",
)
"""What is derived of the grey values, so that unlike images never share it."""
TOLD = {"label": "ill", "text": "large effusion", "age": 60, "sex": "F"}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], list[str]]] = {  # method, data, more, graphs
    "pixels": ({**SMALL, "patch": 2}, {}, {}, ["denoiser"]),
    "label": ({**SMALL, "objective": "flow", "schedule": "flow"}, {"condition": ["label"]}, {}, ["denoiser"]),
    "volumes": (SMALL, {"size": [8, 16, 16]}, {}, ["denoiser"]),
    "latents": (SMALL, {}, {"space": {}}, ["denoiser", "encoder", "decoder"]),
    "latents with detail": (SMALL, {"size": [32, 32]}, {"space": {"detail": True}}, ["denoiser", "encoder", "decoder"]),
    "everything": (
        SMALL,
        {"condition": EVERYTHING},
        {"space": {}},
        ["denoiser", "conditions", "encoder", "decoder"],
    ),
    "student": (
        {"name": "distill", "steps": [2, 4], "student": SMALL},
        {"condition": ["label"]},
        {"sample": SampleConfig(steps=4)},
        ["denoiser"],
    ),
    "modern-gan": ({"name": "modern-gan", "width": 4}, {"condition": ["label"], "size": [32, 32]}, {}, ["generator"]),
    "drifting": ({"name": "drifting", "width": 4}, {"size": [32, 32]}, {}, ["generator"]),
}


def given(folder: Path, kind: str, seed: int = 0) -> Model:
    """A model of random weights, none of them zero, as it comes from its folder."""
    method, data, more, _ = KINDS[kind]
    full: dict[str, Any] = {"size": [16, 16], **data}
    sample = more.get("sample", SampleConfig(steps=3, guidance=2.0, rescale=0.3))
    text = TextConfig(tokens=300, context=16, layers=1, heads=3)
    recipe = Recipe(
        name=kind, method=method, data=DataConfig(**full), sample=sample, text=text, train=TrainConfig(precision="bf16")
    )
    if "text" in full.get("condition", []):
        vocabulary, seen = learned(recipe, REPORTS)
        text = replace(text, tokens=len(vocabulary))
    labels = CodecConfig(kind="label", low=0, high=255, classes=3)
    found = replace(
        Found.asked(recipe),
        **{"codec": codec_config(HU), "modality": "CT", "spacing": [1.0] * len(full["size"]), "text": text},
        **{"classes": ["well", "ill"], "categories": SEX, "codec_mask": labels},
        **({"uses": {"autoencoder": AUTOENCODER}} if "space" in more else {}),
    )
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    space = None
    if "space" in more:
        coder = Recipe(name="coder", method={**CODER, **more["space"]}, data=DataConfig(size=full["size"]))
        kept(folder / AUTOENCODER, coder, replace(Found.asked(coder), codec=codec_config(HU)))
        space = load_autoencoder(folder / AUTOENCODER, torch.device("cpu")).method
    kept(folder, recipe, found, space)
    if "text" in full.get("condition", []):
        save_words(folder / WORDS, condition_encoder(recipe, found, vocabulary, seen))
    return load(folder)


def kept(folder: Path, recipe: Recipe, found: Found, space: Any = None) -> None:
    made = build(recipe, found, space)
    for name in made.ships:
        for weight in made.get_submodule(name).parameters():
            if not weight.any():
                nn.init.normal_(weight, 0.0, 0.05)
    folder.mkdir(exist_ok=True)
    save_model(folder, made, recipe, found, kept="none")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A model of latents that is told everything there is, and what was exported of it."""
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    home = tmp_path_factory.mktemp("everything")
    model = given(home / "model", "everything")
    export(model, "onnx", home / "onnx")
    return model, home / "onnx"


def same_pictures(model: Model, folder: Path, seeds: int = 3, **choices: Any) -> None:
    """Off by at most 1e-3 of the range: steps add up what networks differ by."""
    opened: Any = runtime.opened(folder)
    wanted = model.computing_in("fp32").sample_array(seeds, seed=7, **choices)
    np.testing.assert_allclose(opened.sample_array(seeds, seed=7, batch=2, **choices), wanted, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_draws_as_pytorch_does(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    model = given(tmp_path / "model", kind)
    export(model, "onnx", tmp_path / "out")
    opened = runtime.opened(tmp_path / "out")
    assert list(opened.record.graphs) == KINDS[kind][3] and opened.record.pictures.count == 8
    assert 0 <= opened.record.pictures.mean <= opened.record.pictures.largest <= 1e-3 * 4095
    for graph, network in networks(model).items():
        tried = sizes(network)
        assert len(opened.record.graphs[graph].parity) == len(tried) == 4
        for (batch, size), parity in zip(tried, opened.record.graphs[graph].parity, strict=True):
            assert (parity.batch, tuple(parity.size)) == (batch, size)
            assert parity.largest <= 1e-4 * opened.record.graphs[graph].range
    same_pictures(model, tmp_path / "out", warn=lambda sentence: None)
    if "steps" in model.choices and not model.paces:
        same_pictures(model, tmp_path / "out", sampler="ddpm", steps=4, guidance=1.0, warn=lambda sentence: None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lower_precision_is_judged_by_what_a_graph_takes(kind: str, tmp_path: Path) -> None:
    model, pictures = given(tmp_path / "model", kind), tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for k in range(20):
        values = rng.uniform(-900, 900, (1, *model.data.size)).astype(np.float32)
        io.write(Image(values, np.eye(4), "HU", {"modality": "CT"}), pictures / f"{k}.nii.gz")
    for name, network in networks(model).items():
        example = network.example(2, network.size)
        first, then = (images(model, name, network, split, str(pictures)).inputs for split in ("train", "val"))
        assert len(first) >= 8 and then
        for each in (*first, *then):
            assert [(v.dtype, v.shape[1:]) for v in each] == [(v.numpy().dtype, v.shape[1:]) for v in example]
            assert all(len(values) == 1 for values in each)
            network.module(*map(torch.from_numpy, each))
        seen, judged = ({b"".join(v.tobytes() for v in each) for each in some} for some in (first, then))
        assert not judged <= seen


@pytest.mark.slow
def test_what_it_is_told_and_starts_from_does_what_it_does_with_pytorch(everything: tuple[Model, Path]) -> None:
    model, folder = everything
    mask = Image((np.arange(256) % 3).astype(np.float32).reshape(1, 16, 16), unit="label")
    start = chest(3, 24).image
    start = Image(start.data * 1000, start.affine, "HU", {"modality": "CT"})
    for conditions in (TOLD, {"view": ["PA", None, "AP"], "mask": mask}, {"text": ["Effusion.", "", "clear lungs"]}):
        same_pictures(model, folder, conditions=conditions, warn=lambda sentence: None)
    where = start.with_data((start.data > start.data.mean()).astype(np.float32))
    more: dict[str, Any] = {"start": start, "warn": lambda sentence: None}
    same_pictures(model, folder, conditions=TOLD, strength=0.7, **more)
    same_pictures(model, folder, conditions=TOLD, redraw=where, **more)


@pytest.mark.slow
def test_files_are_those_of_the_trained_model(everything: tuple[Model, Path], tmp_path: Path) -> None:
    """But for rounding of grey values, of which one step is allowed."""
    model, folder = everything
    words = ["-n", 2, "--prompt", "large effusion", "--age", 40, "--precision", "fp32", "--as", "dicom", "-o"]
    for name, where in (("torch", model.folder), ("onnx", folder)):
        done = call("sample", where, *words, tmp_path / name)
        assert done.returncode == 0, done.stderr
    names = [sorted(each.name for each in (tmp_path / name).iterdir()) for name in ("torch", "onnx")]
    assert names[0] == names[1] and len(names[0]) == 4  # the manifest and the preview, too
    assert (tmp_path / "torch" / "manifest.csv").read_bytes() == (tmp_path / "onnx" / "manifest.csv").read_bytes()
    for name in names[0][:2]:
        one, other = (pydicom.dcmread(tmp_path / each / name) for each in ("torch", "onnx"))
        assert np.abs(one.pixel_array.astype(int) - other.pixel_array).max() <= 4  # HU
        for header in (one, other):
            for key in ("PixelData", *OF_PIXELS):
                header.pop(key, None)
        assert one.to_json_dict() == other.to_json_dict() and len(one) > 40


@pytest.mark.slow
def test_words_that_were_changed_are_refused(everything: tuple[Model, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(everything[1], tmp_path / "copy")
    (copy / WORDS).write_text((copy / WORDS).read_text() + " ")
    with pytest.raises(FabricaError, match=r"vocabulary\.json is not the file that was exported"):
        runtime.opened(copy)


@pytest.mark.slow
def test_openvino_draws_the_same(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs openvino")
    model = given(tmp_path / "model", "everything")
    export(model, "openvino", tmp_path / "out")
    same_pictures(model, tmp_path / "out", conditions=TOLD, warn=lambda sentence: None)


def test_what_others_have_trained_to_read_is_refused(tmp_path: Path) -> None:
    model = given(tmp_path / "model", "label")
    frozen = replace(model, found=replace(model.found, uses={"text": "clip"}))
    with pytest.raises(UsageError, match="reads prompts by a frozen encoder of text that others have trained"):
        export(frozen, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()
