"""python -m benchmarks.precision: lower precisions of exported graphs beside their own float32, calls of both in turn:
INT8 by ONNX Runtime, INT8 and bfloat16 by OpenVINO.

The networks are NAFNet small and U-Net++ of width 16, trained on head phantoms for PRECISION_MINUTES (4) minutes each:
only of trained ones can be said what is lost, in dB of PSNR on held-out images, as the export has measured it.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from fabrica import runtime
from fabrica.errors import FabricaError, UsageError
from fabrica.export import export
from fabrica.export.gate import REST
from fabrica.image import Float32
from fabrica.model.loading import load
from fabrica.model.model import Model
from fabrica.recipe.load import load_recipe
from fabrica.runtime.exported import ExportedModel
from fabrica.training.loop import train

NETWORKS = {"NAFNet small": ("nafnet-lowdose", 1024, ["method.unshuffle=4"]), "U-Net++": ("unetpp-lowdose", 512, [])}
WAYS = (("onnx", "int8"), ("openvino", "int8"), ("openvino", "bf16"))
ROUNDS = 7


def size(model: ExportedModel) -> int:
    """Bytes of the graph's files."""
    return sum((model.folder / name).stat().st_size for name in model.record.graphs["a2b"].files)


def ratio(one: ExportedModel, other: ExportedModel, images: Float32) -> float:
    """How many times as fast the one is as the other, the median of calls in turn."""
    found = []
    for k in range(ROUNDS + 1):
        seconds = []
        for model in (one, other):
            time.sleep(REST)
            began = time.perf_counter()
            model.run("a2b", images)
            seconds.append(time.perf_counter() - began)
        found += [seconds[1] / seconds[0]] if k else []  # graphs are opened in the first call
    return median(found)


def compared(model: Model, format_: str, precision: str, side: int, folder: Path) -> str:
    """One precision beside the float32 of the same runtime."""
    exact = folder / f"{format_}-fp32"
    if not exact.exists():
        export(model, format_, exact)
    try:
        export(model, format_, folder / f"{format_}-{precision}", precision=precision)
    except (FabricaError, UsageError) as error:
        return str(error)
    lower, full = runtime.opened(folder / f"{format_}-{precision}"), runtime.opened(exact)
    images = np.random.default_rng(0).uniform(-1, 1, (1, 1, side, side)).astype(np.float32)
    tried = lower.record.graphs["a2b"].tried[-1]
    times, share = ratio(lower, full, images), size(lower) / size(full)
    left = f", {len(tried.floats)} layers left float" if tried.floats else ""
    return f"{times:.2f} x as fast, {share:.2f} of the file, {tried.psnr:.3f} dB lost{left}"


def main() -> dict[str, str]:
    """Score by name, as `python -m benchmarks` keeps them."""
    minutes, scores = os.environ.get("PRECISION_MINUTES", "4"), {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, (recipe, side, changes) in NETWORKS.items():
            folder = Path(temporary) / recipe
            train(load_recipe(recipe, [*changes, f"train.minutes={minutes}"]), folder / "run")
            model = load(folder / "run", device="cpu")
            for format_, precision in WAYS:
                scores[f"{name}, {side} x {side}, {format_} {precision} / fp32"] = compared(
                    model, format_, precision, side, folder
                )
    return scores


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
