"""The folder of an exported model: its graphs, recipe.yaml, found.yaml and README.md as in a model folder, and
exported.yaml, which says what is in it and how each file hashes. Values and graphs alone; nothing in it is code."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from fabrica import __version__
from fabrica.diffusion.schedule import Schedule
from fabrica.errors import FabricaError, UsageError
from fabrica.io.atomic import atomic
from fabrica.recipe.folder import FOUND, RECIPE
from fabrica.recipe.load import typed, versioned
from fabrica.recipe.values import written
from fabrica.runtime import RECORD
from fabrica.runtime.session import INT8, PRECISIONS

VERSION = 1
FORMATS = ("onnx", "openvino", "tensorrt")
ADVICE = "export it again, or take it from where it was exported (what ships with Fabrica: install that again)"


@dataclass(frozen=True)
class Parity:
    """How far a graph's results were from those of PyTorch in float32, on one batch of random images of this size, in
    the graph's unit; as_trained: the largest difference of PyTorch's own in the precision of the run from its
    float32."""

    batch: int = 1
    size: list[int] = field(default_factory=list)
    largest: float = 0.0
    mean: float = 0.0
    as_trained: float = 0.0


@dataclass(frozen=True)
class Tried:
    """A lower precision as it was tried on held-out images.

    precision  "fp32" for the graph that the others are held against.
    ranges     of INT8: what says the ranges of activations, "min-max", "percentile" or "entropy"; floats: the layers
               that stayed float.
    megabytes  of the files; ms: of one held-out image, the median, in the threads of the process; faster: how many
               times as fast as the float32 graph, called in turn.
    psnr, mae, dice   lost by it, in dB, in the graph's unit and of 1, beside the float32 graph against what is true;
               None: not of this task, or nothing is known to be true.
    off        the mean absolute difference from the float32 graph, in the graph's unit. passed: the gate.
    """

    precision: str = "fp32"
    ranges: str = ""
    floats: list[str] = field(default_factory=list)
    megabytes: float = 0.0
    ms: float = 0.0
    faster: float = 1.0
    psnr: float | None = None
    mae: float | None = None
    dice: float | None = None
    off: float = 0.0
    passed: bool = True


@dataclass(frozen=True)
class Graph:
    """A network as files: what its inputs are called, the unit of its results and the width of their range in it.
    parity: of its float32 form. tried: the precisions that were looked at; the last one is that of the files."""

    files: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    unit: str = ""
    range: float = 0.0
    parity: list[Parity] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)


@dataclass(frozen=True)
class Draws:
    """How a synthesiser's graphs draw images of noise.

    choices, edits   see `fabrica.inference.synthesis.Synthesises`.
    shape      of one image's noise: (D,) of a GAN's z, (C, *S) of what a denoiser sees, images or latents.
    objective, schedule   what a denoiser predicts, at which noise levels: see `fabrica.diffusion`.
    times, paces   of a student: the times of its teacher's steps, and in how many it goes, in the order of their k.
    places     how many places along each axis a mask is laid out on.
    """

    choices: list[str] = field(default_factory=list)
    edits: bool = False
    shape: list[int] = field(default_factory=list)
    objective: str = ""
    schedule: Schedule = field(default_factory=Schedule)
    times: list[float] = field(default_factory=list)
    paces: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Pictures:
    """How far pictures of the seeds from 0 on, with the recipe's settings, were from those that PyTorch draws in
    float32, in their unit."""

    count: int = 0
    largest: float = 0.0
    mean: float = 0.0


@dataclass(frozen=True)
class Exported:
    """What exported.yaml says.

    fabrica   the version that wrote it. format: one of FORMATS.
    hash      of the model that it was made of. local: see `fabrica.inference.translation.Way`.
    precision of the graphs, as it was asked: "fp32", "fp16", "bf16" or "int8". computes: what the runtime is told to
              compute in, where a graph is not INT8: "fp32", "fp16" or "bf16".
    threads   of a graph, where fewer than there are were the fastest; 0: as many as there are. Never more than these.
    graphs    "a2b" and "b2a" of a translator; "generator" of a GAN; "encoder" and "decoder" of an autoencoder; of
              diffusion "denoiser", "conditions" where it is told more than a label, and the autoencoder's on latents.
    draws, pictures   of what makes images of noise.
    sha256    of every other file in the folder.
    """

    version: int = VERSION
    fabrica: str = __version__
    format: str = "onnx"
    hash: str = ""
    local: bool = False
    precision: str = "fp32"
    computes: str = "fp32"
    threads: int = 0
    graphs: dict[str, Graph] = field(default_factory=dict)
    draws: Draws = field(default_factory=Draws)
    pictures: Pictures = field(default_factory=Pictures)
    sha256: dict[str, str] = field(default_factory=dict)


def seal(folder: Path, record: Exported) -> Exported:
    """Write exported.yaml to what lies in the folder, with how each file hashes; gives this record."""
    hashes = {each.name: digest(each.read_bytes()) for each in sorted(folder.iterdir()) if each.name != RECORD}
    record = replace(record, sha256=hashes)
    save(folder, record)
    return record


def save(folder: Path, record: Exported) -> None:
    """Write exported.yaml."""
    with atomic(folder / RECORD) as temporary:
        temporary.write_text(written(asdict(record)), encoding="utf-8")


def load(folder: Path) -> Exported:
    """What the folder holds, each file compared with its hash. FabricaError, one line, for a record that is damaged or
    of a later Fabrica, and for files that are missing, changed, or not in the folder."""
    path = folder / RECORD
    raw = versioned(path, VERSION, ADVICE)
    try:
        record = typed(Exported, raw)
    except UsageError as error:
        raise FabricaError(f"{path} is damaged: {error}; {ADVICE}") from error
    if record.format not in FORMATS:
        raise FabricaError(
            f"{path} says format {record.format!r}, and this Fabrica runs {' and '.join(FORMATS)}; {ADVICE}"
        )
    if record.precision not in (*PRECISIONS, INT8) or record.computes not in PRECISIONS:
        raise FabricaError(
            f"{path} says precision {record.precision!r}, computed in {record.computes!r}, and this Fabrica knows "
            f"{', '.join((*PRECISIONS, INT8))}; {ADVICE}"
        )
    if record.threads < 0:
        raise FabricaError(f"{path} says {record.threads} threads, expected 0 (all) or more; {ADVICE}")
    if not record.graphs:
        raise FabricaError(f"{path} names no graph; {ADVICE}")
    for name in [RECIPE, FOUND, *(name for graph in record.graphs.values() for name in graph.files)]:
        if name not in record.sha256:
            raise FabricaError(f"{path} does not say how {name} hashes; {ADVICE}")
    for name in record.sha256:
        content(folder, record, name)
    return record


def content(folder: Path, record: Exported, name: str) -> bytes:
    """A file of the folder, as it was exported; FabricaError, one line, where it is not."""
    path = folder / name
    if Path(name).name != name or path.is_symlink():
        raise FabricaError(f"{folder / RECORD} names {name!r}, which lies outside of the folder; {ADVICE}")
    try:
        found = path.read_bytes()
    except OSError as error:
        raise FabricaError(f"{path} cannot be read ({error.strerror}); {ADVICE}") from error
    if digest(found) != record.sha256[name]:
        raise FabricaError(f"{path} is not the file that was exported: its SHA-256 is another one; {ADVICE}")
    return found


def contents(folder: Path, record: Exported, graph: str) -> Sequence[bytes]:
    """The files of a graph."""
    return [content(folder, record, name) for name in record.graphs[graph].files]


def digest(found: bytes) -> str:
    return hashlib.sha256(found).hexdigest()
