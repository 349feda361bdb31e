"""Objects in: C-ECHO and C-STORE by pynetdicom, in processes behind one port.

Nothing is decoded. An object is answered with success once it is safe on the disk (`arriving`).
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from socketserver import BaseServer
from typing import Any, cast

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made when it is imported
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from fabrica.errors import FabricaError, UsageError
from fabrica.serving.node.association import closed, fitted, stored
from fabrica.serving.node.connection import PDU
from fabrica.serving.node.terms import Terms, requested

HANDSHAKE = 10.0  # seconds that a TLS handshake may be silent
LINGER = 5.0  # seconds that open connections have to end by themselves


def listening(host: str, port: int, patience: float = 5.0) -> socket.socket:
    """A socket that listens, which several processes may share; FabricaError where the port is taken, once the
    processes of a node that was killed have had `patience` seconds to end."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    end = time.monotonic() + patience
    while True:
        found = socket.socket(family, kind)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen(128)
            found.setblocking(False)  # who comes second to a connection finds none
        except OSError as error:
            found.close()
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                raise FabricaError(
                    f"{host} port {port} cannot be listened on ({error.strerror}); choose another --port or --host"
                ) from error
            time.sleep(0.1)
        else:
            return found


def tls(certificate: tuple[Path, Path] | None, authority: Path | None) -> ssl.SSLContext | None:
    """The context of a server: its certificate and key as PEM files, and of whom it asks certificates."""
    if certificate is None:
        if authority:  # who asks for senders' certificates must not be spoken to in clear
            raise UsageError("--authority needs TLS; give --certificate and --key too")
        return None
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority) if authority else None)
        context.load_cert_chain(*(str(path) for path in certificate))
    except (OSError, ssl.SSLError) as error:
        said = error.strerror or str(error)
        raise UsageError(f"TLS cannot be set up of {certificate[0]} and {certificate[1]}: {said}") from error
    if authority:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def serve(listener: socket.socket, terms: Terms, alive: Any, say: Callable[[str], None] | None = None) -> None:
    """Receive until the other end of `alive` (a pipe's end) is closed: the main function of a receiving process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which then closes the pipe
    server = start(listener, terms, say or _say)
    try:
        while not alive.poll(None):
            pass
        alive.recv()
    except (EOFError, OSError):
        pass
    server.stop()
    os._exit(0)  # threads of connections that are open still: what they had not finished was not answered


def start(listener: socket.socket, terms: Terms, say: Callable[[str], None]) -> Server:
    """The same in threads of this process."""
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    _config.LOG_HANDLER_LEVEL = "none"
    _config.UNRESTRICTED_STORAGE_SERVICE = True  # private objects too: they are kept or forwarded
    ae = AE(terms.aet)
    ae.add_supported_context(Verification)
    ae.require_called_aet = True
    ae.maximum_pdu_size, ae.maximum_associations = PDU, terms.associations
    ae.network_timeout = ae.dimse_timeout = terms.timeout
    ae.acse_timeout = min(10.0, terms.timeout)
    handlers: list[Any] = [
        (evt.EVT_REQUESTED, requested, [terms, say]),
        (evt.EVT_C_STORE, stored, [terms, say]),
        (evt.EVT_CONN_CLOSE, closed),
    ]
    made = ae.make_server(
        listener.getsockname(),
        evt_handlers=handlers,
        server_class=Server,
        request_handler=_Request,
        listener=listener,
        terms=terms,
        say=say,
    )
    server = cast(Server, made)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, daemon=True).start()
    return server


class Server(ThreadedAssociationServer):
    """pynetdicom's, on a socket that listens already."""

    daemon_threads = True

    def __init__(
        self, *given: Any, listener: socket.socket, terms: Terms, say: Callable[[str], None], **others: Any
    ) -> None:
        self.listener, self.terms, self.say = listener, terms, say
        self.beginning: set[Any] = set()  # addresses of connections that have not got to an association yet
        self.context = tls(terms.certificate, terms.authority)
        super().__init__(*given, **others)

    def server_bind(self) -> None:
        assert self.socket is not None
        self.socket.close()
        self.socket = self.listener
        self.server_address = self.listener.getsockname()

    def server_activate(self) -> None:
        """It is active."""

    def server_close(self) -> None:
        """Close this process's end alone; other processes go on listening."""
        self.listener.close()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether to listen to a host at all."""
        most = 4 * self.terms.associations
        if not self.terms.knows(client_address[0]) or len(self.beginning) >= most:
            return False
        if len(self.active_associations) >= most:
            return False
        self.beginning.add(client_address)
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that fails before it says anything: a failed TLS handshake, say. Nothing to keep."""
        self.beginning.discard(client_address)

    def stop(self) -> None:
        """Take no more connections, and give those that are open a moment to finish their object."""
        BaseServer.shutdown(self)
        self.server_close()
        end = time.monotonic() + LINGER
        while any(each.is_established for each in self.active_associations) and time.monotonic() < end:
            time.sleep(0.05)


class _Request(RequestHandler):
    """A connection, with what reads, counts and limits it."""

    server: Server

    def handle(self) -> None:
        terms = self.server.terms
        if self.server.context:  # in this connection's own thread: a slow handshake keeps nobody waiting
            self.request.settimeout(min(HANDSHAKE, terms.timeout))
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        self.request.settimeout(terms.timeout)
        super().handle()
        self.server.beginning.discard(self.client_address)  # counted among the associations from here on

    def _create_association(self) -> Association:
        return fitted(super()._create_association(), self.server.terms, self.server.say)


def _say(line: str) -> None:
    print(f"fabrica node: {line}", file=sys.stderr, flush=True)
