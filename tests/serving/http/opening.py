"""Models of plain numpy for a server in a process of its own: what is slow, sticks, or brings its process down."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.codec import Codec
from fabrica.errors import UsageError
from fabrica.image import Float32, Image
from fabrica.inference.translation import Way
from fabrica.inference.translator import Deployed
from fabrica.recipe.found import Fingerprint
from fabrica.recipe.schema import DataConfig

HU = Codec("window", -1024.0, 3071.0, "HU")
SECONDS = 0.1  # a slice, of the slow one


def opened(folder: Path, precision: str) -> Any:
    """By the folder's name: "slow", "stuck", "dies", "organs", "contrasts", "noise" or "large"."""
    if folder.name == "noise":
        return Noise()
    if folder.name == "large":
        return Noise(name="large", size=(1024, 1024))
    if folder.name == "contrasts":
        return Deployed("contrasts", "4" * 12, {"a2b": contrasts()})
    if folder.name == "organs":
        return Deployed("organs", "3" * 12, {"a2b": organs()})
    nets = {"slow": slow, "stuck": stuck, "dies": dies}

    def net(windows: Float32) -> Float32:
        if windows.max() > -1:  # not when it is warmed up
            with (folder / "calls").open("a") as file:
                file.write(".")
            nets[folder.name]()
        return windows[:, :1]

    data = DataConfig(a="CT", b="CT", paired=True, size=[32, 32], fit="exact")
    way = Way(net, HU, HU, data, Fingerprint("CT"), "CT", model=folder.name)
    return Deployed(folder.name, "1" * 12, {"a2b": way})


def organs() -> Way:
    """Outlines bone, and what is no air."""

    def net(windows: Float32) -> Float32:
        hu = (windows[:, :1] + 1) / 2 * 4095 - 1024
        bone, body = hu > 300, hu > -300
        return np.concatenate([~body, body & ~bone, bone], axis=1).astype(np.float32) * 2 - 1

    data = DataConfig(a="CT", b="labels", paired=True, size=[32, 32], fit="exact")
    drawn = Codec("label", classes=3, unit="label")
    return Way(net, HU, drawn, data, Fingerprint("CT"), "SEG", model="organs", labels={1: "soft tissue", 2: "bone"})


def contrasts() -> Way:
    """What it sees of T2 where there is one, on the scale of T1; else T1 itself."""

    def net(windows: Float32) -> Float32:
        return windows[:, 1:2] if (windows[:, 1] > -1).any() else windows[:, :1]

    data = DataConfig(a="T1", b="T1", paired=True, size=[32, 32], fit="exact", auxiliary=["T2", "FLAIR"])
    grey = Codec("window", 0.0, 4095.0)
    seen = Fingerprint("MR")
    return Way(net, grey, grey, data, seen, "MR", local=True, auxiliary=(grey, grey), model="contrasts")


def slow() -> None:
    time.sleep(SECONDS)


def stuck() -> None:
    while True:
        time.sleep(60)


def dies() -> None:
    os._exit(3)


@dataclass(frozen=True)
class Data:
    condition: tuple[str, ...] = ("label", "text")
    classes: tuple[str, ...] = ("effusion", "normal")
    phantoms: bool = False


@dataclass(frozen=True)
class Noise:
    """A synthesiser as the server sees one: images of its seed and its label."""

    name: str = "noise"
    hash: str = "2" * 12
    choices: tuple[str, ...] = ("steps",)
    paces: tuple[int, ...] = ()
    size: tuple[int, ...] = (24, 20)
    sampling: str = "ddim, 8 steps"
    data: Data = Data()
    found: Fingerprint = field(default_factory=lambda: Fingerprint("DX"))

    def way(self, direction: str) -> Way:
        raise UsageError("model noise makes images of noise")

    def sample(
        self, n: int, *, seed: int = 0, conditions: Any = None, progress: Any = None, warn: Any = None, steps: int = 8
    ) -> list[Image]:
        label = (conditions or {}).get("label", "normal")
        if label not in self.data.classes:
            raise UsageError(f"no class {label!r}; expected one of effusion, normal")
        if (conditions or {}).get("text"):
            warn("the model knows none of these words")
        high = 255.0 if label == "effusion" else 100.0
        origin = {"modality": "DX", "range": (0.0, 255.0), "step": 1.0, "window": (128.0, 256.0)}
        made = [np.random.default_rng(seed + k).integers(0, high, (1, *self.size)).astype(np.float32) for k in range(n)]
        return [Image(each, origin={**origin, "seed": seed + k}) for k, each in enumerate(made)]
