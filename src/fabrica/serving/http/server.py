"""A server started: its socket, its processes, and its end."""

from __future__ import annotations

import logging
import re
import shutil
import signal
import socket
import ssl
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from fabrica.errors import FabricaError, UsageError
from fabrica.serving.http.access import Access, loopback
from fabrica.serving.http.app import application
from fabrica.serving.http.crew import Crew
from fabrica.serving.http.line import Line
from fabrica.serving.http.models import Open
from fabrica.serving.http.service import Limits, Service
from fabrica.serving.http.telemetry import Log, Metrics

HEADERS_WITHIN = 20.0  # seconds after which a connection that has not asked anything is closed


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
    """Models as on the command line, FOLDER or NAME=FOLDER, with their names in addresses; UsageError for names that
    cannot stand there or come twice."""
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
        if not path.is_dir():
            raise UsageError(f"nothing at {path} to serve; expected the folder of a model")
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
    _check_certificate(settings)
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
    server = uvicorn.Server(_config(settings, service, failed))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)  # where it never came to serving, too
        bound = stack.enter_context(_bound(settings))
        listening(address(settings, bound.getsockname()[1]))
        before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            server.run(sockets=[bound])  # raises the signal again after it has drained, which is no failure
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
    if failures:
        raise failures[0] if isinstance(failures[0], FabricaError) else FabricaError(str(failures[0]))


def address(settings: Settings, port: int) -> str:
    """The server's own, as a browser takes it."""
    host = settings.access.host
    return f"{settings.access.scheme}://{f'[{host}]' if ':' in host else host}:{port}/"


def _config(settings: Settings, service: Service, failed: Callable[[Exception], None]) -> uvicorn.Config:
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # its lines are no JSON, and hold addresses
    return uvicorn.Config(
        application(service, failed),
        http=Impatient,
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        limit_concurrency=16 * settings.places + 64,
        timeout_graceful_shutdown=int(settings.limits.seconds) + 1,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
    )


class Impatient(H11Protocol):
    """Connections that open and then ask nothing are closed, and those that are left open after an answer."""

    def connection_made(self, transport: object) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.loop.call_later(HEADERS_WITHIN, self._closed_unless_asked)

    def data_received(self, data: bytes) -> None:
        """What comes after an answer, the rest of a body that was refused, keeps nothing open for ever."""
        super().data_received(data)
        cycle, waits = getattr(self, "cycle", None), self.timeout_keep_alive_task is not None
        if cycle and cycle.response_complete and not waits and not self.transport.is_closing():
            handler = self.timeout_keep_alive_handler
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, handler)

    def _closed_unless_asked(self) -> None:
        if not getattr(self, "cycle", None):
            self.transport.close()


def _check_certificate(settings: Settings) -> None:
    """UsageError for files that are no certificate and its key."""
    if settings.key and not settings.certificate:
        raise UsageError("--key is the key of a certificate; give --certificate, too")
    if settings.certificate:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.certificate, settings.key)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{settings.certificate}: no certificate with its key, as PEM ({error}); see --certificate and --key"
            ) from error


def _bound(settings: Settings) -> socket.socket:
    """A socket that listens at the address; UsageError where there is none such, or it is taken."""
    host, port = settings.access.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(2048)
    except (OSError, OverflowError) as error:
        bound.close()
        advice = "--port 0 takes any that is free" if loopback(host) else "give an address of this machine"
        raise UsageError(f"{host}:{port} cannot be used ({getattr(error, 'strerror', error)}); {advice}") from error
    return bound
