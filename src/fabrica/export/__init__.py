"""A trained model written in another format: `export(model, to, folder)`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from fabrica.errors import FabricaError, UsageError, unknown
from fabrica.model.model import Model
from fabrica.progress import Progress

if TYPE_CHECKING:
    from fabrica.export.gate import Limits

FORMATS = {
    "bundle": "fabrica.export.bundle:write",
    "onnx": "fabrica.export.onnx:write",
    "openvino": "fabrica.export.openvino:write",
}
Writer = Callable[..., None]


def writer(to: str) -> Writer:
    """What writes this format; UsageError for an unknown one."""
    if to not in FORMATS:
        raise unknown("export format", to, FORMATS)
    module, _, name = FORMATS[to].partition(":")
    return cast(Writer, getattr(import_module(module), name))


def export(
    model: Model,
    to: str,
    out: Path,
    *,
    precision: str = "fp32",
    calibrate: str = "",
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the model as `to`, one of FORMATS, to `out`, which must not be there yet, or be an empty folder. It is
    there afterwards as a whole, or not at all. precision, calibrate, limits: of graphs, see
    `fabrica.export.graphs.write`.

    Raises UsageError for an unknown format, and for a model that the format cannot hold; FabricaError for a precision
    that loses too much, and for a full disk.
    """
    write = writer(to)
    if to == "bundle" and precision != "fp32":
        raise UsageError(f"a bundle holds weights in fp32, not {precision}; take --to onnx or openvino")
    asked: dict[str, Any] = {"precision": precision, "calibrate": calibrate, "limits": limits, "progress": progress}
    choices = {} if to == "bundle" else {name: value for name, value in asked.items() if value is not None}
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} is there already; choose another place with -o")
    home = out if out.is_dir() else out.parent  # an empty folder stays: it may be where a disk is mounted
    try:
        home.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=home) as temporary:
            made = Path(temporary) / "made"
            write(model, made, **choices)
            if home != out:
                made.replace(out)
                return
            for each in made.iterdir():
                each.replace(out / each.name)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise FabricaError(f"{out}: cannot be written ({reason}); nothing was changed") from error
