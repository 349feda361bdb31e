"""What is derived from a secret key: the same for the same key, and of no use to whoever lacks it."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from fabrica.errors import UsageError

LEAST = 16  # bytes of a key
LONGEST_SHIFT = 3652  # days: ten years
STANDARD_ROOT = "1.2.840.10008."  # of UIDs that the standard itself gives to things, and that identify nobody
_PSEUDONYM = re.compile(r"F[0-9A-F]{15}")


@dataclass(frozen=True)
class Key:
    """A secret, and what HMAC-SHA-256 makes of values with it (RFC 2104)."""

    secret: bytes = field(repr=False)

    def _digest(self, kind: str, value: str) -> bytes:
        return hmac.new(self.secret, f"{kind}\0{value}".encode(), hashlib.sha256).digest()

    def uid(self, uid: str) -> str:
        """The new UID of a UID: a UUID of version 8 (RFC 9562) under 2.25 (PS3.5 B.2). UIDs of the standard stay."""
        if is_of_standard(uid) or not uid:
            return uid
        number = int.from_bytes(self._digest("uid", uid)[:16])
        number = number & ~(0xF << 76 | 0x3 << 62) | 8 << 76 | 2 << 62
        return f"2.25.{number}"

    def pseudonym(self, patient: str) -> str:
        """What stands for a patient: F and 15 hexadecimal digits."""
        return "F" + self._digest("patient", patient).hex()[:15].upper()

    def days(self, patient: str) -> int:
        """By how many days all dates of a patient are moved: 1 to 3652 into the past."""
        return -1 - int.from_bytes(self._digest("days", patient)) % LONGEST_SHIFT

    def name(self, kind: str, value: str) -> str:
        """A name for a folder or file: 16 hexadecimal digits."""
        return self._digest(kind, value).hex()[:16]


def read_key(path: Path) -> Key:
    """The key that a file holds; line ends after it do not count. UsageError for one that is too short, or that every
    account of the machine can read: with it, pseudonyms of known patients can be computed."""
    try:
        secret = path.read_bytes().rstrip(b"\r\n")
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(f"{path}: the key cannot be read ({error.strerror or error})") from error
    if len(secret) < LEAST:
        raise UsageError(
            f"{path}: a key of {len(secret)} bytes, expected at least {LEAST}; make one: "
            f"(umask 077; head -c 32 /dev/urandom > {path.name})"
        )
    if os.name == "posix" and mode & stat.S_IROTH:
        raise UsageError(
            f"{path}: everybody can read the key, and so link pseudonyms to patients; chmod 600 {path.name}"
        )
    return Key(secret)


def is_of_standard(uid: str) -> bool:
    """Whether a UID names a thing of the standard: a class, a transfer syntax, a well-known frame of reference."""
    return uid.startswith(STANDARD_ROOT)


def is_made(uid: str) -> bool:
    """Whether a UID is one that `Key.uid` makes, of whatever key."""
    root, _, number = uid.rpartition(".")
    if root != "2.25" or not number.isascii() or not number.isdigit() or int(number) >= 1 << 128:
        return False
    found = UUID(int=int(number))
    return found.int >> 76 & 0xF == 8 and found.int >> 62 & 3 == 2


def is_pseudonym(text: str) -> bool:
    """Whether a text is one that `Key.pseudonym` makes, of whatever key."""
    return _PSEUDONYM.fullmatch(text) is not None
