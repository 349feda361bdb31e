"""Lower precisions: what is in 8 bits, which layers stay float by themselves, and what the gate lets through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabrica import runtime
from fabrica.codec import Codec
from fabrica.errors import FabricaError, UsageError
from fabrica.export import int8
from fabrica.export.chart import picture
from fabrica.export.gate import Gate, Limits, NotPassed, answers, table
from fabrica.export.images import Images, images
from fabrica.export.onnx import converted, halved
from fabrica.export.ranges import BINS, RANGES, Histogram, nearest, seen
from fabrica.image import Float32
from fabrica.runtime import onnx as by_onnx
from fabrica.runtime.folder import Graph, Tried
from fabrica.runtime.session import Session
from tests.handmade import HU, handmade, sealed

onnx = pytest.importorskip("onnx", reason="needs onnx")
pytest.importorskip("onnxruntime.quantization", reason="needs onnxruntime")
SCHEME = int8.Scheme(int8.OPERATORS)


def convolutions(weights: Sequence[Float32]) -> bytes:
    """images -> convolutions of side 3, a ReLU after each but the last one, and the images added."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, before = [], "images"
    for k in range(len(weights)):
        nodes.append(helper.make_node("Conv", [before, f"layer{k}.weight"], [f"c{k}"], f"conv{k}", pads=[1, 1, 1, 1]))
        before = f"c{k}"
        if k + 1 < len(weights):
            nodes.append(helper.make_node("Relu", [before], [f"r{k}"], f"relu{k}"))
            before = f"r{k}"
    nodes.append(helper.make_node("Add", [before, "images"], ["result"], "add"))
    shape = ["batch", 1, "height", "width"]
    taken, given_ = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("images", "result"))
    kept = [numpy_helper.from_array(each, f"layer{k}.weight") for k, each in enumerate(weights)]
    graph = helper.make_graph(nodes, "convolutions", [taken], [given_], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    written: bytes = model.SerializeToString()
    return written


def random_weights(*channels: int) -> list[Float32]:
    rng = np.random.default_rng(0)
    pairs = zip((1, *channels), (*channels, 1), strict=True)
    return [(rng.standard_normal((b, a, 3, 3)) / np.sqrt(9 * a)).astype(np.float32) for a, b in pairs]


def some_images(count: int = 8, codec: Codec = HU) -> Images:
    rng = np.random.default_rng(1)
    drawn = [rng.uniform(-1, 1, (1, 1, 24, 20)).astype(np.float32) for _ in range(count)]
    return Images([(each,) for each in drawn], [each * np.float32(0.9) for each in drawn], codec)


def opened(graph: bytes) -> tuple[Session, float]:
    return by_onnx.session("graph.onnx", [graph], ["images"]), len(graph) / 1e6


def same(images: Float32) -> Float32:
    return images


def gate_of(graph: bytes, given: Images, **limits: float) -> Gate:
    plain = opened(graph)[0]
    return Gate(given, plain, answers(plain, given), "HU", 2047.5, Limits(**limits))


@pytest.mark.parametrize("how", RANGES)
def test_what_is_in_8_bits_and_what_is_not(how: str) -> None:
    graph, given = convolutions(random_weights(4, 6)), some_images()
    found = seen(graph, ["images"], given, int8.OPERATORS)[how]
    made = onnx.load_from_string(int8.quantised(graph, found, SCHEME, ["layer1"]))
    kept = {each.name: each for each in made.graph.initializer}
    of_one = [each for name, each in kept.items() if name.startswith("layer1.weight")]
    types = {each.data_type for each in of_one if len(each.dims) == 4}
    scales = [each for each in of_one if "scale" in each.name]
    assert types == {onnx.TensorProto.INT8} and list(scales[0].dims) == [6]
    assert kept["layer0.weight"].data_type == kept["layer2.weight"].data_type == onnx.TensorProto.FLOAT
    values = {each.name: each.data_type for each in made.graph.initializer if "zero_point" in each.name}
    of_values = {kind for name, kind in values.items() if not name.startswith("layer")}
    assert of_values == {onnx.TensorProto.UINT8}
    off = opened(made.SerializeToString())[0](*given.inputs[0]) - opened(graph)[0](*given.inputs[0])
    assert 0 < np.abs(off).max() < 0.1


def test_what_layers_give_stays_as_it_is_where_a_runtime_joins_what_follows_to_them() -> None:
    """In OpenVINO and TensorRT: a rounding between a convolution and its activation keeps the two apart."""
    graph, given = convolutions(random_weights(4, 6)), some_images()
    found = seen(graph, ["images"], given, int8.OPERATORS)["min-max"]
    scheme = int8.Scheme(int8.WEIGHTED, outputs=False)
    made = onnx.load_from_string(int8.quantised(graph, found, scheme, ["layer0", "layer1"]))
    makers = {name: node.op_type for node in made.graph.node for name in node.output}
    taken = {node.name: [makers.get(name) for name in node.input] for node in made.graph.node}
    assert taken["conv0"] == taken["conv1"] == ["DequantizeLinear"] * 2 and taken["conv2"] == ["Relu", None]
    assert taken["relu0"] == taken["relu1"] == ["Conv"] and taken["add"][0] == "Conv"
    off = opened(made.SerializeToString())[0](*given.inputs[0]) - opened(graph)[0](*given.inputs[0])
    assert 0 < np.abs(off).max() < 0.1


@pytest.mark.parametrize(("scale", "seed"), [(1e-6, 0), (0.3, 1), (1.0, 2), (7000.0, 3)])
def test_a_histogram_grows_with_its_values(scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [(scale * 2**k * rng.standard_normal(5000)).astype(np.float32) for k in range(4)]
    found = Histogram()
    for each in parts:
        found.add(each)
    every = np.concatenate(parts)
    assert found.range("min-max") == (float(every.min()), float(every.max()))
    assert found.counts.sum() == len(every) and found.reach < 4 * max(np.abs(every).max(), 2.0**-20)
    at_once, _ = np.histogram(every, BINS, range=(-found.reach, found.reach))
    assert np.abs(np.cumsum(found.counts) - np.cumsum(at_once)).max() <= 0.02 * len(every)
    width = 2 * found.reach / BINS
    low, high = np.quantile(every, [0.5e-4, 1 - 0.5e-4], method="inverted_cdf")
    assert found.range("percentile") == pytest.approx((low, high), abs=3 * width)


def test_entropy_cuts_off_what_is_rare() -> None:
    rng = np.random.default_rng(0)
    found = Histogram()
    for k in range(32):
        values = rng.standard_normal(60_000).astype(np.float32)
        values[:2] = [40, -35 * (k == 0)]  # a few far away: they would leave 8 bits few steps for all others
        found.add(np.maximum(values, 0) if k % 2 else values)
    low, high = found.range("entropy")
    assert -12 < low < -3 and 3 < high < 12 and found.range("min-max") == (-35, 40)
    assert nearest(np.ones(BINS)) == BINS // 2  # of what is everywhere alike, nothing is cut off


def test_a_layer_that_costs_too_much_stays_float_by_itself() -> None:
    weights = random_weights(8, 8, 8)
    weights[0][0] *= 3000  # one channel of large values: those of all the others are less than a step of 8 bits
    weights[1][:, 0] /= 3000
    graph, given = convolutions(weights), some_images()
    # true is what float32 gives, and a little more, so that there is something to lose
    exact = [opened(graph)[0](*inputs) for inputs in given.inputs]
    rng = np.random.default_rng(2)
    near = [each + rng.normal(0, 0.02, each.shape).astype(np.float32) for each in exact]
    given = replace(given, truths=near)
    gate = gate_of(graph, given, mae=100)
    found = seen(graph, ["images"], given, int8.OPERATORS)
    made, tried = int8.searched(graph, found.__getitem__, gate, opened, SCHEME)
    assert tried[-1].passed and tried[-1].psnr is not None and tried[-1].psnr <= 0.1
    assert "layer1" in tried[-1].floats and "layer2" not in tried[-1].floats  # layer3 leads to the result
    assert [each.ranges for each in tried[:2]] == ["min-max", "percentile"] and not tried[0].passed
    kept = {each.name: each.data_type for each in onnx.load_from_string(made).graph.initializer}
    assert kept["layer1.weight"] == onnx.TensorProto.FLOAT and "layer2.weight" not in kept


@pytest.mark.parametrize(("noise", "seed"), [(0.0003, 0), (0.0008, 1), (0.01, 2), (0.3, 3)])
def test_the_gate_measures_what_is_lost(noise: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = [rng.uniform(0, 1, (1, 1, 16, 16)).astype(np.float32) for _ in range(3)]
    exact = [each + np.float32(0.1) for each in true]
    gate = Gate(Images([(each,) for each in true], true, HU), same, exact, "HU", 2047.5)
    tried = gate.judged(lambda x: x + np.float32(0.1 + noise), 1.0, "bf16")
    assert tried.psnr == pytest.approx(20 * np.log10(1 + noise / 0.1), rel=0.02)
    assert tried.mae == pytest.approx(2047.5 * noise, rel=0.02) and tried.off == pytest.approx(2047.5 * noise, rel=0.02)
    assert tried.passed == (tried.psnr <= 0.1 and tried.mae <= 1)


def test_what_does_not_pass_is_refused_in_one_line() -> None:
    true = [np.zeros((1, 1, 8, 8), dtype=np.float32)]
    gate = Gate(Images([(true[0],)], true, HU), same, [true[0] + np.float32(0.1)], "HU", 2047.5)
    bad: dict[str, Any] = {"worse": lambda x: x + np.float32(0.2), "no number": lambda x: x + np.float32("nan")}
    for name, session in bad.items():
        tried = gate.judged(session, 1.0, "int8")
        assert not tried.passed, name
        said = str(NotPassed("a2b", gate, [tried]))
        assert "dB of PSNR" in said and "0.1 is allowed" in said and "quantise=int8" in said and "\n" not in said


def test_without_truth_the_float32_graph_is_the_judge() -> None:
    rng = np.random.default_rng(0)
    exact = [rng.uniform(-1, 1, (1, 1, 8, 8)).astype(np.float32)]
    gate = Gate(Images([(exact[0],)], [], HU), same, exact, "HU", 2047.5)
    assert gate.judged(lambda x: x + np.float32(0.019), 1.0, "int8").passed
    assert not gate.judged(lambda x: x + np.float32(0.021), 1.0, "int8").passed  # 40 dB of a range of 2


def test_of_labels_dice_is_judged() -> None:
    codec = Codec("label", classes=2, unit="label", numbers=(0, 1))
    drawn = np.full((1, 2, 10, 10), -1, dtype=np.float32)
    drawn[0, 1, 2:6, 2:6], drawn[0, 0] = 1, 1
    drawn[0, 0, 2:6, 2:6] = -1
    fewer = drawn.copy()
    fewer[0, :, 2, 2] = [1, -1]
    gate = Gate(Images([(drawn,)], [drawn], codec), same, [drawn], "probability", 0.5)
    assert gate.judged(lambda x: x, 1.0, "int8").dice == 0
    tried = gate.judged(lambda x: fewer, 1.0, "int8")
    assert tried.dice == pytest.approx(1 - 30 / 31, rel=0.01) and not tried.passed and tried.psnr is None


def test_half_of_the_file_in_float16_gives_nearly_the_same() -> None:
    graph, given = convolutions(random_weights(32, 32)), some_images(1)
    half = halved(graph)
    assert len(half) < 0.55 * len(graph)
    one, other = (opened(each)[0](*given.inputs[0]) for each in (graph, half))
    assert 0 < np.abs(one - other).max() < 1e-2


def test_what_int8_leaves_float_is_stored_in_float16_and_scales_are_exact() -> None:
    graph, given = convolutions(random_weights(32, 32, 32)), some_images()
    ranges = seen(graph, ["images"], given, SCHEME.operators)["min-max"]
    made = int8.quantised(graph, ranges, SCHEME, ["layer1"])
    smaller = converted("a2b", made, "int8")["a2b.onnx"]
    left = 2 * (2 * 9 * 32 + 9 * 32 * 32)  # bytes saved: of the first, the third and the last layer
    assert len(made) - len(smaller) == pytest.approx(left, rel=0.1)
    stored = {each.name: each for each in onnx.load_from_string(smaller).graph.initializer}
    before = {each.name: each for each in onnx.load_from_string(made).graph.initializer}
    scales = [name for name in before if "scale" in name]
    assert scales and all(stored[name] == before[name] for name in scales)
    one, other = (opened(each)[0](*given.inputs[0]) for each in (made, smaller))
    assert 0 < np.abs(one - other).max() < 1e-2


def test_the_table_and_the_picture_show_all_that_was_tried() -> None:
    first = Tried("fp32", megabytes=4.0, ms=10.0, psnr=0.0)
    tried = [first, Tried("int8", "entropy", ["a", "b"], 1.2, 4.0, 2.5, psnr=0.03)]
    lines = table(tried, "HU")
    assert lines[0].split(" | ")[6] == "dB lost"
    assert lines[-1] == "| int8 | entropy | 2 | 1.2 | 4 | 2.50 | 0.030 | 0 | passed |"
    assert picture({"a2b": tried}).startswith(b"\x89PNG")


def test_too_few_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    module = importlib.import_module("fabrica.export.images")
    monkeypatch.setattr(module, "_images", lambda *_: some_images(7))
    model: Any = None
    with pytest.raises(UsageError, match="7 training images are too few to take the ranges of INT8 from; expected 8"):
        images(model, "a2b", model, "train")


def test_a_folder_says_its_precision(tmp_path: Path) -> None:
    folder = sealed(handmade(tmp_path / "model"), precision="int8")
    assert runtime.opened(folder).precision == "fp32" and runtime.opened(folder, "int8").record.precision == "int8"
    with pytest.raises(UsageError, match="was exported in int8, and cannot be run in fp32; leave --precision out"):
        runtime.opened(folder, "fp32")
    with pytest.raises(UsageError, match="was exported in fp32, and cannot be run in int8"):
        runtime.opened(sealed(folder), "int8")
    with pytest.raises(FabricaError, match="says precision 'int4', computed in 'fp32', and this Fabrica knows"):
        runtime.opened(sealed(folder, precision="int4"))


def test_what_was_tried_is_kept_in_the_folder(tmp_path: Path) -> None:
    tried = [Tried("fp32", psnr=0.0), Tried("int8", "min-max", ["network.leave"], 1.4, 20.0, 2.5, psnr=0.04)]
    graphs = {"a2b": Graph(files=["a2b.onnx"], inputs=["images"], tried=tried)}
    folder = sealed(handmade(tmp_path / "model"), precision="int8", graphs=graphs)
    assert runtime.opened(folder).record.graphs["a2b"].tried == tried
