"""Models as graphs: the numbers of PyTorch at sizes that no graph was made from, and a folder that is whole."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fabrica
from fabrica import runtime
from fabrica.errors import FabricaError
from fabrica.export import export, graphs
from fabrica.export.networks import networks, sizes, traced_with
from fabrica.export.plain import plain
from fabrica.methods import Compressor, build
from fabrica.model.loading import load
from fabrica.model.model import Model
from fabrica.model.opening import judged
from fabrica.model.saving import save_model
from fabrica.nets.nafnet import Gate
from fabrica.phantoms.head.head import head
from fabrica.recipe.codecs import codec_config
from fabrica.recipe.found import Fingerprint, Found
from fabrica.recipe.plan import Plan
from fabrica.recipe.schema import CodecConfig, DataConfig, Recipe, TrainConfig
from tests.command import call
from tests.handmade import HU

PAIRS: dict[str, Any] = {"a": "MR", "b": "CT", "paired": True, "size": [32, 32], "fit": "exact"}
BLURRED = {**PAIRS, "a": "degraded", "degrade": [{"name": "blur", "sigma": 1}]}
IMAGES: dict[str, Any] = {"size": [32, 32]}
PLAN = Plan(
    size=[8, 24, 24],
    batch=2,
    levels=[[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    kernels=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    numbers=[0, 1, 3],
    names=["", "liver", ""],
    spacing=[3.0, 1.0, 1.0],
    mirror=[0, 1],
)
CODER = {"name": "autoencoder", "channels": [8, 16], "norm_groups": 4, "res_blocks": 1, "adversarial": 0, "features": 0}
RESIDUAL = {"name": "pix2pix", "network": "residual", "width": 4, "levels": 2, "adversarial": 0}
FLAT = Plan(size=[32, 32], batch=2, levels=[[1, 1], [2, 2], [2, 2]], kernels=[[3, 3]] * 3, numbers=[0, 1, 3],
            names=["", "liver", ""], spacing=[1.0, 1.0], mirror=[0, 1])  # fmt: skip
LABELS = CodecConfig(kind="label", low=0, high=255, classes=3, numbers=[0, 1, 3])
MASKS: dict[str, Any] = {"a": "image", "b": "mask", "paired": True}
SLICES = ({**MASKS, "size": [32, 32]}, {"plan": FLAT, "codec_b": LABELS}, ["a2b"])
VOLUMES = ({**MASKS, "size": [8, 24, 24]}, {"plan": PLAN, "codec_b": LABELS}, ["a2b"])
DEEP: dict[str, Any] = {**PAIRS, "size": [8, 16, 16]}
UNET: dict[str, Any] = {"name": "pix2pix", "width": 4, "levels": 3, "adversarial": 0}
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], list[str]]] = {  # method, data, found, graphs
    "cyclegan": ({"name": "cyclegan", "width": 4, "blocks": 1}, {"a": "A", "b": "B"}, {}, ["a2b", "b2a"]),
    "cut": ({"name": "cut", "width": 4, "blocks": 1}, {"a": "A", "b": "B"}, {}, ["a2b"]),
    "pix2pix": (UNET, PAIRS, {}, ["a2b"]),
    "pix2pix of volumes": (UNET, DEEP, {}, ["a2b"]),
    "residual of volumes": (RESIDUAL, DEEP, {}, ["a2b"]),
    "mirrored": ({**RESIDUAL, "mirror": True}, PAIRS, {}, ["a2b"]),
    "srgan": ({"name": "srgan", "width": 4}, BLURRED, {}, ["a2b"]),
    "nafnet": ({"name": "restore", "size": "tiny"}, BLURRED, {}, ["a2b"]),
    "nafnet of neighbours": (
        {"name": "restore", "size": "tiny", "unshuffle": 2},
        {**BLURRED, "context": 1},
        {},
        ["a2b"],
    ),
    "redcnn": ({"name": "restore", "network": "redcnn", "width": 4}, BLURRED, {}, ["a2b"]),
    "unet++": ({"name": "restore", "network": "unet++", "width": 4}, BLURRED, {}, ["a2b"]),
    "unet++ of blocks": (
        {"name": "restore", "network": "unet++", "width": 4, "encoder": "resnet34"},
        BLURRED,
        {},
        ["a2b"],
    ),
    **{
        f"segmenter, {network}, of {kind}": ({"name": "segment", "network": network, "width": 4}, *of)
        for network in ("unet", "residual", "unet++")
        for kind, of in (("slices", SLICES), ("volumes", VOLUMES))
    },
    "dcgan": ({"name": "dcgan", "width": 8}, IMAGES, {}, ["generator"]),
    "wgan-gp": ({"name": "wgan-gp", "width": 8}, IMAGES, {}, ["generator"]),
    "mlp-gan": ({"name": "mlp-gan"}, IMAGES, {}, ["generator"]),
    "autoencoder": ({**CODER, "patch": 2, "shortcut": True}, IMAGES, {}, ["encoder", "decoder"]),
    "autoencoder with detail": ({**CODER, "detail": True}, IMAGES, {}, ["encoder", "decoder"]),
    "autoencoder of volumes": (CODER, {"size": [8, 16, 16]}, {}, ["encoder", "decoder"]),
}


def trained(
    folder: Path, method: dict[str, Any], data: dict[str, Any], found: dict[str, Any] | None = None, seed: int = 0
) -> Model:
    """A model of random weights, none of them zero, as it comes from its folder."""
    recipe = Recipe(name="random", method=method, data=DataConfig(**data), train=TrainConfig(precision="bf16"))
    codec = codec_config(HU)
    known = {"codec": codec, "codec_b": codec, "fingerprint_a": Fingerprint("CT"), "fingerprint_b": Fingerprint("CT")}
    all_found = replace(Found.asked(recipe), **{**known, **(found or {})})
    torch.manual_seed(seed)
    made = build(recipe, all_found)
    for name in made.ships:
        for weight in made.get_submodule(name).parameters():
            if not weight.any():
                nn.init.normal_(weight, 0.0, 0.02)
    if isinstance(made, Compressor):
        made.measure([torch.rand(4, *made.shape) * 2 - 1])
    folder.mkdir(exist_ok=True)
    save_model(folder, made, recipe, all_found, kept="none")
    return load(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trained(tmp_path_factory.mktemp("trained"), RESIDUAL, PAIRS)


@pytest.fixture(scope="module")
def exported(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    out = tmp_path_factory.mktemp("exported") / "onnx"
    done = call("export", model.folder, "--to", "onnx", "-o", out)
    assert done.returncode == 0 and "a2b: off PyTorch by at most" in done.stdout and " HU, by " in done.stdout
    return out


def test_the_folder_says_how_close_the_graph_is(exported: Path, model: Model) -> None:
    opened = runtime.opened(exported)
    graph = opened.record.graphs["a2b"]
    assert {each.name for each in exported.iterdir()} - {"exported.yaml"} == set(opened.record.sha256)
    assert (graph.unit, graph.range, opened.hash) == ("HU", 4095.0, model.hash)
    assert len(graph.parity) == 4 and any(side % 2 for each in graph.parity for side in each.size)
    for each in graph.parity:
        assert 0 <= each.mean <= each.largest <= 1e-4 * graph.range < each.as_trained * 1e3
    assert "| a2b | 3 x 33 x 33 |" in (exported / "README.md").read_text()


def test_the_graph_holds_nothing_of_where_it_was_made(exported: Path) -> None:
    content = (exported / "a2b.onnx").read_bytes()
    for word in (b"stack_trace", b".py", str(Path.cwd()).encode(), str(Path(fabrica.__file__).parent).encode()):
        assert word not in content


@pytest.mark.parametrize("size", [(32, 32), (31, 45), (17, 9)])
def test_files_are_those_of_the_trained_model(
    exported: Path, model: Model, tmp_path: Path, size: tuple[int, int]
) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (2, 1, *size)).astype(np.float32)
    exact = model.computing_in("fp32")
    np.testing.assert_allclose(runtime.opened(exported).way().net(images), exact.way().net(images), atol=1e-5)


def test_it_is_applied_as_the_trained_model_is(exported: Path, model: Model, tmp_path: Path) -> None:
    fabrica.write(head(3, 45, 3, contrasts=["CT"]).images["CT"], tmp_path / "ct", as_="dicom")
    for name, folder in (("torch", model.folder), ("onnx", exported)):
        done = call("apply", folder, tmp_path / "ct", "-o", tmp_path / name, "--precision", "fp32")
        assert done.returncode == 0, done.stderr
    one, other = (fabrica.read(tmp_path / name / "ct") for name in ("torch", "onnx"))
    assert np.abs(one.data - other.data).max() <= 1 and np.array_equal(one.affine, other.affine)  # HU, stored whole


def test_it_is_judged_as_the_trained_model_is(exported: Path, model: Model) -> None:
    found = judged(exported)
    assert type(found) is type(model) and (found.hash, found.data) == (model.hash, model.data)
    images = np.random.default_rng(1).uniform(-1, 1, (2, 1, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(found.way().net(images), model.computing_in("fp32").way().net(images), atol=1e-5)


def test_a_graph_that_gives_other_numbers_is_refused(model: Model) -> None:
    network = networks(model)["a2b"]

    def off(by: float) -> Callable[..., Any]:
        return lambda images: network.module(torch.from_numpy(images)).numpy() + np.float32(by)

    assert graphs.compared(network, "a2b", off(1e-5), model).parity[0].largest == pytest.approx(0.0205, rel=0.1)
    with pytest.raises(FabricaError, match=r"off by up to 4\.1 HU, and 0\.41 is allowed"):
        graphs.compared(network, "a2b", off(2e-3), model)
    with pytest.raises(FabricaError, match=r"gives \[1, 1, 32, 31\] where PyTorch gives \[1, 1, 32, 32\]"):
        graphs.compared(network, "a2b", lambda images: off(0)(images)[..., 1:], model)
    with pytest.raises(FabricaError, match="off by up to nan HU"):
        graphs.compared(network, "a2b", off(np.nan), model)


def test_a_graph_is_tried_with_what_it_was_not_made_from(model: Model) -> None:
    network = networks(model)["a2b"]
    (traced,) = traced_with(network)
    tried = [size for _, size in sizes(network)]
    assert all(side % 2 for side in traced.shape[2:]) and len({*traced.shape}) == traced.ndim
    assert tuple(traced.shape[2:]) not in tried and len(set(tried)) == 4 and (32, 32) in tried


@pytest.mark.parametrize("unshuffle", [2, 4])
def test_a_gate_is_a_product_of_two_branches(tmp_path: Path, unshuffle: int) -> None:
    """No runtime cuts channels in two without copying them; the values are the same."""
    made = trained(tmp_path / "m", {"name": "restore", "size": "tiny", "unshuffle": unshuffle}, BLURRED)
    for method in (made.method, build(made.recipe, made.found).eval()):  # norms folded as at work, and as in training
        twin, images = plain(method), torch.rand(2, 1, 37, 26) * 2 - 1
        assert not [layer for layer in twin.modules() if isinstance(layer, Gate)]
        exact = copy.deepcopy(method).float()
        torch.testing.assert_close(twin.translate(images, "a2b"), exact.translate(images, "a2b"), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_every_kind_of_network_is_the_same_as_a_graph(name: str, tmp_path: Path) -> None:
    """`export` measures it, and refuses what is off; here is seen that sizes are free."""
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    method, data, found, expected = OTHERS[name]
    made = trained(tmp_path / "m", method, data, found)
    export(made, "onnx", tmp_path / "out")
    opened = runtime.opened(tmp_path / "out")
    assert list(opened.record.graphs) == expected
    for graph, network in networks(made).items():
        found_of = opened.record.graphs[graph]
        assert len(found_of.parity) == 4 and all(each.largest <= 1e-4 * found_of.range for each in found_of.parity)
        for batch, size in sizes(network):
            inputs = [values.numpy() for values in network.example(batch, size)]
            with torch.inference_mode():
                wanted = network.module(*network.example(batch, size)).numpy()
            assert opened.run(graph, *inputs).shape == wanted.shape


@pytest.mark.slow
def test_openvino_gives_the_same(model: Model, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs openvino")
    export(model, "openvino", tmp_path / "out")
    opened = runtime.opened(tmp_path / "out")
    assert opened.record.graphs["a2b"].files == ["a2b.xml", "a2b.bin"]
    images = np.random.default_rng(0).uniform(-1, 1, (2, 1, 31, 45)).astype(np.float32)
    np.testing.assert_allclose(opened.way().net(images), model.computing_in("fp32").way().net(images), atol=1e-5)
