"""`fabrica serve`: models over HTTP, with a page."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fabrica.cli.importing import importing
from fabrica.cli.opening import opened
from fabrica.cli.options import note, say

WHERE, WORK, MOST = "Where, and who may ask", "How it works", "The most it takes"


def serve(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Folders of models, trained or exported; NAME=FOLDER names one."),
    ],
    host: Annotated[
        str,
        typer.Option(rich_help_panel=WHERE, help="Address to listen at; one that others reach needs a token."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(rich_help_panel=WHERE, min=0, max=65535, help="Port; 0 takes any that is free.")
    ] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=WHERE,
            help="File with the token that clients send (Authorization: Bearer TOKEN); or set FABRICA_TOKEN.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=WHERE, help="Name by which the server is asked beside its address; may be repeated."
        ),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(rich_help_panel=WHERE, help="Certificate (PEM): the server speaks HTTPS.")
    ] = None,
    key: Annotated[Path | None, typer.Option(rich_help_panel=WHERE, help="Its key, where it is not in it.")] = None,
    workers: Annotated[
        int, typer.Option(rich_help_panel=WORK, min=1, max=64, help="Processes that work, each with all models.")
    ] = 1,
    batch: Annotated[
        int, typer.Option(rich_help_panel=WORK, min=1, help="Images of /infer that go through a network together.")
    ] = 16,
    precision: Annotated[str, typer.Option(rich_help_panel=WORK, help="As of fabrica apply: fp32, fp16, bf16.")] = "",
    scratch: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=WORK, help="Folder where uploads lie while they are worked on. [default: the system's]"
        ),
    ] = None,
    queue: Annotated[
        int, typer.Option(rich_help_panel=MOST, min=1, help="Requests at once; more are told to come again (429).")
    ] = 64,
    largest: Annotated[
        int, typer.Option(rich_help_panel=MOST, min=1, metavar="MIB", help="MiB of an upload, packed or not.")
    ] = 1024,
    time_limit: Annotated[
        float, typer.Option(rich_help_panel=MOST, min=0.1, help="Seconds that a request may take, once it is there.")
    ] = 600.0,
) -> None:
    """Serve models over HTTP, with a page to look at what they make: KServe's protocol, /v1/apply and /v1/sample.

    Logs are lines of JSON on stderr, without anything of patients.
    """
    with importing():
        from fabrica.serving.http.access import access, loopback
        from fabrica.serving.http.server import Settings, named
        from fabrica.serving.http.server import serve as start
        from fabrica.serving.http.service import Limits

    granted = access(host, token_file, os.environ, name or [], secure=certificate is not None)
    os.environ.pop("FABRICA_TOKEN", None)  # the processes that work need not know it
    if not loopback(host) and not certificate:
        note("others reach this address, and without --certificate the token and images go in the clear")
    settings = Settings(
        access=granted,
        port=port,
        workers=workers,
        places=queue,
        batch=batch,
        precision=precision,
        limits=Limits(largest=largest * 2**20, seconds=time_limit),
        scratch=scratch,
        certificate=certificate,
        key=key,
    )
    start(named(models), opened, settings, listening=lambda where: say(f"fabrica serves at {where}"))
    print("fabrica: all that was accepted is answered; stopped", file=sys.stderr)
