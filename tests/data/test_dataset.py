"""The order of training images is a pure function, and memory does not grow with their number."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fabrica.data.augment import Changes, coins, flip_left_right, shifted
from fabrica.data.dataset import Dataset, Meta, Writer, order
from fabrica.errors import FabricaError
from fabrica.training.batches import batch_at, prefetch


def written(folder: Path, count: int, side: int = 4, classes: tuple[str, ...] = ("a", "b")) -> Dataset:
    """Image k is filled with k / count, left half darker."""
    folder.mkdir(parents=True)
    with Writer(folder) as writer:
        for k in range(count):
            values = np.full((1, side, side), k / count, np.float32)
            values[..., : side // 2] -= 1
            writer.add(values, f"id-{k}", f"text ü {k}", k % len(classes) if classes else -1)
        writer.finish(Meta(writer.count, writer.shape, tuple(classes), "DX", (0.5, 0.5), (side, side)))
    return Dataset(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return written(tmp_path_factory.mktemp("set") / "d", 10)


def test_what_is_written_is_read(data: Dataset) -> None:
    assert len(data) == 10 and data.shape == (1, 4, 4) and data.classes == ("a", "b")
    assert (data.modality, data.spacing) == ("DX", (0.5, 0.5))
    images = data.read([3, 0, 3])
    assert images.dtype == np.float32 and images.shape == (3, 1, 4, 4)
    np.testing.assert_allclose(images[0, 0, 0], [-0.7, -0.7, 0.3, 0.3], atol=1 / 65534 + 1e-7)
    assert np.array_equal(images[0], images[2])
    assert data.ids[7] == "id-7" and data.texts[9] == "text ü 9" and list(data.ids)[-1] == "id-9"
    assert data.labels is not None and data.labels.tolist() == [0, 1] * 5


def test_the_ends_of_the_range_are_exact(tmp_path: Path) -> None:
    with Writer(tmp_path) as writer:
        writer.add(np.array([[[-1, 0, 1]]], np.float32), "a", "", -1)
        writer.finish(Meta(writer.count, writer.shape, (), "", (), ()))
    data = Dataset(tmp_path)
    assert data.read([0]).ravel().tolist() == [-1, 0, 1] and data.labels is None


def test_indices_outside_are_refused(data: Dataset) -> None:
    for k in (-1, 10):
        with pytest.raises(IndexError):
            data.read([k])
        with pytest.raises(IndexError):
            data.ids[k]


def test_a_cut_file_is_noticed(tmp_path: Path) -> None:
    data = written(tmp_path / "d", 5)
    path = tmp_path / "d" / "images.i16"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(FabricaError, match="cut short"):
        data.read([4])
    with pytest.raises(FabricaError, match="damaged"):
        Dataset(tmp_path / "d")


def test_every_epoch_sees_every_image_once(data: Dataset) -> None:
    stream = order(10, 0, np.arange(30))
    for epoch in stream.reshape(3, 10):
        assert sorted(epoch) == list(range(10))
    assert stream[:10].tolist() != stream[10:20].tolist()
    assert order(10, 1, np.arange(10)).tolist() != stream[:10].tolist()


def test_batches_wrap_into_the_next_epoch(data: Dataset) -> None:
    seen = np.concatenate([batch_at(data, step, 4, seed=5)["index"].numpy() for step in range(5)])
    assert np.array_equal(seen, order(10, 5, np.arange(20)))
    large = batch_at(data, 0, 25, seed=5)
    assert np.bincount(large["index"].numpy()).min() == 2 and large["image"].shape == (25, 1, 4, 4)


def test_a_batch_is_what_its_keys_say(data: Dataset) -> None:
    batch = batch_at(data, 3, 4, seed=1)
    assert set(batch) == {"image", "label", "index"}
    assert batch["image"].dtype == torch.float32 and batch["label"].dtype == batch["index"].dtype == torch.int64
    np.testing.assert_array_equal(batch["image"].numpy(), data.read(batch["index"].numpy()))
    assert (batch["label"] == batch["index"] % 2).all()


@pytest.mark.parametrize("flip", [False, True])
def test_two_processes_see_what_one_would(data: Dataset, flip: bool) -> None:
    whole = batch_at(data, 2, 6, seed=3, changes=Changes(flip=flip))
    parts = [batch_at(data, 2, 3, seed=3, rank=rank, world=2, changes=Changes(flip=flip)) for rank in range(2)]
    for key, value in whole.items():
        assert torch.equal(torch.cat([part[key] for part in parts]), value)


def test_prefetch_resumes_exactly(data: Dataset) -> None:
    straight = list(itertools.islice(prefetch(data, start=0, batch=3, seed=2, changes=Changes(flip=True)), 8))
    resumed = list(itertools.islice(prefetch(data, start=5, batch=3, seed=2, changes=Changes(flip=True)), 3))
    for a, b in zip(straight[5:], resumed, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_prefetch_hands_on_what_went_wrong(tmp_path: Path) -> None:
    data = written(tmp_path / "d", 5)
    (tmp_path / "d" / "images.i16").write_bytes(b"")
    with pytest.raises(FabricaError, match="cut short"):
        next(prefetch(data, start=0, batch=2, seed=0))


def test_flips_are_fair_independent_and_left_right() -> None:
    positions = np.arange(20_000)
    found = coins(7, positions)
    assert abs(found.mean() - 0.5) < 0.02 and abs((found[1:] == found[:-1]).mean() - 0.5) < 0.02
    assert abs((found == coins(8, positions)).mean() - 0.5) < 0.02
    assert np.array_equal(coins(7, positions[100:]), found[100:])
    images = np.arange(12, dtype=np.float32).reshape(2, 1, 2, 3).copy()
    chosen = np.array([int(np.argmax(found)), int(np.argmin(found))])
    flipped = flip_left_right(images, 7, chosen)
    assert flipped[0, 0].tolist() == [[2, 1, 0], [5, 4, 3]] and flipped[1, 0].tolist() == [[6, 7, 8], [9, 10, 11]]


def test_negative_seeds_are_seeds_too(data: Dataset) -> None:
    assert sorted(batch_at(data, 0, 10, seed=-1, changes=Changes(flip=True))["index"].tolist()) == list(range(10))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Reading 40 times through 1,000 images of 32 x 32, and then once through 40,000 (80 MB): the largest resident set
    may differ by the order of the images (40,000 x 8 bytes, a few epochs) but not by their pixels."""
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from fabrica.data.dataset import Dataset\n"
        "from fabrica.training.batches import batch_at\n"
        "for folder in sys.argv[1:]:\n"
        "    data = Dataset(Path(folder))\n"
        "    for step in range(625): data.ids[int(batch_at(data, step, 64, seed=0)['index'][0])]\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    folders = [tmp_path / str(count) for count in (1_000, 40_000)]
    for folder in folders:
        written(folder, int(folder.name), side=32)
    command = [sys.executable, "-c", script, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    peaks = [int(line) / 1024 for line in done.stdout.split()]
    assert peaks[1] - peaks[0] < 16, f"peak MB: {peaks}"


@pytest.mark.parametrize("shape", [(2, 9, 11), (1, 6, 9, 11)])
def test_shifts_are_whole_pixels_with_the_border_repeated(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).normal(size=(60, *shape)).astype(np.float32)
    moved = shifted(images.copy(), 3, np.arange(60), 2)
    steps = []
    for image, found in zip(images, moved, strict=True):
        fits = []
        for by in itertools.product(range(-2, 3), repeat=len(shape) - 1):
            wanted = image
            for axis, (step, side) in enumerate(zip(by, shape[1:], strict=True), start=1):
                wanted = wanted.take(np.clip(np.arange(side) + step, 0, side - 1), axis)
            fits += [by] if np.array_equal(wanted, found) else []
        assert len(fits) == 1
        steps += fits
    for axis in range(len(shape) - 1):
        assert {by[axis] for by in steps} == {-2, -1, 0, 1, 2}


def test_a_shift_belongs_to_its_position_whatever_the_batch() -> None:
    images = np.random.default_rng(0).normal(size=(6, 1, 8, 8)).astype(np.float32)
    whole = shifted(images.copy(), 3, np.arange(6), 3)
    assert np.array_equal(shifted(images[4:].copy(), 3, np.arange(4, 6), 3), whole[4:])
    assert not np.array_equal(shifted(images.copy(), 4, np.arange(6), 3), whole)
    assert np.array_equal(shifted(images.copy(), 3, np.arange(6), 0), images)
