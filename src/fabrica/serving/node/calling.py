"""Associations that the node asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.association import Association

from fabrica.serving.node.peers import Peer

PDU = 128 * 1024


@contextmanager
def associated(
    aet: str, peer: Peer, contexts: Iterable[tuple[str, str | Sequence[str] | None]], seconds: float
) -> Iterator[Association]:
    """An association with a peer for these classes, each in a transfer syntax, one of several, or (None) the usual
    ones; `is_established` says whether it came about. seconds: to wait for an answer."""
    ae = AE(aet)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = seconds
    for class_uid, syntax in contexts:
        ae.add_requested_context(class_uid, *([syntax] if syntax else []))
    connections: list[Any] = []

    def asked(event: evt.Event) -> None:
        if (ours := event.assoc.dul.socket) and ours.socket:
            connections.append(ours.socket)

    found = ae.associate(
        peer.host,
        peer.port,
        ae_title=peer.aet,
        max_pdu=PDU,
        tls_args=(peer.tls, peer.host) if peer.tls else None,
        evt_handlers=[(evt.EVT_ACSE_SENT, asked)],
    )
    try:
        yield found
    finally:
        if found.is_established:
            found.release()
        for connection in connections:  # pynetdicom leaves those that failed to the garbage collector
            connection.close()


def offers_none(association: Association) -> bool:
    """Whether the peer took the association and none of its classes."""
    return bool(association.rejected_contexts) and not association.is_rejected and not association.is_established
