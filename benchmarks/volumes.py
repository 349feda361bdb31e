"""python -m benchmarks.volumes RUN [--data IMAGES] [--size D,H,W] [--rounds N]: a volume segmented by an exported model
beside PyTorch.

RUN is a folder that `fabrica train segment` wrote, such as the one of the hippocampus that `python -m models` leaves;
IMAGES, a folder or manifest, stand in place of those it was trained on. The volume is smooth noise of 1 mm. Each round
applies the trained model and its exports, one after the other: from file to file in one process, where all is opened
already, with the part within the network; and as the command `fabrica apply`, from its start to its end. What does not
pass the gate is said and left out. Ratios to PyTorch are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.inference import noise
from benchmarks.ready import took
from fabrica import runtime
from fabrica.errors import FabricaError, UsageError
from fabrica.export import export
from fabrica.export.timing import once
from fabrica.model.loading import load

WAYS = (("openvino", "int8"), ("openvino", "bf16"), ("openvino", "fp32"), ("onnx", "fp32"))
PYTORCH = "PyTorch as trained"


def measured(run: Path, data: str, size: tuple[int, ...], rounds: int, home: Path) -> dict[str, str]:
    noise(home / "volume_0000.nii.gz", size, 1.0)
    trained, found = load(run, device="cpu"), {}
    folders = {PYTORCH: run}
    for to, precision in WAYS:
        out = home / f"{to}-{precision}"
        try:
            export(trained, to, out, precision=precision, calibrate=data if precision != "fp32" else "")
            folders[f"{to} {precision}"] = out
        except (FabricaError, UsageError) as error:
            found[f"{to} {precision}"] = str(error)
    models = {name: trained if name == PYTORCH else runtime.opened(out) for name, out in folders.items()}
    volume = (home / "volume_0000.nii.gz").resolve()
    seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in models}
    for k in range(rounds + 1):
        for name, model in models.items():
            network, whole = once(model, volume)
            command, _ = took(str(folders[name].resolve()), [str(volume), "--force"], home)
            if k:  # graphs are opened in the first round
                seconds[name].append((network / 1000, whole / 1000, command))
    for name, each in seconds.items():
        if name == PYTORCH:
            continue
        for what, column in (("network", 0), ("file to file", 1), ("command", 2)):
            theirs = [row[column] for row in seconds[PYTORCH]]
            ratio = median(row[column] / other for row, other in zip(each, theirs, strict=True))
            ours = median(row[column] for row in each)
            found[f"{name}, {what} / PyTorch"] = f"{ratio:.3f} ({ours:.2f} / {median(theirs):.2f} s)"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", default="")
    parser.add_argument("--size", default="96,128,96")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    size = tuple(int(side) for side in asked.size.split(","))
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measured(asked.run, asked.data, size, asked.rounds, Path(name)), indent=2))


if __name__ == "__main__":
    main()
