"""`fabrica scan`: a folder of images becomes a manifest."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli.bars import named_bars
from fabrica.cli.options import Json, Seed, one_line, print_json
from fabrica.errors import UsageError

MOST_LEFT_OUT = 20  # files that are named one by one


def scan(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of DICOM, NIfTI, MetaImage, NRRD, MGH, PNG/TIFF/JPEG, npz or zip, in any layout."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Manifest to write: .csv or .parquet.")] = Path(
        "manifest.csv"
    ),
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV with a row an image: file, patient, label, split, text, age ... [default: a CSV in the folder "
            "that knows at least half of the images]"
        ),
    ] = None,
    patient: Annotated[
        str | None,
        typer.Option(
            help=r"Regular expression that is searched in each path; its first group is the patient, e.g. (sub-\d+). "
            "[default: what headers, tables and names of folders say]"
        ),
    ] = None,
    layout: Annotated[str, typer.Option(help="mimic-cxr. [default: what the folder shows]")] = "",
    views: Annotated[str | None, typer.Option(help="mimic-cxr: PA, or PA,AP, or '' for all. [default: PA]")] = None,
    reports: Annotated[
        Path | None, typer.Option(help="mimic-cxr: folder of the reports. [default: the folder of images]")
    ] = None,
    split: Annotated[str, typer.Option(help="Shares of the patients in train, val and test.")] = "0.8,0.1,0.1",
    include: Annotated[
        list[str] | None,
        typer.Option(help="Kind to take as images, too: localizer, derived, segmentation, dose ...; may be repeated."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Index a folder of images into a manifest, split by patient."""
    from fabrica.data.helpers import helpers

    try:
        train_part, val_part, test_part = (float(part) for part in split.split(","))
    except ValueError as error:
        raise UsageError(f"--split {split}; expected three numbers, e.g. 0.8,0.1,0.1") from error
    with helpers(folder) as processes, named_bars() as progress:
        from fabrica.data.mask_account import masks_found  # while the helpers start
        from fabrica.data.scan import scan as scan_folder

        manifest = scan_folder(
            folder,
            labels=labels,
            layout=layout,
            views=None if views is None else [view.strip().upper() for view in views.split(",") if view.strip()],
            reports=reports,
            patient_regex=patient,
            fractions=(train_part, val_part, test_part),
            include=include or [],
            seed=seed,
            helpers=processes,
            progress=lambda done, total: progress("reading", done, total),
        )
    manifest.save(out)
    counts = {part: len(manifest.select(split=part).rows) for part in ("train", "val", "test")}
    patients = {part: len(manifest.patients(part)) for part in counts}
    if as_json:
        print_json(
            {
                "manifest": str(out),
                "images": counts,
                "patients": patients,
                "files": manifest.files,
                "masks": asdict(masks_found(manifest.rows)),
                "rejected": manifest.rejected,
                "notes": manifest.notes,
            }
        )
        return
    for path, reason in manifest.rejected[:MOST_LEFT_OUT]:
        print(one_line(f"left out {path}: {reason}"), file=sys.stderr)
    if (more := len(manifest.rejected) - MOST_LEFT_OUT) > 0:
        print(f"left out {more} more; --json lists all of them", file=sys.stderr)
    for note in manifest.notes:
        print(one_line(f"note: {note}"))
    parts = ", ".join(f"{part} {counts[part]} images of {patients[part]} patients" for part in counts)
    files = ", ".join(f"{count} {word}" for word, count in manifest.files.items())
    print(f"{out}: {parts}" + (f"; of {sum(manifest.files.values())} files {files}" if files else ""))
