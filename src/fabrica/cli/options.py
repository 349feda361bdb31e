"""What the verbs share: options of the same meaning, and how they say things."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

LAST_SEED = 2**31 - 1
WIDEST = 30  # columns of an option and its value: the help of a wider one stands below it
KINDS = "png, tiff, npz, nifti, dicom, metaimage, nrrd or mgh"  # what can be written: `fabrica.io.SUFFIXES`

Out = Annotated[Path, typer.Option("-o", "--out", help="Folder for the result.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Seed = Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Number that fixes all random choices.")]


class Panels(TyperCommand):
    """A command whose --help groups options by their `rich_help_panel`, in the order in which panels first appear.

    Plain text: typer draws panels with rich alone, which takes as long to import as all else that --help does, and at
    80 columns leaves a third of the line to the help.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(record)
        widths = [len(name) for records in panels.values() for name, _ in records]
        width = max(w for w in widths if w <= WIDEST)
        for panel, records in panels.items():
            with formatter.section(panel):
                formatter.write_dl([(name.ljust(width), said) for name, said in records], col_max=width)


def note(sentence: str) -> None:
    """What a person should know and a program need not, on stderr."""
    print(one_line(f"note: {sentence}"), file=sys.stderr)


def conditions(mask: Path | None, **told: Any) -> dict[str, Any]:
    """What a model is told of its images: what was given of it, and the mask, read."""
    from fabrica.io import read  # not above: --help needs no readers

    given = {**told, "mask": read(mask) if mask else None}
    return {name: value for name, value in given.items() if value is not None}


def say(text: str) -> None:
    """A line on stdout, at once."""
    print(text, flush=True)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def one_line(text: str) -> str:
    """The text on one line, whatever names of files it holds: control characters and bytes that are no UTF-8 spelled
    out."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: repr(found[0])[1:-1], text)
