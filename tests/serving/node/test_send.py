"""Results on their way: by C-STORE and STOW-RS, again after what passes, and set aside after what does not."""

from __future__ import annotations

import json
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pydicom
import pytest

pytest.importorskip("pynetdicom")

from fabrica.errors import UsageError
from fabrica.serving.node import archive as queries
from fabrica.serving.node.entries import DEAD, OPEN, SENT, Received, Series
from fabrica.serving.node.letters import retry
from fabrica.serving.node.peers import Peer, allowed, peer, plain, trusting
from fabrica.serving.node.queue import Queue
from fabrica.serving.node.send import Web, destination, send_next
from fabrica.serving.node.store import Store, opened
from tests.dicom_network import archive, ct, saved, uid

NOBODY = Peer("ARCHIVE", "127.0.0.1", 9)


class Outbox:
    """Three objects to be passed on."""

    def __init__(self, root: Path, syntax: str = "1.2.840.10008.1.2.1") -> None:
        self.store: Store = opened(root)
        self.queue = Queue(self.store.database)
        self.said: list[str] = []
        self.files = []
        series = Series(uid("a"), "CT", "", "", "", 0, 0, OPEN, 1, 0, 0, "")
        for number in range(3):
            name = f"{number}.dcm"
            place = self.store.object(name)
            place.parent.mkdir(exist_ok=True)
            dataset = ct("a", number)
            self.files.append(saved(dataset, place))
            one = Received(str(dataset.SOPInstanceUID), uid("a"), name, str(dataset.SOPClassUID), syntax, 1, 9)
            self.queue.add([(one, series)], [], 0)
        (found,) = self.queue.quiet(0, 0)
        self.queue.complete(found, [], True, 0)

    def send(self, to: Peer | Web, now: float = 0.0, most: int = 5) -> bool:
        return send_next(self.queue, self.store, to, "FABRICA", most, self.said.append, now)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "store")


def test_files_go_as_they_are(outbox: Outbox) -> None:
    with archive() as found:
        assert outbox.send(found.peer)
        assert not outbox.send(found.peer)
    assert len(found.stored) == 3
    for path in outbox.files:
        (sent,) = found.stored[str(pydicom.dcmread(path).SOPInstanceUID)]
        assert path.read_bytes().endswith(sent)
    assert outbox.queue.jobs(SENT)


def test_what_passes_is_tried_again_later_and_later(outbox: Outbox) -> None:
    pauses, now = [], 0.0
    for _ in range(4):
        assert outbox.send(NOBODY, now)
        assert not outbox.send(NOBODY, now + 1)
        pauses.append(outbox.queue.jobs()[0].next - now)
        now += pauses[-1]
    assert pauses == [2, 4, 8, 16]
    outbox.send(NOBODY, now)
    assert "cannot be reached" in outbox.queue.jobs(DEAD)[0].reason
    retry(outbox.queue, outbox.store)
    with archive() as found:
        assert outbox.send(found.peer, now)
    assert len(found.stored) == 3


def test_full_archives_pass_and_refusals_do_not(outbox: Outbox) -> None:
    with archive() as found:
        found.refusing = 0xA700
        outbox.send(found.peer)
        assert outbox.queue.jobs()[0].tries == 1
        found.refusing = 0xC000
        outbox.send(found.peer, 10)
    assert "status 0xC000" in outbox.queue.jobs(DEAD)[0].reason


def test_what_an_archive_does_not_take_is_named(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "store", "1.2.840.10008.1.2.4.90")
    with archive() as found:
        outbox.send(found.peer)
    assert "does not take CT Image Storage as JPEG 2000" in outbox.queue.jobs(DEAD)[0].reason


def test_an_archive_of_another_name_is_no_archive(outbox: Outbox) -> None:
    with archive() as found:
        outbox.send(Peer("OTHER", found.peer.host, found.peer.port))
    assert "rejects this node's AE title, or its own" in outbox.queue.jobs()[0].reason


def test_files_that_are_gone_are_a_dead_letter(outbox: Outbox) -> None:
    outbox.files[1].unlink()
    outbox.send(NOBODY)
    assert "is gone from the store" in outbox.queue.jobs(DEAD)[0].reason


def test_how_many_objects_an_archive_has() -> None:
    with archive(queries=True) as found:
        found.counts = {"1.2": 7}
        assert queries.expected(found.peer, "FABRICA", "1", "1.2") == queries.Answer(7)
        assert queries.expected(found.peer, "FABRICA", "1", "1.3") == queries.Answer(0)
    with archive() as found:  # that takes no queries
        assert queries.expected(found.peer, "FABRICA", "1", "1.2") == queries.Answer(0)
    assert queries.expected(NOBODY, "FABRICA", "1", "1.2") == queries.AWAY


class Stow(BaseHTTPRequestHandler):
    """STOW-RS of one object a request."""

    def do_POST(self) -> None:
        server: WebServer = self.server  # type: ignore[assignment]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.asked.append((self.path, self.headers.get("Authorization")))
        boundary = self.headers.get_boundary()
        first, head, rest = body.partition(f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode())
        part, end, last = rest.partition(f"\r\n--{boundary}--".encode())
        assert (first, last) == (b"", b"\r\n") and head and end
        if not server.status:
            server.parts.append(part)
        self.send_response(server.status or 200)
        self.send_header("Content-Length", str(len(server.said)))
        self.end_headers()
        self.wfile.write(server.said)

    def log_message(self, *given: object) -> None:
        """Nothing."""


