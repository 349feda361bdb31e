"""An exported folder made by hand, of a graph of one convolution: what opens and runs such folders needs no training
and no tracing, which take seconds. Results are those of `handmade_net`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.codec import Codec
from fabrica.image import Float32
from fabrica.recipe.codecs import codec_config
from fabrica.recipe.folder import FOUND, RECIPE
from fabrica.recipe.found import Fingerprint, Found
from fabrica.recipe.schema import DataConfig, Recipe
from fabrica.runtime import folder as place
from fabrica.runtime.folder import Exported, Graph

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
