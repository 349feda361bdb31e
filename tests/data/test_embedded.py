"""Phantoms on the disk are a data set like any other."""

import json
from pathlib import Path

import numpy as np
import pytest

from fabrica import io
from fabrica.codec import Codec
from fabrica.data.cache import build_cache
from fabrica.data.codecs import resolve_codec
from fabrica.data.embedded import write_phantoms
from fabrica.data.label_names import labels_in
from fabrica.data.manifest import Manifest
from fabrica.data.scan import scan
from fabrica.errors import UsageError
from fabrica.phantoms.chest.chest import chest
from fabrica.phantoms.head.anatomy import INDEX
from fabrica.phantoms.head.head import head
from fabrica.recipe.schema import DataConfig


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chests")
    write_phantoms("chest", 12, folder, size=32)
    return folder


def test_chests_are_exact_with_masks_labels_and_reports(chests: Path) -> None:
    manifest = Manifest.load(chests / "manifest.csv")
    manifest.check()
    assert {row.split for row in manifest.rows} == {"train", "val", "test"} and len(manifest.rows) == 12
    known = json.loads((chests / "labels.json").read_text())
    for row in manifest.rows[:3]:
        drawn = chest(int(row.patient.removeprefix("chest-")), 32)
        assert np.array_equal(io.read(manifest.file(row)).data, drawn.image.data)
        assert np.array_equal(io.read(chests / row.mask).data, drawn.organs.data)
        assert np.array_equal(io.read(chests / "lesions" / f"{row.id}.png").data, drawn.lesions.data)
        assert (row.label, row.text, row.modality) == (drawn.label, drawn.text, "DX")
        assert known[row.id]["heart_thorax_ratio"] == pytest.approx(drawn.labels["heart_thorax_ratio"])


def test_chests_on_disk_and_on_the_fly_share_codec_and_no_patient(chests: Path, tmp_path: Path) -> None:
    disk = DataConfig(str(chests), size=[32, 32])
    assert resolve_codec(disk) == resolve_codec(DataConfig("phantom:chest", count=4, size=[32, 32]))
    assert resolve_codec(disk) == Codec("window", 0, 4095)
    data = build_cache(disk, None, "train", tmp_path)
    drawn = chest(int(data.ids[0].removeprefix("chest-")), 32).image
    np.testing.assert_allclose(data.read([0])[0], drawn.data / 2047.5 - 1, atol=2e-5)


def test_a_scan_sees_images_not_masks(chests: Path) -> None:
    assert [row.path for row in scan(chests).rows] == [row.path for row in sorted(
        Manifest.load(chests / "manifest.csv").rows, key=lambda row: row.path)]  # fmt: skip


def test_heads_are_registered_pairs(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    manifest = write_phantoms("head", 3, tmp_path, size=24, slices=4, progress=lambda d, t: calls.append((d, t)))
    manifest.check()
    assert calls == [(1, 3), (2, 3), (3, 3)] and {row.split for row in manifest.rows} == {"train", "val", "test"}
    ct = manifest.select(domain="CT").rows[0]
    image, pair = io.read(manifest.file(ct)), io.read(tmp_path / ct.pair)
    assert image.size == pair.size == io.read(tmp_path / ct.mask).size == (4, 24, 24)
    np.testing.assert_allclose(image.affine, pair.affine, atol=1e-5)
    drawn = head(0, 24, 4, contrasts=["CT"]).images["CT"]
    np.testing.assert_allclose(image.data, drawn.data, atol=1.0)
    np.testing.assert_allclose(image.affine, drawn.affine, atol=1e-5)
    assert ct.modality == "CT" and Path(ct.pair).name == "T1.nii.gz"
    rescanned = scan(tmp_path)
    assert {(row.patient, row.domain) for row in rescanned.rows} == {(r.patient, r.domain) for r in manifest.rows}


def test_masks_may_show_lesions(tmp_path: Path) -> None:
    manifest = write_phantoms("head", 6, tmp_path / "heads", size=48, masks="lesions")
    manifest.check()
    sick = 0
    for row in manifest.select(domain="T2").rows:
        drawn = head(int(row.patient.removeprefix("head-")), 48, contrasts=[])
        labels = io.read(manifest.root / row.mask).data
        names = ["tumour core", "tumour rim", "oedema"]
        for number, name in enumerate(names, start=1):
            assert np.array_equal(labels == number, drawn.tissue.data == INDEX[name])
        assert labels_in(row.mask_labels) == dict(enumerate(names, start=1))
        assert (row.label == "tumour") == bool(labels.any())
        sick += row.label == "tumour"
    assert 0 < sick < 6
    assert {row.mask for row in scan(tmp_path / "heads").rows} == {row.mask for row in manifest.rows}
    chests = write_phantoms("chest", 2, tmp_path / "chests", size=32, masks="lesions")
    assert [row.mask for row in chests.rows] == ["lesions/chest-0.png", "lesions/chest-1.png"]
    with pytest.raises(UsageError, match="masks are 'bones'; expected anatomy or lesions"):
        write_phantoms("head", 1, tmp_path / "no", masks="bones")


def test_seeds_share_no_patient(tmp_path: Path) -> None:
    first = write_phantoms("chest", 3, tmp_path / "0", size=16)
    second = write_phantoms("chest", 3, tmp_path / "1", size=16, seed=1)
    again = write_phantoms("chest", 3, tmp_path / "again", size=16, seed=1)
    assert not {row.patient for row in first.rows} & {row.patient for row in second.rows}
    assert again.rows == second.rows


@pytest.mark.parametrize("call", [("hand", 3, 0), ("chest", 0, 0), ("chest", 3, -1)])
def test_wrong_use(tmp_path: Path, call: tuple[str, int, int]) -> None:
    with pytest.raises(UsageError):
        write_phantoms(call[0], call[1], tmp_path, seed=call[2])
