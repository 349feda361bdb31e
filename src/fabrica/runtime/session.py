"""What both runtimes are asked: a graph of bytes as a function of arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fabrica.errors import FabricaError, UsageError
from fabrica.image import Float32


@dataclass(frozen=True)
class Session:
    """session(*inputs) -> the result; inputs in the order in which the graph was asked for them.

    shapes   of each input, -1 where the graph takes any size.
    """

    run: Callable[..., Float32]
    shapes: tuple[tuple[int, ...], ...]

    def __call__(self, *inputs: npt.NDArray[Any]) -> Float32:
        return self.run(*inputs)


PRECISIONS = ("fp32", "fp16", "bf16")
"""What a runtime may be told to compute in."""

INT8 = "int8"
"""What a graph itself may say, operator by operator."""


def threads(most: int = 0) -> int:
    """As many as there are cores to this process, or OMP_NUM_THREADS if that is less; and no more than `most`, unless
    that is 0."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    limits = [cores, *([int(asked)] if asked.isdigit() else []), most]
    return min(each for each in limits if each)


def check_precision(precision: str, able: Sequence[str], runtime: str, instead: str) -> None:
    """UsageError for a precision that is none, or that a runtime cannot compute in here; able: which it can."""
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if precision not in able:
        can = " and ".join(able)
        raise UsageError(f"{runtime} computes in {can} on this processor, and not in {precision}; {instead}")


def check_names(name: str, found: Sequence[str], expected: Sequence[str]) -> None:
    """FabricaError for a graph that takes other inputs than what it was exported with."""
    if sorted(found) != sorted(expected):
        said = f"it takes {', '.join(found) or 'nothing'}, and {', '.join(expected)} was exported"
        raise foreign(name, said)


def foreign(name: str, reason: object) -> FabricaError:
    """The error for a file that is no graph of ours."""
    said = " ".join(str(reason).split())
    return FabricaError(f"{name} is not the graph of an exported model: {said[:200]}; export the model again")


def as_arrays(inputs: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Contiguous, as runtimes take them."""
    return [np.ascontiguousarray(values) for values in inputs]
