"""C-STORE as bytes, against pynetdicom's own reading and writing of the same."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest

pytest.importorskip("pynetdicom")

from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, C_STORE_RSP, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu_primitives import P_DATA

from fabrica.serving.node.storing import StoreRequest, request, response

UIDS = st.from_regex(r"[12](\.[1-9][0-9]{0,5}){1,8}", fullmatch=True)


def asked(message: int, instance: str, move: bool = False, data: bool = True) -> bytes:
    """The command as pynetdicom sends it."""
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = message, 1
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = CTImageStorage, instance
    primitive.DataSet = BytesIO(b"12345678") if data else None
    if move:
        primitive.MoveOriginatorApplicationEntityTitle, primitive.MoveOriginatorMessageID = "MOVER", 7
    made = C_STORE_RQ()
    made.primitive_to_message(primitive)
    return bytes(next(iter(made.encode_msg(5, 16384))).presentation_data_value_list[0][1])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 65535), UIDS, st.booleans())
def test_requests_are_read_as_pynetdicom_writes_them(message: int, instance: str, move: bool) -> None:
    assert request(5, asked(message, instance, move)) == StoreRequest(5, message, CTImageStorage, instance)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 65535), UIDS, st.sampled_from([0, 0xA700, 0xC000, 0x0117]), st.text("abc", max_size=64))
def test_responses_are_read_by_pynetdicom(message: int, instance: str, status: int, comment: str) -> None:
    answer = P_DATA()
    fragment = response(StoreRequest(5, message, CTImageStorage, instance), status, comment)
    values: list[Any] = [[5, fragment]]
    answer.presentation_data_value_list = values
    read = DIMSEMessage()
    assert read.decode_msg(answer)
    assert isinstance(read, C_STORE_RSP)
    found = read.message_to_primitive()
    assert isinstance(found, C_STORE)
    assert (found.MessageIDBeingRespondedTo, found.Status) == (message, status)
    assert (found.AffectedSOPClassUID, found.AffectedSOPInstanceUID) == (CTImageStorage, instance)
    assert (read.command_set.get("ErrorComment") or "") == comment


def test_what_is_another_message_is_left_to_pynetdicom() -> None:
    echo = C_ECHO()
    echo.MessageID = 1
    made = C_ECHO_RQ()
    made.primitive_to_message(echo)
    fragment = bytes(next(iter(made.encode_msg(1, 16384))).presentation_data_value_list[0][1])
    assert request(1, fragment) is None
    assert request(1, asked(1, "1.2", data=False)) is None  # no data set follows
    assert request(1, b"") is None


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damaged_commands_are_none_or_hold_what_they_say(data: st.DataObject) -> None:
    whole = bytearray(asked(9, "1.2.3"))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    found = request(5, bytes(whole[: data.draw(st.integers(1, len(whole)))]))
    assert found is None or len(found.instance_uid) <= len(whole)
