"""`fabrica serve` of exported models, asked as programs ask it: the inference protocol, and images there and back."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import ssl
import subprocess
import zipfile
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest

import fabrica
from fabrica.evaluation.explanation import explain
from fabrica.image import Image
from fabrica.inference.files import apply
from fabrica.phantoms.head.head import head
from fabrica.runtime import opened
from fabrica.serving.http.tensors import HEADER
from tests.handmade import handmade_net
from tests.serving.http.started import Server, by_cli, family, memory, started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as found:
        yield found


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One CT as a DICOM series, a slice, and in other formats."""
    place: Path = tmp_path_factory.mktemp("images")
    volume = head(3, 40, 4, contrasts=["CT"]).images["CT"]
    fabrica.write(volume, place / "series", as_="dicom")
    fabrica.write(volume, place / "volume.nii.gz")
    grey = np.random.default_rng(0).integers(0, 256, (1, 30, 40)).astype(np.float32)
    for name in ("picture.png", "picture.tif"):
        fabrica.write(Image(grey, origin={"range": (0.0, 255.0), "step": 1.0}), place / name)
    with zipfile.ZipFile(place / "series.zip", "w") as archive:
        for path in sorted((place / "series").iterdir()):
            archive.write(path, f"Doe^Jane/{path.stem}")  # as many archives hand DICOM out: without a suffix
    return place


def expected(folder: Path, source: Path, out: Path) -> Image:
    """What `fabrica apply` makes of the same."""
    model = "pictures" if source.name.startswith("picture") else "hand"
    (outcome,) = apply(opened(folder / model), source, out)
    return fabrica.read(out / outcome.output)


def unpacked(content: bytes, place: Path) -> Path:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        archive.extractall(place)
    return place


def test_a_series_comes_back_as_a_series(client: httpx.Client, images: Path, folder: Path, tmp_path: Path) -> None:
    content = (images / "series.zip").read_bytes()
    answer = client.post("v1/apply", params={"model": "hand"}, content=content)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/zip"
    assert answer.headers["fabrica-model"] == "hand 000000000000" and json.loads(answer.headers["fabrica-notes"])
    place = unpacked(answer.content, tmp_path / "got")
    slices = list(place.rglob("*.dcm"))
    assert len(slices) == 4
    made, wanted = fabrica.read(slices[0].parent), expected(folder, images / "series", tmp_path / "own")
    np.testing.assert_array_equal(made.data, wanted.data)
    np.testing.assert_allclose(made.affine, wanted.affine, atol=1e-3)
    said = json.loads((place / "result.json").read_text())
    assert said["model_hash"] == "0" * 12 and said["results"][0]["refused"] == ""


def test_files_of_a_form_are_one_series(client: httpx.Client, images: Path, folder: Path, tmp_path: Path) -> None:
    form = [("files", (f"a/../{path.name}", path.read_bytes())) for path in sorted((images / "series").iterdir())]
    answer = client.post("v1/apply", params={"model": "hand"}, files=form)
    assert answer.status_code == 200, answer.text
    slices = list(unpacked(answer.content, tmp_path / "got").rglob("*.dcm"))
    wanted = expected(folder, images / "series", tmp_path / "own")
    np.testing.assert_array_equal(fabrica.read(slices[0].parent).data, wanted.data)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("volume.nii.gz", "application/gzip"),
        ("picture.png", "image/png"),
        ("picture.tif", "image/tiff"),
        ("series/0002.dcm", "application/dicom"),
    ],
)
def test_a_file_comes_back_as_the_same_kind(
    client: httpx.Client, images: Path, folder: Path, tmp_path: Path, name: str, kind: str
) -> None:
    """By what is in it: its name is not sent."""
    model = "pictures" if name.startswith("picture") else "hand"
    answer = client.post("v1/apply", params={"model": model}, content=(images / name).read_bytes())
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == kind
    suffix = "".join(Path(name).suffixes)
    assert f'filename="result{suffix}"' in answer.headers["content-disposition"]
    (tmp_path / f"got{suffix}").write_bytes(answer.content)
    wanted = expected(folder, images / name, tmp_path / "own")
    np.testing.assert_array_equal(fabrica.read(tmp_path / f"got{suffix}").data, wanted.data)


def test_maps_and_other_formats_are_given_when_asked_for(client: httpx.Client, images: Path, tmp_path: Path) -> None:
    asked = {"model": "hand", "uncertainty": "1", "as": "nrrd"}
    answer = client.post("v1/apply", params=asked, content=(images / "volume.nii.gz").read_bytes())
    names = {path.name for path in unpacked(answer.content, tmp_path).iterdir()}
    assert names == {"00001.nrrd", "00001-uncertainty.nii.gz", "result.json"}


