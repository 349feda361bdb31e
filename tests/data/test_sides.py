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
from fabrica.data.sides import matched, on_grid, side
from fabrica.data.sources import Source, open_source
from fabrica.errors import UsageError
from fabrica.geometry import faced
from fabrica.image import Float32, Float64, Image
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


# --- geometry


def placed(size: tuple[int, int, int], affine: Float64, unit: str = "arbitrary") -> Image:
    """A ramp over the patient: 2 x - 3 y + 5 z + 40 at x, y, z mm."""
    d, h, w = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    mm = np.einsum("ij,jdhw->idhw", affine[:3, :3], np.stack([w, h, d])) + affine[:3, 3, None, None, None]
    data = np.einsum("i,idhw->dhw", [2.0, -3.0, 5.0], mm) + 40
    return Image(data[None].astype(np.float32), affine, unit, {"format": "nifti", "path": f"{unit}.nii"})


def grid_of(spacing: Sequence[float], start: Sequence[float], axes: Sequence[int] = (0, 1, 2)) -> Float64:
    """Voxel axis k runs along patient axis axes[k]; negative spacing runs backwards."""
    affine = np.zeros((4, 4))
    for k, (axis, mm) in enumerate(zip(axes, spacing, strict=True)):
        affine[axis, k] = mm
    affine[:, 3] = *start, 1
    return affine


GRID = placed((6, 7, 8), grid_of((1.0, 1.5, 2.0), (10, 20, 30)))  # x 10 to 17, y 20 to 29, z 30 to 40


def test_an_image_on_the_same_grid_is_returned_as_it_is() -> None:
    image = placed((6, 7, 8), GRID.affine + 1e-4)
    assert on_grid(image, GRID) is image
    assert on_grid(image, GRID, labels=True) is image


@pytest.mark.parametrize(
    ("size", "affine"),
    [
        ((12, 14, 16), grid_of((1.0, 1.5, 2.0), (6.3, 16.4, 25.5))),  # shifted by parts of voxels
        ((5, 5, 5), grid_of((3.0, 4.0, 5.0), (8, 17, 27))),  # coarser
        ((40, 40, 40), grid_of((0.5, 0.5, 0.5), (5, 15, 25))),  # finer
        ((20, 20, 20), grid_of((-1.0, -1.0, 1.0), (20, 35, 25))),  # as DICOM lies
        ((20, 24, 12), grid_of((1.5, 1.0, -1.0), (20, 15, 25), axes=(1, 2, 0))),  # sagittal: other axes
    ],
)
def test_a_ramp_comes_back_exactly_on_the_others_grid(size: tuple[int, int, int], affine: Float64) -> None:
    found = on_grid(placed(size, affine), GRID)
    assert found.size == GRID.size and np.array_equal(found.affine, GRID.affine)
    np.testing.assert_allclose(found.data, GRID.data, atol=2e-3)


def test_voxels_on_the_border_are_not_lost_to_rounding() -> None:
    """0.7 mm has no exact number: the last voxel lies at 8.999... or 9.000...1."""
    image = placed((10, 10, 10), grid_of((0.7, 0.7, 0.7), (0.1, 0.2, 0.3)), "HU")
    grid = placed((7, 7, 7), grid_of((0.7, 0.7, 0.7), [v + 3 * 0.7 for v in (0.1, 0.2, 0.3)]), "HU")
    np.testing.assert_allclose(on_grid(image, grid).data, grid.data, atol=1e-3)


def test_voxels_reach_half_a_voxel_around_their_centres() -> None:
    coarse = Image(np.full((1, 2, 2, 2), 7, np.float32), np.diag([2.0, 2.0, 2.0, 1.0]), "HU", {"format": "nifti"})
    fine = placed((8, 8, 8), grid_of((1.0, 1.0, 1.0), (-2.5, -2.5, -2.5)))  # -2.5 to 4.5 mm; the other is -1 to 3
    found = on_grid(coarse, fine).data[0]
    assert (found[2:6, 2:6, 2:6] == 7).all()
    assert np.count_nonzero(found == 7) == 4**3 and set(np.unique(found)) == {-1024.0, 7.0}


