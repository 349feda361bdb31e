"""What a server does under load, out of time, without room, with models that fail, and with bad input."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset

import fabrica
from fabrica.phantoms.head.head import head
from tests.command import call
from tests.serving.http.opening import SECONDS
from tests.serving.http.started import Server, by_hand, family, started


@pytest.fixture(scope="module")
def client(small: Server) -> Iterator[httpx.Client]:
    with small.client() as found:
        yield found


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], bytes]:
    """A CT of so many slices, as NIfTI."""
    place = tmp_path_factory.mktemp("volumes")
    voxels = head(3, 32, 4, contrasts=["CT"]).images["CT"]

    def drawn(slices: int) -> bytes:
        path = place / f"{slices}.nii.gz"
        if not path.exists():
            fabrica.write(voxels.with_data(np.tile(voxels.data, (1, -(-slices // 4), 1, 1))[:, :slices]), path)
        return path.read_bytes()

    return drawn


def calls(folder: Path, name: str) -> int:
    path = folder / name / "calls"
    return path.stat().st_size if path.exists() else 0


def soon(true: Callable[[], bool]) -> bool:
    """Whether it is true within ten seconds."""
    for _ in range(200):
        if true():
            return True
        time.sleep(0.05)
    return False


def clean(folder: Path) -> bool:
    """Whether nothing of any request is left on the disk: a client has its answer a moment before that."""
    (place,) = (folder / "small").iterdir()
    return soon(lambda: not list(place.iterdir()))


def works_again(client: httpx.Client, content: bytes) -> bool:
    """Once another process was started: what comes until then may wait for longer than the server waits."""
    return soon(lambda: client.post("v1/apply?model=slow", content=content).status_code == 200)


def test_the_token_is_needed(small: Server, client: httpx.Client) -> None:
    for given in ({}, {"Authorization": "Bearer wrong-but-of-some-length"}):
        for path in ("v1/models", "metrics", "v2", "v2/models/slow", "v1/progress/1"):
            answer = httpx.get(small.url + path, headers=given, trust_env=False)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer", path
            assert "token" in answer.json()["error"] and small.token not in answer.text
    assert httpx.get(small.url + "v2/health/ready", trust_env=False).status_code == 200
    assert client.get("v1/models").status_code == 200
    assert small.token not in small.log.read_text()


def test_samples_are_of_their_seeds(client: httpx.Client, tmp_path: Path) -> None:
    said = {"model": "noise", "label": "effusion", "prompt": "Effusion.", "seed": 5, "n": 3}
    answer = client.post("v1/sample", json=said)
    assert answer.status_code == 200 and json.loads(answer.headers["fabrica-notes"])
    with zipfile.ZipFile(BytesIO(answer.content)) as archive:
        assert archive.namelist() == [f"noise-00000{k}.png" for k in (5, 6, 7)]
        archive.extractall(tmp_path)
    answer = client.post("v1/sample", json={**said, "seed": 6, "n": 1})
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == (tmp_path / "noise-000006.png").read_bytes()
    image = fabrica.read(tmp_path / "noise-000006.png")
    assert image.size == (24, 20) and image.data.max() > 200 and image.origin["synthetic"]
    answer = client.post("v1/sample", json={"label": "fracture"})  # the one model that samples
    assert answer.status_code == 422 and "no class 'fracture'" in answer.json()["error"]
    assert client.post("v1/sample", json={"as": "dicom"}).headers["content-type"] == "application/dicom"


def test_a_segmenter_gives_label_maps_and_their_view(client: httpx.Client, tmp_path: Path) -> None:
    """A DICOM SEG of DICOM, NIfTI of NIfTI, and the same labels for the page."""
    volume = head(3, 32, 4, contrasts=["CT"]).images["CT"]
    fabrica.write(volume, tmp_path / "ct", as_="dicom")
    wanted = np.where(volume.data > 300, 2, volume.data > -300)
    form = [("files", (path.name, path.read_bytes())) for path in sorted((tmp_path / "ct").iterdir())]
    answer = client.post("v1/apply?model=organs&view=1", files=form)
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path / "got")
    (seg,) = (tmp_path / "got").glob("*.dcm")
    np.testing.assert_array_equal(fabrica.io.read_mask(seg, grid=fabrica.read(tmp_path / "ct")).data, wanted)
    said = json.loads((tmp_path / "got" / "view" / "view.json").read_text())["after"]
    assert [name for name, _ in said["labels"].values()] == ["soft tissue", "bone"] and said["unit"] == "label"
    numbers = np.fromfile(tmp_path / "got" / "view" / "after.u16", "<u2") * said["step"] + said["low"]
    assert np.bincount(numbers.astype(int)).tolist() == np.bincount(wanted.ravel()).tolist()
    fabrica.write(volume, tmp_path / "ct.nii.gz")
    answer = client.post("v1/apply?model=organs", content=(tmp_path / "ct.nii.gz").read_bytes())
    (tmp_path / "labels.nii.gz").write_bytes(answer.content)
    np.testing.assert_array_equal(fabrica.read(tmp_path / "labels.nii.gz").data, wanted)


def test_where_there_is_nothing_to_explain_the_result_stands(client: httpx.Client, tmp_path: Path) -> None:
    volume = head(3, 32, 4, contrasts=["CT"]).images["CT"]
    for name, image in (("head", volume), ("air", replace(volume, data=np.full_like(volume.data, -1000)))):
        fabrica.write(image, tmp_path / f"{name}.nii.gz")
        content = (tmp_path / f"{name}.nii.gz").read_bytes()
        answer = client.post("v1/apply?model=organs&explain=1&force=1", content=content)
        assert answer.status_code == 200, answer.text
        notes = [each for each in json.loads(answer.headers["fabrica-notes"]) if "explain" in each]
        if name == "air":
            assert notes == [
                "not explained: the model outlines nothing in this image, so that there is nothing to explain"
            ]
            assert answer.headers["content-type"] == "application/gzip"
        else:
            with zipfile.ZipFile(BytesIO(answer.content)) as archive:
                assert {"explanation/bone-occlusion.nii.gz", "explanation/explanation.json"} <= set(archive.namelist())
            assert not notes


def test_more_than_there_are_places_for_come_again(
    small: Server, client: httpx.Client, volumes: Callable[[int], bytes]
) -> None:
    """Ten times as many as fit, at once: each is answered, with a result or with when to come again."""

    async def load() -> list[httpx.Response]:
        headers = {"Authorization": f"Bearer {small.token}"}
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(
            base_url=small.url, headers=headers, timeout=60, trust_env=False, limits=limits
        ) as many:
            return await asyncio.gather(*(many.post("v1/apply?model=slow", content=volumes(2)) for _ in range(40)))

    answers = asyncio.run(load())
    assert {answer.status_code for answer in answers} == {200, 429}
    assert sum(answer.status_code == 200 for answer in answers) >= 4
    for answer in answers:
        assert answer.status_code == 200 or (
            int(answer.headers["retry-after"]) >= 1 and "try again" in answer.json()["error"]
        )
    deadline = time.monotonic() + 20
    while True:  # a place is free once its answer was sent, which the client may have read before
        told = client.get("metrics").text
        if ("fabrica_places_taken 0.0" in told and "fabrica_waiting 0.0" in told) or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert "fabrica_places_taken 0.0" in told and "fabrica_waiting 0.0" in told


def test_equal_calls_are_one_batch(small: Server, client: httpx.Client) -> None:
    """What comes while the network is at work goes through it together, each with its own result."""
    rows = [np.full((1, 1, 8, 8), k / 10) for k in range(4)]

    async def together() -> list[httpx.Response]:
        headers = {"Authorization": f"Bearer {small.token}"}
        async with httpx.AsyncClient(base_url=small.url, headers=headers, timeout=60, trust_env=False) as many:
            shape = {"name": "images", "datatype": "FP32", "shape": [1, 1, 8, 8]}
            bodies = [{"inputs": [{**shape, "data": each.ravel().tolist()}]} for each in rows]
            return await asyncio.gather(*(many.post("v2/models/slow/infer", json=each) for each in bodies))

    answers = asyncio.run(together())
    for row, answer in zip(rows, answers, strict=True):
        assert answer.json()["outputs"][0]["data"] == row.astype(np.float32).ravel().tolist()
    found = [line for line in client.get("metrics").text.splitlines() if line.startswith("fabrica_batch_jobs_bucket")]
    at_most = {line.split('le="')[1].split('"')[0]: float(line.split()[-1]) for line in found}
    assert at_most["+Inf"] > at_most["1.0"]  # one batch at least was of more than one call


def test_too_much_is_refused_before_and_while_it_comes(client: httpx.Client) -> None:
    def drip() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(100_000)

    for body in (bytes(4_000_000), drip()):
        answer = client.post("v1/apply?model=slow", content=body)
        assert answer.status_code == 413 and answer.json()["error"].startswith("the body is larger than 300000 bytes")
    assert client.post("v2/models/slow/infer", content=bytes(100_001)).status_code == 413
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(4):
            archive.writestr(f"{k}.dcm", bytes(100_000))
    answer = client.post("v1/apply?model=slow", content=packed.getvalue())
    assert answer.status_code == 413 and "unpacks to 400000 bytes" in answer.json()["error"]


def test_who_sends_too_slowly_is_told_so(small: Server, folder: Path) -> None:
    with socket.create_connection(small.host, timeout=20) as slow:
        head = f"POST /v1/apply?model=slow HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {small.token}\r\n"
        slow.sendall(f"{head}Content-Length: 1000\r\n\r\nabc".encode())
        answer = slow.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert clean(folder)


def zipped(name: str) -> bytes:
    found = BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        archive.writestr(name, b"content")
    return found.getvalue()


def report() -> bytes:
    """A DICOM object without an image: the head of a structured report."""
    found = pydicom.Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID = "1.2.3.4"
    found.Modality, found.PatientName, found.SeriesInstanceUID = "SR", "Doe^Jane", "1.2.3"
    content = BytesIO()
    found.save_as(content, enforce_file_format=True)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(400), "expected DICOM"),  # a video
        (b"%PDF-1.7 and so on", "expected DICOM"),
        (b"x", "expected DICOM"),
        (zipped("../../evil.dcm"), "leads out of it"),
        (zipped("notes.txt"), "no image in what was sent"),
        (zipped("a.dcm"), "a"),
        (b"PK\3\4 and no more", "damaged"),
        (report(), "no image in 00001.dcm, but 1 "),
    ],
    ids=["video", "pdf", "letter", "outside", "text", "no-dicom", "half", "report"],
)
def test_what_is_no_image_is_one_line(client: httpx.Client, folder: Path, content: bytes, line: str) -> None:
    answer = client.post("v1/apply?model=slow", content=content)
    assert answer.status_code == 422, answer.text
    said = answer.json()["error"]
    assert line in said and "\n" not in said and str(folder) not in said and "Doe" not in said
    assert clean(folder)


def test_an_empty_body_is_refused(client: httpx.Client) -> None:
    assert client.post("v1/apply?model=slow").status_code == 400
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        assert client.post("v1/apply?model=slow", content=b"--y", headers={"content-type": kind}).status_code == 400


def test_uids_name_no_places(client: httpx.Client, folder: Path, tmp_path: Path) -> None:
    """Instance, series and study whose UIDs lead elsewhere: worked on or refused, and nothing is written there."""
    fabrica.write(head(3, 32, contrasts=["CT"]).images["CT"], tmp_path / "a.dcm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odd = pydicom.dcmread(tmp_path / "a.dcm")
        for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
            setattr(odd, name, "../../1.2/evil")
        odd.file_meta.MediaStorageSOPInstanceUID = "../../1.2/evil"
        odd.save_as(tmp_path / "a.dcm")
    answer = client.post("v1/apply?model=slow", content=(tmp_path / "a.dcm").read_bytes())
    assert answer.status_code in (200, 422)
    assert not list(folder.rglob("*evil*")) and clean(folder)


@pytest.mark.slow
def test_work_that_takes_too_long_is_ended(client: httpx.Client, folder: Path, volumes: Callable[[int], bytes]) -> None:
    """By itself where it says how far it is, by force where it does not; and the next is answered."""
    answer = client.post("v1/apply?model=slow", content=volumes(200))
    assert answer.status_code == 504 and "longer than 8 seconds" in answer.json()["error"]
    assert client.post("v1/apply?model=stuck", content=volumes(1)).status_code == 504
    assert works_again(client, volumes(1))
    assert clean(folder)


@pytest.mark.slow
def test_a_process_that_dies_fails_one_request(
    client: httpx.Client, folder: Path, volumes: Callable[[int], bytes]
) -> None:
    before = calls(folder, "dies")
    answer = client.post("v1/apply?model=dies", content=volumes(1))
    assert answer.status_code == 500 and "died" in answer.json()["error"]
    assert calls(folder, "dies") == before + 1  # not tried again by itself
    assert works_again(client, volumes(1))
    assert "fabrica_workers_died_total" in client.get("metrics").text
    assert clean(folder)


@pytest.mark.slow
def test_what_waits_behind_a_file_that_brings_the_process_down_is_done(
    small: Server, folder: Path, volumes: Callable[[int], bytes]
) -> None:
    """The process has the next request already when it dies at one: that goes to the process that comes after it."""
    before = calls(folder, "slow")

    async def asking() -> list[httpx.Response]:
        headers = {"Authorization": f"Bearer {small.token}"}
        async with httpx.AsyncClient(base_url=small.url, headers=headers, timeout=60, trust_env=False) as many:
            first = asyncio.create_task(many.post("v1/apply?model=slow", content=volumes(8)))
            while calls(folder, "slow") == before:
                await asyncio.sleep(0.02)
            rest = [
                asyncio.create_task(many.post(f"v1/apply?model={each}", content=volumes(1)))
                for each in ("dies", "slow")
            ]
            return await asyncio.gather(first, *rest)

    first, died, behind = (answer.status_code for answer in asyncio.run(asking()))
    assert (first, died) == (200, 500) and behind in (200, 504)  # 504: the other process came up too late for it
    assert clean(folder)


def test_nobody_works_for_who_went_away(
    small: Server, client: httpx.Client, folder: Path, volumes: Callable[[int], bytes]
) -> None:
    before = calls(folder, "slow")
    number = {"X-Request-ID": "abc", "Authorization": f"Bearer {small.token}"}
    seen = set()

    async def leaving() -> None:
        async with httpx.AsyncClient(base_url=small.url, headers=number, timeout=60, trust_env=False) as many:
            asking = asyncio.create_task(many.post("v1/apply?model=slow", content=volumes(25)))
            while (state := (await many.get("v1/progress/abc")).json())["state"] != "running" or not state["done"]:
                assert not asking.done()
                seen.add(state["state"])
                await asyncio.sleep(SECONDS / 4)
            assert 0 < state["done"] < state["total"] == 25
            asking.cancel()

    asyncio.run(leaving())
    assert client.post("v1/apply?model=slow", content=volumes(1)).status_code == 200
    assert calls(folder, "slow") - before < 25
    assert client.get("v1/progress/abc").json() == {"state": "unknown"}
    assert clean(folder) and seen <= {"unknown", "waiting", "running"}


@contextmanager
def no_room(server: Server, left: int) -> Iterator[None]:
    """Files of the server and of its processes cannot grow past so many bytes, as on a full disk."""
    who = family(server)
    hard = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE)[1] for pid in who}
    for pid in who:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (left, hard[pid]))
    try:
        yield
    finally:
        for pid in who:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard[pid]))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="limits are set from outside on Linux alone")
def test_a_full_disk_is_said_and_nothing_is_left(
    small: Server, client: httpx.Client, folder: Path, volumes: Callable[[int], bytes]
) -> None:
    content = volumes(2)
    logged = small.log.stat().st_size
    with no_room(small, logged + 1000):  # the log is a file, too
        answer = client.post("v1/apply?model=slow", content=content + bytes(200_000))
        assert answer.status_code == 507 and "no room" in answer.json()["error"]
        assert answer.headers["retry-after"] == "60"
    assert clean(folder)
    assert client.post("v1/apply?model=slow", content=content).status_code == 200


@pytest.mark.slow
def test_what_was_accepted_is_answered_before_the_end(tmp_path: Path, volumes: Callable[[int], bytes]) -> None:
    """SIGTERM, to the server and to the process that works, as service managers send it."""
    for name in ("slow", "scratch"):
        (tmp_path / name).mkdir()

    async def ending(server: Server) -> tuple[httpx.Response, list[int]]:
        workers = family(server)[1:]
        async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as many:
            asking = asyncio.create_task(many.post("v1/apply", content=volumes(8), headers={"X-Request-ID": "1"}))
            while (await many.get("v1/progress/1")).json()["state"] != "running":
                assert not asking.done()
                await asyncio.sleep(0.02)
            for pid in (server.process.pid, *workers):
                os.kill(pid, signal.SIGTERM)
            return await asking, workers

    with started(by_hand(tmp_path / "scratch", tmp_path / "slow")) as server:
        answer, workers = asyncio.run(ending(server))
        assert answer.status_code == 200
        assert server.process.wait(20) == 0
        with pytest.raises(OSError):
            socket.create_connection(server.host, timeout=2)
        assert not list((tmp_path / "scratch").iterdir())
        lines = [json.loads(line)["event"] for line in server.log.read_text().splitlines()]
        assert lines[-2:] == ["request", "stopped"]
    assert soon(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--host", "0.0.0.0"], "a token is needed"),
        (["--host", "256.1.1.1"], "a token is needed"),
        (["--scratch", "PLACE/none"], "cannot be written"),
        (["--certificate", "PLACE/none"], "no certificate with its key"),
        (["--key", "PLACE/none"], "give --certificate, too"),
        (["PLACE/other/model"], "would both be called model"),
        (["PLACE/none"], "nothing is there"),
        (["PLACE/a b"], "cannot stand in an address"),
        (["--token-file", "PLACE/none"], "no token can be read"),
        (["--name", "a/b"], "no name of a machine"),
    ],
)
def test_a_server_that_cannot_be_is_refused_at_once(tmp_path: Path, words: list[str], line: str) -> None:
    for name in ("model", "other/model", "a b"):
        (tmp_path / name).mkdir(parents=True)
    done = call("serve", tmp_path / "model", "--port", "0", *(word.replace("PLACE", str(tmp_path)) for word in words))
    assert done.returncode == 2 and line in done.stderr and done.stderr.count("\n") == 1
    assert not done.stdout


def test_a_taken_port_is_refused(small: Server, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "scratch").mkdir()
    done = call("serve", tmp_path / "model", "--port", small.host[1], "--scratch", tmp_path / "scratch")
    assert done.returncode == 2 and "cannot be used" in done.stderr
    assert not list((tmp_path / "scratch").iterdir())
