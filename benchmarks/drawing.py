"""python -m benchmarks.drawing: images of noise drawn by an exported diffusion model, beside PyTorch.

`ddpm-chest` trains MINUTES; COUNT images are drawn in STEPS steps by PyTorch, as trained (bfloat16) and in float32, by
ONNX Runtime, and by OpenVINO in float32 and in bfloat16: one after the other, round by round. Ratios are medians over
the rounds, to the faster of the two of PyTorch. Whether scores are equal: Frechet distance and KID of radiomic features
to held-out phantoms, of the same seeds; and how far the pictures are from those of PyTorch in float32.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fabrica import runtime
from fabrica.data.cache import build_cache
from fabrica.export import export
from fabrica.image import Float32
from fabrica.metrics.distribution import frechet, kid
from fabrica.metrics.radiomics import standard_features
from fabrica.model.loading import load
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train

MINUTES, COUNT, STEPS, ROUNDS = 3.0, 64, 8, 3


def main(rounds: int = ROUNDS, minutes: float = MINUTES) -> dict[str, str]:
    """Score by name, as `python -m benchmarks` keeps them."""
    asked = [f"train.minutes={minutes}", "train.steps=0", "data.count=1000", f"sample.steps={STEPS}"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        train(load_recipe("ddpm-chest", asked), folder / "run")
        trained = load(folder / "run", device="cpu")
        for to in ("onnx", "openvino"):
            export(trained, to, folder / to)
        roads: dict[str, Any] = {
            "PyTorch as trained": trained,
            "PyTorch fp32": trained.computing_in("fp32"),
            "ONNX Runtime fp32": runtime.opened(folder / "onnx"),
            "OpenVINO fp32": runtime.opened(folder / "openvino"),
            "OpenVINO bf16": runtime.opened(folder / "openvino", "bf16"),
        }
        heldout = build_cache(trained.recipe.data, trained.codec, "test")
        return compared(roads, heldout.read(np.arange(len(heldout))), rounds)


def compared(roads: dict[str, Any], real: Float32, rounds: int) -> dict[str, str]:
    pictures = {name: model.sample_array(COUNT) for name, model in roads.items()}  # and graphs are opened
    seconds: dict[str, list[float]] = {name: [] for name in roads}
    for _ in range(rounds):
        for name, model in roads.items():
            began = time.perf_counter()
            model.sample_array(COUNT)
            seconds[name].append(time.perf_counter() - began)
    reference, measured = standard_features(real)
    fastest = min(("PyTorch as trained", "PyTorch fp32"), key=lambda name: median(seconds[name]))
    said = {}
    for name, model in roads.items():
        ratio = median(one / other for one, other in zip(seconds[name], seconds[fastest], strict=True))
        features = measured(pictures[name])
        off = np.abs(pictures[name] - pictures["PyTorch fp32"]).mean() / 2
        said[f"{COUNT} images in {model.recipe.sample.steps} steps, {name} / {fastest}"] = (
            f"{ratio:.3f} ({median(seconds[name]):.2f} / {median(seconds[fastest]):.2f} s); Frechet "
            f"{frechet(reference, features):.1f}, KID x1000 {1000 * kid(reference, features)[0]:.1f}; off by {off:.3%}"
        )
    return said


if __name__ == "__main__":
    print(json.dumps(main(*(float(each) for each in sys.argv[1:])), indent=2))
