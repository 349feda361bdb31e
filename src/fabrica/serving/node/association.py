"""One association: how its messages are read, and how an object is answered.

pynetdicom speaks the protocol. What is put under it here are files in place of memory, and limits (`connection`: waits
in place of looks).
"""

from __future__ import annotations

import itertools
import os
import queue
import re
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any, cast

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from fabrica.serving.node.arriving import Arriving, file_meta
from fabrica.serving.node.connection import IDLE, Connection, Telling, Wake, give_up
from fabrica.serving.node.storing import COMMAND, StoreRequest, request, response
from fabrica.serving.node.storing import LAST as LAST_FRAGMENT
from fabrica.serving.node.terms import Terms, shown

UID = re.compile(r"[0-9.]{1,64}")
SUCCESS, NO_ROOM, NOT_UNDERSTOOD, BAD_UID = 0x0000, 0xA700, 0xC000, 0x0117

MOST_IN_MEMORY = 2**24  # bytes of a message whose command comes in an unusual form
PAUSE = 0.0002  # seconds between two looks that find nothing

_numbers = itertools.count()


def fitted(association: Association, terms: Terms, say: Callable[[str], None]) -> Association:
    """An association that pynetdicom has just made, with the parts of this module in it."""
    messages, provider, waits = Messages(association, terms, say), association.dul, Wake()
    association.dimse = messages
    provider.to_provider_queue = Telling(waits.wake)
    provider.to_user_queue = Telling(messages.wake)
    provider._run_loop_delay = PAUSE
    assert provider.socket is not None
    provider.socket.__class__ = Connection
    cast(Connection, provider.socket).waits = waits
    return association


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


def _kept(arriving: Arriving, uid: str, association: Association, say: Callable[[str], None]) -> tuple[int, str]:
    """The status of an object that has come to its end, success once it is on the disk, and a comment."""
    sender = shown(str(association.requestor.ae_title))
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


def _name() -> str:
    """Of a file, in the order in which objects came; nothing that a sender says is in it."""
    return f"{time.time_ns()}-{os.getpid()}-{next(_numbers)}"
