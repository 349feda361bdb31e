"""Other contrasts of a patient beside the image, sent as parts of a form, for a model that sees them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest

import fabrica
from fabrica.phantoms.head.head import head
from tests.serving.http.started import Server

FORM = tuple[str, tuple[str, bytes]]


@pytest.fixture(scope="module")
def client(small: Server) -> Iterator[httpx.Client]:
    with small.client(params={"model": "contrasts", "force": "1"}) as found:
        yield found


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes of one head: T1, T2 of the same voxels and in finer ones, T2 as a DICOM series, a slice of FLAIR; and T2
    of another place."""
    place: Path = tmp_path_factory.mktemp("patient")
    images = head(5, 32, 4, contrasts=["T1", "T2", "FLAIR"]).images
    images["fine"] = head(5, 64, 4, contrasts=["T2"]).images["T2"]
    images["slice"] = images["FLAIR"].with_data(images["FLAIR"].data[:, 2])
    far = images["T2"].affine.copy()
    far[:3, 3] += 1000
    images["far"] = images["T2"].with_data(images["T2"].data, affine=far)
    for name, image in images.items():
        fabrica.write(image, place / f"{name}.nii.gz")
    fabrica.write(images["T2"], place / "series", as_="dicom")
    return place


def part(name: str, path: Path) -> FORM:
    return name, (path.name, path.read_bytes())


def made(answer: httpx.Response, place: Path) -> fabrica.Image:
    """The image of an answer, a file or an archive of one."""
    if answer.headers["content-type"] != "application/zip":
        (place / "got.nii.gz").write_bytes(answer.content)
        return fabrica.read(place / "got.nii.gz")
    with zipfile.ZipFile(BytesIO(answer.content)) as archive:
        archive.extract(next(name for name in archive.namelist() if name.endswith(".nii.gz")), place)
    return fabrica.read(next(place.rglob("*.nii.gz")))


@pytest.mark.parametrize("kind", ["file", "several", "zip", "fine"])
def test_a_contrast_goes_beside_the_image(client: httpx.Client, patient: Path, tmp_path: Path, kind: str) -> None:
    """As one file, all files of a series, or a zip of it; on its own grid, or another in the same patient."""
    series = sorted((patient / "series").iterdir())
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in series:
            archive.write(path, path.name)
    sent: dict[str, list[FORM]] = {
        "file": [part("T2", patient / "T2.nii.gz")],
        "several": [part("T2", path) for path in series],
        "zip": [("T2", ("t2.zip", packed.getvalue()))],
        "fine": [part("T2", patient / "fine.nii.gz")],
    }
    answer = client.post("v1/apply", files=[*sent[kind], part("files", patient / "T1.nii.gz")])
    assert answer.status_code == 200, answer.text
    notes = json.loads(answer.headers["fabrica-notes"])
    lacking = [each for each in notes if each.startswith("without")]
    assert lacking == ["without FLAIR beside the image; it may be sent, too"]
    found, wanted = made(answer, tmp_path), fabrica.read(patient / "T2.nii.gz")
    np.testing.assert_allclose(found.affine, fabrica.read(patient / "T1.nii.gz").affine, atol=1e-3)
    if kind == "fine":
        assert np.corrcoef(found.data.ravel(), wanted.data.ravel())[0, 1] > 0.97
    else:
        np.testing.assert_allclose(found.data, np.clip(wanted.data, 0, 4095), atol=1)


def test_without_a_contrast_the_result_says_so(client: httpx.Client, patient: Path, tmp_path: Path) -> None:
    answer = client.post("v1/apply", content=(patient / "T1.nii.gz").read_bytes())
    assert answer.status_code == 200, answer.text
    notes = json.loads(answer.headers["fabrica-notes"])
    assert {f"without {name} beside the image; it may be sent, too" for name in ("T2", "FLAIR")} <= set(notes)
    wanted = np.clip(fabrica.read(patient / "T1.nii.gz").data, 0, 4095)
    np.testing.assert_allclose(made(answer, tmp_path).data, wanted, atol=1)
    sent = [part("files", patient / "T1.nii.gz"), part("T2", patient / "T2.nii.gz")]
    answer = client.post("v1/apply", params={"view": "1"}, files=sent)
    with zipfile.ZipFile(BytesIO(answer.content)) as archive:
        (said,) = json.loads(archive.read("result.json"))["results"]
    assert said["auxiliary"] == ["T2"]


@pytest.mark.parametrize(
    ("parts", "status", "line"),
    [
        (
            [("files", "T1.nii.gz"), ("T3", "T2.nii.gz")],
            400,
            "no part 'T3'; send the image as files, and beside it T2, FLAIR",
        ),
        ([("T2", "T2.nii.gz")], 400, "the body holds no image"),
        ([("files", "T1.nii.gz"), ("T2", "slice.nii.gz")], 422, "cannot be brought together"),
        ([("files", "T1.nii.gz"), ("T2", "far.nii.gz")], 422, "apart"),
        (
            [("files", "T1.nii.gz"), ("T2", "T2.nii.gz"), ("T2", "fine.nii.gz")],
            422,
            "holds 2 images; expected one, the T2",
        ),
        ([("files", "T1.nii.gz"), ("files", "fine.nii.gz"), ("T2", "T2.nii.gz")], 422, "says what belongs to one"),
    ],
    ids=["unknown", "alone", "slice", "apart", "two", "several"],
)
def test_what_cannot_stand_beside_is_refused(
    client: httpx.Client, patient: Path, parts: list[tuple[str, str]], status: int, line: str
) -> None:
    answer = client.post("v1/apply", files=[part(name, patient / file) for name, file in parts])
    assert answer.status_code == status and line in answer.json()["error"], answer.text
    assert str(patient) not in answer.text and "\n" not in answer.json()["error"] and "fabrica-serve" not in answer.text


def test_a_model_of_one_image_takes_nothing_beside_it(small: Server, patient: Path) -> None:
    with small.client() as client:
        sent = [part("files", patient / "T1.nii.gz"), part("T2", patient / "T2.nii.gz")]
        answer = client.post("v1/apply?model=organs&force=1", files=sent)
    assert answer.status_code == 400 and "beside it nothing" in answer.json()["error"]
