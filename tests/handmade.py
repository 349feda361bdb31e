"""An exported folder made by hand, of a graph of one convolution: what opens and runs such folders needs no training
and no tracing, which take seconds. Results are those of `handmade_net`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.codec import Codec
from fabrica.diffusion.schedule import Schedule
from fabrica.image import Float32
from fabrica.recipe.codecs import codec_config
from fabrica.recipe.folder import FOUND, RECIPE
from fabrica.recipe.found import Fingerprint, Found
from fabrica.recipe.schema import DataConfig, Recipe, SampleConfig
from fabrica.runtime import folder as place
from fabrica.runtime.folder import Draws, Exported, Graph

HU = Codec("window", -1024.0, 3071.0, "HU")
KERNEL = np.array([[0.0, 0.25, 0.0], [0.25, 0.0, 0.25], [0.0, 0.25, 0.0]], dtype=np.float32)  # the mean of 4 neighbours


def handmade_net(images: Float32) -> Float32:
    """(B, 1, H, W): of each pixel the mean of its four neighbours, -1 beyond the border."""
    around = np.pad(images, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-1)
    height, width = images.shape[2:]
    total = sum(
        around[:, :, y : y + height, x : x + width] * KERNEL[y, x] for y in range(3) for x in range(3) if KERNEL[y, x]
    )
    return np.asarray(total, dtype=np.float32)


def handmade_graph(entry: str = "images") -> Any:
    """`handmade_net` as ONNX, of any batch and size."""
    from onnx import TensorProto, helper, numpy_helper

    shape = ["batch", 1, "height", "width"]
    weights = [
        numpy_helper.from_array(KERNEL[None, None], "kernel"),
        numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "border"),
        numpy_helper.from_array(np.array(-1, dtype=np.float32), "air"),
    ]
    nodes = [
        helper.make_node("Pad", [entry, "border", "air"], ["padded"]),
        helper.make_node("Conv", ["padded", "kernel"], ["result"]),
    ]
    taken = helper.make_tensor_value_info(entry, TensorProto.FLOAT, shape)
    given = helper.make_tensor_value_info("result", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "handmade", [taken], [given], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def handmade(folder: Path, graph: bytes | None = None, modality: str = "CT", **changes: Any) -> Path:
    """The folder, of CT in HU. changes: of `Found`."""
    recipe = Recipe(
        name="handmade",
        method={"name": "pix2pix"},
        data=DataConfig(a="CT", b="CT", paired=True, size=[32, 32], fit="exact"),
    )
    codec = codec_config(HU)
    known = {"codec": codec, "codec_b": codec, "fingerprint_a": Fingerprint(modality)}
    found = replace(Found.asked(recipe), **{**known, "fingerprint_b": Fingerprint("CT"), **changes})
    folder.mkdir()
    recipe.save(folder / RECIPE)
    found.save(folder / FOUND)
    (folder / "a2b.onnx").write_bytes(graph if graph is not None else handmade_graph().SerializeToString())
    return sealed(folder)


def sealed(folder: Path, **changes: Any) -> Path:
    """The folder with a record that says that it is as it should be, whatever is in it. changes: of `Exported`."""
    (folder / "exported.yaml").unlink(missing_ok=True)
    hashes = {each.name: place.digest(each.read_bytes()) for each in folder.iterdir()}
    graphs = {"a2b": Graph(files=["a2b.onnx"], inputs=["images"])}
    place.save(folder, replace(Exported(hash="0" * 12, local=True, graphs=graphs, sha256=hashes), **changes))
    return folder


def handmade_predicted(noisy: Float32, times: Float32, labels: Any) -> Float32:
    """What the handmade denoiser predicts: a little of what it sees, of the time, and of the label, 0 where none is."""
    of_time, of_label = (each.astype(np.float32).reshape(-1, 1, 1, 1) for each in (times, labels + 1))
    return noisy * np.float32(0.5) - of_time * np.float32(0.25) + of_label * np.float32(0.125)


def handmade_denoiser() -> Any:
    """`handmade_predicted` as ONNX."""
    from onnx import TensorProto, helper, numpy_helper

    shape = ["batch", 1, "height", "width"]
    numbers = {"half": 0.5, "quarter": -0.25, "eighth": 0.125}
    weights = [numpy_helper.from_array(np.array(value, dtype=np.float32), name) for name, value in numbers.items()]
    weights += [numpy_helper.from_array(np.array([1, 2, 3]), "axes"), numpy_helper.from_array(np.array(1), "one")]
    nodes = [
        helper.make_node("Unsqueeze", ["times", "axes"], ["time"]),
        helper.make_node("Add", ["labels", "one"], ["number"]),
        helper.make_node("Cast", ["number"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["real", "axes"], ["label"]),
        helper.make_node("Mul", ["noisy", "half"], ["seen"]),
        helper.make_node("Mul", ["time", "quarter"], ["of_time"]),
        helper.make_node("Mul", ["label", "eighth"], ["of_label"]),
        helper.make_node("Add", ["seen", "of_time"], ["sum"]),
        helper.make_node("Add", ["sum", "of_label"], ["result"]),
    ]
    taken = [
        helper.make_tensor_value_info("noisy", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("times", TensorProto.FLOAT, ["batch"]),
        helper.make_tensor_value_info("labels", TensorProto.INT64, ["batch"]),
    ]
    made = [helper.make_tensor_value_info("result", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "denoiser", taken, made, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def handmade_synthesiser(folder: Path, **changes: Any) -> Path:
    """An exported diffusion model of CT, told one of two classes. changes: of `Found`."""
    recipe = Recipe(
        name="drawn",
        method={"name": "diffusion"},
        data=DataConfig(size=[16, 16], condition=["label"]),
        sample=SampleConfig(steps=4, guidance=2.0, rescale=0.5),
    )
    known = {"codec": codec_config(HU), "modality": "CT", "spacing": [1.0, 1.0], "classes": ["well", "ill"]}
    found = replace(Found.asked(recipe), **{**known, **changes})
    folder.mkdir()
    recipe.save(folder / RECIPE)
    found.save(folder / FOUND)
    (folder / "denoiser.onnx").write_bytes(handmade_denoiser().SerializeToString())
    graphs = {"denoiser": Graph(files=["denoiser.onnx"], inputs=["noisy", "times", "labels"])}
    choices = ["steps", "sampler", "guidance", "rescale"]
    return sealed(folder, graphs=graphs, draws=Draws(choices, True, [1, 16, 16], "v", Schedule("cosine")))


def as_openvino(folder: Path) -> Path:
    """A handmade folder with its graphs in OpenVINO's format."""
    from fabrica.runtime import openvino

    package, record = openvino.imported(), place.load(folder)
    graphs = {}
    for name, graph in record.graphs.items():
        read = package.Core().read_model((folder / graph.files[0]).read_bytes())
        package.save_model(read, folder / f"{name}.xml", compress_to_fp16=False)
        (folder / graph.files[0]).unlink()
        graphs[name] = replace(graph, files=[f"{name}.xml", f"{name}.bin"])
    return sealed(folder, format="openvino", graphs=graphs, draws=record.draws)