class WebServer(ThreadingHTTPServer):
    status = 0
    said = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Stow)
        self.asked: list[tuple[str, str | None]] = []
        self.parts: list[bytes] = []


@contextmanager
def web(status: int = 0) -> Iterator[WebServer]:
    server = WebServer()
    server.status = status
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def test_stow_sends_files_as_they_are_with_the_token(outbox: Outbox) -> None:
    with web() as server:
        to = destination(f"http://127.0.0.1:{server.server_address[1]}/dicom-web/", "secret")
        assert "secret" not in repr(to)
        assert outbox.send(to)
    assert server.asked == [("/dicom-web/studies", "Bearer secret")] * 3
    assert [path.read_bytes() for path in outbox.files] == server.parts
    assert outbox.queue.jobs(SENT)


@pytest.mark.parametrize(("status", "lasting"), [(503, False), (429, False), (401, False), (409, True), (400, True)])
def test_stow_answers(outbox: Outbox, status: int, lasting: bool) -> None:
    with web(status) as server:
        outbox.send(Web(f"http://127.0.0.1:{server.server_address[1]}"))
    (job,) = outbox.queue.jobs()
    assert (job.state == DEAD) == lasting
    assert f"HTTP {status}" in job.reason


@pytest.mark.parametrize(("reason", "lasting"), [(0xA700, False), (0x0122, True), (None, True)])
def test_stow_answers_that_take_the_request_and_not_the_object(
    outbox: Outbox, reason: int | None, lasting: bool
) -> None:
    item = {} if reason is None else {"00081197": {"vr": "US", "Value": [reason]}}
    with web() as server:
        server.said, server.status = json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode(), 202
        outbox.send(Web(f"http://127.0.0.1:{server.server_address[1]}"))
    (job,) = outbox.queue.jobs()
    assert (job.state == DEAD) == lasting and "failure reason 0x" in job.reason
    assert outbox.queue.due(1e9) is None or len(outbox.queue.due(1e9)[1]) == 3  # type: ignore[index]


@pytest.mark.parametrize("data", [b"", b"no DICOM at all" * 100, b"\0" * 128 + b"DICM" + b"cut"])
def test_a_damaged_file_is_a_dead_letter_and_no_end_of_the_node(outbox: Outbox, data: bytes) -> None:
    outbox.files[1].write_bytes(data)
    with archive() as found:
        assert outbox.send(found.peer)
    (job,) = outbox.queue.jobs()
    assert job.state == DEAD and "1.dcm cannot be sent" in job.reason
    assert len(found.stored) == 1


@pytest.mark.parametrize("said", ["1\\2", ""])
def test_counts_that_are_no_numbers_are_counted_instead(said: str) -> None:
    with archive(queries=True) as found, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found.counts is not None
        found.counts["1.2"] = said  # type: ignore[assignment]
        assert not queries.expected(found.peer, "FABRICA", "1", "1.2").silent


@pytest.mark.parametrize(
    "text",
    [
        *("ARCHIVE", "A@host", "A@host:0", "A@host:99999", "@host:1", "A" * 17 + "@h:1", "https://"),
        *("https://h:port/x", "https://h:99999/x", "https://[h/x", "https://h/a b", "https://h/ä"),
    ],
)
def test_what_is_no_destination(text: str) -> None:
    with pytest.raises(UsageError):
        destination(text)


def test_what_is_secret_does_not_go_in_clear() -> None:
    assert isinstance(destination("https://10.0.0.1/x", "secret"), Web)
    assert isinstance(destination("http://10.0.0.1/x"), Web)
    with pytest.raises(UsageError, match="token in clear"):
        destination("http://10.0.0.1/x", "secret")
    with pytest.raises(UsageError, match="not TLS"):
        destination("http://127.0.0.1/x", "", ssl.create_default_context())
    with pytest.raises(UsageError, match="printable ASCII"):
        destination("https://10.0.0.1/x", "sec\nret")


def test_what_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "authority.pem").write_text("no certificate")
    for path in (tmp_path / "authority.pem", tmp_path / "nowhere.pem"):
        with pytest.raises(UsageError, match=f"TLS cannot be set up of {path}"):
            trusting(path)


def test_peers_are_read_and_written_alike() -> None:
    for text in ("ARCHIVE@127.0.0.1:4242", "A B@host.example:1", "X@[::1]:104"):
        assert str(peer(text)) == text
    assert plain("::ffff:10.0.0.1") == "10.0.0.1"
    for text in ("*", "*@*", "A@", "A\\B"):
        with pytest.raises(UsageError):
            allowed(text)
    assert allowed("CT1@127.0.0.1").admits("CT1", "::ffff:127.0.0.1")
    assert not allowed("CT1@127.0.0.1").admits("CT2", "127.0.0.1")
