"""What goes between the server and the processes that work: tasks, what becomes of them, and what models there are.

Values alone, which are pickled between processes of one program.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Tensor = npt.NDArray[Any]


class Refused(Exception):
    """What a client is told instead of a result: a status of HTTP, one line, and after how many seconds to ask again
    (0: not at all)."""

    def __init__(self, status: int, line: str, retry: int = 0) -> None:
        super().__init__(status, line, retry)  # all of them: an exception is pickled by its arguments
        self.status, self.line, self.retry = status, line, retry

    def __str__(self) -> str:
        return self.line


@dataclass(frozen=True)
class Entry:
    """An input of a graph: its name, its type in the protocol, and its shape, -1 where any size is taken."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Served:
    """A model as a client sees it.

    name         in addresses. model, hash: its own name, and the start of the SHA-256 of its weights.
    tasks        of "apply", "sample" and "infer" those it does. labels: it draws label maps, number -> name.
    graphs       what /infer runs, by name, the usual one first, with the inputs of each.
    directions   "a2b" -> "MR to CT".
    image        what contrast its image is; auxiliary: those that it sees beside it.
    conditions   what it is told of an image, and of classes all that there are.
    cautions     what is to be known of all of its results.
    """

    name: str
    model: str
    hash: str
    tasks: tuple[str, ...] = ()
    modality: str = ""
    size: tuple[int, ...] = ()
    graphs: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    directions: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[int, str] = field(default_factory=dict)
    image: str = ""
    auxiliary: tuple[str, ...] = ()
    mirror: bool = False
    round_trip: bool = False
    conditions: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    sampling: str = ""
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Infer:
    """One call of a graph; arrays (B, ...) in the order of its inputs. as_text: the result as JSON numbers."""

    model: str
    graph: str
    inputs: tuple[Tensor, ...]
    as_text: bool = False

    @property
    def key(self) -> Hashable:
        """What may go through a graph together: all but the first axis alike."""
        return self.model, self.graph, tuple((each.dtype.str, each.shape[1:]) for each in self.inputs)

    @property
    def rows(self) -> int:
        return len(self.inputs[0])


@dataclass(frozen=True)
class Inferred:
    """The result: its shape, and its float32 values as bytes, or as text."""

    shape: tuple[int, ...]
    content: bytes


@dataclass(frozen=True)
class Apply:
    """Images to be translated: what was uploaded, and an empty folder for all that is made of it.

    choices   of `fabrica.inference.files.apply`. view: also what the page draws. explain: also which part of the first
              image moved its result, see `fabrica.evaluation.explanation.parts`.
    largest   bytes that archives may unpack to. beside: what was uploaded of other contrasts, by name.
    """

    model: str
    uploaded: tuple[Path, ...]
    folder: Path
    choices: Mapping[str, Any] = field(default_factory=dict)
    view: bool = False
    explain: bool = False
    largest: int = 2**30
    beside: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    key: Hashable = None
    rows: int = 1


@dataclass(frozen=True)
class Sample:
    """Synthetic images. conditions, choices: of `SynthesisModel.sample`; kind: a format, "" for the usual one."""

    model: str
    folder: Path
    n: int = 1
    seed: int = 0
    conditions: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""
    view: bool = False

    key: Hashable = None
    rows: int = 1


@dataclass(frozen=True)
class Made:
    """A file to be handed out; notes: what its reader should know."""

    file: Path
    media_type: str
    notes: tuple[str, ...] = ()


Task = Infer | Apply | Sample
Result = Inferred | Made | Refused

DATATYPES: Mapping[str, np.dtype[Any]] = {
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "FP16": np.dtype("<f2"),
    "INT64": np.dtype("<i8"),
    "INT32": np.dtype("<i4"),
    "INT16": np.dtype("<i2"),
    "INT8": np.dtype("<i1"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
}
"""The protocol's names of the number types that are taken."""
