"""Objects over the network, by pynetdicom and by DCMTK: what is taken, what is refused and how."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from struct import pack

import pydicom
import pytest

pytest.importorskip("pynetdicom")

from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from pynetdicom import _config
from pynetdicom.sop_class import CTImageStorage, Verification  # type: ignore[attr-defined]

from fabrica.errors import FabricaError, UsageError
from fabrica.serving.node.calling import associated
from fabrica.serving.node.peers import Peer, allowed, trusting
from fabrica.serving.node.receive import Server, listening, start, tls
from fabrica.serving.node.terms import Terms
from tests.dicom_network import ct, filed, saved, send

DCMSEND = shutil.which("dcmsend")


class Receiving:
    """A server in this process, what it took and what it said."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        listener = listening("127.0.0.1", 0)
        self.port: int = listener.getsockname()[1]
        self.peer = Peer("FABRICA", "127.0.0.1", self.port)
        self.said: list[str] = []
        self.server: Server = start(listener, terms, self.said.append)

    def files(self) -> list[Path]:
        return sorted(self.terms.incoming.iterdir())


@contextmanager
def receiving(folder: Path, **terms: object) -> Iterator[Receiving]:
    before = _config.UNRESTRICTED_STORAGE_SERVICE
    found = Receiving(replace(Terms("FABRICA", folder, spare=0, timeout=10), **terms))  # type: ignore[arg-type]
    try:
        yield found
    finally:
        found.server.stop()
        _config.UNRESTRICTED_STORAGE_SERVICE = before  # of all that pynetdicom does in this process


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiving]:
    with receiving(tmp_path_factory.mktemp("incoming"), largest=400_000) as found:
        yield found


@pytest.fixture
def node(open_to_all: Receiving) -> Receiving:
    for path in open_to_all.files():
        path.unlink()
    open_to_all.said.clear()
    return open_to_all


def test_what_was_sent_is_what_is_kept(node: Receiving) -> None:
    series = [ct("a", number, size=400) for number in (1, 2)]
    for dataset in series:
        dataset.add_new(0x00091001, "UN", b"private!")
    assert send(series, node.port) == [0, 0]
    for path, sent in zip(node.files(), series, strict=True):
        kept = pydicom.dcmread(path)
        assert kept.file_meta.SourceApplicationEntityTitle == "SCANNER"
        assert kept == sent
        assert path.name.endswith(".dcm")


def test_an_echo_is_answered(node: Receiving) -> None:
    with associated("SCANNER", node.peer, [(Verification, None)], 20) as association:
        assert association.send_c_echo().Status == 0


@pytest.mark.parametrize(
    ("proposed", "taken"),
    [
        ([ImplicitVRLittleEndian, ExplicitVRLittleEndian], ExplicitVRLittleEndian),
        ([ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless], RLELossless),
        ([ExplicitVRLittleEndian, JPEG2000Lossless], JPEG2000Lossless),
        ([ImplicitVRLittleEndian], ImplicitVRLittleEndian),
        (["1.2.840.10008.1.2.4.50", ExplicitVRLittleEndian], "1.2.840.10008.1.2.4.50"),  # lossy, where it comes first
        ([ExplicitVRLittleEndian, "1.2.840.10008.1.2.4.50"], ExplicitVRLittleEndian),  # and not where it does not
    ],
)
def test_explicit_and_lossless_syntaxes_are_preferred(node: Receiving, proposed: list[str], taken: str) -> None:
    with associated("SCANNER", node.peer, [(CTImageStorage, proposed)], 20) as association:
        assert association.accepted_contexts[0].transfer_syntax == [taken]


def test_private_classes_are_taken(node: Receiving) -> None:
    private = filed(ct("a", 1, SOPClassUID="1.3.12.2.1107.5.9.1"))
    assert send([private], node.port) == [0]
    assert len(node.files()) == 1


def test_what_is_too_large_is_refused_and_the_next_one_taken(node: Receiving) -> None:
    assert send([ct("a", 1, size=512), ct("a", 2)], node.port) == [0xA700, 0]
    assert [pydicom.dcmread(path).InstanceNumber for path in node.files()] == [2]
    assert node.said == ["refused an object of SCANNER: more than 400,000 bytes"]


def test_uids_that_are_none_are_refused(node: Receiving) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of the sender
        bad = ct("a", 1, SOPInstanceUID="../../etc/x")
        assert send([filed(bad)], node.port) == [0x0117]
    assert node.files() == []


@pytest.mark.skipif(DCMSEND is None, reason="dcmsend (DCMTK) is not installed")
def test_dcmtk_sends(node: Receiving, tmp_path: Path) -> None:
    paths = [saved(ct("a", number), tmp_path / f"{number}.dcm") for number in range(3)]
    done = subprocess.run([str(DCMSEND), "-aec", "FABRICA", "127.0.0.1", str(node.port), *map(str, paths)], timeout=60)
    assert done.returncode == 0
    assert len(node.files()) == 3


def test_only_those_allowed_are_let_in(tmp_path: Path) -> None:
    allow = (allowed("CT1@127.0.0.1"), allowed("CT2@192.0.2.1"), allowed("CT3"))
    with receiving(tmp_path, allow=allow) as node:
        answers = {aet: send([ct("a", 1)], node.port, aet) for aet in ("CT1", "CT2", "CT3", "OTHER")}
        assert send([ct("a", 1)], node.port, "CT1", called="NODE") == []
    assert answers == {"CT1": [0], "CT2": [], "CT3": [0], "OTHER": []}
    assert "refused OTHER at 127.0.0.1, who is not allowed (--allow)" in node.said
    assert "refused CT1 at 127.0.0.1, who calls NODE; this is FABRICA" in node.said


