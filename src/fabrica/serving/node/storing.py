"""C-STORE as bytes: the command that comes, and the answer (PS3.7 9.3.1, 6.3.1: implicit VR, little endian).

pynetdicom makes data sets of both, which takes three quarters of the time that an object of half a megabyte takes. So
the usual form is read and written here; whatever looks otherwise is left to pynetdicom.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct, pack, unpack

COMMAND, LAST = 1, 2  # bits of a fragment's first byte (PS3.8 annex E)
_STORE, _STORE_RESPONSE, _NO_DATA = 0x0001, 0x8001, 0x0101
_HEAD = Struct("<HHL")


@dataclass(frozen=True)
class StoreRequest:
    """What a C-STORE-RQ says of the data set that follows."""

    context: int
    message: int
    class_uid: str
    instance_uid: str


def request(context: int, fragment: bytes) -> StoreRequest | None:
    """The C-STORE-RQ in a fragment that holds all of it, with a data set to follow; None for anything else."""
    if not fragment or fragment[0] & 3 != COMMAND | LAST:
        return None
    elements: dict[int, bytes] = {}
    position = 1
    while position < len(fragment):
        if position + 8 > len(fragment):
            return None
        group, number, length = _HEAD.unpack_from(fragment, position)
        start = position + 8
        if group != 0 or start + length > len(fragment):
            return None
        elements[number] = fragment[start : start + length]
        position = start + length
    if _short(elements.get(0x0100)) != _STORE or _short(elements.get(0x0800)) in (None, _NO_DATA):
        return None
    message = _short(elements.get(0x0110))
    if message is None or 0x0002 not in elements or 0x1000 not in elements:
        return None
    uids = (elements[number].decode("ascii", "replace").rstrip("\0 ") for number in (0x0002, 0x1000))
    return StoreRequest(context, message, *uids)


def response(asked: StoreRequest, status: int, comment: str = "") -> bytes:
    """The C-STORE-RSP as one fragment."""
    body = _element(0x0002, _text(asked.class_uid, b"\0"))
    body += _element(0x0100, pack("<H", _STORE_RESPONSE)) + _element(0x0120, pack("<H", asked.message))
    body += _element(0x0800, pack("<H", _NO_DATA)) + _element(0x0900, pack("<H", status))
    if comment:
        body += _element(0x0902, _text(comment[:64], b" "))
    body += _element(0x1000, _text(asked.instance_uid, b"\0"))
    return bytes([COMMAND | LAST]) + _element(0x0000, pack("<L", len(body))) + body


def _short(value: bytes | None) -> int | None:
    return int(unpack("<H", value)[0]) if value is not None and len(value) == 2 else None


def _element(number: int, value: bytes) -> bytes:
    return _HEAD.pack(0, number, len(value)) + value


def _text(text: str, filler: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + filler * (len(value) % 2)
