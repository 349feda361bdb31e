"""python -m benchmarks.profile [NAME ...] [--rounds N]: where a training step spends its time, one line a family.

Each family is trained by its own loop, on phantoms; after some steps that are not counted, PyTorch's profiler watches
the next ones. Its kinds of work are told apart by the names of operators; "rest" is what no operator has: Python, data
that are waited for, locks. Work of convolutions
and matrices is three times that of the forward pass, which torch.utils.flop_counter counts from shapes (of gradients of
grouped convolutions it counts too much), and it is compared with what a product of two matrices of 1,024 x 1,024
reaches in the same precision on the same cores. Results go to real/profile.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.kept import keep, machine
from benchmarks.steps import stepping
from fabrica.nets.device import default_device, uses_bf16
from fabrica.recipe.load import load_recipe
from fabrica.training.run import open_run

KEPT = Path(__file__).parent / "real" / "profile.json"
SKIPPED, WATCHED = 4, 6
KINDS = {
    "convolutions": ("convolution", "conv_", "conv1", "conv2", "conv3", "thnn", "mkldnn"),
    "matrices": ("mm", "addmm", "bmm", "matmul", "linear", "attention"),
    "norms": ("norm_backward", "group_norm", "batch_norm", "layer_norm", "instance_norm"),
    "activations": ("silu", "relu", "gelu", "tanh", "sigmoid", "softmax", "elu"),
    "optimiser": ("adam", "sgd", "clip_grad", "linalg_vector_norm", "foreach", "lerp"),
    "copies": ("copy_", "_to_copy", "clone", "contiguous", "cat", "stack", "pad", "slice", "index", "roll", "flip"),
}
"""Kind -> parts of the names of its operators; the first kind that fits."""

FAMILIES = {
    "diffusion on pixels": ("ddpm-xray", ("data.source=phantom:chest", "method.channels=[64,128,128]")),
    "autoencoder": ("autoencoder-chest", ()),
    "GAN": ("modern-chest", ()),
    "restorer (NAFNet)": ("nafnet-lowdose", ()),
    "restorer (U-Net++)": ("unetpp-lowdose", ()),
    "translator (pix2pix)": ("pix2pix-head", ("few.patients=0", "few.pairs=0")),
    "translator (CycleGAN)": ("cyclegan-head", ()),
}
QUICK = (
    "train.minutes=0",
    "data.count=64",
    *(f"train.{what}_every=100000" for what in ("validate", "sample", "checkpoint")),
)


def watched(recipe: str, changes: tuple[str, ...], rounds: int) -> dict[str, Any]:
    """Shares of a step's time by kind, seconds a step, images/s, and GFLOP/s reached of those that are attainable."""
    chosen = load_recipe(recipe, [*QUICK, *changes, f"train.steps={SKIPPED + WATCHED * rounds + 2}"])
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(chosen, Path(folder) / "run", None, lambda sentence: None)
        step = stepping(run)
        for _ in range(SKIPPED):
            step()
        with FlopCounterMode(display=False) as counted:
            step()
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            began = time.perf_counter()
            for _ in range(WATCHED * rounds):
                step()
            spent = time.perf_counter() - began
    by_kind: dict[str, float] = defaultdict(float)
    for each in seen.key_averages():
        by_kind[kind(each.key)] += each.self_cpu_time_total / 1e6
    threads = torch.get_num_threads()
    told = {name: by_kind.pop(name, 0.0) / spent for name in KINDS}
    told["other operators"] = sum(by_kind.values()) / spent
    told["rest"] = max(0.0, 1 - sum(told.values()))
    bf16 = uses_bf16(chosen.train.precision, default_device())
    forward = sum(n for of, n in counted.get_flop_counts()["Global"].items() if "backward" not in str(of))
    seconds, work = spent / (WATCHED * rounds), 3 * forward / 1e9
    heavy = (told["convolutions"] + told["matrices"]) * seconds
    peak = attainable(bf16)
    return {
        "recipe": recipe,
        "precision": "bf16" if bf16 else "fp32",
        "threads": threads,
        "seconds a step": round(seconds, 3),
        "images/s": round(run.batch / seconds, 1),
        "shares": {name: round(share, 3) for name, share in told.items()},
        "GFLOP a step": round(work, 1),
        "GFLOP/s while convolving": round(work / heavy, 1),
        "attainable GFLOP/s": round(peak, 1),
    }


def kind(operator: str) -> str:
    name = operator.removeprefix("aten::").lower()
    return next((each for each, parts in KINDS.items() if any(part in name for part in parts)), "")


def attainable(bf16: bool) -> float:
    """GFLOP/s of a product of two matrices of 1,024 x 1,024."""
    side, best = 1024, 0.0
    a, b = (torch.randn(side, side).to(torch.bfloat16 if bf16 else torch.float32) for _ in range(2))
    for _ in range(12):
        began = time.perf_counter()
        _ = a @ b
        best = max(best, 2 * side**3 / (time.perf_counter() - began) / 1e9)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *FAMILIES])
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    for name in asked.names or FAMILIES:
        scores = watched(*FAMILIES[name], asked.rounds)
        keep(KEPT, name, {**scores, "machine": machine()})
        print(name, json.dumps(scores), flush=True)


if __name__ == "__main__":
    main()