def test_hosts_that_nobody_may_send_from_are_not_listened_to(tmp_path: Path) -> None:
    with receiving(tmp_path, allow=(allowed("*@192.0.2.1"),)) as node:
        assert send([ct("a", 1)], node.port) == []
    assert node.said == []


def test_no_more_associations_than_agreed_on(tmp_path: Path) -> None:
    with receiving(tmp_path, associations=1) as node:
        contexts = [(CTImageStorage, None)]
        with associated("A", node.peer, contexts, 20) as first, associated("B", node.peer, contexts, 20) as second:
            assert (first.is_established, second.is_rejected) == (True, True)


def test_a_full_disk_is_answered_with_its_status(tmp_path: Path) -> None:
    with receiving(tmp_path, spare=2**60) as node:
        assert send([ct("a", 1)], node.port) == [0xA700]
    assert node.said == ["refused an object of SCANNER: No space left on device"]
    assert node.files() == []


def test_nothing_stays_of_an_object_that_was_cut_short(node: Receiving) -> None:
    with associated("SCANNER", node.peer, [(CTImageStorage, ExplicitVRLittleEndian)], 20) as association:
        connection = association.dul.socket.socket
        connection.sendall(_pdu(_command(ct("a", 1))) + _pdu(b"\x00" + b"x" * 5000))
        _until(lambda: bool(node.files()))
        assert [path.suffix for path in node.files()] == [".part"]
        association.abort()
        _until(lambda: not node.files())


@pytest.mark.parametrize(("size", "kept"), [(3000, True), (2**24 + 300_000, False)])
def test_commands_in_pieces_are_left_to_pynetdicom_up_to_a_size(node: Receiving, size: int, kept: bool) -> None:
    with associated("SCANNER", node.peer, [(CTImageStorage, ExplicitVRLittleEndian)], 20) as association:
        connection = association.dul.socket.socket
        command = _command(ct("a", 1))
        connection.sendall(_pdu(b"\x01" + command[1:50]) + _pdu(b"\x03" + command[50:]))
        whole = bytes(size)
        try:
            for start in range(0, size, 100_000):
                piece = whole[start : start + 100_000]
                connection.sendall(_pdu((b"\x02" if start + 100_000 >= size else b"\x00") + piece))
        except OSError:  # it does not listen to the end
            assert not kept
        _until(lambda: bool(node.files()) if kept else not association.is_established)
    assert len(node.files()) == kept


@settings(max_examples=15, deadline=None)
@given(st.binary(min_size=1, max_size=60))
def test_what_is_no_dicom_ends_its_connection_alone(open_to_all: Receiving, noise: bytes) -> None:
    with socket.create_connection(("127.0.0.1", open_to_all.port), timeout=5) as stranger:
        stranger.sendall(noise)
        stranger.shutdown(socket.SHUT_WR)
        stranger.recv(100)
    assert open_to_all.server.listener.fileno() > 0


def test_after_noise_the_node_still_takes_objects(node: Receiving) -> None:
    assert send([ct("a", 1)], node.port) == [0]


def test_pdus_larger_than_agreed_on_end_the_connection(node: Receiving) -> None:
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as stranger:
        stranger.sendall(pack(">BBL", 1, 0, 2**31))
        assert stranger.recv(100) == b""


def test_tls_by_certificate_files(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    made += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run(list(map(str, made)), check=True, capture_output=True)
    (tmp_path / "in").mkdir()
    with receiving(tmp_path / "in", certificate=(certificate, key)) as node:
        assert send([ct("a", 1)], node.port, tls=trusting(certificate)) == [0]
        assert send([ct("a", 2)], node.port) == []  # without TLS
    with receiving(tmp_path / "in", certificate=(certificate, key), associations=1) as node, ExitStack() as stack:
        before = threading.active_count()
        strangers = [stack.enter_context(socket.create_connection(("127.0.0.1", node.port))) for _ in range(12)]
        for stranger in strangers[4:]:  # who say nothing are counted before they shake hands, too
            stranger.settimeout(5)
            assert stranger.recv(1) == b""
        assert threading.active_count() - before <= 4


def test_an_authority_without_a_certificate_is_no_plain_node(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --certificate and --key too"):
        tls(None, tmp_path / "authority.pem")


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(FabricaError, match="choose another --port"):
            listening("127.0.0.1", taken.getsockname()[1], patience=0)


def _command(dataset: pydicom.Dataset) -> bytes:
    """A C-STORE-RQ as a fragment."""
    elements = [
        (0x0002, _even(dataset.SOPClassUID)),
        (0x0100, pack("<H", 1)),
        (0x0110, pack("<H", 1)),
        (0x0700, pack("<H", 0)),
        (0x0800, pack("<H", 1)),
        (0x1000, _even(dataset.SOPInstanceUID)),
    ]
    body = b"".join(pack("<HHL", 0, number, len(value)) + value for number, value in elements)
    return b"\x03" + pack("<HHLL", 0, 0, 4, len(body)) + body


def _even(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def _pdu(fragment: bytes) -> bytes:
    """P-DATA-TF of one fragment in context 1."""
    item = pack(">LB", len(fragment) + 1, 1) + fragment
    return pack(">BBL", 4, 0, len(item)) + item


def _until(true: Callable[[], bool]) -> None:
    for _ in range(200):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("it never came to that")
