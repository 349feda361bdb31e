"""python -m benchmarks.restoration [ROUNDS]: milliseconds a slice of the networks of restoration, of a radiograph from
DICOM file to DICOM file, and images/s of training the smallest that matters.

At work norms are folded away, channels are last, and bf16 is used where the processor has it. From file to file one
model is kept warm, and every file is read, restored and written anew. Training is NAFNet "small" on eight crops of
128 x 128 pixels, squares of two pixels (as the recipes train it) or of four made channels, ours (bf16, channels last, a
fused AdamW) against the plain loop in fp32; rounds of the two alternate in one process, so that the machine's mood
cancels out.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.nn.functional import l1_loss

from benchmarks.kept import keep
from benchmarks.ratio import told
from fabrica import io
from fabrica.model.loading import load
from fabrica.nets.device import autocast
from fabrica.nets.fusing import fused
from fabrica.nets.nafnet import NAFNet
from fabrica.nets.redcnn import REDCNN
from fabrica.nets.srresnet import SRResNet
from fabrica.nets.unetpp import UNetPlusPlus
from fabrica.phantoms import chest
from fabrica.recipe.load import load_recipe
from fabrica.training.loop import train

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "NAFNet tiny": lambda: NAFNet(1, 1, "tiny"),
    "NAFNet small": lambda: NAFNet(1, 1, "small"),
    "NAFNet base": lambda: NAFNet(1, 1, "base"),
    "RED-CNN": lambda: REDCNN(1, 1),
    "U-Net++": lambda: UNetPlusPlus(1, 1),
    "U-Net++ on ResNet-34": lambda: UNetPlusPlus(1, 1, encoder="resnet34"),
    "SRResNet, twice as fine": lambda: SRResNet(1, 2),
}
SIZES = (512, 1024)
BATCH, CROP = 8, 128
ROUNDS, STEPS, WARM = 5, 8, 2
LONG = 2.0  # seconds; what takes longer is measured three times, the rest eleven
PROCESSOR = torch.device("cpu")


def at_work(name: str, side: int) -> float:
    """Median seconds of one slice."""
    torch.manual_seed(0)
    net = fused(NETWORKS[name]()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.rand(1, 1, side, side) * 2 - 1
    seconds: list[float] = []
    with torch.inference_mode(), autocast("auto", PROCESSOR):
        while len(seconds) < WARM + (3 if seconds and seconds[-1] > LONG else 11):
            began = time.perf_counter()
            net(image)
            seconds.append(time.perf_counter() - began)
    return median(seconds[WARM:])


def file_to_file(side: int) -> float:
    """Median seconds of a radiograph of so many pixels a side: DICOM in, NAFNet small, derived DICOM out."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.dcm", Path(folder) / "made.dcm"
        few = ["data.count=8", "data.size=64", "data.crop=64", "train.minutes=0", "train.steps=1"]
        train(load_recipe("nafnet-xray", [*few, "method.unshuffle=4"]), Path(folder) / "run")
        model = load(Path(folder) / "run", device=PROCESSOR)
        io.write(chest(0, side).image, given, synthetic=True)
        seconds: list[float] = []
        for _ in range(WARM + 11):
            began = time.perf_counter()
            io.write(model.apply(io.read(given)).result, made, translated=True)
            seconds.append(time.perf_counter() - began)
            made.unlink()
    return median(seconds[WARM:])


def training(quick: bool, unshuffle: int) -> float:
    """Median images/s."""
    torch.manual_seed(0)
    net = NAFNet(1, 1, unshuffle=unshuffle)
    form = torch.channels_last if quick else torch.contiguous_format
    net.to(memory_format=form)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, fused=quick)
    clean = torch.rand(BATCH, 1, CROP, CROP) * 2 - 1
    noisy = (clean + 0.1 * torch.randn_like(clean)).contiguous(memory_format=form)
    rates = []
    for _ in range(STEPS):
        began = time.perf_counter()
        with autocast("auto" if quick else "fp32", PROCESSOR):
            loss = l1_loss(net(noisy), clean)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rates.append(BATCH / (time.perf_counter() - began))
    return median(rates[WARM:])


def main(rounds: int = ROUNDS) -> dict[str, str]:
    """Score by name, as `python -m benchmarks` keeps them. The goals: NAFNet small at 1024 in 100 ms, from file to file
    in 200, and in a third of RED-CNN's time; twice the rate of the plain loop."""
    scores = {}
    for side in SIZES:
        found = {name: at_work(name, side) for name in NETWORKS}
        for name, seconds in found.items():
            scores[f"{name}, {side} x {side}"] = f"{1000 * seconds:.0f} ms"
        ratio = found["RED-CNN"] / found["NAFNet small"]
        scores[f"RED-CNN / NAFNet small, {side} x {side}"] = f"{ratio:.0f} x"
    scores["NAFNet small, 1024 x 1024, DICOM to DICOM"] = f"{1000 * file_to_file(1024):.0f} ms"
    for unshuffle in (2, 4):
        pairs = [(training(True, unshuffle), training(False, unshuffle)) for _ in range(rounds)]
        name = f"NAFNet small, unshuffle {unshuffle}, training at {CROP} x {CROP}, batch {BATCH}, ours / plain fp32"
        scores[name] = told(pairs, 1)
    return scores


if __name__ == "__main__":
    results = Path(__file__).parent / "results.json"
    found = main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    for key, value in found.items():
        print(f"   {key:<80}{value}")
    keep(results, "restoration", {**found, "threads": str(torch.get_num_threads())})
