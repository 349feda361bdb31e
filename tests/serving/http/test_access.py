"""Who may ask a server: bindings, tokens, Host and Origin."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabrica.errors import UsageError
from fabrica.serving.http.access import SHORTEST, TOKEN, Access, access, loopback, read_token, refusal

SECRET = "correct-horse-battery"


def headers(**given: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in given.items()]


def status(who: Access, method: str = "POST", public: bool = False, **given: str) -> int:
    found = refusal(who, method, headers(**given), public=public)
    if found:
        assert found.line and "\n" not in found.line
    return found.status if found else 200


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.4", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_loopback_is_what_nobody_else_reaches(host: str, own: bool) -> None:
    assert loopback(host) is own


def test_another_address_needs_a_token(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "10.0.0.4"):
        with pytest.raises(UsageError, match="a token is needed"):
            access(host, None, {})
        assert access(host, None, {TOKEN: SECRET}).token == SECRET
    assert access("127.0.0.1", None, {}).token == ""
    (tmp_path / "token").write_text(f"{SECRET}\n")
    assert access("127.0.0.1", tmp_path / "token", {}).token == SECRET


@pytest.mark.parametrize("content", ["", "\n", "a" * (SHORTEST - 1), "two words that are long", "ü" * SHORTEST])
def test_tokens_that_are_none_are_refused_without_being_shown(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(UsageError, match="a token has") as refused:
        read_token(tmp_path / "token", {})
    assert not content.strip() or content.strip() not in str(refused.value)


def test_a_token_comes_from_one_place(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "bytes").write_bytes(b"\xff" * 40)
    with pytest.raises(UsageError, match="leave one out"):
        read_token(tmp_path / "token", {TOKEN: SECRET})
    for missing in (tmp_path / "none", tmp_path, tmp_path / "bytes"):
        with pytest.raises(UsageError, match="no token can be read"):
            read_token(missing, {})


@pytest.mark.parametrize("name", ["", "a b", "http://a", "a:80", "a/b"])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no name of a machine"):
        access("127.0.0.1", None, {}, [name])


def test_the_token_is_asked_of_all_but_what_is_public() -> None:
    who = Access(token=SECRET)
    assert status(who, host="localhost", authorization=f"Bearer {SECRET}") == 200
    assert status(who, host="localhost", authorization=f"bearer  {SECRET} ") == 200
    for given in (f"Bearer {SECRET}x", f"Bearer {SECRET[:-1]}", f"Basic {SECRET}", SECRET, "Bearer", "", "Bearer \xfc"):
        assert status(who, host="localhost", authorization=given) == 401, given
    assert status(who, host="localhost") == 401
    assert status(who, host="localhost", public=True) == 200
    twice = [*headers(host="localhost"), *headers(authorization=f"Bearer {SECRET}") * 2]
    found = refusal(who, "GET", twice)
    assert found is not None and found.status == 401


@pytest.mark.parametrize(
    ("bound", "host", "expected"),
    [
        ("127.0.0.1", "127.0.0.1:8000", 200),
        ("127.0.0.1", "localhost:1234", 200),
        ("127.0.0.1", "[::1]:8000", 200),
        ("127.0.0.1", "evil.example:8000", 403),
        ("127.0.0.1", "10.0.0.4", 403),
        ("127.0.0.1", "models.example.org", 200),
        ("127.0.0.1", "MODELS.example.org:443", 200),
        ("0.0.0.0", "10.0.0.4:8000", 200),
        ("0.0.0.0", "evil.example", 403),
        ("127.0.0.1", "local host", 400),
        ("127.0.0.1", "localhost:80:80", 400),
        ("127.0.0.1", "", 400),
        ("127.0.0.1", "localhost/evil", 400),
    ],
)
def test_a_server_is_asked_by_its_own_names(bound: str, host: str, expected: int) -> None:
    who = Access(bound, names=frozenset({"models.example.org"}))
    assert status(who, host=host) == expected
    assert status(who, host=host, public=True) == expected  # rebinding must not reach the page either


def test_one_host_is_needed() -> None:
    assert status(Access()) == 400
    found = refusal(Access(), "GET", headers(host="localhost") * 2)
    assert found is not None and found.status == 400


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://localhost:8000", 200),
        ("https://localhost:8000", 200),  # a proxy in front takes TLS off
        ("http://LOCALHOST:8000", 200),
        ("http://localhost:9000", 403),
        ("http://localhost", 403),
        ("http://evil.example", 403),
        ("http://localhost:8000.evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("", 403),
    ],
)
def test_other_origins_are_refused(origin: str, expected: int) -> None:
    assert status(Access(), host="localhost:8000", origin=origin) == expected


def test_a_secure_server_has_no_plain_origin() -> None:
    who = Access(scheme="https", names=frozenset({"a.example"}))
    assert status(who, host="a.example", origin="https://a.example") == 200
    assert status(who, host="a.example", origin="https://a.example:443") == 200
    assert status(who, host="a.example", origin="http://a.example") == 403


@pytest.mark.parametrize(
    ("method", "site", "mode", "expected"),
    [
        ("GET", "same-origin", "cors", 200),
        ("GET", "none", "navigate", 200),
        ("GET", "cross-site", "navigate", 200),
        ("GET", "cross-site", "no-cors", 403),
        ("POST", "cross-site", "navigate", 403),
        ("POST", "same-site", "cors", 403),
    ],
)
def test_what_browsers_say_of_the_asking_site_counts(method: str, site: str, mode: str, expected: int) -> None:
    assert status(Access(), method, host="localhost", sec_fetch_site=site, sec_fetch_mode=mode) == expected
