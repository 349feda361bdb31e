"""`fabrica export`: a model in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli.bars import named_bars
from fabrica.cli.importing import importing
from fabrica.cli.options import note


def export(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    to: Annotated[
        str, typer.Option(help="Format: onnx or openvino (to apply without PyTorch), tensorrt (GPUs), bundle (MONAI).")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the result.")],
    precision: Annotated[
        str, typer.Option(help="Of graphs: fp32, fp16, bf16 (openvino) or int8, judged on held-out images.")
    ] = "fp32",
    calibrate: Annotated[
        str, typer.Option(help="Folder or manifest of images to set and judge it on, for those of training.")
    ] = "",
) -> None:
    """Write a model in another format."""
    with importing():
        from fabrica import runtime
        from fabrica.export import export as export_model
        from fabrica.export import writing
        from fabrica.export.gate import table
        from fabrica.model.loading import load

        writing(to)  # imported, or refused before the model is loaded
        loaded = load(model, warn=note)
    with named_bars() as progress:
        export_model(loaded, to, out, precision=precision, calibrate=calibrate, progress=progress)
    print(f"{out}: model {loaded.name} {loaded.hash} as {to}")
    if not runtime.found(out):
        return
    record = runtime.opened(out).record
    for name, graph in record.graphs.items():
        largest, mean = (max(getattr(each, key) for each in graph.parity) for key in ("largest", "mean"))
        print(f"{name}: off PyTorch by at most {largest:.3g} {graph.unit}, by {mean:.3g} on average")
        for line in table(graph.tried, graph.unit) if graph.tried else ():
            print(line)
    if record.pictures.count:
        unit, off = loaded.codec.unit, record.pictures
        print(f"{off.count} pictures: off PyTorch by at most {off.largest:.3g} {unit}, by {off.mean:.3g} on average")
