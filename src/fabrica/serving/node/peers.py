"""Who the node talks to: AE titles, hosts and ports."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fabrica.errors import UsageError

ANY = "*"


@dataclass(frozen=True)
class Peer:
    """AET@HOST:PORT; tls: what it is spoken to by, where that is TLS."""

    aet: str
    host: str
    port: int
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.aet}@{host}:{self.port}"


@dataclass(frozen=True)
class Allowed:
    """A sender that may send: AET@HOST, either of them `*`. addresses: what HOST is, () for any."""

    aet: str
    addresses: tuple[str, ...]

    def admits(self, aet: str, address: str) -> bool:
        return self.aet in (ANY, aet) and (not self.addresses or plain(address) in self.addresses)


def peer(text: str, tls: ssl.SSLContext | None = None) -> Peer:
    """AET@HOST:PORT; UsageError for anything else."""
    aet, at, place = text.partition("@")
    host, colon, port = place.rpartition(":")
    if not (at and colon and host and port.isdigit() and 0 < int(port) < 65536):
        raise UsageError(f"{text!r} is no peer; expected AET@HOST:PORT, e.g. ARCHIVE@127.0.0.1:4242")
    return Peer(checked_title(aet), host.strip("[]"), int(port), tls)


def allowed(text: str) -> Allowed:
    """AET, AET@HOST or *@HOST, a name of a host looked up once; UsageError for anything else."""
    aet, at, host = text.partition("@")
    if at and not host:
        raise UsageError(f"--allow {text}; expected AET, AET@HOST or *@HOST")
    title = aet if aet == ANY else checked_title(aet)
    if host in ("", ANY):
        if title == ANY:
            raise UsageError(f"--allow {text} would let everybody in; expected AET, AET@HOST or *@HOST")
        return Allowed(title, ())
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, proto=socket.IPPROTO_TCP)
    except OSError as error:
        raise UsageError(f"--allow {text}: host {host!r} is not known ({error.strerror}); give its address") from error
    return Allowed(title, tuple(sorted({plain(str(each[4][0])) for each in found})))


def trusting(authority: Path, certificate: Sequence[Path] = ()) -> ssl.SSLContext:
    """TLS to those whose certificates an authority (PEM) has signed; certificate: this node's own and its key."""
    try:
        context = ssl.create_default_context(cafile=str(authority))
        if certificate:
            context.load_cert_chain(*(str(path) for path in certificate))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"TLS cannot be set up of {authority}: {error.strerror or error}") from error
    return context


def checked_title(aet: str) -> str:
    """An AE title: 1 to 16 printable ASCII characters without a backslash (PS3.5 6.2); UsageError for others."""
    found = aet.strip()
    if not (0 < len(found) <= 16 and found.isascii() and found.isprintable() and "\\" not in found):
        raise UsageError(f"{aet!r} is no AE title; expected 1 to 16 ASCII characters without a backslash")
    return found


def plain(address: str) -> str:
    """An IP address in one spelling, IPv4 within IPv6 as IPv4."""
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(inner or found)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address, or all that a name stands for."""
    try:
        return all(
            ipaddress.ip_address(str(each[4][0]).partition("%")[0]).is_loopback
            for each in socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
        )
    except OSError as error:
        raise UsageError(f"host {host!r} is not known ({error.strerror}); give an address of this machine") from error
