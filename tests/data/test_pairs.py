"""Both sides of a translation in batches: pairs are changed alike, heaps meet in ever new ways, nothing loses bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fabrica import io
from fabrica.codec import Codec
from fabrica.data.augment import AS_THEY_ARE, Changes
from fabrica.data.cache import build_cache
from fabrica.data.dataset import SCALE, Dataset, Meta, Writer
from fabrica.data.manifest import Manifest, Row
from fabrica.data.pairs import Pairs
from fabrica.data.sources import open_source
from fabrica.errors import UsageError
from fabrica.image import Float32, Image
from fabrica.phantoms.head.head import head
from fabrica.recipe.schema import DataConfig
from fabrica.training.batches import batch_at

BYTE, HU = Codec("window", 0, 255), Codec("window", -1024, 3071, "HU")
MR = Codec("percentile", 0.5, 99.5, default_limits=(0, 1))
HEADS = DataConfig("phantom:head", a="T1", b="CT", paired=True, count=4, size=[32, 32])


def written(folder: Path, images: Float32, *notes: str) -> Dataset:
    folder.mkdir()
    with Writer(folder) as writer:
        for k, image in enumerate(images):
            writer.add(image, f"{folder.name}-{k}", "", -1)
        writer.finish(Meta(len(images), writer.shape, (), "CT", (), images.shape[2:], notes=notes))
    return Dataset(folder)


def noise(count: int, *shape: int) -> Float32:
    return np.random.default_rng(0).uniform(-1, 1, (count, *shape)).astype(np.float32)


def numbered(count: int) -> Float32:
    """Image k is filled with k / 100."""
    return np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1) / 100 * np.ones((1, 1, 4, 4), np.float32)


@pytest.mark.parametrize("shape", [(1, 12, 12), (1, 4, 12, 12)])
def test_both_images_of_a_pair_are_flipped_and_moved_alike(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = noise(10, *shape)
    pairs = Pairs(written(tmp_path / "a", images), written(tmp_path / "b", -images), True, (BYTE, BYTE))
    plain, changed = (
        batch_at(pairs, 3, 16, seed=5, changes=changes) for changes in (AS_THEY_ARE, Changes(flip=True, jitter=3))
    )
    for batch in (plain, changed):
        assert torch.equal(batch["b"], -batch["a"]) and set(batch) == {"a", "b", "index"}
    assert torch.equal(plain["index"], changed["index"])
    assert torch.equal(plain["a"], torch.from_numpy(pairs.a.read(plain["index"].numpy())))
    same = (plain["a"] == changed["a"]).flatten(1).all(1)
    assert int(same.sum()) <= 2


def test_pairs_stay_aligned_whatever_is_drawn_and_the_scanner_is_that_of_a_alone(tmp_path: Path) -> None:
    """b is a negative of a: it still is, pixel by pixel, after everything that moves; grey values change in a alone."""
    images = noise(6, 1, 24, 20) * 0.9
    pairs = Pairs(written(tmp_path / "a", images), written(tmp_path / "b", -images), True, (BYTE, BYTE))
    moves = Changes(flip=True, jitter=3, turn=9.0, zoom=0.2, bend=1.0)
    for seed in range(3):
        moved = batch_at(pairs, 1, 24, seed=seed, changes=moves)
        torch.testing.assert_close(moved["b"], -moved["a"], atol=1e-6, rtol=0)
        scanned = batch_at(pairs, 1, 24, seed=seed, changes=replace(moves, scanner=1.0))
        assert torch.equal(scanned["b"], moved["b"]) and torch.equal(scanned["index"], moved["index"])
        assert int((scanned["a"] == moved["a"]).flatten(1).all(1).sum()) == 0


def test_b_moves_apart_from_a_by_up_to_so_many_pixels_and_no_other_move_changes(tmp_path: Path) -> None:
    images = noise(6, 1, 24, 20)
    pairs = Pairs(written(tmp_path / "a", images), written(tmp_path / "b", images), True, (BYTE, BYTE))
    moves = Changes(flip=True, jitter=3)
    together, apart = (batch_at(pairs, 0, 60, seed=2, changes=each) for each in (moves, replace(moves, apart=2)))
    assert torch.equal(together["a"], apart["a"])
    found = []
    for one, other in zip(together["b"], apart["b"], strict=True):
        inner = other[:, 2:-2, 2:-2]
        found += [(y, x) for y in range(5) for x in range(5) if torch.equal(one[:, y : y + 20, x : x + 16], inner)]
    assert len(found) == 60 and {y for y, _ in found} == {x for _, x in found} == set(range(5))


def test_the_scanner_leaves_hounsfield_units_and_labels_alone(tmp_path: Path) -> None:
    label = Codec("label", classes=2, unit="label")
    for k, codec in enumerate((HU, label)):
        images = np.sign(noise(4, codec.classes or 1, 12, 12))
        own, other = written(tmp_path / f"a{k}", images), written(tmp_path / f"b{k}", images[:, :1])
        pairs = Pairs(own, other, True, (codec, BYTE))
        plain, asked = (batch_at(pairs, 0, 8, seed=1, changes=each) for each in (AS_THEY_ARE, Changes(scanner=1.0)))
        assert torch.equal(plain["a"], asked["a"]), codec


def test_more_slices_than_one_move_alike_as_channels(tmp_path: Path) -> None:
    images = noise(10, 1, 12, 12)
    three = written(tmp_path / "a", np.repeat(images, 3, axis=1))
    batch = batch_at(
        Pairs(three, written(tmp_path / "b", images), True, (BYTE, BYTE)),
        0,
        10,
        seed=1,
        changes=Changes(flip=True, jitter=2),
    )
    assert torch.equal(batch["a"], batch["b"].expand(-1, 3, -1, -1))


def test_heaps_meet_in_another_order_every_epoch(tmp_path: Path) -> None:
    pairs = Pairs(written(tmp_path / "a", numbered(10)), written(tmp_path / "b", numbered(7)), False, (BYTE, BYTE))
    batch = batch_at(pairs, 0, 70, seed=0)
    a, b = ((batch[key][:, 0, 0, 0] * 100).round().int() for key in ("a", "b"))
    assert torch.equal(a, batch["index"].int())
    for heap, count in ((a, 10), (b, 7)):
        epochs = heap.reshape(-1, count)
        assert all(sorted(epoch.tolist()) == list(range(count)) for epoch in epochs)
        assert len({tuple(epoch.tolist()) for epoch in epochs}) == len(epochs)
    partners = {k: set(b[a == k].tolist()) for k in range(10)}
    assert min(len(met) for met in partners.values()) > 1


def test_equal_heaps_do_not_pair_off(tmp_path: Path) -> None:
    pairs = Pairs(written(tmp_path / "a", numbered(10)), written(tmp_path / "b", numbered(10)), False, (BYTE, BYTE))
    batch = batch_at(pairs, 0, 100, seed=0)
    assert 0 < int((batch["a"] == batch["b"]).flatten(1).all(1).sum()) < 30  # ten of a hundred by chance


def test_heaps_are_changed_each_in_its_own_way(tmp_path: Path) -> None:
    images = np.repeat(noise(1, 1, 8, 8), 40, axis=0)
    pairs = Pairs(written(tmp_path / "a", images), written(tmp_path / "b", images), False, (BYTE, BYTE))
    batch = batch_at(pairs, 0, 40, seed=0, changes=Changes(flip=True))
    same = int((batch["a"] == batch["b"]).flatten(1).all(1).sum())
    assert 10 <= same <= 30  # two coins an image


def test_pairs_of_other_numbers_are_refused(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a", numbered(3)), written(tmp_path / "b", numbered(4))
    with pytest.raises(UsageError, match="pairs give 3 slices of a and 4 of b; expected as many") as refused:
        Pairs(a, b, True, (BYTE, BYTE))
    assert "\n" not in str(refused.value) and len(Pairs(a, b, False, (BYTE, BYTE))) == 3


def test_a_phantom_is_drawn_on_the_scanner_asked_for() -> None:
    for paired in (True, False):
        config = replace(HEADS, a="T1@B", b="T1@A", paired=paired)
        b, a = (next(open_source(config, "val", side).samples([1])) for side in "ab")
        assert (a.id == b.id) is paired
        for found, scanner in ((a, "A"), (b, "B")):
            drawn = head(int(found.id.removeprefix("head-")), 32, contrasts=["T1"], scanner=scanner).images["T1"]
            assert np.array_equal(found.image.data, drawn.data)
    plain = next(open_source(HEADS, "val", "a").samples([0])).image.data
    assert np.array_equal(plain, next(open_source(replace(HEADS, a="T1@A"), "val", "a").samples([0])).image.data)
    with pytest.raises(UsageError, match="no contrast 'T1@C'"):
        open_source(replace(HEADS, a="T1@C"), "val", "a")
    with pytest.raises(UsageError, match="no contrast 'CT@B'"):
        open_source(replace(HEADS, a="CT@B"), "val", "a")


def test_ids_are_those_of_a_and_notes_of_both_are_said_once(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a", numbered(2), "one", "two"), written(tmp_path / "b", numbered(2), "two", "three")
    pairs = Pairs(a, b, True, (BYTE, BYTE))
    assert list(pairs.ids) == ["a-0", "a-1"] and pairs.notes == ("one", "two", "three")


@pytest.mark.parametrize(
    ("codec", "levels"),
    [
        (HU, [-1, -0.75, -0.73]),  # -1024, -512 and -471 HU: only the last is no air
        (BYTE, [-1, -0.91, -0.89]),
    ],
)
def test_the_body_is_found_in_b_where_it_is_asked_for(tmp_path: Path, codec: Codec, levels: list[float]) -> None:
    images = np.full((1, 1, 16, 16), levels[0], np.float32)
    images[..., 2:14, 2:14] = levels[1]
    images[..., 4:10, 4:9] = levels[2]
    a, b = written(tmp_path / "a", np.ones_like(images)), written(tmp_path / "b", images)
    batch = batch_at(Pairs(a, b, True, (BYTE, codec), with_body=True), 0, 2, seed=0)
    assert batch["body"].shape == (2, 1, 16, 16) and batch["body"].dtype == torch.bool
    assert torch.equal(batch["body"], batch["b"] > levels[2] - 0.01)
    assert "body" not in batch_at(Pairs(a, b, True, (BYTE, codec)), 0, 2, seed=0)


def test_the_body_moves_with_its_image(tmp_path: Path) -> None:
    images = np.full((4, 1, 16, 16), -1, np.float32)
    images[..., 3:11, 4:9] = 0.5
    pairs = Pairs(written(tmp_path / "a", images), written(tmp_path / "b", images), True, (BYTE, BYTE), with_body=True)
    batch = batch_at(pairs, 0, 8, seed=0, changes=Changes(flip=True, jitter=3))
    assert torch.equal(batch["body"], batch["b"] > 0) and len(batch["body"].flatten(1).unique(dim=0)) > 2


def test_the_body_of_label_maps_is_all_but_the_background(tmp_path: Path) -> None:
    labels = np.zeros((1, 16, 16), np.float32)
    labels[:, 4:12, 4:12] = 1
    labels[:, 6:8, 6:8] = 2
    codec = Codec("label", classes=3, unit="label")
    images = codec.encode(Image(labels, unit="label"))[None]
    pairs = Pairs(written(tmp_path / "a", images), written(tmp_path / "b", images), True, (BYTE, codec), with_body=True)
    assert np.array_equal(batch_at(pairs, 0, 1, seed=0)["body"][0, 0].numpy(), labels[0] > 0)


# --- phantoms


def heads(config: DataConfig, folder: Path, split: str = "train") -> tuple[Dataset, Dataset]:
    a = build_cache(config, MR, split, folder, side="a")
    return a, build_cache(config, HU, split, folder, side="b")


def test_phantoms_of_pairs_are_the_same_patients_and_of_heaps_others(tmp_path: Path) -> None:
    a, b = heads(HEADS, tmp_path)
    assert list(a.ids) == list(b.ids) and (a.modality, b.modality) == ("MR", "CT")
    for k, id_ in enumerate(a.ids):
        drawn = head(int(id_.removeprefix("head-")), 32, contrasts=["T1", "CT"]).images
        assert np.array_equal(np.rint(HU.encode(drawn["CT"]) * SCALE), np.rint(b.read([k])[0] * SCALE))
        mr = MR.encode(drawn["T1"])
        assert np.array_equal(np.rint(mr * SCALE), np.rint(a.read([k])[0] * SCALE))
    c, d = heads(replace(HEADS, paired=False), tmp_path)
    assert list(c.ids) == list(a.ids) and not set(c.ids) & set(d.ids)


def test_neighbouring_slices_are_channels_of_a_alone(tmp_path: Path) -> None:
    config = replace(HEADS, count=1, depth=6, context=1, slices="all")
    a, b = heads(config, tmp_path)
    assert a.shape == (3, 32, 32) and b.shape == (1, 32, 32) and len(a) == len(b) == 6
    slices = a.read(range(6))
    assert np.array_equal(slices[1:, 0], slices[:-1, 1]) and np.array_equal(slices[:-1, 2], slices[1:, 1])
    assert np.array_equal(slices[0, 0], slices[0, 1]) and np.array_equal(slices[5, 2], slices[5, 1])
    assert not np.array_equal(slices[2, 0], slices[2, 1])
    plain = heads(replace(config, context=0), tmp_path)[0]
    assert np.array_equal(plain.read(range(6))[:, 0], slices[:, 1])
    assert list(a.ids) == list(b.ids) == [f"{a.ids[0][:-2]}#{k}" for k in range(6)]


def test_volumes_stay_volumes_on_both_sides(tmp_path: Path) -> None:
    a, b = heads(replace(HEADS, count=1, size=[6, 32, 32], fit="stretch"), tmp_path)
    assert a.shape == b.shape == (1, 6, 32, 32)
    batch = batch_at(Pairs(a, b, True, (MR, HU), with_body=True), 0, 1, seed=0)
    assert batch["body"].shape == (1, 1, 6, 32, 32) and 0.1 < float(batch["body"].float().mean()) < 0.9


# --- files


@pytest.mark.parametrize("suffix", [".nii.gz", ".png"])
def test_four_thousand_grey_values_survive(tmp_path: Path, suffix: str) -> None:
    """No 8 bits anywhere between the file and the network: each step of 1 HU is still there."""
    ramp = np.arange(4000, dtype=np.float32).reshape(1, 50, 80)
    shift = 1000 if suffix == ".nii.gz" else 0  # pictures hold nothing below 0
    origin = {"range": (0.0, 4095.0), "step": 1.0} if shift == 0 else {}
    rows = []
    for name in ("a", "b"):
        image = Image(ramp - shift, unit="arbitrary" if shift == 0 else "HU", origin=origin)
        io.write(image, tmp_path / f"{name}{suffix}")
        rows.append(Row(name, "p", f"{name}{suffix}", split="train", domain=name))
    Manifest(rows, tmp_path).save(tmp_path / "m.csv")
    config = DataConfig(str(tmp_path / "m.csv"), a="a", b="b", paired=True, size=[50, 80])
    codec = Codec("window", -shift, 4095 - shift)
    a, b = (build_cache(config, codec, "train", tmp_path / "cache", side=side) for side in "ab")
    batch = batch_at(Pairs(a, b, True, (BYTE, codec)), 0, 1, seed=0)
    for side in ("a", "b"):
        assert np.abs(codec.decode(batch[side][0].numpy()) - (ramp - shift)).max() < 0.1


def test_b_is_laid_on_the_voxels_of_a(tmp_path: Path) -> None:
    """A CT of half the voxel size, shifted and with its axes reversed, beside an MR: slices show the same places."""
    grid = np.diag([2.0, 2.0, 4.0, 1.0])
    d, h, w = np.meshgrid(*(np.arange(n) for n in (6, 10, 10)), indexing="ij")
    io.write(Image((2 * w + 20 * h + 100 * d)[None].astype(np.float32), grid), tmp_path / "mr.nii.gz")
    fine = np.diag([-1.0, -1.0, 2.0, 1.0])
    fine[:3, 3] = 21, 22, -2
    z, y, x = np.meshgrid(-2 + 2 * np.arange(16), 22 - np.arange(26), 21 - np.arange(26), indexing="ij")
    io.write(Image((x + 10 * y + 25 * z)[None].astype(np.float32), fine, "HU"), tmp_path / "ct.nii.gz")
    rows = [Row(name, "p", f"{name}.nii.gz", split="train", domain=name) for name in ("mr", "ct")]
    Manifest(rows, tmp_path).save(tmp_path / "m.csv")
    config = DataConfig(str(tmp_path / "m.csv"), a="mr", b="ct", paired=True, size=[10, 10], slices="all")
    codec = Codec("window", -100, 1000)
    a, b = (build_cache(config, codec, "train", tmp_path / "cache", side=side) for side in "ab")
    assert len(a) == len(b) == 6 and a.spacing == b.spacing == (2.0, 2.0)
    np.testing.assert_allclose(a.read(range(6)), b.read(range(6)), atol=1e-4)
