"""Objects out: C-STORE, or STOW-RS over HTTP (PS3.18 10.5), each file as it is."""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from pynetdicom import _config

from fabrica.errors import UsageError
from fabrica.serving.node.calling import associated, offers_none
from fabrica.serving.node.entries import Outgoing
from fabrica.serving.node.peers import Peer, is_loopback, peer
from fabrica.serving.node.queue import Queue
from fabrica.serving.node.store import Store

SECONDS = 60.0
AT_ONCE = 500  # objects in one association
LONGEST_PAUSE = 300.0
CONTEXTS = 128  # of an association (PS3.8)
PIECE, MOST_SAID = 2**20, 2**20  # bytes of a file sent at once, and of an answer that are looked at
PROCESSING_FAILURE = 0x0110


@dataclass(frozen=True)
class Web:
    """A DICOMweb server: https://host/dicom-web. token: for `Authorization: Bearer`."""

    url: str
    token: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.url


@dataclass
class Delivery:
    """sent: what the other side has. failed: why the rest is not there, "" where all is; lasting: sending it again
    cannot mend it."""

    sent: list[str] = field(default_factory=list)
    failed: str = ""
    lasting: bool = False


def destination(text: str, token: str = "", tls: ssl.SSLContext | None = None) -> Peer | Web:
    """AET@HOST:PORT, or the address of a DICOMweb server; UsageError for anything else."""
    if text.startswith(("http://", "https://")):
        wrong = f"{text!r} is no DICOMweb server; expected e.g. https://archive.example/dicom-web"
        try:
            parts = urlsplit(text)
            usable = parts.hostname and parts.port != 0 and not (parts.username or parts.query or parts.fragment)
        except ValueError as error:
            raise UsageError(f"{wrong} ({error})") from error
        if not usable or not text.isascii() or " " in text:
            raise UsageError(wrong)
        if parts.scheme == "http" and tls:
            raise UsageError(f"{text} is not TLS, and --send-authority is for it; expected https://")
        if parts.scheme == "http" and token and not is_loopback(str(parts.hostname)):
            raise UsageError(f"{text} would carry the token in clear; expected https://")
        if not (token.isascii() and token.isprintable()):
            raise UsageError("the token of the DICOMweb server holds more than printable ASCII characters")
        return Web(text.rstrip("/"), token, tls)
    return peer(text, tls)


def send_next(
    queue: Queue, store: Store, to: Peer | Web, aet: str, most: int, say: Callable[[str], None], now: float
) -> bool:
    """Send what is due of one job; False where nothing is. What fails for a reason that may pass is tried again, up to
    `most` times, after 2, 4, 8 ... seconds, 5 minutes at most; the rest is a dead letter."""
    found = queue.due(now)
    if found is None:
        return False
    job, objects = found
    done = deliver(objects[:AT_ONCE], store, to, aet)
    if done.sent or not objects:
        queue.sent(job.id, done.sent)
    if not done.failed:
        if len(objects) <= AT_ONCE:
            say(f"job {job.id}: {job.model or 'objects for no model'} sent to {to}")
        return True
    if done.lasting or job.tries + 1 >= most:
        queue.refuse(job.id, done.failed)
        say(f"job {job.id} is a dead letter: {done.failed}; --retry {job.id} sends it again")
    else:
        pause = min(LONGEST_PAUSE, 2.0 ** min(job.tries + 1, 20))
        queue.postpone(job.id, done.failed, now + pause)
        say(f"job {job.id}: {done.failed}; again in {pause:g} s")
    return True


def deliver(objects: Sequence[Outgoing], store: Store, to: Peer | Web, aet: str) -> Delivery:
    """Send objects, in their order, up to the first that fails."""
    files = [(each, store.file(each.name)) for each in objects]
    lost = next((path for _, path in files if not path.is_file()), None)
    if lost is not None:
        return Delivery(failed=f"{lost} is gone from the store", lasting=True)
    try:
        return _stow(files, to) if isinstance(to, Web) else _store(files, to, aet)
    except (OSError, http.client.HTTPException) as error:
        return Delivery(failed=f"{to} cannot be reached ({_said(error)})")


