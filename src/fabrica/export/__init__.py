"""A trained model written in another format: `export(model, to, folder)`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fabrica.errors import FabricaError, UsageError, unknown
from fabrica.export import graphs
from fabrica.export.gate import ALLOWED, Limits
from fabrica.export.work import Work
from fabrica.model.model import Model
from fabrica.progress import Progress

FORMATS = ("bundle", "onnx", "openvino", "tensorrt")


def writing(to: str) -> Any:
    """The module of a format; UsageError for an unknown one."""
    if to not in FORMATS:
        raise unknown("export format", to, FORMATS)
    return import_module(f"fabrica.export.{to}")


def export(
    model: Model,
    to: str,
    out: Path,
    *,
    precision: str = "fp32",
    calibrate: str = "",
    limits: Limits = ALLOWED,
    progress: Progress | None = None,
) -> None:
    """Write the model as `to`, one of FORMATS, to `out`: see `put`. precision: of graphs, see
    `fabrica.export.graphs.write`; calibrate, limits: see `Work`.

    Raises UsageError for an unknown format, and for a model that the format cannot hold; FabricaError for a precision
    that loses too much, and for a full disk.
    """
    module = writing(to)
    if to != "bundle":
        work = Work(model, calibrate, limits, progress)
        put(out, lambda folder: graphs.write(work, folder, module.FORMAT, precision))
        return
    if precision != "fp32":
        raise UsageError(f"a bundle holds weights in fp32, not {precision}; take --to onnx or openvino")
    put(out, lambda folder: module.write(model, folder))


def put(out: Path, write: Callable[[Path], None]) -> None:
    """What `write` makes of a folder that is not there yet, at `out`, which must not be there, or be an empty folder.
    It is there afterwards as a whole, or not at all."""
    free(out)
    home = out if out.is_dir() else out.parent  # an empty folder stays: it may be where a disk is mounted
    try:
        home.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=home) as temporary:
            made = Path(temporary) / "made"
            write(made)
            if home != out:
                made.replace(out)
                return
            for each in made.iterdir():
                each.replace(out / each.name)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise FabricaError(f"{out}: cannot be written ({reason}); nothing was changed") from error


def free(out: Path) -> None:
    """UsageError for a place where something lies."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} is there already; choose another place with -o")
