"""A model that does as its images say: another process opens it by the name of `fragile`."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fabrica import runtime
from fabrica.image import Float32
from fabrica.inference.translation import Way
from fabrica.runtime.exported import ExportedModel

KILLED, ASLEEP, RAISED = 2900, 2700, 2600  # HU of the brightest voxel, from which on it happens


@dataclass(frozen=True)
class Fragile:
    """An exported model that a bright voxel ends."""

    model: ExportedModel

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def hash(self) -> str:
        return self.model.hash

    def way(self, direction: str = "a2b") -> Way:
        way = self.model.way(direction)

        def net(windows: Float32) -> Float32:
            brightest = float(np.max(windows)) * 2047.5 + 1023.5
            if brightest >= KILLED:
                os.kill(os.getpid(), signal.SIGKILL)
            if brightest >= ASLEEP:
                time.sleep(60)
            if brightest >= RAISED:
                raise ArithmeticError("no such number")
            return way.net(windows)

        return replace(way, net=net)


def fragile(folder: Path) -> Fragile:
    return Fragile(runtime.opened(folder))