def _store(files: Sequence[tuple[Outgoing, Path]], to: Peer, aet: str) -> Delivery:
    _config.STORE_SEND_CHUNKED_DATASET = True  # a file as it is, never decoded
    wanted = list(dict.fromkeys((each.class_uid, each.syntax) for each, _ in files))
    done = Delivery()
    with associated(aet, to, islice(wanted, CONTEXTS), SECONDS) as association:
        if offers_none(association):
            return Delivery(failed=_not_taken(to, *wanted[0]), lasting=True)
        if not association.is_established:
            why = "it rejects this node's AE title, or its own" if association.is_rejected else "no association"
            return Delivery(failed=f"{to} cannot be reached ({why})")
        taken = {(str(each.abstract_syntax), str(each.transfer_syntax[0])) for each in association.accepted_contexts}
        for each, path in files:
            if (each.class_uid, each.syntax) not in wanted[:CONTEXTS]:
                break
            if (each.class_uid, each.syntax) not in taken:
                done.failed, done.lasting = _not_taken(to, each.class_uid, each.syntax), True
                break
            try:
                status = association.send_c_store(path).get("Status") if association.is_established else None
            except RuntimeError:  # it ended between the look and the call
                status = None
            except (ValueError, AttributeError, EOFError, InvalidDicomError) as error:  # it is not what it was
                done.failed, done.lasting = f"{path.name} cannot be sent ({_said(error)})", True
                break
            if status is None:
                done.failed = f"{to} ended the association"
                break
            if status != 0 and status >> 12 != 0xB:  # B000 and the like: taken, with a warning
                done.failed = f"{to} refuses an object with status 0x{status:04X}"
                done.lasting = status >> 8 != 0xA7  # out of resources passes
                break
            done.sent.append(each.uid)
    return done


def _not_taken(to: Peer, class_uid: str, syntax: str) -> str:
    return f"{to} does not take {UID(class_uid).name} as {UID(syntax).name}"


def _stow(files: Sequence[tuple[Outgoing, Path]], to: Web) -> Delivery:
    """One object a request: then the status of the request is the object's own."""
    parts = urlsplit(to.url)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = to.tls or ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    done = Delivery()
    try:
        for each, path in files:
            boundary = secrets.token_hex(16)
            head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode("ascii")
            tail = f"\r\n--{boundary}--\r\n".encode("ascii")
            headers: dict[str, Any] = {
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                "Content-Length": str(len(head) + path.stat().st_size + len(tail)),
                "Accept": "application/dicom+json",
            }
            if to.token:
                headers["Authorization"] = f"Bearer {to.token}"
            connection.request("POST", f"{parts.path}/studies", _pieces(head, path, tail), headers)
            answer = connection.getresponse()
            said = answer.read(MOST_SAID)
            if answer.status not in (200, 202):
                done.failed = f"{to} refuses an object with HTTP {answer.status} {answer.reason}"
                done.lasting = answer.status < 500 and answer.status not in (401, 403, 408, 429)
                break
            if reason := _failure(said):
                done.failed = f"{to} refuses an object with failure reason 0x{reason:04X}"
                done.lasting = reason >> 8 != 0xA7
                break
            done.sent.append(each.uid)
    finally:
        connection.close()
    return done


def _pieces(head: bytes, path: Path, tail: bytes) -> Iterator[bytes]:
    """A request's body, of a file of which only a piece is in memory."""
    yield head
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece
    yield tail


def _failure(said: bytes) -> int:
    """Why the object was not stored, where the answer names it in its FailedSOPSequence, as one of status 202 may
    (PS3.18 10.5.3); 0 where it was."""
    try:
        answer = json.loads(said)
        failed = (answer[0] if isinstance(answer, list) else answer).get("00081198", {}).get("Value")
    except (ValueError, AttributeError, IndexError):  # no JSON: the status alone says it
        return 0
    if not failed:
        return 0
    try:
        return int(failed[0]["00081197"]["Value"][0])
    except (ValueError, KeyError, IndexError, TypeError):
        return PROCESSING_FAILURE


def _said(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]
