"""python -m benchmarks.exported BEFORE [--work FOLDER] [--minutes M] [--rounds N]: exported models beside PyTorch as it
ran the same networks in a checkout of the commit before models could be exported, call by call in turn.

NAFNet small and U-Net++ on 1024 x 1024, the residual U-Net on 256 x 256, each trained M minutes, since only of trained
networks can be said which precision passes the gate: the fastest that does is taken, of ONNX Runtime and OpenVINO. A
NAFNet is timed from DICOM file to DICOM file, too. BEFORE has networks of the same size with random weights, as it put
them to work: norms folded, channels last, bfloat16 where the processor has it. Beside U-Net++ stands what a NAFNet
takes that has learned from the same images. What lies in FOLDER already is neither trained nor exported again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fabrica import io, runtime
from fabrica.errors import FabricaError, UsageError
from fabrica.export import export
from fabrica.export.gate import REST
from fabrica.image import Float32
from fabrica.model.loading import load
from fabrica.phantoms import chest
from fabrica.recipe.load import load_recipe
from fabrica.runtime.exported import ExportedModel
from fabrica.training.loop import train

WAYS = (("openvino", "int8"), ("openvino", "bf16"), ("openvino", "fp32"), ("onnx", "int8"), ("onnx", "fp32"))
FEW = ["data.count=120", "train.steps=0"]


@dataclass(frozen=True)
class Subject:
    """recipe, changes: what is trained. network: an expression of BEFORE's for what it is compared with. side: of the
    images."""

    recipe: str
    changes: tuple[str, ...]
    network: str
    side: int


NAFNET, RESIDUAL = "NAFNet small", "ResidualUNet(1, 1, 16, 5)"
SUBJECTS = {
    NAFNET: Subject("nafnet-xray", ("method.unshuffle=4",), "NAFNet(1, 1)", 1024),
    "residual U-Net": Subject("strong-head", ("method.adversarial=0", "method.mirror=false"), RESIDUAL, 256),
    "U-Net++": Subject("unetpp-lowdose", ("method.width=32",), "UNetPlusPlus(1, 1)", 1024),
    "NAFNet small in place of U-Net++": Subject("nafnet-lowdose", (), "UNetPlusPlus(1, 1)", 1024),
}
THEIRS = """
import sys, time
from pathlib import Path
import torch
from fabrica import io
from fabrica.model.loading import load
from fabrica.nets.device import autocast
from fabrica.nets.fusing import fused
from fabrica.nets.nafnet import NAFNet
from fabrica.nets.translators import ResidualUNet
from fabrica.nets.unetpp import UNetPlusPlus
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train
folder = Path(sys.argv[1])
if not (folder / "README.md").exists():
    few = ["data.count=8", "data.size=64", "data.crop=64", "train.minutes=0", "train.steps=1", "method.unshuffle=4"]
    train(load_recipe("nafnet-xray", few), folder)
model, known = load(folder, device="cpu"), {}

def network(made, side):
    if made not in known:
        torch.manual_seed(0)
        known[made] = fused(eval(made)).to(memory_format=torch.channels_last)
    image = torch.rand(1, 1, side, side) * 2 - 1
    began = time.perf_counter()
    with torch.inference_mode(), autocast("auto", torch.device("cpu")):
        known[made](image)
    return time.perf_counter() - began

def file(given, made):
    began = time.perf_counter()
    io.write(model.apply(io.read(Path(given))).result, Path(made), translated=True)
    return time.perf_counter() - began

print("ready", flush=True)
for line in sys.stdin:
    seconds = eval(line)
    print("took", seconds, flush=True)
"""


class Before:
    """A process of the other checkout, which answers with seconds."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(checkout.resolve() / "src")}
        command = [sys.executable, "-c", THEIRS, str(folder / "before")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._answer("ready")

    def took(self, what: str) -> float:
        assert self.process.stdin is not None
        time.sleep(REST)
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return float(self._answer("took"))

    def _answer(self, begins: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(begins):
                return line.removeprefix(begins)
        sys.exit("the commit before has ended; see what it said above")


def ready(name: str, folder: Path, minutes: float) -> tuple[ExportedModel, str]:
    """The fastest of WAYS that passes the gate, and what it loses."""
    subject, home = SUBJECTS[name], folder / name.replace(" ", "-")
    if not (home / "run" / "README.md").exists():
        train(load_recipe(subject.recipe, [*FEW, *subject.changes, f"train.minutes={minutes}"]), home / "run")
    found, images = dict[float, ExportedModel](), some(subject.side)
    for to, precision in WAYS:
        out = home / f"{to}-{precision}"
        try:
            if not out.exists():
                export(load(home / "run", device="cpu"), to, out, precision=precision)
            model = runtime.opened(out)
            took = median([alone(model, images) for _ in range(4)][1:])
            found[took] = runtime.opened(out)  # not the one that ran: several hold more memory than there is
        except (FabricaError, UsageError) as error:
            print(f"{name}: {error}", file=sys.stderr)
    best = found[min(found)]
    tried = best.record.graphs["a2b"].tried
    lost = f", {tried[-1].psnr:.3f} dB lost" if tried and tried[-1].psnr is not None else ""
    return best, f"{best.record.format} {best.record.precision}{lost}"


def some(side: int) -> Float32:
    return np.random.default_rng(0).uniform(-1, 1, (1, 1, side, side)).astype(np.float32)


def alone(model: ExportedModel, images: Float32) -> float:
    time.sleep(REST)
    began = time.perf_counter()
    model.run("a2b", images)
    return time.perf_counter() - began


def from_file(model: Any, given: Path, made: Path) -> float:
    time.sleep(REST)
    began = time.perf_counter()
    io.write(model.apply(io.read(given)).result, made, translated=True)
    return time.perf_counter() - began


def measured(before: Path, folder: Path, minutes: float, rounds: int) -> dict[str, str]:
    found, other = {}, Before(before, folder)
    for name, subject in SUBJECTS.items():
        model, how = ready(name, folder, minutes)
        images, asked = some(subject.side), f"network({subject.network!r}, {subject.side})"
        pairs = [(alone(model, images), other.took(asked)) for _ in range(rounds + 1)][1:]
        found[f"{name}, {subject.side} x {subject.side}, {how} / PyTorch before"] = said(pairs)
        if name == NAFNET:
            given, ours, theirs = (folder / f"{each}.dcm" for each in ("given", "ours", "theirs"))
            io.write(chest(0, subject.side).image, given, synthetic=True)
            pairs = []
            for _ in range(rounds + 1):
                pairs.append((from_file(model, given, ours), other.took(f"file({str(given)!r}, {str(theirs)!r})")))
                ours.unlink()
                theirs.unlink()
            found[f"{name}, DICOM file to DICOM file, {how} / PyTorch before"] = said(pairs[1:])
            given.unlink()
    other.process.kill()
    return found


def said(pairs: list[tuple[float, float]]) -> str:
    ours, theirs = (1000 * median(each) for each in zip(*pairs, strict=True))
    return f"{median(a / b for a, b in pairs):.3f} ({ours:.3g} / {theirs:.3g} ms)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "fabrica-exported")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=11)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    print(json.dumps(measured(asked.before, asked.work, asked.minutes, asked.rounds), indent=2))


if __name__ == "__main__":
    main()
