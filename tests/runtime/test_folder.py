"""Exported folders opened: as they were exported, or refused in one line."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fabrica
from fabrica import runtime
from fabrica.errors import FabricaError, UsageError
from fabrica.phantoms.head.head import head
from fabrica.recipe.schema import CodecConfig
from fabrica.runtime import folder as place
from tests.command import call
from tests.handmade import handmade, handmade_graph, handmade_net, sealed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade(tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ct") / "ct"
    fabrica.write(head(3, 40, 3, contrasts=["CT"]).images["CT"], path, as_="dicom")
    return path


@pytest.mark.parametrize("size", [(8, 8), (31, 17), (64, 9)])
def test_a_graph_is_run_on_any_size(folder: Path, size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (3, 1, *size)).astype(np.float32)
    model = runtime.opened(folder)
    np.testing.assert_allclose(model.run("a2b", images), handmade_net(images), atol=1e-6)
    np.testing.assert_allclose(model.way().net(images[..., ::-1]), handmade_net(images[..., ::-1]), atol=1e-6)


def test_what_surrounds_the_network_is_that_of_any_other(folder: Path, ct: Path, tmp_path: Path) -> None:
    from fabrica.inference.files import apply
    from fabrica.inference.translator import Deployed

    model = runtime.opened(folder)
    by_numpy = Deployed(model.name, model.hash, {"a2b": replace(model.way(), net=handmade_net)})
    for name, each in (("graph", model), ("numpy", by_numpy)):
        apply(each, ct, tmp_path / name, uncertainty=True)  # type: ignore[arg-type]
    (one, other) = (fabrica.read(tmp_path / name / "ct") for name in ("graph", "numpy"))
    assert one.data.shape == other.data.shape and np.abs(one.data - other.data).max() <= 1  # HU: one step, by rounding
    assert one.origin.keys() == other.origin.keys() and np.array_equal(one.affine, other.affine)
    maps = [fabrica.read(tmp_path / name / "ct-uncertainty.nii.gz").data for name in ("graph", "numpy")]
    np.testing.assert_allclose(*maps, atol=1e-2)


def test_the_command_applies_it_and_refuses_what_is_unlike(folder: Path, ct: Path, tmp_path: Path) -> None:
    done = call("apply", folder, ct, "-o", tmp_path / "out")
    assert done.returncode == 0 and "1 images by model handmade 000000000000" in done.stdout
    assert fabrica.read(tmp_path / "out" / "ct").unit == "HU"
    done = call("apply", handmade(tmp_path / "mr", modality="MR"), ct, "-o", tmp_path / "not")
    assert done.returncode == 2 and "its modality is CT, and MR in training" in done.stderr
    done = call("sample", folder, "-o", tmp_path / "sample")
    assert done.returncode == 2 and "makes no images of noise" in done.stderr and done.stderr.count("\n") == 1


def damaged_byte(folder: Path) -> None:
    path = folder / "a2b.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def truncated(folder: Path) -> None:
    path = folder / "a2b.onnx"
    path.write_bytes(path.read_bytes()[:-40])
    sealed(folder)


def foreign_bytes(folder: Path) -> None:
    (folder / "a2b.onnx").write_bytes(b"not a graph")
    sealed(folder)


def other_input(folder: Path) -> None:
    (folder / "a2b.onnx").write_bytes(handmade_graph("x").SerializeToString())
    sealed(folder)


def weights_elsewhere(folder: Path) -> None:
    graph = handmade_graph()
    kernel = graph.graph.initializer[0]
    kernel.ClearField("raw_data")
    kernel.data_location = 1  # EXTERNAL
    for key, value in (("location", "../secret.bin"), ("length", "36")):
        kernel.external_data.add(key=key, value=value)
    (folder / "a2b.onnx").write_bytes(graph.SerializeToString())
    sealed(folder)


def graph_elsewhere(folder: Path) -> None:
    record = place.load(folder)
    graph = replace(record.graphs["a2b"], files=["../model/a2b.onnx"])
    hashes = {**record.sha256, "../model/a2b.onnx": record.sha256["a2b.onnx"]}
    sealed(folder, graphs={"a2b": graph}, sha256=hashes)


def link(folder: Path) -> None:
    target = folder.parent / "elsewhere.onnx"
    (folder / "a2b.onnx").rename(target)
    (folder / "a2b.onnx").symlink_to(target)


def edited(old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        record = folder / "exported.yaml"
        text = record.read_text()
        assert old in text
        record.write_text(text.replace(old, new))

    return edit


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte": (damaged_byte, r"a2b\.onnx is not the file that was exported"),
    "a file less": (lambda folder: (folder / "found.yaml").unlink(), r"found\.yaml cannot be read \(No such file"),
    "a graph cut short": (truncated, "a2b.onnx is not the graph of an exported model"),
    "no graph": (foreign_bytes, "a2b.onnx is not the graph of an exported model"),
    "another graph": (other_input, "it takes x, and images was exported"),
    "weights elsewhere": (weights_elsewhere, "its weights lie in another file"),
    "a graph elsewhere": (graph_elsewhere, "lies outside of the folder"),
    "a link": (link, "lies outside of the folder"),
    "a later version": (edited("version: 1", "version: 2"), "has version 2, and this Fabrica reads 1; update Fabrica"),
    "another format": (edited("format: onnx", "format: coreml"), "says format 'coreml'"),
    "no hash": (edited("  a2b.onnx: ", "  other.onnx: "), "does not say how a2b.onnx hashes"),
    "no YAML": (edited("version: 1", "version: [1"), "exported.yaml is damaged"),
    "a key too many": (edited("local: true", "local: true\nremote: true"), "exported.yaml is damaged"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_not_as_it_was_exported_is_refused_in_one_line(
    folder: Path, ct: Path, tmp_path: Path, what: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    spoil, words = BAD[what]
    spoil(copy)
    with pytest.raises(FabricaError, match=words) as caught:
        runtime.opened(copy).way().net(np.zeros((1, 1, 8, 8), dtype=np.float32))
    assert "\n" not in str(caught.value)
    done = call("apply", copy, ct, "-o", tmp_path / "out")
    assert done.returncode == 1 and re.search(words, done.stderr) and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_codec_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(FabricaError, match="has no codec"):
        runtime.opened(handmade(tmp_path / "model", codec_b=CodecConfig()))


def test_a_graph_or_precision_that_there_is_not_is_said(folder: Path) -> None:
    images = np.zeros((1, 1, 8, 8), dtype=np.float32)
    with pytest.raises(UsageError, match="has the graph a2b; no b2a"):
        runtime.opened(folder).run("b2a", images)
    with pytest.raises(UsageError, match="expected one of fp32, fp16, bf16"):
        runtime.opened(folder, "fp8")
    with pytest.raises(UsageError, match="ONNX Runtime computes in fp32 on this processor, and not in bf16"):
        runtime.opened(folder, "bf16").run("a2b", images)
