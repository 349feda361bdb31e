"""What the verbs share: options of the same meaning, and how they say things."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

LAST_SEED = 2**31 - 1
KINDS = "png, tiff, npz, nifti, dicom, metaimage, nrrd or mgh"  # what can be written: `fabrica.io.SUFFIXES`

Out = Annotated[Path, typer.Option("-o", "--out", help="Where the result goes.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Seed = Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Same seed, same result.")]


def note(sentence: str) -> None:
    """What a person should know and a program need not, on stderr."""
    print(one_line(f"note: {sentence}"), file=sys.stderr)


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
