"""Lower precisions of real networks in both runtimes: what each kind of model loses, and that it is still the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabrica import io, runtime
from fabrica.errors import UsageError
from fabrica.export import graphs, writing
from fabrica.export.gate import ALLOWED
from fabrica.export.work import Work
from fabrica.metrics.segmentation import dice
from fabrica.model.loading import load
from fabrica.model.model import Model
from fabrica.model.segmentation import SegmentationModel
from fabrica.phantoms.head.head import head
from fabrica.recipe.load import load_recipe
from fabrica.runtime.exported import ExportedModel
from fabrica.training.loop import train
from tests.export.test_graphs import trained
from tests.export.test_synthesis import given
from tests.training.test_training_segment import TINY, volumes

for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(package, reason=f"needs {package}")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_held_out")]

BOTH = {"source": "phantom:head", "a": "T1", "b": "CT", "count": 8, "size": [32, 32], "fit": "exact"}
LEARNING = ["train.steps=150", "method.width=4", "train.lr=3e-2", "train.warmup=10"]
KINDS = ("segmenter of slices", "segmenter of volumes", "GAN", "GAN of labels", "CycleGAN")
WAYS = [(to, precision) for to in ("onnx", "openvino") for precision in ("fp16", "bf16", "int8")]


def model_of(kind: str, home: Path) -> Model:
    if kind == "CycleGAN":
        return trained(home / "model", {"name": "cyclegan", "width": 4, "blocks": 1}, BOTH)
    if kind.startswith("GAN"):
        return given(home / "model", "modern-gan" if "labels" in kind else "drifting")
    size = ["data.size=[16,16]", "data.batch=12"] if "slices" in kind else ["data.size=[16,16,16]", "data.batch=4"]
    words = [*TINY, *LEARNING, *size, f"data.source={volumes(home / 'data', 12)}"]
    return load(train(load_recipe("segment", words), home / "model"), device="cpu")


@pytest.fixture(scope="module", params=KINDS)
def work(request: pytest.FixtureRequest, few_held_out: None, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A model of each kind; what its graphs have in common is made once."""
    return Work(model_of(request.param, tmp_path_factory.mktemp("lowered")))


def written(work: Work, folder: Path, to: str, precision: str) -> ExportedModel:
    """The model in this precision; skips what this processor or runtime cannot compute in."""
    format_ = writing(to).FORMAT
    try:
        format_.computes(precision)
    except UsageError as error:
        pytest.skip(str(error))
    graphs.write(work, folder, format_, precision)
    return runtime.opened(folder)


@pytest.mark.parametrize(("to", "precision"), WAYS)
def test_each_kind_is_still_the_model(work: Work, tmp_path: Path, to: str, precision: str) -> None:
    opened, model = written(work, tmp_path / "out", to, precision), work.model
    assert opened.record.precision == precision and set(opened.record.graphs) == set(work.networks)
    for graph in opened.record.graphs.values():
        exact, last = graph.tried[0], graph.tried[-1]
        assert exact.precision == "fp32" and last.precision == precision and last.passed
        if last.dice is not None:
            assert last.dice <= ALLOWED.dice
    alike = labels_are_alike if isinstance(model, SegmentationModel) else both_ways_are_alike
    (alike if "a2b" in work.networks else pictures_are_alike)(opened, model)


def labels_are_alike(opened: ExportedModel, model: Model) -> None:
    """Dice of each label, over whole held-out images: what is drawn at its border may differ, and no more."""
    case = sorted((Path(model.data.source) / "imagesTr").iterdir())[0]
    image = io.read(case)
    one, other = (each.apply(image).result.data for each in (opened, model.computing_in("fp32")))
    assert set(np.unique(one)) == set(np.unique(other)) and len(np.unique(one)) > 1
    for label in set(np.unique(other)) - {0}:
        assert dice(one[0] == label, other[0] == label) > 0.97


def both_ways_are_alike(opened: ExportedModel, model: Model) -> None:
    drawn = head(3, 45, 1, contrasts=["T1", "CT"]).images
    for direction, side in (("a2b", "T1"), ("b2a", "CT")):
        one, other = (
            each.apply(drawn[side], direction=direction).result.data for each in (opened, model.computing_in("fp32"))
        )
        low, high = (model.codec_b if direction == "a2b" else model.codec).span
        assert 0 < np.sqrt(np.square(one - other).mean()) < 0.02 * (high - low)  # twice the gate's, of one image


def pictures_are_alike(opened: Any, model: Model) -> None:
    chosen: dict[str, Any] = {"warn": lambda sentence: None, "seed": 11}
    one, other = (each.sample_array(4, **chosen) for each in (opened, model.computing_in("fp32")))
    assert np.sqrt(np.square(one - other).mean()) < 0.02  # of a range of 2: 40 dB