def test_a_view_is_what_the_files_say(client: httpx.Client, images: Path, tmp_path: Path) -> None:
    asked = {"model": "hand", "uncertainty": "1", "view": "1"}
    answer = client.post("v1/apply", params=asked, content=(images / "series.zip").read_bytes())
    place = unpacked(answer.content, tmp_path)
    said = json.loads((place / "view" / "view.json").read_text())
    before = fabrica.read(images / "series")
    for name, image in (("before", before), ("after", fabrica.read(next(place.rglob("*.dcm")).parent))):
        numbers = np.frombuffer((place / "view" / f"{name}.u16").read_bytes(), "<u2").reshape(said[name]["shape"])
        values = numbers[..., 0] * said[name]["step"] + said[name]["low"]
        np.testing.assert_allclose(np.sort(values.ravel()), np.sort(image.data.ravel()), atol=1e-3)
        assert said[name]["unit"] == "HU"
    assert said["before"]["spacing"] == pytest.approx(before.spacing)
    assert (place / "view" / "uncertainty.u16").stat().st_size == 2 * before.data.size


@pytest.mark.parametrize("name", ["volume.nii.gz", "picture.png"])
def test_what_moved_a_result_is_told_as_the_command_tells_it(
    client: httpx.Client, images: Path, folder: Path, tmp_path: Path, name: str
) -> None:
    model = "pictures" if name.startswith("picture") else "hand"
    asked = {"model": model, "explain": "1", "view": "1"}
    place = unpacked(
        client.post("v1/apply", params=asked, content=(images / name).read_bytes()).content, tmp_path / "got"
    )
    explain(opened(folder / model), images / name, tmp_path / "own")
    told, own = (json.loads((at / "explanation.json").read_text()) for at in (place / "explanation", tmp_path / "own"))
    assert told["parts"] == own["parts"] and told["window"] == own["window"]
    assert (place / "explanation" / "report.html").is_file()
    wanted = fabrica.read(tmp_path / "own" / "result-occlusion.nii.gz").data if name.startswith("volume") else None
    wanted = np.load(tmp_path / "own" / "result.npz")["occlusion"] if wanted is None else wanted
    said = json.loads((place / "view" / "view.json").read_text())["occlusion"]
    numbers = np.frombuffer((place / "view" / "occlusion.u16").read_bytes(), "<u2")
    seen = np.sort(numbers * said["step"] + said["low"])
    np.testing.assert_allclose(seen, np.sort(wanted.ravel()), atol=2 * said["step"])
    assert seen.max() > 0


