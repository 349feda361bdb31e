"""Models at work in a process of their own: what it makes, and what becomes of a job that ends the process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pydicom
import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from pydicom.dataset import Dataset

from fabrica import io, runtime
from fabrica.inference.translator import Deployed
from fabrica.serving.node.entries import APPLY, LEASED, Job
from fabrica.serving.node.store import Store, opened
from fabrica.serving.node.work import Outcome, Worker, _serve, applied
from tests.dicom_network import ct, saved, uid
from tests.fragile import ASLEEP, KILLED, RAISED, fragile
from tests.handmade import handmade


def job(number: int = 1, version: int = 1, note: str = "") -> Job:
    return Job(number, uid("a"), "handmade", "h", "", version, APPLY, LEASED, "20260102030405", note, 1, 0, 0, "")


def bright(name: str, hu: int) -> list[Dataset]:
    """A series with one voxel of so many HU."""
    series = [ct(name, number) for number in (1, 2)]
    values = np.frombuffer(series[0].PixelData, "<u2").copy()
    values[100] = hu + 1024
    series[0].PixelData = values.tobytes()
    return series


def laid(store: Store, datasets: list[Dataset]) -> list[Path]:
    files = []
    for dataset in datasets:
        place = store.object(f"{dataset.SOPInstanceUID}.dcm")
        place.parent.mkdir(exist_ok=True)
        files.append(saved(dataset, place))
    return files


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade(tmp_path_factory.mktemp("models") / "handmade")


@pytest.fixture(scope="module")
def worker(model: Path) -> Iterator[Worker]:
    found = Worker(fragile, [model], limit=30, beat=0.2)
    yield found
    found.stop()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return opened(tmp_path / "store")


def work(worker: Worker, store: Store, datasets: list[Dataset]) -> Outcome:
    found = worker.apply(job(), laid(store, datasets), store, lambda: True)
    assert found is not None
    assert list(store.work.iterdir()) == []
    return found


def test_the_process_makes_what_apply_makes(worker: Worker, store: Store, model: Path, tmp_path: Path) -> None:
    series = [ct("a", number) for number in range(3)]
    outcome = work(worker, store, series)
    assert [model.name for model in worker.models] == ["handmade"]
    assert (outcome.refused, outcome.left_out, len(outcome.objects)) == ("", "", 3)
    made = [pydicom.dcmread(store.file(each.name)) for each in outcome.objects]
    assert [each.SOPInstanceUID for each in made] == [each.uid for each in outcome.objects]
    assert {each.SeriesInstanceUID for each in made} == set(outcome.series)
    assert {each.StudyInstanceUID for each in made} == {uid("a", "study")}
    assert {each.InstanceCreationDate + each.InstanceCreationTime for each in made} == {"20260102030405"}
    (tmp_path / "in").mkdir()
    for dataset in series:
        saved(dataset, tmp_path / "in" / f"{dataset.InstanceNumber}.dcm")
    from fabrica.inference.files import apply

    apply(runtime.opened(model), tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(io.read(store.result(1) / "in").data, io.read(tmp_path / "out" / "in").data)


@pytest.mark.parametrize(
    ("hu", "said"),
    [
        (KILLED, "the process that worked on it ended with signal 9"),
        (RAISED, "unexpected ArithmeticError: no such number"),
    ],
)
def test_what_ends_the_process_costs_one_series_its_result(worker: Worker, store: Store, hu: int, said: str) -> None:
    assert work(worker, store, bright("bad", hu)).refused == said
    assert work(worker, store, [ct("a", 1), ct("a", 2)]).objects


def test_jobs_that_take_too_long_or_are_anothers_are_ended(worker: Worker, store: Store, model: Path) -> None:
    files = laid(store, bright("slow", ASLEEP))
    if not worker.models:
        worker.start()
    before = worker._process
    assert worker.apply(job(), files, store, lambda: False) is None
    assert not before.is_alive()
    assert list(store.work.iterdir()) == []


def test_images_that_do_not_fit_the_model_are_refused_with_the_reason(model: Path, store: Store) -> None:
    gap = [ct("a", number) for number in (1, 2, 5, 6)]
    assert refusal(model, store, gap) == "the series is not for model handmade: 2 of its slices are missing"
    colour = ct("c", 1, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, Modality="XA")
    for keyword in ("BitsAllocated", "BitsStored"):
        setattr(colour, keyword, 8)
    colour.HighBit, colour.PixelData = 7, bytes(32 * 32 * 3)
    assert "handmade" in refusal(model, store, [colour])
    broken = ct("b", 1)
    broken.PixelData = broken.PixelData[:100]
    assert refusal(model, store, [broken]).startswith("the series")


def refusal(model: Path, store: Store, datasets: list[Dataset]) -> str:
    """In this process."""
    place = store.work / os.urandom(4).hex()
    (place / "in").mkdir(parents=True)
    for number, dataset in enumerate(datasets):
        saved(dataset, place / "in" / f"{number}.dcm")
    outcome = applied(runtime.opened(model), job(), place)
    assert not outcome.objects
    return outcome.refused


def test_a_result_made_again_is_the_same_byte_for_byte(model: Path, store: Store) -> None:
    def made(version: int, note: str, series: list[Dataset], **others: object) -> list[bytes]:
        place = store.work / os.urandom(4).hex()
        (place / "in").mkdir(parents=True)
        for dataset in series:  # named otherwise each time
            saved(dataset, place / "in" / f"{os.urandom(4).hex()}.dcm")
        applied(runtime.opened(model), job(1, version, note), place)
        return [path.read_bytes() for path in sorted((place / "out" / "in").glob("*.dcm"))]

    series = [ct("a", number) for number in range(3)]
    first = made(1, "", series)
    assert len(first) == 3
    assert made(1, "", series) == first
    late = made(2, "version 2, 1 came late", [*series, ct("a", 3)])
    uids = [{pydicom.dcmread(BytesIO(data)).SOPInstanceUID for data in datas} for datas in (first, late)]
    assert not uids[0] & uids[1]
    said = pydicom.dcmread(BytesIO(late[0]))
    assert "version 2, 1 came late" in said.SeriesDescription
    assert "version 2, 1 came late" in said.DerivationDescription


def test_models_that_cannot_be_opened_are_said_at_once(tmp_path: Path) -> None:
    ours, theirs = Pipe()
    _serve(theirs, fragile, [tmp_path])
    assert "exported.yaml" in ours.recv()


def test_models_of_the_same_weights_are_refused(model: Path) -> None:
    """A series and a hash name one job: one of the two would never work, and nothing would say so."""

    def open_(folder: Path) -> Deployed:
        found = runtime.opened(model)
        return Deployed(folder.name, found.hash, {"a2b": found.way()})

    ours, theirs = Pipe()
    _serve(theirs, open_, [Path("one"), Path("other")])
    assert ours.recv() == "models one and other are one, with the same weights; give it once"
