"""A server of models started: its processes, and its end."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from fabrica.errors import FabricaError, UsageError
from fabrica.runtime.ready import place
from fabrica.serving.http.access import Access
from fabrica.serving.http.app import application
from fabrica.serving.http.crew import Crew
from fabrica.serving.http.line import Line
from fabrica.serving.http.listening import address, bound, check_certificate, run, uvicorn_of
from fabrica.serving.http.models import Open
from fabrica.serving.http.service import Limits, Service
from fabrica.serving.http.telemetry import Log, Metrics


@dataclass(frozen=True)
class Settings:
    """How to serve.

    port     0: any that is free. places, batch, delay: see `fabrica.serving.http.line.Line`.
    scratch  where uploads and results lie while they are worked on, None for the system's place.
    certificate, key   files of TLS.
    """

    access: Access = field(default_factory=Access)
    port: int = 8000
    workers: int = 1
    places: int = 64
    batch: int = 16
    delay: float = 0.002
    precision: str = ""
    limits: Limits = field(default_factory=Limits)
    scratch: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


def named(models: Sequence[str]) -> list[tuple[str, Path]]:
    """Models as on the command line, MODEL or NAME=MODEL, with their folders and their names in addresses; UsageError
    for names that cannot stand there or come twice."""
    found: dict[str, Path] = {}
    for each in models:
        name, equals, folder = each.partition("=")
        path = Path(folder) if equals and "/" not in name else Path(each)
        name = name if equals and "/" not in name else path.resolve().name
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            raise UsageError(f"{each}: {name!r} cannot stand in an address; give it a name, e.g. lowdose={path}")
        if name in found:
            raise UsageError(
                f"{found[name]} and {path} would both be called {name}; give one a name, e.g. other={path}"
            )
        path = place(path)
        if not path.is_dir():
            raise UsageError(f"{path} is no folder to serve; expected that of a model")
        found[name] = path
    return list(found.items())


def serve(
    folders: Sequence[tuple[str, Path]],
    opening: Open,
    settings: Settings,
    *,
    listening: Callable[[str], None] = print,
    log: Log | None = None,
) -> None:
    """Serve the models until SIGTERM or SIGINT, after which what was accepted is still answered.

    folders     see `named`. opening: see `fabrica.serving.http.models.Open`; a function of a module.
    listening   called with the server's address, once it listens; models are opened after that.

    Raises UsageError for an address or a folder that cannot be used, FabricaError for a model that cannot be opened.
    """
    check_certificate(settings.certificate, settings.key)
    try:
        scratch = Path(tempfile.mkdtemp(prefix="fabrica-serve-", dir=settings.scratch))
    except OSError as error:
        where = settings.scratch or tempfile.gettempdir()
        raise UsageError(f"{where} cannot be written ({error.strerror}); give a folder with --scratch") from error
    log = log or Log()
    line = Line(settings.places, largest=settings.batch, delay=settings.delay)
    metrics = Metrics(line)

    def told(what: str, **numbers: float) -> None:
        metrics.told(what, **numbers)
        if what != "batch":
            log(f"worker {what}", **numbers)

    crew = Crew(line, folders, opening, count=settings.workers, precision=settings.precision, told=told)
    failures: list[Exception] = []

    def failed(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    service = Service(line, crew, settings.access, settings.limits, metrics, log, scratch)
    server = uvicorn_of(
        application(service, failed),
        connections=16 * settings.places + 64,
        drain=settings.limits.seconds,
        certificate=settings.certificate,
        key=settings.key,
    )
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)  # where it never came to serving, too
        on = stack.enter_context(bound(settings.access.host, settings.port))
        listening(address(settings.access, on.getsockname()[1]))
        run(server, on)
    if failures:
        raise failures[0] if isinstance(failures[0], FabricaError) else FabricaError(str(failures[0]))
