"""Orthanc -> node -> Orthanc, by the command line, DCMTK and the validator; and kills on the way."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pydicom
import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from fabrica.serving.node.entries import MADE
from fabrica.serving.node.queue import Queue
from tests.dicom_network import ct, saved, uid
from tests.handmade import handmade
from tests.orthanc import DICOMWEB, MISSING, Orthanc, Running, free_port, orthanc, sent, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed"),
]
DCIODVFY = shutil.which("dciodvfy")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tuple[Orthanc, int]]:
    port = free_port()
    (tmp_path / "archive").mkdir()
    with orthanc(tmp_path / "archive", {"FABRICA": port}) as found:
        yield found, port


def made(archive: Orthanc) -> list[pydicom.Dataset]:
    return [each for each in archive.objects() if each.get("SyntheticData") == "YES"]


def test_from_orthanc_to_the_node_and_back(archive: tuple[Orthanc, int], tmp_path: Path) -> None:
    server, port = archive
    handmade(tmp_path / "model")
    sources = tmp_path / "sources"
    sources.mkdir()
    paths = [saved(ct("a", number), sources / f"{number}.dcm") for number in range(5)]
    assert server.run("dcmsend", "-aec", "ORTHANC", "127.0.0.1", server.port, *paths).returncode == 0
    with Running(server, tmp_path, port, "--quiet", 1):
        keys = ["QueryRetrieveLevel=SERIES", f"StudyInstanceUID={uid('a', 'study')}", f"SeriesInstanceUID={uid('a')}"]
        asked = ["-aet", "FABRICA", "-aec", "ORTHANC", *(word for key in keys for word in ("-k", key))]
        moved = server.run("movescu", "-S", "-aem", "FABRICA", *asked, "127.0.0.1", server.port)
        assert moved.returncode == 0, moved.stderr
        until(lambda: len(made(server)) == 5)
    asked[asked.index(f"SeriesInstanceUID={uid('a')}")] = "SeriesInstanceUID"
    found = server.run("findscu", "-S", *asked, "127.0.0.1", server.port)
    said = found.stdout + found.stderr
    assert said.count("(0020,000e)") >= 2  # the series and what was made of it, in one study
    (series,) = {each.SeriesInstanceUID for each in made(server)}
    assert series in said
    if DCIODVFY:
        assert errors(server.objects(), tmp_path) == []


@pytest.mark.skipif(DICOMWEB is None, reason="Orthanc's DICOMweb plugin not installed (orthanc-dicomweb)")
def test_results_go_to_orthanc_by_stow(tmp_path: Path) -> None:
    """Each once, in the study that they belong to; and one that Orthanc has is taken as sent when it comes again."""
    assert DICOMWEB
    port = free_port()
    (tmp_path / "archive").mkdir()
    handmade(tmp_path / "model")
    paths = [saved(ct("a", number), tmp_path / f"{number}.dcm") for number in range(3)]
    with orthanc(tmp_path / "archive", {"FABRICA": port}, [DICOMWEB]) as server:
        web = f"http://127.0.0.1:{server.http}/dicom-web"
        with Running(server, tmp_path, port, "--quiet", 1, "--archive", "none", web=web) as node:
            sent(server, "FABRICA", port, paths)
            until(lambda: len(made(server)) == 3 and f"sent to {web}" in node.said())
            with closing(Queue(tmp_path / "store" / "queue.db")) as queue, queue.change() as db:
                db.execute("UPDATE outbox SET sent = 0")  # as of a node that was killed before it could say so
                db.execute("UPDATE jobs SET state = ?", (MADE,))
            until(lambda: node.said().count(f"sent to {web}") == 2)
        results = made(server)
    assert len(results) == 3 and {each.StudyInstanceUID for each in results} == {uid("a", "study")}
    sources = {each.SourceImageSequence[0].ReferencedSOPInstanceUID for each in results}
    assert sources == {uid("a", number) for number in range(3)}
    results_of = {str(each.SOPInstanceUID): each for each in results}
    for path in (tmp_path / "store" / "results").rglob("*.dcm"):
        kept = pydicom.dcmread(path)
        assert results_of[str(kept.SOPInstanceUID)].PixelData == kept.PixelData


def errors(objects: list[pydicom.Dataset], folder: Path) -> list[str]:
    """What the validator says against results that it does not say against their sources; it knows no SyntheticData."""
    said: dict[bool, set[str]] = {True: set(), False: set()}
    for number, each in enumerate(objects):
        path = saved(each, folder / f"checked-{number}.dcm")
        done = subprocess.run([str(DCIODVFY), str(path)], capture_output=True, text=True)
        lines = {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}
        said[each.get("SyntheticData") == "YES"] |= {line for line in lines if "(0x0008,0x001c)" not in line}
    return sorted(said[True] - said[False])


def test_killed_on_the_way_nothing_is_lost_and_nothing_is_there_twice(
    archive: tuple[Orthanc, int], tmp_path: Path
) -> None:
    """As the benchmark does with more: the node is killed three times, and the archive once, while objects come in."""
    server, port = archive
    handmade(tmp_path / "model")
    names = [f"s{number}" for number in range(24)]
    paths = [saved(ct(name, 1), tmp_path / f"{name}.dcm") for name in names]
    node = Running(server, tmp_path, port, "--quiet", 0.2, "--archive", "none")
    for turn in range(4):
        node.start()
        for path in paths[6 * turn : 6 * turn + 6]:
            sent(server, "FABRICA", port, [path])
        if turn == 1:
            server.kill()
            server.start()
        if turn < 3:
            node.kill()
    until(lambda: len(made(server)) == len(names))
    node.stop()
    assert Counter(each.StudyInstanceUID for each in made(server)) == {uid(name, "study"): 1 for name in names}
    assert Counter(each.SOPInstanceUID for each in made(server)).most_common(1)[0][1] == 1
