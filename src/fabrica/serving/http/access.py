"""Who may ask a server, as pure functions: where it listens, the token that is asked for then, Host and Origin.

A server that listens on the loopback address alone is asked by whoever works on the machine, and by every page that
their browser has open. Such a page is kept out by its Origin, and one whose name was bound to 127.0.0.1 meanwhile (DNS
rebinding) by its Host. Everything else needs a token.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from fabrica.errors import UsageError

TOKEN = "FABRICA_TOKEN"
"""The environment variable that may hold the token."""
SHORTEST = 16  # characters of a token: 96 bits of base64
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_PORTS = {"http": 80, "https": 443}

Headers = Sequence[tuple[bytes, bytes]]
"""As ASGI gives them: names in lower case."""


@dataclass(frozen=True)
class Access:
    """Who may ask.

    host    the address that the server is bound to. token: "" for none.
    names   further names that it may be asked by, in lower case, without ports.
    scheme  "http", or "https" where the server itself has a certificate.
    """

    host: str = "127.0.0.1"
    token: str = ""
    names: frozenset[str] = frozenset()
    scheme: str = "http"


@dataclass(frozen=True)
class Refusal:
    """Why somebody may not ask: a status of HTTP, and one line."""

    status: int
    line: str


def loopback(host: str) -> bool:
    """Whether an address, or `localhost`, is this machine's own, which nobody else reaches."""
    try:
        return host.lower() == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def access(
    host: str,
    token_file: Path | None,
    environment: Mapping[str, str],
    names: Iterable[str] = (),
    secure: bool = False,
    *,
    personal: bool = False,
) -> Access:
    """What was asked for on the command line, checked.

    environment   that of the process, for TOKEN. names: of the server, beside its addresses. secure: it has a
                  certificate. personal: everybody who asks has a token of his own, and the application checks it.

    Raises UsageError for an address beyond this machine without a token, and for tokens and names that are none.
    """
    token = read_token(token_file, environment)
    if not loopback(host) and not token and not personal:
        raise UsageError(
            f"{host} can be reached from other machines, and then a token is needed; write one of {SHORTEST} "
            f"characters or more into a file and give --token-file FILE, or set {TOKEN}"
        )
    for name in names:
        found = _HOST.fullmatch(name)
        if not found or found[2]:
            raise UsageError(f"--name {name!r} is no name of a machine; expected one such as models.example.org")
    return Access(host, token, frozenset(name.lower() for name in names), "https" if secure else "http")


def read_token(file: Path | None, environment: Mapping[str, str]) -> str:
    """The token from a file or from the environment, "" where there is neither. UsageError for both, and for what is
    too short or has white space in it."""
    given = environment.get(TOKEN, "")
    if file and given:
        raise UsageError(f"both --token-file and {TOKEN} hold a token; leave one out")
    if not file and not given:
        return ""
    where = str(file) if file else TOKEN
    try:
        token = file.read_text(encoding="utf-8").strip() if file else given.strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "") or "it is no text"
        raise UsageError(f"{where}: no token can be read ({reason}); expected a file of one line") from error
    if len(token) < SHORTEST or not re.fullmatch(r"[!-~]+", token):
        raise UsageError(
            f"{where}: a token has {SHORTEST} characters or more, letters, digits and signs without white space; found "
            f"{len(token)} characters"
        )
    return token


def refusal(access: Access, method: str, headers: Headers, *, public: bool = False) -> Refusal | None:
    """Why a request is refused, None where it is not.

    public   what needs no token: the page itself, which holds nothing, and whether the server lives.
    """
    hosts = _all(headers, b"host")
    found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if not found:
        return Refusal(400, f"found {len(hosts)} Host headers, or one that is no name; expected HOST or HOST:PORT")
    if not _ours(access, found[1].lower()):
        return Refusal(
            403, f"this server is not called {found[1]}; ask it by its address, or start it with --name {found[1]}"
        )
    if not _same_origin(access, hosts[0].lower(), method, headers):
        return Refusal(403, "a page of another site asked; this server answers its own page and programs alone")
    if access.token and not public:
        given = _all(headers, b"authorization")
        said = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        right = hmac.compare_digest(said[2].strip().encode("latin-1"), access.token.encode())
        if said[0].lower() != "bearer" or not right:
            what = "the token is wrong" if given else "a token is needed"
            return Refusal(401, f"{what}; send the header Authorization: Bearer TOKEN")
    return None


def _ours(access: Access, name: str) -> bool:
    """Whether the server may be asked by this name. Nobody can bind an address to another, so where it listens to other
    machines it may be asked by any."""
    if name in access.names or name == access.host.lower() or loopback(name):
        return True
    return not loopback(access.host) and _is_address(name)


def _is_address(name: str) -> bool:
    try:
        return bool(ip_address(name.strip("[]")))
    except ValueError:
        return False


def _same_origin(access: Access, host: str, method: str, headers: Headers) -> bool:
    """Whether a browser says that the server's own page asks, or no page at all."""
    sites, modes = _all(headers, b"sec-fetch-site"), _all(headers, b"sec-fetch-mode")
    followed = method in ("GET", "HEAD") and modes == ["navigate"]  # a link from elsewhere to the page
    if any(site not in ("same-origin", "none") for site in sites) and not followed:
        return False
    for origin in _all(headers, b"origin"):
        scheme, separator, place = origin.lower().partition("://")
        # what stands between may take TLS off, never put it on
        if not separator or scheme not in (access.scheme, "https"):
            return False
        if _with_port(place, scheme) != _with_port(host, scheme):
            return False
    return True


def _with_port(place: str, scheme: str) -> str:
    found = _HOST.fullmatch(place)
    return f"{found[1]}:{found[2] or _PORTS[scheme]}" if found else ""


def _all(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in headers if key.lower() == name]
