"""A study served to its readers until the process is told to end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fabrica.errors import FabricaError
from fabrica.serving.http.access import Access
from fabrica.serving.http.listening import address, bound, check_certificate, run, uvicorn_of
from fabrica.serving.http.telemetry import Log
from fabrica.serving.study.folder import Study
from fabrica.serving.study.routes import application

CONNECTIONS = 1024
DRAIN = 10.0  # seconds


def serve(
    study: Study,
    access: Access,
    port: int = 8000,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    listening: Callable[[str], None] = print,
    log: Log | None = None,
) -> None:
    """Serve a study until SIGTERM or SIGINT.

    access      without a token: each reader has his own. port: 0 for any that is free.
    listening   called with the server's address, once it listens.

    Raises FabricaError where answers were changed after they were stored: no more are laid on top. UsageError for an
    address or a certificate that cannot be used.
    """
    check_certificate(certificate, key)
    with study.answers() as answers:
        if broken := answers.verify():
            raise FabricaError(f"{broken}; put a copy back before more is answered")
        app = application(study, answers, access, log or Log())
        server = uvicorn_of(app, connections=CONNECTIONS, drain=DRAIN, certificate=certificate, key=key)
        with bound(access.host, port) as on:
            listening(address(access, on.getsockname()[1]))
            run(server, on)
