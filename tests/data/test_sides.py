"""Which images are the two sides of a translation, which belong together, and that pairs lie on the same voxels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fabrica
from fabrica import io
from fabrica.data.cache import build_cache
from fabrica.data.codecs import resolve_codec
from fabrica.data.manifest import Manifest, Row
from fabrica.data.sides import matched, side
from fabrica.data.sources import Source, open_source
from fabrica.errors import UsageError
from fabrica.phantoms.head.head import head
from fabrica.recipe.schema import DataConfig

Draw = Callable[..., Path]


def row(id_: str, path: str = "", **more: str) -> Row:
    return Row(id_, path=path or f"{id_}.png", **{"split": "train", **more})


MIXED = Manifest(
    [
        row("1", domain="CT", mask="masks/1.png", frame="f", pair="2.png"),
        row("2", domain="MR", pair="1.png"),
        row("3", domain="MR", split="val"),
        row("4", domain="PT", split=""),
    ]
)


def ids(rows: Sequence[Row]) -> list[str]:
    return [one.id for one in rows]


def test_a_side_is_a_domain_or_all_images_with_a_split() -> None:
    assert ids(side(MIXED, "CT", "set")) == ["1"]
    assert ids(side(MIXED, "MR", "set")) == ["2", "3"]
    assert ids(side(MIXED, "image", "set")) == ["1", "2", "3"]


def test_a_mask_is_a_file_of_its_own_and_the_pair_of_its_image() -> None:
    (mask,) = side(MIXED, "mask", "set")
    assert (mask.id, mask.path, mask.frame, mask.pair) == ("1", "masks/1.png", "", "1.png")
    assert mask.modality == "SEG" and MIXED.rows[0].path == "1.png"


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("CTT", "set has no image of 'CTT'; did you mean CT?; it has domains CT, MR and masks"),
        ("PT", "; expected one of CT, MR; it has domains CT, MR and masks"),  # its only row has no split
    ],
)
def test_an_unknown_domain_is_one_line_with_those_there_are(which: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        side(MIXED, which, "set")
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("which", ["mask", "CT"])
def test_a_set_without_domains_and_masks_says_so(which: str) -> None:
    with pytest.raises(UsageError, match=f"^set has no image of '{which}'; it has no domains and no masks$"):
        side(Manifest([row("1")]), which, "set")


def test_pairs_are_told_by_either_ones_column() -> None:
    a = [row("a1", pair="x/9.png"), row("a2"), row("a3")]
    b = [row("b1", "x/7.png", pair="a2.png"), row("b2", "x/9.png"), row("b3", "x/8.png")]
    assert [(one.id, other.id) for one, other in matched(a, b)] == [("a1", "b2"), ("a2", "b1")]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([row("7", "in/a.png"), row("8", "in/b.png")], [row("8", "out/c.png"), row("7", "out/d.png")]),  # id
        (
            [row("1", "t1/p.nii.gz", patient="p"), row("2", "t1/q.nii.gz", patient="p")],
            [row("4", "ct/q.nii", patient="p"), row("3", "ct/p.png", patient="p")],
        ),  # patient and file name
        ([row("1", patient="p"), row("2", patient="q")], [row("3", patient="q"), row("4", patient="p")]),  # only one
    ],
)
def test_rows_belong_together_by_id_by_file_name_or_as_the_only_ones(a: list[Row], b: list[Row]) -> None:
    assert matched(a, b) == [(a[0], b[1]), (a[1], b[0])]


def test_what_a_column_says_comes_before_the_id() -> None:
    a = [row("1", "a/1.png", pair="b/2.png"), row("2", "a/2.png", pair="b/1.png")]
    b = [row("1", "b/1.png"), row("2", "b/2.png")]
    assert [(one.path, other.path) for one, other in matched(a, b)] == [("a/1.png", "b/2.png"), ("a/2.png", "b/1.png")]


def test_ambiguous_rows_are_no_pair() -> None:
    two = [row("3", patient="p"), row("4", patient="p")]
    assert matched([row("1", patient="p")], two) == [] and matched(two, [row("1", patient="p")]) == []
    assert matched([row("1")], [row("2")]) == []  # no patient is not the same patient
    frames = [row("2", "set.npz", frame="x/0"), row("3", "set.npz", frame="x/1")]
    assert matched([row("1", pair="set.npz")], frames) == []


def test_no_image_borrows_the_mask_of_its_pair() -> None:
    rows = [
        row("1", "ct.png", domain="CT", patient="p", pair="mr.png", mask="ct-mask.png"),
        row("2", "mr.png", domain="MR", patient="p", pair="ct.png", mask="mr-mask.png"),
    ]
    masks, images = side(Manifest(rows), "mask", "set"), side(Manifest(rows), "image", "set")
    assert [(a.path, b.path) for a, b in matched(masks, images)] == [
        ("ct-mask.png", "ct.png"),
        ("mr-mask.png", "mr.png"),
    ]
    assert [(a.path, b.path) for a, b in matched(images, masks)] == [
        ("ct.png", "ct-mask.png"),
        ("mr.png", "mr-mask.png"),
    ]


# --- folders as they are found


def scanned(folder: Path) -> DataConfig:
    fabrica.scan(folder).save(folder / "manifest.csv")
    return DataConfig(str(folder / "manifest.csv"), size=[16, 16])


def opened(config: DataConfig, a: str, b: str, paired: bool, split: str = "train") -> tuple[Source, Source]:
    chosen = replace(config, a=a, b=b, paired=paired)
    return open_source(chosen, split, "a"), open_source(chosen, split, "b")


def paths(source: Source) -> list[str]:
    assert source.manifest is not None
    return [one.path for one in source.manifest.rows]


def stems(source: Source) -> list[str]:
    return [Path(path).stem for path in paths(source)]


@pytest.fixture
def heaps(tmp_path: Path, draw: Draw) -> DataConfig:
    """trainA, trainB, testA, testB: 20 and 15 images to train, 3 and 3 to test, of the same names."""
    for folder, count in (("trainA", 20), ("trainB", 15), ("testA", 3), ("testB", 3)):
        for k in range(count):
            draw(f"{folder}/{k}.png", seed=len(list(tmp_path.rglob("*.png"))))
    return scanned(tmp_path)


def test_two_heaps_keep_all_their_images(heaps: DataConfig) -> None:
    trained = opened(heaps, "a", "b", False)
    held = opened(heaps, "a", "b", False, "val")
    assert [x.count + y.count for x, y in zip(trained, held, strict=True)] == [20, 15]
    assert all(x.count for x in held) and not trained[0].notes
    assert all(path.startswith("trainA/") for path in paths(trained[0]))
    assert [source.count for source in opened(heaps, "a", "b", False, "test")] == [3, 3]


def test_heaps_with_the_same_names_are_pairs_and_the_rest_is_said(heaps: DataConfig) -> None:
    a, b = opened(heaps, "a", "b", True)
    assert stems(a) == stems(b) and {Path(path).parent.name for path in paths(b)} == {"trainB"}
    every = opened(heaps, "a", "b", False)[0].count
    alone = every - a.count
    assert alone > 0 and a.notes == [f"{alone} of {every} images of 'a' have no pair in 'b': left out"] == b.notes
    assert stems(opened(heaps, "a", "b", True, "test")[1]) == ["0", "1", "2"]


@pytest.fixture
def facing(tmp_path: Path, draw: Draw) -> DataConfig:
    """INPUT, TARGET and MASKS of 20 patients."""
    for k in range(20):
        for n, folder in enumerate(("INPUT", "TARGET", "MASKS")):
            draw(f"{folder}/{k:02}.png", seed=3 * k + n, high=3 if folder == "MASKS" else 256)
    return scanned(tmp_path)


@pytest.mark.parametrize(("a", "b"), [("input", "target"), ("target", "input")])
def test_input_and_target_are_pairs(facing: DataConfig, a: str, b: str) -> None:
    one, other = opened(facing, a, b, True)
    assert one.count >= 10 and stems(one) == stems(other) and not one.notes
    assert {Path(path).parent.name for path in paths(other)} == {b.upper()}
    assert sorted(stems(opened(facing, a, b, False)[1])) == sorted(stems(other))


@pytest.mark.parametrize(("a", "b"), [("mask", "input"), ("target", "mask")])
def test_masks_are_pairs_of_either_once_each(facing: DataConfig, a: str, b: str) -> None:
    one, other = opened(facing, a, b, True)
    assert stems(one) == stems(other) and len(set(stems(one))) == one.count >= 10
    assert {Path(path).parent.name for path in paths(one)} == {"MASKS" if a == "mask" else "TARGET"}
    alone = opened(facing, a, b, False)
    assert sorted(paths(alone[0])) == sorted(paths(one)) and sorted(paths(alone[1])) == sorted(paths(other))
    assert not one.notes


def test_masks_of_a_few_integers_are_labels(facing: DataConfig, tmp_path: Path) -> None:
    codec = resolve_codec(replace(facing, a="mask", b="input"), side="a")
    assert (codec.kind, codec.classes) == ("label", 3)
    data = build_cache(replace(facing, a="mask", b="input"), codec, "train", tmp_path / "cache", side="a")
    assert data.shape == (3, 16, 16) and set(np.unique(data.read([0]))) == {-1.0, 1.0}


@pytest.fixture
def cases(tmp_path: Path, draw: Draw) -> DataConfig:
    """Twelve folders of a CT and an MR; the first has none of the latter; seven have a mask."""
    for k in range(12):
        for n, name in enumerate(("ct", "mr", "mask")):
            if (name != "mr" or k > 0) and (name != "mask" or k < 7):
                draw(f"case{k:02}/{name}.png", seed=3 * k + n, high=2 if name == "mask" else 256)
    return scanned(tmp_path)


def test_two_files_of_a_case_are_a_pair(cases: DataConfig) -> None:
    alone = 0
    for split in ("train", "val", "test"):
        a, b = opened(cases, "ct", "mr", True, split)
        assert [Path(path).parent.name for path in paths(a)] == [Path(path).parent.name for path in paths(b)]
        assert set(stems(a)) == {"ct"} and set(stems(b)) == {"mr"}
        alone += len(a.notes)
    assert alone == 1
    a, b = opened(cases, "ct", "mr", False)
    assert not a.notes and {*stems(a), *stems(b)} == {"ct", "mr"}


def test_the_same_rows_in_other_roles_are_other_data(facing: DataConfig) -> None:
    """Rows that are all images in one recipe, and a side with the grid it is laid on in another."""
    synthesis = open_source(facing, "train")
    b = opened(facing, "target", "input", True)[1]
    assert synthesis.manifest is not None and b.manifest is not None
    assert synthesis.manifest.rows == [*b.manifest.rows, *b.grid]
    assert synthesis.fingerprint() != b.fingerprint()


def test_a_mask_that_is_gone_is_named(facing: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "MASKS" / f"{stems(opened(facing, 'input', 'target', True)[0])[0]}.png").unlink()
    with pytest.raises(UsageError, match=r"1 files of the manifest are missing, the first is .*MASKS") as refused:
        opened(facing, "mask", "input", True)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"b": "targte"}, "'targte'; did you mean target?"),
        ({"where": {"patient": "nobody"}}, "split train of "),
    ],
)
def test_sides_that_are_not_there_are_one_line(facing: DataConfig, change: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        open_source(replace(facing, **{"a": "input", "b": "target", **change}), "train", "a")  # type: ignore[arg-type]
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_a_split_that_lacks_one_side_is_named(facing: DataConfig) -> None:
    manifest = Manifest.load(facing.source)
    for one in manifest.rows:
        if one.domain == "target":
            one.split = "train"
        elif one.split == "train":
            one.split = ""
        one.patient = one.id  # so that no patient is torn
    manifest.save(facing.source)
    with pytest.raises(UsageError, match=r"split train of .* has no image of 'input'.*; scan more patients"):
        opened(facing, "input", "target", True)


def test_sides_without_any_pair_are_one_line(facing: DataConfig) -> None:
    manifest = Manifest.load(facing.source)
    for one in manifest.rows:
        one.pair, one.patient = "", one.id
    manifest.save(facing.source)
    with pytest.raises(UsageError, match=r"no image of 'input' in split train .* name the other's path in .*`pair`"):
        opened(facing, "input", "target", True)


@pytest.mark.parametrize(
    ("modality", "shift", "unit"),
    [("CT", 0, "HU"), ("CT", 1024, "arbitrary"), ("", 0, "HU"), ("MR", 0, "arbitrary")],
)
def test_nifti_is_in_hu_where_the_manifest_says_ct(tmp_path: Path, modality: str, shift: int, unit: str) -> None:
    drawn = head(0, 24, 3, contrasts=["CT"]).images["CT"]
    io.write(drawn.with_data(np.maximum(drawn.data, -1024) + shift, unit="arbitrary"), tmp_path / "0.nii.gz")
    Manifest([Row("0", "p", "0.nii.gz", split="train", modality=modality)], tmp_path).save(tmp_path / "set.csv")
    found = next(open_source(DataConfig(str(tmp_path / "set.csv")), "train").samples())
    assert found.image.unit == unit
