"""One connection: who may use it, what is taken, how it is read, and how an object is answered.

pynetdicom speaks the protocol. What is put under it here are waits in place of looks, large reads in place of small
ones, files in place of memory, and limits.
"""

from __future__ import annotations

import itertools
import os
import queue
import re
import select
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast

from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA
from pynetdicom.transport import AssociationSocket

from fabrica.serving.node.arriving import Arriving, file_meta
from fabrica.serving.node.peers import Allowed, plain
from fabrica.serving.node.storing import COMMAND, StoreRequest, request, response
from fabrica.serving.node.storing import LAST as LAST_FRAGMENT

PDU = 128 * 1024
"""Bytes of a PDU that senders are asked for: DCMTK sends no larger ones."""

LOSSLESS = (JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLossless, RLELossless, HTJ2KLossless,
            HTJ2KLosslessRPCL)  # fmt: skip
LAST = (ExplicitVRBigEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
UID = re.compile(r"[0-9.]{1,64}")
SUCCESS, NO_ROOM, NOT_UNDERSTOOD, BAD_UID = 0x0000, 0xA700, 0xC000, 0x0117
NO_SUCH_TITLE = (1, 1, 3)  # rejected for good, by the user, calling AE title not recognised (PS3.8 9.3.4)

IDLE = 0.5  # seconds after which threads of a connection look up
MOST_IN_MEMORY = 2**24  # bytes of a message whose command comes in an unusual form
PAUSE = 0.0002  # seconds between two looks that find nothing

_numbers = itertools.count()


@dataclass(frozen=True)
class Terms:
    """On what terms objects are taken.

    allow         who may send; () for everybody, which is for loopback alone.
    associations  at once, in each of the processes. largest: bytes of an object.
    spare         bytes of the disk that stay free.
    timeout       seconds that a connection may be silent.
    certificate   and its key, PEM: TLS. authority: who has signed the certificates that senders need.
    """

    aet: str
    incoming: Path
    allow: tuple[Allowed, ...] = ()
    associations: int = 20
    largest: int = 2 * 2**30
    spare: int = 2**30
    timeout: float = 60
    certificate: tuple[Path, Path] | None = None
    authority: Path | None = None

    def admits(self, aet: str, address: str) -> bool:
        return not self.allow or any(each.admits(aet, address) for each in self.allow)

    def knows(self, address: str) -> bool:
        """Whether anybody may send from there."""
        return not self.allow or any(not each.addresses or plain(address) in each.addresses for each in self.allow)


def fitted(association: Association, terms: Terms, say: Callable[[str], None]) -> Association:
    """An association that pynetdicom has just made, with the parts of this module in it."""
    messages, provider, waits = Messages(association, terms, say), association.dul, _Wake()
    association.dimse = messages
    provider.to_provider_queue = _Telling(waits.wake)
    provider.to_user_queue = _Telling(messages.wake)
    provider._run_loop_delay = PAUSE
    assert provider.socket is not None
    provider.socket.__class__ = _Connection
    cast(_Connection, provider.socket).waits = waits
    return association


class _Telling(queue.Queue[Any]):
    """A queue that says when something was put into it."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._tell()


class _Wake:
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


class _Connection(AssociationSocket):
    """Waits for the peer, or for something to send to it, where pynetdicom looks a thousand times a second; reads a PDU
    in as few pieces as the system gives it in, and none larger than was agreed on."""

    waits: _Wake

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


class Messages(DIMSEServiceProvider):
    """Data sets go into files as they come, and are answered by the thread that reads them. What is no message of
    DICOM ends the association."""

    def __init__(self, association: Association, terms: Terms, say: Callable[[str], None]) -> None:
        super().__init__(association)
        self._terms, self._say = terms, say
        self._storing: tuple[StoreRequest, Arriving] | None = None

    def wake(self) -> None:
        """Let the association look at what else there is: a release, an abort."""
        self.msg_queue.put((None, None))

    def get_msg(self, block: bool = False) -> Any:
        """Waits a while in any case: pynetdicom asks a thousand times a second."""
        try:
            return self.msg_queue.get(timeout=IDLE)
        except queue.Empty:
            return None, None

    def receive_primitive(self, primitive: Any) -> None:
        values = primitive.presentation_data_value_list
        try:
            if self.message is None and self._storing is None and (asked := request(*values[0])):
                self._storing, values = (asked, self._arriving(asked)), values[1:]
            if self._storing is None:
                super().receive_primitive(primitive)
                self._check_size()
            for context, data in values if self._storing else ():
                self._store(context, data)
        except Exception:
            self.drop()
            self.dul.event_queue.put("Evt19")  # as pynetdicom itself says that a PDU is none

    def drop(self) -> None:
        """Nothing stays of an object that did not come to its end."""
        if self._storing:
            self._storing[1].drop()
        self._storing = None

    def _check_size(self) -> None:
        """ValueError where what is left to pynetdicom, which keeps it in memory, is larger than anything usual."""
        if self.message is not None:
            size = self.message.encoded_command_set.tell() + cast(BytesIO, self.message.data_set).tell()
            if size > MOST_IN_MEMORY:
                raise ValueError("a message of an unusual form and size")

    def _store(self, context: int, data: bytes) -> None:
        if self._storing is None or context != self._storing[0].context or data[0] & COMMAND:
            raise ValueError("a fragment of another message")
        asked, arriving = self._storing
        arriving.write(memoryview(data)[1:])
        if data[0] & LAST_FRAGMENT:
            self._storing = None
            status, comment = _kept(arriving, asked.instance_uid, self.assoc, self._say)
            answer = P_DATA()
            values: list[Any] = [[context, response(asked, status, comment)]]
            answer.presentation_data_value_list = values
            self.dul.send_pdu(answer)

    def _arriving(self, asked: StoreRequest) -> Arriving:
        terms = self._terms
        syntaxes = {context.context_id: context.transfer_syntax[0] for context in self.assoc.accepted_contexts}
        sender = self.assoc.requestor.ae_title
        meta = file_meta(asked.class_uid, asked.instance_uid, syntaxes[asked.context], sender)
        return Arriving(terms.incoming, _name(), meta, terms.largest, terms.spare)


def requested(event: evt.Event, terms: Terms, say: Callable[[str], None]) -> None:
    """Refuse who is not allowed; else order each proposal as it suits: lossless compression first, so that what was
    compressed stays so, then what the sender names first, Implicit VR last, since private elements lose their VR."""
    association = event.assoc
    request = cast(A_ASSOCIATE, association.requestor.primitive)
    aet, address = str(request.calling_ae_title).strip(), association.requestor.address
    if not terms.admits(aet, str(address)):
        say(f"refused {_shown(aet)} at {address}, who is not allowed (--allow)")
        association.acse.send_reject(*NO_SUCH_TITLE)
        association.kill()
        return
    if str(request.called_ae_title).strip() != terms.aet:  # pynetdicom rejects it
        say(
            f"refused {_shown(aet)} at {address}, who calls {_shown(str(request.called_ae_title))}; this is {terms.aet}"
        )
    for context in request.presentation_context_definition_list:
        context.transfer_syntax = sorted(context.transfer_syntax, key=_rank)


def _rank(syntax: Any) -> int:
    """Sorting is stable: what is of one rank stays in the sender's order."""
    if syntax in LOSSLESS:
        return 0
    return 2 + LAST.index(syntax) if syntax in LAST else 1


def _kept(arriving: Arriving, uid: str, association: Association, say: Callable[[str], None]) -> tuple[int, str]:
    """The status of an object that has come to its end, success once it is on the disk, and a comment."""
    sender = _shown(str(association.requestor.ae_title))
    if not arriving.refused and not UID.fullmatch(uid):
        arriving.drop()
        say(f"refused an object of {sender}: its SOP Instance UID is no UID")
        return BAD_UID, "SOP Instance UID is no UID"
    if not arriving.refused and not arriving.size:
        arriving.drop()
        return NOT_UNDERSTOOD, "no data set"
    arriving.keep()
    if not arriving.refused:
        return SUCCESS, ""
    say(f"refused an object of {sender}: {arriving.refused}")
    return NO_ROOM, arriving.refused


def stored(event: evt.Event, terms: Terms, say: Callable[[str], None]) -> Any:
    """An object whose command came in a form that is left to pynetdicom."""
    asked, context = cast(C_STORE, event.request), event.context
    uids = str(asked.AffectedSOPClassUID), str(asked.AffectedSOPInstanceUID)
    meta = file_meta(*uids, str(context.transfer_syntax), event.assoc.requestor.ae_title)
    arriving = Arriving(terms.incoming, _name(), meta, terms.largest, terms.spare)
    if asked.DataSet is not None:
        arriving.write(asked.DataSet.getbuffer())
    status = Dataset()
    status.Status, comment = _kept(arriving, uids[1], event.assoc, say)
    if comment:
        status.ErrorComment = comment[:64]
    return status


def closed(event: evt.Event) -> None:
    """A connection has ended: nothing stays of an object that did not come to its end."""
    if isinstance(event.assoc.dimse, Messages):
        event.assoc.dimse.drop()
    give_up(event.assoc)


def give_up(association: Association) -> None:
    """Who went away before there was an association is not waited for: pynetdicom would count him among its
    associations until its time is over."""
    if not association.is_established:
        association.dul.to_user_queue.put(cast(Any, None))


def _name() -> str:
    """Of a file, in the order in which objects came; nothing that a sender says is in it."""
    return f"{time.time_ns()}-{os.getpid()}-{next(_numbers)}"


def _shown(text: str) -> str:
    """What a stranger sent, fit for a line of a log."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text.strip()[:16]) or "?"
