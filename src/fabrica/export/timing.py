"""How long ways to run a model take for one image, from file to file, in turn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from fabrica.export.gate import REST
from fabrica.image import Float32
from fabrica.inference.files import apply
from fabrica.inference.translator import Deployed
from fabrica.progress import Count

ROUNDS = 5
LONGEST = 120.0  # seconds after which no further round begins


def timed(models: Sequence[Any], image: Path, progress: Count | None = None) -> list[tuple[float, float]]:
    """(network, whole) ms of each model: medians of rounds in which each has its turn, so that the machine's mood
    is that of all. A first round, in which graphs are opened, does not count; ROUNDS more do, or as many as begin
    within LONGEST, one at least."""
    found: list[list[tuple[float, float]]] = [[] for _ in models]
    began = time.perf_counter()
    for k in range(ROUNDS + 1):
        if k > 1 and time.perf_counter() - began > LONGEST:
            break
        for own, model in zip(found, models, strict=True):
            own.append(once(model, image))
        began = time.perf_counter() if k == 0 else began
        if progress:
            progress(k + 1, ROUNDS + 1)
    if progress:
        progress(ROUNDS + 1, ROUNDS + 1)
    return [(median(one for one, _ in own[1:]), median(other for _, other in own[1:])) for own in found]


def once(model: Any, image: Path) -> tuple[float, float]:
    """ms within the network, and of all that `fabrica apply` does for one image: read, looked at for what would be
    refused, brought to the network's grid and back, written with its preview."""
    way, within = model.way(), 0.0

    def net(windows: Float32) -> Float32:
        nonlocal within
        began = time.perf_counter()
        made: Float32 = way.net(windows)
        within += time.perf_counter() - began
        return made

    deployed = Deployed(model.name, model.hash, {way.direction: replace(way, net=net)})
    with TemporaryDirectory() as folder:
        time.sleep(REST)
        began = time.perf_counter()
        apply(deployed, image, Path(folder) / "out", force=True)
        return 1000 * within, 1000 * (time.perf_counter() - began)
