"""A socket, and an application that is served on it until the process is told to end."""

from __future__ import annotations

import logging
import signal
import socket
import ssl
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from fabrica.errors import UsageError
from fabrica.serving.http.access import Access, loopback

HEADERS_WITHIN = 20.0  # seconds after which a connection that has not asked anything is closed


def uvicorn_of(
    app: ASGIApp, *, connections: int, drain: float, certificate: Path | None = None, key: Path | None = None
) -> uvicorn.Server:
    """A server of an application. connections: more are told to come again (503); drain: seconds that what was
    accepted has to be answered when the server is told to end. certificate, key: files of TLS."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # its lines are no JSON, and hold addresses
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Impatient,
            ws="none",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            limit_concurrency=connections,
            timeout_graceful_shutdown=int(drain) + 1,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
    )


def run(server: uvicorn.Server, on: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT."""
    before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[on])  # raises the signal again after it has drained, which is no failure
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def address(access: Access, port: int) -> str:
    """The server's own, as a browser takes it."""
    host = access.host
    return f"{access.scheme}://{f'[{host}]' if ':' in host else host}:{port}/"


class Impatient(H11Protocol):
    """Connections that open and then ask nothing are closed, and those that are left open after an answer. Requests
    find in their state what ends their connection at once, whatever it has not taken yet: "cut"."""

    def connection_made(self, transport: object) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.app_state = {**self.app_state, "cut": self.transport.abort}
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


def check_certificate(certificate: Path | None, key: Path | None) -> None:
    """UsageError for files that are no certificate and its key."""
    if key and not certificate:
        raise UsageError("--key is the key of a certificate; give --certificate, too")
    if certificate:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{certificate}: no certificate with its key, as PEM ({error}); see --certificate and --key"
            ) from error


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens at the address; UsageError where there is none such, or it is taken."""
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
