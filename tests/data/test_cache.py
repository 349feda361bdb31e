"""The cache is right, reused, rebuilt when anything changes, and never half there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from fabrica import io
from fabrica.codec import Codec
from fabrica.data.cache import build_cache
from fabrica.data.classes import classes_of
from fabrica.data.codecs import resolve_codec
from fabrica.data.manifest import Manifest, Row
from fabrica.data.manifest_cache import load_manifest
from fabrica.errors import FabricaError, UsageError
from fabrica.image import Image
from fabrica.recipe.schema import CodecConfig, DataConfig

Draw = Callable[..., Path]
Real = Callable[[str], Path]
BYTE = Codec("window", 0, 255)
CHESTS = DataConfig("phantom:chest", count=70, size=[16, 16])


@pytest.fixture
def pictures(tmp_path: Path, draw: Draw) -> DataConfig:
    """Twelve pictures of two classes: 8 to train, 2 each to val and test."""
    rows = []
    for k in range(12):
        draw(f"images/{k}.png", seed=k)
        split = "train" if k < 8 else "val" if k < 10 else "test"
        rows.append(Row(f"i{k}", f"p{k}", f"images/{k}.png", "", split, "CR", "ab"[k // 6], "xy"[k % 2], f"text {k}"))
    Manifest(rows, tmp_path).save(tmp_path / "m.csv")
    return DataConfig(str(tmp_path / "m.csv"), size=[16, 16])


def test_values_are_those_of_the_files(pictures: DataConfig, tmp_path: Path) -> None:
    data = build_cache(pictures, BYTE, "train", tmp_path / "cache")
    assert len(data) == 8 and data.shape == (1, 16, 16) and data.modality == "CR" and data.spacing == ()
    assert list(data.ids) == [f"i{k}" for k in range(8)] and data.texts[3] == "text 3"
    for k in range(8):
        pixels = np.asarray(Picture.open(tmp_path / f"images/{k}.png"), np.float32)
        np.testing.assert_allclose(data.read([k])[0, 0], pixels / 127.5 - 1, atol=2e-5)
    assert data.labels is None and data.classes == ()


def test_splits_filters_and_labels(pictures: DataConfig, tmp_path: Path) -> None:
    labelled = replace(pictures, condition=["label"])
    data = build_cache(labelled, BYTE, "val", tmp_path / "cache")
    assert list(data.ids) == ["i8", "i9"] and data.classes == ("x", "y")
    assert data.labels is not None and data.labels.tolist() == [0, 1]
    turned = build_cache(replace(labelled, classes=["y", "x"]), BYTE, "val", tmp_path / "cache")
    assert turned.labels is not None and turned.labels.tolist() == [1, 0]
    some = build_cache(replace(pictures, where={"domain": "b"}), BYTE, "train", tmp_path / "cache")
    assert list(some.ids) == ["i6", "i7"]


def test_a_cache_is_reused_until_something_changes(pictures: DataConfig, tmp_path: Path) -> None:
    def folder(config: DataConfig = pictures, codec: Codec = BYTE) -> Path:
        return build_cache(config, codec, "train", tmp_path / "cache").folder

    first = folder()
    stamp = (first / "images.i16").stat().st_mtime_ns
    assert folder() == first and (first / "images.i16").stat().st_mtime_ns == stamp
    assert folder(replace(pictures, batch=7, flip=True)) == first
    others = [
        folder(replace(pictures, size=[8, 8])),
        folder(replace(pictures, size=[8, 16], fit="crop")),
        folder(replace(pictures, condition=["label"])),
        folder(codec=Codec("window", 0, 128)),
    ]
    assert len({first, *others}) == 5
    image = tmp_path / "images" / "0.png"
    os.utime(image, (1, 1))
    assert folder() != first


def test_damaged_caches_are_built_again(pictures: DataConfig, tmp_path: Path) -> None:
    first = build_cache(pictures, BYTE, "train", tmp_path / "cache")
    expected = first.read(range(8))
    for name in ("images.i16", "meta.json", "ids.npy"):
        path = first.folder / name
        path.write_bytes(path.read_bytes()[: -len(path.read_bytes()) // 2])
        assert np.array_equal(build_cache(pictures, BYTE, "train", tmp_path / "cache").read(range(8)), expected)


def test_killed_while_building_leaves_nothing_that_is_used(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from fabrica.codec import Codec\n"
        "from fabrica.data.cache import build_cache\n"
        "from fabrica.recipe.schema import DataConfig\n"
        "config = DataConfig('phantom:chest', count=100, size=[16, 16])\n"
        "build_cache(config, Codec('window', 0, 4095), 'train', Path(sys.argv[1]))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*.partial/images.i16")) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list(tmp_path.glob("*.partial")) and not list(tmp_path.glob("*/meta.json"))
    data = build_cache(
        DataConfig("phantom:chest", count=100, size=[16, 16]), Codec("window", 0, 4095), "train", tmp_path
    )
    assert len(data) == 100 and not list(tmp_path.glob("*.partial"))


def test_a_full_disk_is_one_line_and_leaves_nothing(pictures: DataConfig, tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from fabrica.codec import Codec\n"
        "from fabrica.data.cache import build_cache\n"
        "from fabrica.errors import FabricaError\n"
        "from fabrica.recipe.schema import DataConfig\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
        "config, codec = DataConfig(sys.argv[1], size=[16, 16]), Codec('window', 0, 255)\n"
        "try: build_cache(config, codec, 'train', Path(sys.argv[2]))\n"
        "except FabricaError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, pictures.source, str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("cache not written to") and "FABRICA_CACHE" in done.stdout
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_two_processes_build_one_cache(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from fabrica.codec import Codec\n"
        "from fabrica.data.cache import build_cache\n"
        "from fabrica.recipe.schema import DataConfig\n"
        "config, codec = DataConfig('phantom:chest', count=64, size=[16, 16]), Codec('window', 0, 4095)\n"
        "calls = []\n"
        "data = build_cache(config, codec, 'train', Path(sys.argv[1]), lambda done, total: calls.append(done))\n"
        "print(len(data), bool(calls))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = sorted(child.communicate(timeout=120)[0].strip() for child in children)
    assert outputs == ["64 False", "64 True"]


def test_phantoms_of_the_splits_are_different_patients(tmp_path: Path) -> None:
    sets = [set(build_cache(CHESTS, Codec("window", 0, 4095), s, tmp_path).ids) for s in ("train", "val", "test")]
    assert [len(ids) for ids in sets] == [70, 64, 64]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])


def test_phantom_chests_bring_labels_reports_and_millimetres(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    config = replace(CHESTS, condition=["label"], count=150)
    data = build_cache(config, None, "train", tmp_path, lambda done, total: calls.append((done, total)))
    assert "normal" in data.classes and data.labels is not None and set(data.labels) == set(range(len(data.classes)))
    assert data.texts[0].startswith("FINDINGS") and data.modality == "DX" and 15 < data.spacing[0] < 30
    assert calls[-1] == (150, 150) and data.read(range(150)).std() > 0.1


@pytest.mark.parametrize(("size", "shape"), [([24, 24], (1, 24, 24)), ([4, 24, 24], (1, 4, 24, 24))])
def test_phantom_heads_are_slices_or_volumes(tmp_path: Path, size: list[int], shape: tuple[int, ...]) -> None:
    config = DataConfig("phantom:head:CT", count=2, size=size, condition=["label"])
    codec = resolve_codec(config)
    assert (codec.kind, codec.unit, codec.low, codec.high) == ("window", "HU", -1024, 3071)
    data = build_cache(replace(config, count=6, classes=["healthy", "tumour"]), codec, "train", tmp_path)
    assert data.shape == shape and data.modality == "CT"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "nowhere.csv"}, "no data at nowhere.csv"),
        ({"source": "phantom:chst"}, "no phantom 'phantom:chst'"),
        ({"source": "phantom:head"}, "phantom:head:T1"),
        ({"source": "phantom:chest", "size": [8, 8, 8]}, "2-D"),
        ({"source": "phantom:chest", "where": {"label": "x"}}, "data.where"),
        ({"where": {"domain": "c"}}, "no image in split train, domain = c; it has train 8, val 2, test 2"),
        ({"where": {"domian": "a"}}, "did you mean domain"),
        ({"where": {"split": "test"}}, "cannot choose the split"),
        ({"channels": 3}, "has 1 channels; expected 3"),
        ({"size": [4, 16, 16]}, "is 2-D"),
        ({"condition": ["label"], "classes": ["x"]}, "label 'y' of i1 is no class"),
        ({"condition": ["label"], "classes": ["x", "y", "z"]}, "class 'z' has no training image"),
    ],
)
def test_wrong_use_is_one_line(pictures: DataConfig, tmp_path: Path, change: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_cache(replace(pictures, **change), BYTE, "train", tmp_path / "cache")  # type: ignore[arg-type]
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_images_without_label_are_counted(pictures: DataConfig, tmp_path: Path) -> None:
    manifest = Manifest.load(pictures.source)
    for row in manifest.rows[2:5]:
        row.label = ""
    manifest.save(tmp_path / "other.csv")
    config = replace(pictures, source=str(tmp_path / "other.csv"), condition=["label"])
    with pytest.raises(UsageError, match="3 images have no label, the first is i2"):
        classes_of(config)


def test_a_torn_patient_never_reaches_training(pictures: DataConfig, tmp_path: Path) -> None:
    manifest = Manifest.load(pictures.source)
    manifest.rows[11].patient = manifest.rows[0].patient
    manifest.save(tmp_path / "torn.csv")
    with pytest.raises(UsageError, match="patient p0 is in more than one split"):
        build_cache(replace(pictures, source=str(tmp_path / "torn.csv")), BYTE, "train")


def test_mixed_channels_are_refused_by_name(pictures: DataConfig, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    Picture.fromarray(pixels).save(tmp_path / "images" / "3.png")
    with pytest.raises(UsageError, match=r"3\.png has 3 channels; expected 1"):
        build_cache(pictures, BYTE, "train", tmp_path / "cache")


def test_mixed_sizes_fit(pictures: DataConfig, tmp_path: Path, draw: Draw) -> None:
    draw("images/0.png", size=(40, 20))
    data = build_cache(pictures, BYTE, "train", tmp_path / "cache")
    assert (data.read([0])[0, 0, :, [0, 15]] == -1).all() and (data.read([0])[0, 0, :, 7] > -1).any()


def test_a_folder_is_scanned_once(tmp_path: Path, draw: Draw) -> None:
    for k in range(10):
        draw(f"set/{k}.png", seed=k)
    config = DataConfig(str(tmp_path / "set"), size=[16, 16])
    first = load_manifest(config.source)
    assert load_manifest(config.source) is first and len(first.rows) == 10
    draw("set/10.png", seed=10)
    assert len(load_manifest(config.source).rows) == 11
    assert len(build_cache(config, BYTE, "train", tmp_path / "cache")) >= 8


def test_a_folder_with_a_manifest_is_not_scanned(pictures: DataConfig, tmp_path: Path) -> None:
    Path(pictures.source).rename(tmp_path / "manifest.csv")
    assert [row.id for row in load_manifest(str(tmp_path)).rows] == [f"i{k}" for k in range(12)]


def codec_for(tmp_path: Path, images: list[Image], suffix: str, config: CodecConfig | None = None) -> Codec:
    tmp_path.mkdir(exist_ok=True)
    rows = []
    for k, image in enumerate(images):
        io.write(image, tmp_path / f"{k}{suffix}")
        rows.append(Row(f"{k}", f"{k}", f"{k}{suffix}", split="train"))
    Manifest(rows, tmp_path).save(tmp_path / "m.csv")
    return resolve_codec(DataConfig(str(tmp_path / "m.csv"), size=[16, 16]), config)


def images(high: float, unit: str = "arbitrary", declared: float | None = None) -> list[Image]:
    rng = np.random.default_rng(0)
    origin = {"range": (0.0, declared or high), "step": 1.0}
    return [
        Image(rng.integers(0, int(high) + 1, (1, 16, 16)).astype(np.float32), np.eye(4), unit, origin) for _ in range(5)
    ]


def test_codecs_of_pictures_are_windows_at_the_bits_in_use(tmp_path: Path) -> None:
    assert codec_for(tmp_path / "a", images(200, declared=255), ".png") == Codec("window", 0, 255)
    assert codec_for(tmp_path / "b", images(4000, declared=65535), ".png") == Codec("window", 0, 4095)
    assert codec_for(tmp_path / "c", images(60000, declared=65535), ".png") == Codec("window", 0, 65535)


def test_codecs_without_a_scale_are_percentiles(tmp_path: Path) -> None:
    drawn = images(5000)
    codec = codec_for(tmp_path, drawn, ".nii.gz")
    assert (codec.kind, codec.low, codec.high) == ("percentile", 0.5, 99.5)
    expected = np.median([np.percentile(image.data, [0.5, 99.5]) for image in drawn], axis=0)
    np.testing.assert_allclose(codec.default_limits or (), expected, rtol=1e-4)


def test_what_the_recipe_says_of_the_codec_is_kept(tmp_path: Path) -> None:
    drawn = images(5000)
    assert codec_for(tmp_path, drawn, ".nii", CodecConfig("window", 10, 20, "HU")) == Codec("window", 10, 20, "HU")
    codec = codec_for(tmp_path, drawn, ".nii", CodecConfig("percentile", 1, 99))
    assert (codec.low, codec.high) == (1, 99) and codec.default_limits is not None
    label = codec_for(tmp_path, drawn, ".nii", CodecConfig("label", classes=3))
    assert (label.kind, label.classes) == ("label", 3)
    with pytest.raises(UsageError, match="declares no common range"):
        codec_for(tmp_path, drawn, ".nii", CodecConfig("window"))
    with pytest.raises(UsageError, match="expected auto, window"):
        codec_for(tmp_path, drawn, ".nii", CodecConfig("windo"))


def test_volumes_give_axial_slices_or_themselves(real: Real, tmp_path: Path) -> None:
    config = DataConfig(str(real("mri_hippocampus_msd")), size=[24, 24, 24])
    codec = resolve_codec(config)
    assert codec.kind == "percentile"
    volumes = build_cache(config, codec, "val", tmp_path)
    slices = build_cache(replace(config, size=[24, 24]), codec, "val", tmp_path)
    depths = [io.read(Path(config.source) / f"{id_}.nii.gz").size[0] for id_ in volumes.ids]
    assert len(slices) == sum(depth - 2 * (depth // 3) for depth in depths)
    assert slices.ids[0] == f"{volumes.ids[0]}#0" and volumes.shape == (1, 24, 24, 24)
    assert all(1 < mm < 3 for mm in volumes.spacing)


def test_real_radiographs_with_labels(real: Real, tmp_path: Path) -> None:
    config = DataConfig(str(real("cxr_kermany_960") / "images"), size=[32, 32], condition=["label"])
    assert resolve_codec(config) == Codec("window", 0, 255)
    train, val = (build_cache(config, None, split, tmp_path) for split in ("train", "val"))
    assert train.classes == val.classes == ("bacterial_pneumonia", "normal", "viral_pneumonia")
    assert (len(train), len(val)) == (661, 130) and train.labels is not None
    assert all(train.classes[label] in id_ for label, id_ in zip(train.labels, train.ids, strict=True))


def test_unreadable_images_are_named(pictures: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "images" / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n gone")
    with pytest.raises(FabricaError, match=r"5\.png"):
        build_cache(pictures, BYTE, "train", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.partial"))


@pytest.mark.parametrize(
    ("high", "suffix", "expected"),
    [
        (1, ".png", Codec("label", classes=2, unit="label")),
        (3, ".nii.gz", Codec("label", classes=4, unit="label")),
        (255, ".nii.gz", Codec("window", 0, 255)),
    ],
)
def test_masks_of_few_integers_are_labels_and_others_windows(
    tmp_path: Path, high: int, suffix: str, expected: Codec
) -> None:
    values = np.random.default_rng(0).integers(0, min(high, 3) + 1, (5, 1, 16, 16)).astype(np.float32)
    values *= high / values.max()
    rows = []
    for k, mask in enumerate(np.rint(values)):
        io.write(Image(mask, np.eye(4), origin={"range": (0.0, 255.0), "step": 1.0}), tmp_path / f"{k}-mask{suffix}")
        io.write(images(200, declared=255)[0], tmp_path / f"{k}.png")
        rows.append(Row(f"{k}", f"{k}", f"{k}.png", split="train", mask=f"{k}-mask{suffix}"))
    Manifest(rows, tmp_path).save(tmp_path / "m.csv")
    config = DataConfig(str(tmp_path / "m.csv"), a="mask", b="image", size=[16, 16])
    assert resolve_codec(config, side="a") == expected
    assert resolve_codec(config, side="b") == Codec("window", 0, 255)
    assert resolve_codec(config, CodecConfig("window", 0, 9), side="a") == Codec("window", 0, 9)


def test_the_sides_of_one_recipe_are_two_caches_with_what_was_left_out(pictures: DataConfig, tmp_path: Path) -> None:
    manifest = Manifest.load(pictures.source)
    for k, row in enumerate(manifest.rows):  # i0 and i1 of domain a, i6 and i7 of b, ... are of one patient each
        row.patient, row.split = f"p{k % 6}", "train"
    manifest.rows[11].split = ""
    manifest.save(pictures.source)
    config = replace(pictures, a="a", b="b", paired=True)
    a, b = (build_cache(config, BYTE, "train", tmp_path / "cache", side=side) for side in "ab")
    assert list(a.ids) == [f"i{k}" for k in range(5)] and list(b.ids) == [f"i{k + 6}" for k in range(5)]
    assert a.meta.notes == b.meta.notes == ("1 of 6 images of 'a' have no pair in 'b': left out",)
    heap = build_cache(replace(config, paired=False), BYTE, "train", tmp_path / "cache", side="a")
    assert len(heap) == 6 and heap.folder != a.folder and heap.meta.notes == ()


def test_a_cache_knows_the_field_of_view(tmp_path: Path) -> None:
    rows = []
    for k, mm in enumerate((1.0, 1.5, 2.0)):
        io.write(Image(np.ones((1, 3, 16, 20), np.float32), np.diag([mm, mm, 5, 1.0])), tmp_path / f"{k}.nii.gz")
        rows.append(Row(f"{k}", f"{k}", f"{k}.nii.gz", split="train"))
    Manifest(rows, tmp_path).save(tmp_path / "m.csv")
    data = build_cache(DataConfig(str(tmp_path / "m.csv"), size=[16, 16]), BYTE, "train", tmp_path / "cache")
    assert data.meta.extent == pytest.approx((20.0, 40.0)) and len(data) == 3
    sagittal = np.zeros((4, 4))
    sagittal[[1, 2, 0, 3], [0, 1, 2, 3]] = 1, 1, 2, 1  # stored as (x, z, y): 10 slices of 2 mm, 300 mm high, 30 long
    io.write(Image(np.ones((1, 10, 300, 30), np.float32), sagittal), tmp_path / "0.nii.gz")
    Manifest(rows[:1], tmp_path).save(tmp_path / "m.csv")
    data = build_cache(DataConfig(str(tmp_path / "m.csv"), size=[16, 16]), BYTE, "train", tmp_path / "cache")
    assert data.meta.extent == pytest.approx((30.0, 30.0))
