"""The tasks by name: what `Method.task` says."""

from __future__ import annotations

from typing import Any

from fabrica.methods import Method
from fabrica.model.compression import Compression
from fabrica.model.segmentation import Segmentation
from fabrica.model.synthesis import Synthesis
from fabrica.model.task import Task
from fabrica.model.translation import Translation

TASKS: dict[str, Task[Any, Any]] = {
    "synthesis": Synthesis(),
    "translation": Translation(),
    "compression": Compression(),
    "segmentation": Segmentation(),
}


def task_of(method: Method) -> Task[Any, Any]:
    return TASKS[method.task]
