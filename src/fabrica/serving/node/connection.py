"""A connection as pynetdicom reads it, with waits in place of looks and large reads in place of small ones."""

from __future__ import annotations

import os
import queue
import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

PDU = 128 * 1024
"""Bytes of a PDU that senders are asked for: DCMTK sends no larger ones."""

IDLE = 0.5  # seconds after which threads of a connection look up


class Telling(queue.Queue[Any]):
    """A queue that says when something was put into it."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._tell()


class Wake:
    """What can be waited for beside a connection: a pipe that holds something once it was woken."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        return self._read

    def wake(self) -> None:
        with suppress(BlockingIOError):  # it is full of earlier calls
            os.write(self._write, b"\0")

    def clear(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._read, 4096)

    def __del__(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Connection(AssociationSocket):
    """Waits for the peer, or for something to send to it, where pynetdicom looks a thousand times a second; reads a PDU
    in as few pieces as the system gives it in, and none larger than was agreed on."""

    waits: Wake

    @property
    def ready(self) -> bool:
        if self.socket is None or self._is_connected is False:
            return False
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        both: list[Any] = [self.socket, self.waits]
        try:
            found, _, _ = select.select(both, [], [], IDLE)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # the connection is closed
            return False
        if self.waits in found:
            self.waits.clear()
        return self.socket in found

    def _shutdown_socket(self) -> None:
        """Close it even where the peer has done so before, which pynetdicom leaves to the garbage collector."""
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()

    def recv(self, nr_bytes: int) -> bytearray:
        if nr_bytes > PDU + 6:
            raise OSError("a PDU larger than agreed on")
        assert self.socket is not None
        buffer, filled = bytearray(nr_bytes), 0
        view = memoryview(buffer)
        while filled < nr_bytes:
            count = self.socket.recv_into(view[filled:])
            if not count:
                give_up(self.assoc)
                return buffer[:filled]
            filled += count
        return buffer


def give_up(association: Association) -> None:
    """Who went away before there was an association is not waited for: pynetdicom would count him among its
    associations until its time is over."""
    if not association.is_established:
        association.dul.to_user_queue.put(cast(Any, None))