def test_labels_are_taken_from_the_nearest_voxel() -> None:
    data = np.random.default_rng(0).choice([0, 3, 9], (1, 6, 7, 8)).astype(np.float32)
    near = GRID.affine + grid_of((0, 0, 0), (0.4, -0.6, 0.9))  # less than half a voxel each
    near[3, 3] = 1
    assert np.array_equal(on_grid(Image(data, near, "label", {"format": "nifti"}), GRID, labels=True).data, data)


@pytest.mark.parametrize(("unit", "outside"), [("HU", -1024.0), ("arbitrary", None), ("label", 0.0)])
def test_beyond_an_image_is_air_or_its_lowest_value(unit: str, outside: float | None) -> None:
    image = placed((6, 7, 8), grid_of((1.0, 1.5, 2.0), (14, 20, 30)), unit)
    found = on_grid(image, GRID, labels=unit == "label").data[0]
    lowest = float(image.data.min()) if outside is None else outside
    assert (found[..., :4] == lowest).all()
    np.testing.assert_allclose(found[..., 4:], GRID.data[0, ..., 4:], atol=1e-3)


def test_images_that_lie_apart_are_no_pair() -> None:
    with pytest.raises(UsageError, match=r"HU\.nii and its pair arbitrary\.nii lie apart in the patient") as refused:
        on_grid(placed((6, 7, 8), grid_of((1.0, 1.5, 2.0), (60, 20, 30)), "HU"), GRID)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("one", "other"), [((1, 8, 8), (1, 8, 9)), ((1, 3, 8, 8), (1, 4, 8, 8)), ((1, 8, 8), (1, 4, 8, 8))]
)
def test_other_sizes_need_millimetres(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    shown = " x ".join(str(n) for n in one[1:])
    with pytest.raises(UsageError, match=f"a.png is {shown} and its pair b.png is .* without positions") as refused:
        on_grid(
            Image(np.zeros(one, np.float32), origin={"path": "a.png"}),
            Image(np.zeros(other, np.float32), origin={"path": "b.png"}),
        )
    assert "\n" not in str(refused.value)


def test_an_image_that_knows_no_place_is_turned_with_its_pair() -> None:
    """Same size, one with and one without an affine: both must be turned alike, or one is mirrored."""
    plain = Image(GRID.data, origin={"format": "npz"})
    assert np.array_equal(on_grid(plain, GRID).affine, GRID.affine)
    turned: Float32 = on_grid(GRID, plain).affine[:3, :3]
    assert np.array_equal(turned, np.diag([1.0, 1.5, 2.0]))  # stored order, own millimetres
    flat = Image(np.zeros((1, 8, 8), np.float32), origin={"format": "raster"})
    assert on_grid(flat, flat) is flat


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


@pytest.mark.parametrize("formats", [("nifti", "raster"), ("raster", "nifti"), ("dicom", "nifti"), ("mgh", "dicom")])
def test_pictures_of_one_plane_are_turned_alike_whatever_their_formats(formats: tuple[str, str]) -> None:
    """A slice of a volume format is shown upright, a picture as stored: side by side, both as the grid is."""
    affine = np.array([[0, 0, 3.0, 4], [0.5, 0, 0, 5], [0, 0.5, 0, 6], [0, 0, 0, 1]])
    data = np.random.default_rng(0).normal(size=(1, 6, 8)).astype(np.float32)
    one, other = (
        Image(data, np.eye(4) if form == "raster" else affine, "arbitrary", {"format": form}) for form in formats
    )
    for image, grid in ((one, other), (other, one)):
        np.testing.assert_array_equal(faced(on_grid(image, grid)).data, faced(grid).data)
    assert not np.array_equal(faced(one).data, faced(other).data)
