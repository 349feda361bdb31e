"""A whole node in processes of its own, between a scanner and an archive."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from io import BytesIO

from pydicom.dataset import Dataset

from fabrica.errors import FabricaError, UsageError
from fabrica.serving.node import rules
from fabrica.serving.node.intake import Patience
from fabrica.serving.node.node import Node, Settings
from fabrica.serving.node.peers import Peer
from fabrica.serving.node.terms import Terms
from tests.command import call
from tests.dicom_network import Archive, archive, ct, send, uid
from tests.fragile import fragile
from tests.handmade import handmade

QUIET = 0.5


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module")
def found() -> Iterator[Archive]:
    with archive(queries=True) as server:
        yield server


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def node(home: Path, found: Archive, said: list[str]) -> Iterator[Node]:
    model = handmade(home / "model")
    made = Node(settings(home / "store", found.peer), said.append)
    made.start(fragile, [model], rules.every)
    yield made
    made.stop()


def settings(store: Path, to: Peer, host: str = "127.0.0.1") -> Settings:
    terms = Terms("FABRICA", store / "incoming", spare=0, timeout=20)
    return Settings(store, "FABRICA", host, 0, to, terms, to, Patience(QUIET, 2), receivers=1)


def until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


def results(found: Archive) -> list[Dataset]:
    return [pydicom.dcmread(BytesIO(sent[0]), force=True) for sent in list(found.stored.values())]


def of(found: Archive, series: str) -> dict[str, list[Dataset]]:
    """What was made of a study, by the description of its series."""
    made: dict[str, list[Dataset]] = {}
    for each in results(found):
        if each.StudyInstanceUID == uid(series, "study"):
            made.setdefault(str(each.SeriesDescription), []).append(each)
    return made


def test_a_series_goes_in_and_its_result_comes_out(node: Node, found: Archive) -> None:
    assert send([ct("whole", number) for number in range(4)], node.port) == [0] * 4
    until(lambda: len(results(found)) == 4)
    (made,) = of(found, "whole").values()
    assert {each.SyntheticData for each in made} == {"YES"}
    sources = {each.SourceImageSequence[0].ReferencedSOPInstanceUID for each in made}
    assert sources == {uid("whole", number) for number in range(4)}


@pytest.mark.slow
def test_late_slices_and_partial_series(node: Node, found: Archive, said: list[str]) -> None:
    assert found.counts is not None
    found.counts[uid("late")] = 3
    send([ct("late", 0), ct("late", 1)], node.port)
    until(lambda: any("is not complete: 2 of 3 objects" in line for line in said))
    assert of(found, "late") == {}
    send([ct("late", 2)], node.port)
    until(lambda: of(found, "late"))
    send([ct("late", 3)], node.port)
    until(lambda: sum(map(len, of(found, "late").values())) == 7)
    assert sorted(len(made) for made in of(found, "late").values()) == [3, 4]
    (note,) = (name for name in of(found, "late") if "version 2" in name)
    assert "1 came late" in note


def test_what_does_not_fit_the_model_is_a_dead_letter_that_people_see(node: Node, found: Archive, home: Path) -> None:
    send([ct("odd", number, PhotometricInterpretation="MONOCHROME9") for number in (1, 2)], node.port)
    listed = []

    def shown() -> bool:
        listed[:] = [call("node", "--store", home / "store", "--list").stdout]
        return uid("odd") in listed[0]

    until(shown)
    assert "handmade" in listed[0]
    assert call("node", "--store", home / "store", "--retry", "9999").returncode == 2
    assert call("node", "--store", home / "store", "--retry", "0").returncode == 2  # not all of them
    assert of(found, "odd") == {}


def test_a_second_node_on_the_store_is_refused_in_one_line(node: Node, found: Archive, home: Path) -> None:
    second = Node(settings(home / "store", found.peer), print)
    with pytest.raises(FabricaError, match=r"a node \(process \d+\) runs on the store"):
        second.start(fragile, [home / "model"], rules.every)
    second.stop()


def test_hosts_that_others_reach_need_an_allow_list(home: Path, found: Archive) -> None:
    with pytest.raises(UsageError, match="--allow AET@HOST"):
        Node(settings(home / "other", found.peer, "0.0.0.0"), print)


def test_each_result_is_in_the_archive_once(node: Node, found: Archive) -> None:
    assert all(len(sent) == 1 for sent in found.stored.values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "a node needs a model"),
        (("MODEL",), "--send-to is needed"),
        (("MODEL", "--send-to", "ARCHIVE"), "is no peer"),
        (("MODEL", "--send-to", "A@h:1", "--certificate", "c.pem"), "both --certificate and --key"),
        (("MODEL", "--send-to", "A@h:1", "--otherwise", "drop"), "expected keep or forward"),
        (("MODEL", "--send-to", "A@h:1", "--receivers", "3", "--associations", "2"), "expected one for each at least"),
        (("--list", "--store", "nowhere"), "is no store of a node"),
    ],
)
def test_wrong_use_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    done = call("node", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


def test_a_store_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = call("node", tmp_path, "--send-to", "A@127.0.0.1:9", "--store", tmp_path / "file" / "store")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "cannot be written" in done.stderr
