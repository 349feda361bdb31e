"""Extractors own their input range; what is missing is said in one line."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fabrica.errors import UsageError
from fabrica.image import Float32
from fabrica.metrics.extractors import NetworkInput, extractor, prepared
from fabrica.metrics.radiomics import FEATURE_NAMES, radiomic_features


def images(n: int = 5, channels: int = 1, size: int = 32) -> Float32:
    return np.random.default_rng(0).uniform(-1, 1, (n, channels, size, size)).astype(np.float32)


class Mean(nn.Module):
    """A network whose features show what it was fed: channel means over its input, (N, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def write_script(path: Path, network: nn.Module, entry: dict[str, object] | None) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network).save(str(path))  # type: ignore[no-untyped-call]
    if entry is not None:
        path.with_suffix(".json").write_text(json.dumps(entry))
    return path


def test_radiomic_is_the_radiomic_features() -> None:
    found = extractor("radiomic")
    assert (found.name, found.dims) == ("radiomic", len(FEATURE_NAMES))
    np.testing.assert_array_equal(found.features(images()), radiomic_features(images()))
    assert found.needs_at_least > found.dims


def test_scaling_is_learnt_from_the_real_set() -> None:
    found = extractor("radiomic")
    real = found.features(images(60))
    scaled = found.scaling(real)(real)
    assert np.abs(np.median(scaled, axis=0)).max() < 1e-9
    assert np.abs(found.scaling(real)(real + 1e6)).max() == 10


def test_a_network_file_is_fed_its_own_range(tmp_path: Path) -> None:
    entry: dict[str, object] = {"range": [-1024, 1024], "channels": 3, "size": 48}
    path = write_script(tmp_path / "net.pt", Mean(), entry)
    found = extractor(path)
    assert (found.name, found.dims) == ("net.pt", 3)
    pictures = np.stack([np.full((1, 16, 16), v, dtype=np.float32) for v in (-1, 0, 0.5, 3)])
    expected = np.repeat([[-1024.0], [0.0], [512.0], [1024.0]], 3, axis=1)
    np.testing.assert_allclose(found.features(pictures), expected, atol=1e-3)
    values = found.features(images())
    np.testing.assert_array_equal(found.scaling(values)(values), values)


def test_an_exported_network_gives_the_same_as_torchscript(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU()).eval()
    entry: dict[str, object] = {"range": [0, 1], "channels": 1, "size": 32, "mean": [0.4], "std": [0.2]}
    script = write_script(tmp_path / "net.pt", network, entry)
    free = {0: torch.export.Dim("batch")}
    program = torch.export.export(network, (torch.zeros(2, 1, 32, 32),), dynamic_shapes=({**free},))
    torch.export.save(program, tmp_path / "net.pt2")
    a, b = extractor(script).features(images(40)), extractor(tmp_path / "net.pt2").features(images(40))
    np.testing.assert_allclose(a, b, atol=1e-6)
    with torch.inference_mode():
        by_hand = network((torch.from_numpy(images(40)) / 2 + 0.5 - 0.4) / 0.2).mean((2, 3))
    np.testing.assert_allclose(a, by_hand.numpy(), atol=1e-5)


def test_a_network_exported_for_one_batch_size_is_refused_at_once(tmp_path: Path) -> None:
    program = torch.export.export(Mean(), (torch.zeros(2, 1, 32, 32),))
    torch.export.save(program, tmp_path / "net.pt2")
    (tmp_path / "net.json").write_text('{"range": [0, 1], "channels": 1, "size": 32}')
    with pytest.raises(UsageError, match="free batch size"):
        extractor(tmp_path / "net.pt2")


def test_volumes_are_averaged_over_three_planes(tmp_path: Path) -> None:
    path = write_script(tmp_path / "net.pt", Mean(), {"range": [-1, 1], "channels": 1})
    volume = images(2, 8, 8).reshape(2, 1, 8, 8, 8)
    expected = (volume[:, :, 4].mean((2, 3)) + volume[:, :, :, 4].mean((2, 3)) + volume[..., 4].mean((2, 3))) / 3
    np.testing.assert_allclose(extractor(path).features(volume), expected, atol=1e-6)


def test_input_is_resized_and_its_channels_fitted() -> None:
    wanted = NetworkInput(0.0, 1.0, channels=3, size=64, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    grey = prepared(np.zeros((2, 1, 20, 30), dtype=np.float32), wanted)
    assert grey.shape == (2, 3, 64, 64)
    np.testing.assert_allclose(grey[0, :, 5, 5], [0.8, 0.6, 0.4], atol=1e-6)
    colour = prepared(images(2, 3), NetworkInput(-1.0, 1.0, channels=1))
    np.testing.assert_allclose(colour, images(2, 3).mean(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (None, "no net.json beside"),
        ({"size": 224}, "no readable input range"),
        ({"range": [1]}, "no readable input range"),
        ({"range": [1, -1]}, "range must rise"),
        ({"range": [0, 1], "mean": [0.1, 0.2]}, "1 or 3 values"),
        ({"range": [0, 1], "sise": 224}, "unknown keys sise"),
        ({"range": [0, 1], "channels": 1, "size": 8}, "check channels and size"),
    ],
)
def test_a_network_without_a_sound_description_is_refused(
    tmp_path: Path, entry: dict[str, object] | None, words: str
) -> None:
    path = write_script(tmp_path / "net.pt", nn.Conv2d(3, 4, 3), entry)
    with pytest.raises(UsageError, match=words):
        extractor(path)


def test_an_onnx_network_gives_the_same_as_torchscript(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    onnx = pytest.importorskip("onnx", reason="needs onnx to write the network")
    value = onnx.helper.make_tensor_value_info
    shape = ["batch", 3, 32, 32]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("GlobalAveragePool", ["x"], ["y"])],
        "mean",
        [value("x", onnx.TensorProto.FLOAT, shape)],
        [value("y", onnx.TensorProto.FLOAT, ["batch", 3, 1, 1])],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "net.onnx")
    script = write_script(tmp_path / "net.pt", Mean(), {"range": [0, 255], "size": 32})
    expected = extractor(script).features(images(40))
    np.testing.assert_allclose(extractor(tmp_path / "net.onnx").features(images(40)), expected, rtol=1e-5)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    for suffix in (".pt", ".pt2"):
        path = tmp_path / f"net{suffix}"
        path.write_bytes(b"not a network")
        path.with_suffix(".json").write_text('{"range": [0, 1]}')
        with pytest.raises(UsageError, match="cannot be opened"):
            extractor(path)


def test_unknown_names_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no extractor 'resnet'; expected radiomic, torchxrayvision"):
        extractor("resnet")
    with pytest.raises(UsageError, match="no network file"):
        extractor(tmp_path / "absent.onnx")


@pytest.mark.parametrize("name", ["torchxrayvision", "inception", "dinov2", "radimagenet"])
def test_absent_packages_or_weights_are_said_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FABRICA_{name.upper()}", str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match=r"pip install|no weights") as caught:
        extractor(name)
    assert "\n" not in str(caught.value)