def test_the_protocol_says_what_there_is(client: httpx.Client) -> None:
    assert client.get("v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("v2/health/live").json() == {"live": True}
    assert client.get("v2/models/hand/ready").json() == {"name": "hand", "ready": True}
    said = client.get("v2/models/hand").json()
    assert said["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 1, -1, -1]}]
    assert [each["name"] for each in client.get("v1/models").json()["models"]] == ["hand", "mr", "pictures"]
    for path in ("v2/models/none", "v2/models/none/ready", "nothing", "page/../access.py", "page/none.js"):
        answer = client.get(path)
        assert answer.status_code == 404 and answer.json()["error"], path


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 17, 9)])
def test_tensors_go_through_the_graph(client: httpx.Client, size: tuple[int, int, int]) -> None:
    values = np.random.default_rng(0).uniform(-1, 1, (size[0], 1, *size[1:])).astype(np.float32)
    shape = {"name": "images", "datatype": "FP32", "shape": list(values.shape)}
    answer = client.post(
        "v2/models/hand/infer", json={"id": "7", "inputs": [{**shape, "data": values.ravel().tolist()}]}
    )
    said = answer.json()
    assert said["id"] == "7" and said["model_name"] == "hand"
    one = np.array(said["outputs"][0]["data"], np.float32).reshape(said["outputs"][0]["shape"])
    head = json.dumps(
        {
            "inputs": [{**shape, "parameters": {"binary_data_size": values.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    answer = client.post("v2/models/hand/infer", content=head + values.tobytes(), headers={HEADER: str(len(head))})
    length = int(answer.headers[HEADER])
    (output,) = json.loads(answer.content[:length])["outputs"]
    assert output["parameters"]["binary_data_size"] == len(answer.content) - length
    other = np.frombuffer(answer.content[length:], "<f4").reshape(output["shape"])
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(other, handmade_net(values), atol=1e-6)


def test_what_a_model_is_not_for_is_refused_unless_forced(client: httpx.Client, images: Path) -> None:
    content = (images / "volume.nii.gz").read_bytes()
    answer = client.post("v1/apply", params={"model": "mr"}, content=(images / "series.zip").read_bytes())
    assert answer.status_code == 422
    assert "its modality is CT, and MR in training; force=1 translates it anyway" in answer.json()["error"]
    assert client.post("v1/apply", params={"model": "mr", "force": "1"}, content=content).status_code == 200
    answer = client.post("v1/apply", content=content)
    assert answer.status_code == 400 and "say which model, one of hand, mr, pictures" in answer.json()["error"]
    answer = client.post("v1/sample", json={"model": "hand"})
    assert answer.status_code == 400 and "does not sample; it does apply, infer" in answer.json()["error"]
    answer = client.post("v1/apply?model=hand&mirror=1", content=content)
    assert answer.status_code == 422 and "mirror" in answer.json()["error"]


def test_nobody_else_s_page_is_answered(client: httpx.Client) -> None:
    assert client.get("v1/models", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("", headers={"Host": "evil.example"}).status_code == 403
    assert client.post("v1/sample", headers={"Origin": "http://evil.example"}).status_code == 403
    answer = client.options(
        "v1/apply", headers={"Origin": str(client.base_url)[:-1], "Access-Control-Request-Method": "POST"}
    )
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]
    for path in ("", "v1/models", "v2/health/live", "nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"] and headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff" and "server" not in headers


def test_nothing_of_a_patient_is_told(server: Server, client: httpx.Client, images: Path) -> None:
    """Neither by logs nor by metrics, whatever names are sent."""
    form = [("files", ("Doe^Jane.dcm", (images / "series" / "0001.dcm").read_bytes()))]
    assert client.post("v1/apply?model=hand", files=form).status_code == 200
    assert client.post("v1/apply?model=hand", files=[("files", ("Doe^Jane.dcm", b"Doe^Jane"))]).status_code == 422
    assert client.get("v1/Doe^Jane?Doe^Jane=1").status_code == 404
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert {line["status"] for line in lines if line.get("route") == "apply"} >= {200, 422}
    assert all(
        line.keys() <= {"time", "event", "route", "seconds", "status", "sent", "came", "model", "models"}
        for line in lines
    )
    told = client.get("metrics").text
    assert 'fabrica_requests_total{route="apply",status="422"}' in told and "fabrica_places 64.0" in told
    assert "Doe" not in server.log.read_text() + told


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_a_certificate_makes_it_https(folder: Path, server: Server, tmp_path: Path) -> None:
    words = [
        "openssl",
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
    words += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    words += ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(words, check=True, capture_output=True)
    trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    command = by_cli(folder / "hand", "--certificate", tmp_path / "cert.pem", "--key", tmp_path / "key.pem")
    with started(command, verify=trusted) as secure:
        assert secure.url.startswith("https://")
        with secure.client(verify=trusted) as client:
            assert client.get("v1/models", headers={"Origin": secure.url[:-1]}).status_code == 200
            plain = {"Origin": secure.url[:-1].replace("https", "http")}
            assert client.get("v1/models", headers=plain).status_code == 403
        with pytest.raises(httpx.HTTPError):
            httpx.get(secure.url.replace("https", "http"), trust_env=False)


def mutated(content: bytes, seed: int) -> bytes:
    """A file with bits flipped, cut short, or with a length that lies."""
    chance = random.Random(seed)
    found = bytearray(content)
    kind = seed % 3
    if kind == 0:
        for _ in range(chance.randint(1, 20)):
            found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del found[chance.randrange(len(found)) :]
    else:
        at = chance.randrange(132, 2000)
        found[at : at + 4] = chance.choice([2**32 - 1, 2**31, 2**24, 0]).to_bytes(4, "little")
    return bytes(found)


@pytest.mark.slow
def test_damaged_objects_are_worked_on_or_refused(server: Server, client: httpx.Client, images: Path) -> None:
    """FABRICA_MUTATED of them, none of which ends a process or lets one grow."""
    sound, before = (images / "series" / "0001.dcm").read_bytes(), family(server)
    found: Counter[int] = Counter()
    count = int(os.environ.get("FABRICA_MUTATED", "60"))
    for seed in range(count):
        if seed == count // 3:
            grown = memory(server)
        answer = client.post("v1/apply?model=hand", content=mutated(sound, seed))
        found[answer.status_code] += 1
        if answer.status_code != 200:
            said = answer.json()["error"]
            assert answer.status_code in (400, 422) and said and "\n" not in said, (seed, said)
    assert found[422] > count // 10 and family(server) == before
    assert not grown or memory(server) < 1.2 * grown


def test_nothing_is_left_on_disk(client: httpx.Client, folder: Path) -> None:
    (place,) = (folder / "scratch").iterdir()
    assert not list(place.iterdir())


def test_niivue_is_served_as_it_came(client: httpx.Client) -> None:
    """The file whose version, sum and licences stand beside it."""
    content = client.get("page/niivue.js").content
    beside = files("fabrica.serving.http.page").joinpath("niivue.LICENSE.txt").read_text()
    assert hashlib.sha256(content).hexdigest() in beside and "BSD 2-Clause" in beside
    assert client.get("page/niivue.LICENSE.txt").status_code == 404
