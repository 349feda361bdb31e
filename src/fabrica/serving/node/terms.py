"""On what terms objects are taken: from whom, how many at once and how large, and in which transfer syntax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

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
from pynetdicom.pdu_primitives import A_ASSOCIATE

from fabrica.serving.node.peers import Allowed, plain

LOSSLESS = (JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLossless, RLELossless, HTJ2KLossless,
            HTJ2KLosslessRPCL)  # fmt: skip
LAST = (ExplicitVRBigEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
NO_SUCH_TITLE = (1, 1, 3)  # rejected for good, by the user, calling AE title not recognised (PS3.8 9.3.4)


@dataclass(frozen=True)
class Terms:
    """On what terms objects are taken.

    allow         who may send; () for everybody, which is for loopback alone.
    associations  at once. largest: bytes of an object.
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


def requested(event: evt.Event, terms: Terms, say: Callable[[str], None]) -> None:
    """Refuse who is not allowed; else order each proposal as it suits: lossless compression first, so that what was
    compressed stays so, then what the sender names first, Implicit VR last, since private elements lose their VR."""
    association = event.assoc
    request = cast(A_ASSOCIATE, association.requestor.primitive)
    aet, address = str(request.calling_ae_title).strip(), association.requestor.address
    if not terms.admits(aet, str(address)):
        say(f"refused {shown(aet)} at {address}, who is not allowed (--allow)")
        association.acse.send_reject(*NO_SUCH_TITLE)
        association.kill()
        return
    if str(request.called_ae_title).strip() != terms.aet:  # pynetdicom rejects it
        say(f"refused {shown(aet)} at {address}, who calls {shown(str(request.called_ae_title))}; this is {terms.aet}")
    for context in request.presentation_context_definition_list:
        context.transfer_syntax = sorted(context.transfer_syntax, key=_rank)


def _rank(syntax: Any) -> int:
    """Sorting is stable: what is of one rank stays in the sender's order."""
    if syntax in LOSSLESS:
        return 0
    return 2 + LAST.index(syntax) if syntax in LAST else 1


def shown(text: str) -> str:
    """What a stranger sent, fit for a line of a log."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text.strip()[:16]) or "?"
