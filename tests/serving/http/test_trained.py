"""A trained model, which PyTorch runs, served as the command line does it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fabrica
from fabrica.export import export
from fabrica.phantoms.head.head import head
from fabrica.recipe.load import load_recipe
from tests.export.test_graphs import PAIRS, RESIDUAL, trained
from tests.serving.http.started import by_cli, started

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_held_out")]


def test_samples_are_those_of_the_command(tmp_path: Path) -> None:
    """Of a model of two steps: the image of a seed is the same, through the server and in Python."""
    changes = [
        "data.source=phantom:chest",
        "data.count=16",
        "data.size=32",
        "train.steps=2",
        "train.minutes=0",
        "train.keep=last",
    ]
    folder = fabrica.train(load_recipe("mlp-xray", changes), tmp_path / "model")
    with started(by_cli(folder)) as server, server.client() as client:
        (said,) = client.get("v1/models").json()["models"]
        answer = client.post("v1/sample", json={"seed": 5, "as": "nrrd"})
        refused = client.post("v1/sample", json={"label": "effusion"})
        assert client.post("v2/models/model/infer", json={"inputs": []}).status_code == 404
    assert said["tasks"] == ["sample"] and said["size"] == [32, 32] and said["sampling"] == "one pass"
    assert answer.status_code == 200, answer.text
    assert said["cautions"] == json.loads(answer.headers["fabrica-notes"]) and "phantoms" in said["cautions"][0]
    (tmp_path / "got.nrrd").write_bytes(answer.content)
    (wanted,) = fabrica.load(folder).sample(1, seed=5)
    np.testing.assert_allclose(fabrica.read(tmp_path / "got.nrrd").data, wanted.data, atol=1e-3)
    assert refused.status_code == 422 and "label" in refused.json()["error"]


def test_a_model_and_its_export_answer_alike(tmp_path: Path) -> None:
    """The same requests, images and tensors: what comes back lies within what the export says of its graph."""
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    model = trained(tmp_path / "trained", RESIDUAL, PAIRS)
    exported = tmp_path / "exported"
    export(model, "onnx", exported)
    volume = head(3, 40, 3, contrasts=["CT"]).images["CT"]
    sent = fabrica.write(volume, tmp_path / "ct.nii.gz")[0].read_bytes()
    values = np.random.default_rng(0).uniform(-1, 1, (2, 1, 24, 40)).astype(np.float32)
    tensor = {"name": "images", "datatype": "FP32", "shape": list(values.shape), "data": values.ravel().tolist()}
    found: dict[str, list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]] = {}
    with started(by_cli(model.folder, exported, "--precision", "fp32")) as server, server.client() as client:
        about = {each["name"]: each for each in client.get("v1/models").json()["models"]}
        for name in ("trained", "exported"):
            answer = client.post("v1/apply", params={"model": name, "force": "1", "as": "metaimage"}, content=sent)
            assert answer.status_code == 200, answer.text
            (tmp_path / f"{name}.mha").write_bytes(answer.content)
            answer = client.post(f"v2/models/{name}/infer", json={"inputs": [tensor]})
            (output,) = answer.json()["outputs"]
            tensors = np.array(output["data"], np.float32).reshape(output["shape"])
            found[name] = [fabrica.read(tmp_path / f"{name}.mha").data, tensors]
    same = {name: {**each, "name": ""} for name, each in about.items()}
    assert same["trained"] == same["exported"] and about["trained"]["hash"]
    (graph,) = fabrica.runtime.opened(exported).record.graphs.values()
    parity = max(each.largest for each in graph.parity)
    hu, network = (np.abs(one - other).max() for one, other in zip(*found.values(), strict=True))
    assert found["trained"][0].std() > 10 and hu <= 1.01 + 2 * parity  # values are kept to whole HU
    assert network <= 2 * parity / (graph.range / 2) + 1e-5
