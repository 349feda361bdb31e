"""A trained model, which PyTorch runs, served as the command line does it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fabrica
from fabrica.recipe.load import load_recipe
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
    (tmp_path / "got.nrrd").write_bytes(answer.content)
    (wanted,) = fabrica.load(folder).sample(1, seed=5)
    np.testing.assert_allclose(fabrica.read(tmp_path / "got.nrrd").data, wanted.data, atol=1e-3)
    assert refused.status_code == 422 and "label" in refused.json()["error"]
