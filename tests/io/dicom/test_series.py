"""Series of any kind that scanners write: what was written as the truth is read back, or refused with the reason."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from fabrica import io as fio
from fabrica.errors import ReadError
from fabrica.image import Image
from tests.draws import draws
from tests.io.dicom import series as make

QUICK = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
    "derandomize": True,
    "database": None,
    "phases": [Phase.explicit, Phase.generate],  # examples are small as they are
    "report_multiple_bugs": False,
}


@contextmanager
def folder() -> Iterator[Path]:
    """A folder of its own for each example (tmp_path is one for all examples of a test)."""
    home = Path(tempfile.mkdtemp(prefix="series"))
    try:
        yield home
    finally:
        shutil.rmtree(home)


def everything(path: Path) -> dict[str, Image]:
    """Every image that `frames` lists, by the frame that asks for it."""
    return {frame: fio.read(path, frame) for frame in fio.frames(path)}


def used(images: dict[str, Image]) -> list[str]:
    """The instances that images were made of, each as often as it was used."""
    return sorted(str(d.SOPInstanceUID) for image in images.values() for d in image.origin["dicom"])


grids = st.builds(
    make.grid,
    depth=st.integers(2, 5),
    between=st.sampled_from([3.0, -3.0, 0.7, -5.5]),
    plane=st.sampled_from(sorted(make.PLANES)),
    angles=st.sampled_from([(0, 0, 0), (11, 0, 0), (-7.3, 12.9, 31.7), (88, 3, 1)]),
    spacing=st.sampled_from([(1.5, 2.0), (0.9375, 0.9375)]),
    tilt=st.sampled_from([0.0, 0.0, 0.25, -0.4]),
)


# ---------------------------------------------------------------- a file a slice


@st.composite
def told_apart(draw: st.DrawFn) -> dict[str, Any]:
    """How several volumes are told apart: by one thing or two, and how their files are numbered beside it."""
    tell: Any = draw(st.sampled_from(sorted(make.TELLERS)))
    numbering = draw(st.sampled_from(sorted(make.NUMBERINGS)))
    count = draw(st.integers(1, 3))
    if tell == "instance alone":
        numbering = draw(st.sampled_from(make.RANKED))
    elif count > 1 and draw(st.integers(0, 3)) == 0:
        tell = [tell, draw(st.sampled_from(["echo", "image type", "temporal position", "acquisition"]))]
        if tell[0] in ("philips image type", "image type", "complex component", "ge map", "echo time alone",
                       "echo number alone", "acquisition", "temporal position", "acquisition time", "content time",
                       "trigger time", "cardiac phase") or tell[0] == tell[1]:  # fmt: skip
            tell = tell[0]  # they say the same, or one contradicts the other
        else:
            count = 4
    modality = "CT" if make.CT_ONLY & set([tell] if isinstance(tell, str) else tell) else "MR"
    return {"count": count, "tell": tell, "numbering": numbering, "modality": modality}


@settings(max_examples=draws(70), **QUICK)
@given(
    where=grids,
    told=told_apart(),
    share=st.sampled_from([0.0, 0.0, 0.0, 0.002, 0.01]),
    form=st.sampled_from([{}, {}, {"rle": True}, {"folders": 2}, {"SeriesInstanceUID": ""}]),
    seed=st.integers(0, 9),
)
def test_volumes_of_one_series_are_read_back(
    where: make.Grid, told: dict[str, Any], share: float, form: dict[str, Any], seed: int
) -> None:
    count = told.pop("count")
    truths = make.truths(count, where, seed=seed)
    between = float(np.linalg.norm(where.places[1] - where.places[0]))
    jitter = share * between
    with folder() as home:
        paths = make.classic(home, truths, jitter=jitter, **told, **form)
        images = everything(home)
        moved = [make.Truth(t.values, t.grid.moved(t.grid.normal * jitter * v)) for v, t in enumerate(truths)]
        assert make.compared(images.values(), moved) == []
        written = sorted(
            str(make.uid((v, k, told["modality"]))) for v in range(count) for k in range(len(where.places))
        )
        assert used(images) == written
        for k, path in enumerate(sorted(paths, reverse=True)):  # other names, in another order
            path.rename(path.with_name(f"{k:03d}"))
        again = everything(home)
    assert list(again) == list(images)
    for frame, image in images.items():
        assert np.array_equal(again[frame].data, image.data) and np.array_equal(again[frame].affine, image.affine)
        assert again[frame].origin["notes"] == image.origin["notes"]
    if count == 1:
        assert list(images) == [""]
    else:
        assert all("=" in frame for frame in images)


def mixed(images: dict[str, Image], truths: list[make.Truth]) -> list[str]:
    """The images whose slices are not all of one volume, each where it was."""
    problems = []
    for frame, image in images.items():
        slices = image.data[0] if image.data.ndim == 4 else image.data
        sources = []
        for values, place in zip(slices, make.places(image), strict=True):
            sources.append(
                {
                    v
                    for v, truth in enumerate(truths)
                    for k, at in enumerate(truth.grid.places @ make.LPS_TO_RAS)
                    if np.linalg.norm(at - place) < 1e-3 and np.array_equal(values, truth.values[k])
                }
            )
        if not set.intersection(*sources):
            problems.append(f"{frame!r}: its slices are of volumes {sources}")
    return problems


@settings(max_examples=draws(50), **QUICK)
@given(
    depth=st.integers(4, 7),
    told=told_apart(),
    lost=st.lists(st.integers(0, 99), min_size=1, max_size=2),
    form=st.sampled_from([{}, {}, {"folders": 2}]),
)
def test_lost_files_never_mix_volumes(depth: int, told: dict[str, Any], lost: list[int], form: dict[str, Any]) -> None:
    """A file of one or two volumes is lost: an image holds slices of one volume, or the series is refused; and each
    file that is left is somewhere."""
    truths = make.truths(told.pop("count"), make.grid(depth))
    with folder() as home:
        paths = make.classic(home, truths, **told, **form)
        gone = {paths[(v % len(truths)) * depth + number % depth] for v, number in enumerate(lost)}
        for path in gone:
            path.unlink()
        try:
            images = everything(home)
        except ReadError as error:
            assert "\n" not in str(error)
            return
        assert mixed(images, truths) == []
        read = used(images)
        assert len(read) == len(set(read))
        notes = " ".join(note for image in images.values() for note in image.origin["notes"])
        assert len(read) == len(paths) - len(gone) or "set apart" in notes or "left out" in notes


@pytest.mark.parametrize("numbering", ["restarting", "all 0", "blank", "none"])
@pytest.mark.parametrize("names", [lambda v, k: f"{v}_{k}.dcm", lambda v, k: make.hashed(v, k)])
def test_volumes_that_nothing_tells_apart_are_never_mixed(tmp_path: Path, numbering: str, names: Any) -> None:
    make.classic(tmp_path, make.truths(2, make.grid()), numbering=numbering, name=names)
    with pytest.raises(ReadError) as error:
        everything(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_several_volumes_are_listed_in_one_line_with_the_way_to_ask(tmp_path: Path) -> None:
    truths = make.truths(2, make.grid())
    make.classic(tmp_path, truths, tell="echo")
    with pytest.raises(ReadError) as error:
        fio.read(tmp_path)
    frames = fio.frames(tmp_path)
    assert frames == ["echo=1", "echo=2"]
    assert all(frame in str(error.value) for frame in frames) and "\n" not in str(error.value)
    for frame, truth in zip(frames, truths, strict=True):
        image = fio.read(tmp_path, frame)
        assert make.equal(image, truth) == "" and image.origin["tells"] == frame
    with pytest.raises(ReadError, match="echo=3"):
        fio.read(tmp_path, "echo=3")


def test_copies_of_a_file_are_one_slice_and_counted(tmp_path: Path) -> None:
    [truth] = make.truths(1, make.grid())
    paths = make.classic(tmp_path, [truth])
    make.copied(paths[1], "again.dcm")
    image = fio.read(tmp_path)
    assert make.equal(image, truth) == ""
    assert any("1" in note for note in image.origin["notes"]), image.origin["notes"]


def test_two_series_below_a_folder(tmp_path: Path) -> None:
    first, second = make.truths(2, make.grid())
    make.classic(tmp_path / "a", [first], SeriesInstanceUID="1.2.3")
    make.classic(tmp_path / "b", [second], SeriesInstanceUID="1.2.4", tell="echo")
    assert make.compared(everything(tmp_path).values(), [first, second]) == []
    assert all(frame.startswith(("1.2.3", "1.2.4")) for frame in fio.frames(tmp_path))


def test_two_series_with_one_uid_are_not_one(tmp_path: Path) -> None:
    """Both of an exporter that gives all series one UID: SeriesNumber or size tells them apart."""
    first, second = make.truths(2, make.grid())
    make.classic(tmp_path, [first], SeriesNumber=2, name=lambda v, k: f"a{k}")
    make.classic(tmp_path, [second], SeriesNumber=5, name=lambda v, k: f"b{k}")
    assert make.compared(everything(tmp_path).values(), [first, second]) == []
    [third] = make.truths(1, make.grid(), (4, 10), seed=3)
    make.classic(tmp_path, [third], SeriesNumber=2, name=lambda v, k: f"c{k}")
    assert make.compared(everything(tmp_path).values(), [first, second, third]) == []


# ---------------------------------------------------------------- the smallest reproductions of real faults


def test_two_echoes_numbered_through(tmp_path: Path) -> None:
    truths = make.truths(2, make.grid())
    make.classic(tmp_path, truths, tell="echo")
    assert make.compared(everything(tmp_path).values(), truths) == []


def test_magnitude_and_phase(tmp_path: Path) -> None:
    truths = make.truths(2, make.grid())
    make.classic(tmp_path, truths, tell="image type")
    images = everything(tmp_path)
    assert make.compared(images.values(), truths) == []
    assert sum("phase" in frame for frame in images) == 1


def test_time_points_whose_numbers_restart_under_hashed_names(tmp_path: Path) -> None:
    truths = make.truths(2, make.grid(offsets=[0, 3, 6, 9]))
    make.classic(tmp_path, truths, tell="acquisition", numbering="restarting")
    assert make.compared(everything(tmp_path).values(), truths) == []


def test_echoes_without_instance_numbers(tmp_path: Path) -> None:
    truths = make.truths(2, make.grid(6))
    make.classic(tmp_path, truths, tell="echo time alone", numbering="all 0")
    assert make.compared(everything(tmp_path).values(), truths) == []


def test_repeats_a_hundredth_of_a_millimetre_off(tmp_path: Path) -> None:
    where = make.grid()
    first, second = make.truths(2, where)
    second = make.Truth(second.values, where.moved([0, 0, 0.01]))
    make.classic(tmp_path, [first, second])
    images = everything(tmp_path)
    assert make.compared(images.values(), [first, second]) == []
    assert not any("missing" in note for image in images.values() for note in image.origin["notes"])


def test_a_head_of_four_then_eight_millimetres(tmp_path: Path) -> None:
    [truth] = make.truths(1, make.grid(offsets=[0, 4, 8, 12, 20, 28]))
    make.classic(tmp_path, [truth], modality="CT")
    image = fio.read(tmp_path)
    assert make.equal(image, truth) == ""
    assert image.origin["positions"].shape == (6, 3)


def test_a_series_in_two_folders_is_one(tmp_path: Path) -> None:
    [truth] = make.truths(1, make.grid(6))
    make.classic(tmp_path, [truth], folders=2)
    assert make.equal(fio.read(tmp_path), truth) == ""


def test_a_stray_plane_leaves_the_rest_a_volume_and_is_named(tmp_path: Path) -> None:
    where = make.grid(7)
    [truth] = make.truths(1, where)
    make.classic(tmp_path, [truth], name=lambda v, k: f"{k}.dcm")
    stray = make.plane(truth.values[0].T.copy().reshape(6, 8), make.grid(1, plane="sagittal"), InstanceNumber=8)
    stray.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    make.save(stray, tmp_path / "odd.dcm")
    images = everything(tmp_path)
    whole = [image for image in images.values() if make.equal(image, truth) == ""]
    assert len(whole) == 1
    assert any("odd.dcm" in note for note in whole[0].origin["notes"]) or len(images) == 2
    assert not any("missing" in note for note in whole[0].origin["notes"])


def test_a_mosaic_without_a_csa_header(tmp_path: Path) -> None:
    where = make.grid(offsets=[0, 3, 6, 9], spacing=(1.0, 1.0), origin=(-12, -12, 0))
    truths = make.truths(2, where, (8, 8))
    for k, truth in enumerate(truths):
        made = make.mosaic(truth, csa=False, InstanceNumber=k + 1, AcquisitionNumber=k + 1)
        assert made.Rows == made.Columns == 16 and list(made.ImagePositionPatient) == [-16, -16, 0]
        make.save(made, tmp_path / make.hashed(k))
    assert make.compared(everything(tmp_path).values(), truths) == []


def test_eight_frames_of_two_time_points(tmp_path: Path) -> None:
    truths = make.truths(2, make.grid(offsets=[0, 3, 6, 9], spacing=(2.0, 2.0)))
    path = make.save(make.enhanced(make.frames_of(truths, order="slice by slice")), tmp_path / "a.dcm")
    assert make.compared(everything(path).values(), truths) == []
    assert make.compared(everything(tmp_path).values(), truths) == []
    assert fio.frames(path) == fio.frames(tmp_path) == ["time=1", "time=2"]


# ---------------------------------------------------------------- places


@settings(max_examples=draws(14), **QUICK)
@given(
    steps=st.lists(st.sampled_from([4.0, 7.0, 1.08, 4.5, 5.25]), min_size=3, max_size=5),
    sign=st.sampled_from([1, -1]),
    plane=st.sampled_from(sorted(make.PLANES)),
    angles=st.sampled_from([(0, 0, 0), (-7.3, 12.9, 31.7)]),
    tilt=st.sampled_from([0.0, 0.25]),
    modality=st.sampled_from(["CT", "MR"]),
)
def test_uneven_slices_keep_their_places_and_go_back_to_them(
    steps: list[float], sign: int, plane: str, angles: tuple[float, ...], tilt: float, modality: str
) -> None:
    offsets = sign * np.cumsum([0, *steps])
    where = make.grid(plane=plane, angles=angles, tilt=tilt, offsets=offsets)
    [truth] = make.truths(1, where)
    even = len(set(steps)) == 1
    with folder() as home:
        make.classic(home / "in", [truth], modality=modality)
        image = fio.read(home / "in")
        assert make.equal(image, truth) == ""
        assert ("positions" in image.origin) != even
        notes = " ".join(image.origin["notes"])
        assert not even or notes == ""
        assert even or "uneven" in notes or "missing" in notes
        returned(image, truth, home)


def returned(image: Image, truth: make.Truth, home: Path) -> None:
    """An image with changed values, written as DICOM, has each slice where its source has it: by pydicom alone."""
    changed = image.with_data(image.data + 5)
    files = fio.write(changed, home / "out")
    assert len(files) == len(truth.values)
    for path in files:
        dataset = pydicom.dcmread(path)
        far = np.linalg.norm(truth.grid.places - np.array(dataset.ImagePositionPatient, float), axis=1)
        assert far.min() < 1e-3
        assert np.allclose(np.array(dataset.ImageOrientationPatient, float), truth.grid.orientation, atol=1e-6)
        values = dataset.pixel_array * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
        step = abs(float(dataset.get("RescaleSlope", 1)))
        assert np.abs(values - (truth.values[far.argmin()] + 5)).max() <= step / 2 + 1e-4
    assert make.equal(fio.read(home / "out"), make.Truth(truth.values + 5, truth.grid)) == ""


@settings(max_examples=draws(15), **QUICK)
@given(where=grids, echoes=st.booleans(), modality=st.sampled_from(["CT", "MR"]))
def test_a_changed_volume_goes_back_to_where_it_was(where: make.Grid, echoes: bool, modality: str) -> None:
    truths = make.truths(2 if echoes else 1, where)
    with folder() as home:
        make.classic(home / "in", truths, tell="echo" if echoes else "instance alone", modality=modality)
        image = fio.read(home / "in", "echo=2" if echoes else "")
        returned(image, truths[-1], home)


@pytest.mark.parametrize("gone", [[2], [1, 4], [3, 4], [1, 3, 4, 7], [1, 2, 4, 6]])
@pytest.mark.parametrize("between", [3.0, -2.5])
def test_missing_slices_are_said_where_positions_say_so(tmp_path: Path, gone: list[int], between: float) -> None:
    kept = [k for k in range(9) if k not in gone]
    [truth] = make.truths(1, make.grid(9, between).at(kept))
    make.classic(tmp_path, [truth], SliceThickness=abs(between))
    image = fio.read(tmp_path)
    assert make.equal(image, truth) == ""
    assert image.origin["missing"] == len(gone) and any("missing" in note for note in image.origin["notes"])


@pytest.mark.parametrize("gone", [[1, 3, 5, 7], [4], []])
def test_numbers_that_no_file_has_are_said(tmp_path: Path, gone: list[int]) -> None:
    """Every second slice lost leaves an even volume: the numbers alone tell."""
    [truth] = make.truths(1, make.grid(9, 2.0))
    make.classic(tmp_path, [truth], SliceThickness=2)
    for path in tmp_path.rglob("*.dcm"):
        if int(pydicom.dcmread(path, stop_before_pixels=True).InstanceNumber) - 1 in gone:
            path.unlink()
    notes = [note for note in fio.read(tmp_path).origin["notes"] if "of its series lack" in note]
    shown = ", ".join(str(k + 1) for k in gone[:3]) + (", ..." if len(gone) > 3 else "")
    assert notes == (
        [f"images 1 to 9 of its series lack {len(gone)} ({shown}): were some left behind?"] if gone else []
    )


def test_slices_of_two_distances_are_not_missing(tmp_path: Path) -> None:
    [truth] = make.truths(1, make.grid(offsets=[0, 4.002, 8.004, 12.006, 13.087, 20.086, 27.085]))
    make.classic(tmp_path, [truth], modality="CT")
    image = fio.read(tmp_path)
    assert make.equal(image, truth) == ""
    assert "missing" not in image.origin and not any("missing" in note for note in image.origin["notes"])


def test_slices_that_shake_a_little_are_an_even_volume(tmp_path: Path) -> None:
    """Table positions rounded to a hundredth: nobody's resampling should start for that."""
    offsets = np.arange(8) * 3.0 + np.array([0, 4, -3, 2, -4, 1, 3, 0]) * 1e-3
    [truth] = make.truths(1, make.grid(offsets=offsets))
    make.classic(tmp_path, [truth])
    image = fio.read(tmp_path)
    assert make.equal(image, truth, tolerance=0.01) == ""
    assert not any("missing" in note for note in image.origin["notes"])


def test_two_stacks_of_parallel_slices_or_of_two_planes(tmp_path: Path) -> None:
    where = make.grid(3)
    other = make.grid(3, plane="coronal")
    a, b = make.truths(2, [where, other])
    make.classic(tmp_path, [a, b])
    assert make.compared(everything(tmp_path).values(), [a, b]) == []


def test_volumes_that_reach_over_different_places(tmp_path: Path) -> None:
    """Contrast phases of different lengths, told apart by AcquisitionNumber: neither is cut to the other."""
    a, b = make.truths(2, [make.grid(6), make.grid(4).moved([0, 0, 6.0])])
    make.classic(tmp_path, [a, b], tell="acquisition", modality="CT", numbering="restarting")
    assert make.compared(everything(tmp_path).values(), [a, b]) == []


def test_an_acquisition_number_a_slice_is_one_volume(tmp_path: Path) -> None:
    """Sequential CT counts each turn of the tube as an acquisition."""
    [truth] = make.truths(1, make.grid(5))
    make.classic(tmp_path, [truth], modality="CT")
    for k, path in enumerate(sorted(tmp_path.iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.AcquisitionNumber = int(dataset.InstanceNumber)
        dataset.AcquisitionTime = f"1000{int(dataset.InstanceNumber):02d}"
        dataset.KVP = 120
        dataset.EchoTime = None
        make.save(dataset, path, instance=k)
    assert fio.frames(tmp_path) == [""]
    assert make.equal(fio.read(tmp_path), truth) == ""


def test_a_time_point_cut_short_is_a_volume_of_its_own(tmp_path: Path) -> None:
    where = make.grid(5)
    a, b, c = make.truths(3, [where, where, where.at([0, 1, 2])])
    make.classic(tmp_path, [a, b, c], tell="temporal position")
    assert make.compared(everything(tmp_path).values(), [a, b, c]) == []


# ---------------------------------------------------------------- Siemens mosaics


@settings(max_examples=draws(25), **QUICK)
@given(
    depth=st.integers(2, 10),
    between=st.sampled_from([3.6, -3.6, 2.0]),
    plane=st.sampled_from(["axial", "sagittal", "coronal"]),
    angles=st.sampled_from([(0, 0, 0), (6.2, 0, 0), (-7.3, 12.9, 31.7)]),
    said=st.sampled_from(["csa", "csa alone", "count", "matrix and count"]),
    count=st.integers(1, 3),
    numbering=st.sampled_from(["volume by volume", "all 0"]),
    rle=st.booleans(),
)
def test_mosaics_become_volumes_in_their_place(
    depth: int, between: float, plane: str, angles: tuple[float, ...], said: str, count: int, numbering: str, rle: bool
) -> None:
    csa = said.startswith("csa")
    assume(csa or between > 0)  # nothing but the CSA header can say that slices run the other way
    where = make.grid(depth, between, plane=plane, angles=angles)
    truths = make.truths(count, where)
    with folder() as home:
        for v, truth in enumerate(truths):
            made = make.mosaic(
                truth,
                csa=csa,
                count_tag=said in ("csa", "count", "matrix and count"),
                matrix_tag=said in ("csa", "matrix and count"),
                AcquisitionNumber=v + 1,
                InstanceNumber=v + 1 if numbering == "volume by volume" else 0,
            )
            make.save(made, home / make.hashed(v), rle)
        assert make.compared(everything(home).values(), truths, tolerance=2e-3) == []


@pytest.mark.parametrize("said", ["nothing", "too many", "cut short"])
def test_a_montage_whose_layout_is_not_known_is_refused(tmp_path: Path, said: str) -> None:
    [truth] = make.truths(1, make.grid(9))
    made = make.mosaic(truth, csa=False, count_tag=False, matrix_tag=False)
    if said == "too many":
        made.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 26)
        made.private_block(0x51, "SIEMENS MR HEADER", create=True).add_new(0x0B, "LO", "6*8")
    if said == "cut short":
        made = make.mosaic(truth)
        made.PixelData = made.PixelData[:-100]
    path = make.save(made, tmp_path / "a.dcm")
    with pytest.raises(ReadError) as error:
        fio.read(path)
    assert "\n" not in str(error.value)


def test_a_mosaic_goes_back_as_slices_in_their_places(tmp_path: Path) -> None:
    [truth] = make.truths(1, make.grid(7, -3.6, angles=(-7.3, 12.9, 31.7)))
    make.save(make.mosaic(truth), tmp_path / "in" / "a.dcm")
    returned(fio.read(tmp_path / "in"), truth, tmp_path)


# ---------------------------------------------------------------- enhanced multi-frame


@settings(max_examples=draws(40), **QUICK)
@given(
    where=grids,
    count=st.integers(1, 3),
    tell=st.sampled_from(sorted(make.FRAME_TELLERS)),
    known=st.sampled_from(["groups", "indices", "both", "both, without the sequence"]),
    order=st.sampled_from(["volume by volume", "slice by slice", "backwards"]),
    split=st.sampled_from(["one file", "a file a volume", "a file a slice"]),
    modality=st.sampled_from(["MR", "MR", "CT"]),
    rle=st.booleans(),
)
def test_enhanced_objects_are_read_back(
    where: make.Grid, count: int, tell: str, known: str, order: str, split: str, modality: str, rle: bool
) -> None:
    assume(tell != "stack" or known != "indices")  # an index of stacks without a StackID is against the standard
    truths = make.truths(count, where)
    frames = make.frames_of(truths, tell, indexed=known != "groups", told=known != "indices", order=order)
    sequence = make.dimensions(tell) if known in ("indices", "both") else {}
    depth = len(where.places)
    parts = {
        "one file": [frames],
        "a file a volume": [[f for f in frames if any(f.pixels is p for p in t.values)] for t in truths],
        "a file a slice": [[f for f in frames if f.k == k] for k in range(depth)],
    }[split]
    if split != "one file":  # `is` on rows of an array finds nothing: by content
        parts = {
            "a file a volume": [
                [f for f in frames if any(np.array_equal(f.pixels, p) for p in t.values)] for t in truths
            ],
            "a file a slice": parts,
        }[split]
    with folder() as home:
        for number, part in enumerate(parts):
            made = make.enhanced(part, modality=modality, InstanceNumber=number + 1, **sequence)
            make.save(made, home / make.hashed(number), rle, instance=number)
        images = everything(home)
        assert make.compared(images.values(), truths) == []
        assert all(image.unit == ("HU" if modality == "CT" else "arbitrary") for image in images.values())
        for path in sorted(home.iterdir()):
            path.rename(path.with_name("z" + path.name[::-1]))
        again = everything(home)
    assert list(again) == list(images)
    assert all(np.array_equal(again[frame].data, image.data) for frame, image in images.items())


def test_enhanced_frames_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    truths = make.truths(2, make.grid())
    made = make.enhanced(make.frames_of(truths, indexed=False, told=False, order="slice by slice"))
    path = make.save(made, tmp_path / "a.dcm")
    with pytest.raises(ReadError) as error:
        everything(path)
    assert "\n" not in str(error.value)
    assert np.array_equal(fio.read(path, "3").data[0], truths[0].values[1])  # a frame by its number goes on


def test_frames_without_places_are_time_not_depth(tmp_path: Path) -> None:
    """Cine of one place: each frame is a picture, as many as there are; a number asks for one."""
    where = make.grid(1)
    frames = np.random.default_rng(0).integers(0, 4000, (5, 6, 8)).astype(np.int16)
    still = make.enhanced([make.Frame(pixels, where, 0) for pixels in frames])
    nowhere = make.enhanced([make.Frame(pixels, where, 0) for pixels in frames], positions=False)
    for name, made in (("still", still), ("nowhere", nowhere)):
        path = make.save(made, tmp_path / f"{name}.dcm")
        images = everything(path)
        assert all(image.size == (6, 8) for image in images.values())
        found = sorted((image.data[0] for image in images.values()), key=lambda x: tuple(x.ravel()))
        wanted = sorted(frames.astype(np.float32), key=lambda x: tuple(x.ravel()))
        assert np.array_equal(found, wanted)
        assert np.array_equal(fio.read(path, "2").data[0], frames[1])


def test_frames_of_two_stacks_in_two_planes(tmp_path: Path) -> None:
    a, b = make.truths(2, [make.grid(3), make.grid(4, plane="sagittal")])
    frames = [
        make.Frame(t.values[k], t.grid, k, {"FrameContentSequence": {"StackID": str(s + 1)}}, (s + 1, k + 1))
        for s, t in enumerate((a, b))
        for k in range(len(t.grid.places))
    ]
    path = make.save(make.enhanced(frames, shared_plane=False), tmp_path / "a.dcm")
    assert make.compared(everything(path).values(), [a, b]) == []


@pytest.mark.parametrize("depth", [1, 5])
def test_enhanced_frames_of_mosaics_taken_apart_are_slices(tmp_path: Path, depth: int) -> None:
    """Siemens XA writes a slice a frame, and leaves the word in ImageType."""
    truths = make.truths(2, make.grid(depth))
    for v, truth in enumerate(truths):
        frames = make.frames_of([truth], indexed=False, told=False)
        made = make.enhanced(frames, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], InstanceNumber=v + 1)
        make.save(made, tmp_path / make.hashed(v), instance=v)
    assert make.compared(everything(tmp_path).values(), truths) == []


def test_frames_of_uneven_slices_keep_their_places(tmp_path: Path) -> None:
    [truth] = make.truths(1, make.grid(offsets=[0, 4, 8, 12, 19, 26]))
    path = make.save(make.enhanced(make.frames_of([truth]), modality="CT"), tmp_path / "a.dcm")
    image = fio.read(path)
    assert make.equal(image, truth) == "" and "positions" in image.origin


def test_frames_with_a_rescale_each(tmp_path: Path) -> None:
    truths = make.truths(2, make.grid(3))
    frames = make.frames_of(truths, "part")
    scaled = [
        make.replace(f, groups={**f.groups, "PixelValueTransformationSequence": {
            "RescaleSlope": 1 + number, "RescaleIntercept": -number, "RescaleType": "US"}})
        for number, f in enumerate(frames)
    ]  # fmt: skip
    path = make.save(make.enhanced(scaled), tmp_path / "a.dcm")
    wanted = [
        make.Truth(np.stack([t.values[k] * (1.0 + v * 3 + k) - (v * 3 + k) for k in range(3)]), t.grid)
        for v, t in enumerate(truths)
    ]
    assert make.compared(everything(path).values(), wanted) == []


# ---------------------------------------------------------------- further habits


@pytest.mark.parametrize("tell", ["echo", "temporal position", "image type", "b value"])
@pytest.mark.parametrize("shift", [0.5, 1.5])
def test_volumes_shifted_by_a_part_of_a_slice(tmp_path: Path, tell: str, shift: float) -> None:
    truths = make.truths(2, [make.grid(4), make.grid(4).moved([0, 0, shift])])
    make.classic(tmp_path, truths, tell=tell)
    assert make.compared(everything(tmp_path).values(), truths) == []


def test_packages_of_interleaved_slices_are_one_volume(tmp_path: Path) -> None:
    """Odd slices in one acquisition, even ones in the next: scanners count them as two."""
    [truth] = make.truths(1, make.grid(8))
    for k in range(8):
        made = make.plane(truth.values[k], truth.grid, k, InstanceNumber=k + 1, AcquisitionNumber=1 + k % 2)
        make.save(made, tmp_path / make.hashed(k))
    assert make.compared(everything(tmp_path).values(), [truth]) == []


def habit(home: Path, truths: list[make.Truth], attributes: Any) -> None:
    """A file a slice, `attributes(volume, slice)` its own."""
    for v, truth in enumerate(truths):
        for k in range(len(truth.values)):
            number = v * len(truth.values) + k + 1
            own = {"InstanceNumber": number, **attributes(v, k)}
            make.save(make.plane(truth.values[k], truth.grid, k, **own), home / make.hashed(v, k))


HABITS: dict[str, tuple[int, Any]] = {
    "b 0 twice, by acquisition": (
        3,
        lambda v, k: {"DiffusionBValue": [0.0, 0.0, 1000.0][v], "AcquisitionNumber": v + 1},
    ),
    "b 0 twice, by number": (3, lambda v, k: {"DiffusionBValue": [0.0, 0.0, 1000.0][v]}),
    "echo and time by number": (6, lambda v, k: {"EchoTime": [10, 20][v % 2]}),
    "echo, part and time slice by slice": (
        8,
        lambda v, k: {
            "InstanceNumber": "",
            "EchoTime": [10, 20][v % 2],
            "ImageType": ["ORIGINAL", "PRIMARY", "MP"[v // 2 % 2]],
            "AcquisitionTime": f"1000{v // 4 * 2:02d}.{k}",
        },
    ),
    "one volume, an echo time a slice": (1, lambda v, k: {"EchoTime": 10 + 0.01 * k}),
    "one volume, an image type a slice": (1, lambda v, k: {"ImageType": ["ORIGINAL", "PRIMARY", "M", f"X{k}"]}),
    "one volume, a trigger time a slice": (1, lambda v, k: {"TriggerTime": 100.0 * k, "AcquisitionNumber": k}),
    "cine, slice by slice": (3, lambda v, k: {"InstanceNumber": k * 3 + v + 1, "TriggerTime": 40.0 * v}),
}


@pytest.mark.parametrize("name", sorted(HABITS))
def test_habits_of_scanners(tmp_path: Path, name: str) -> None:
    count, attributes = HABITS[name]
    truths = make.truths(count, make.grid(4))
    habit(tmp_path, truths, attributes)
    assert make.compared(everything(tmp_path).values(), truths) == []


@pytest.mark.parametrize("said", [{"EchoTime": [10.0, 30.0]}, {"AcquisitionNumber": [1, 2]}])
def test_legacy_converted_objects(tmp_path: Path, said: dict[str, list[Any]]) -> None:
    """What the single slices said stands, frame by frame, in UnassignedPerFrameConvertedAttributesSequence."""
    truths = make.truths(2, make.grid(4))
    [(keyword, values)] = said.items()
    frames = [
        make.Frame(t.values[k], t.grid, k, {"UnassignedPerFrameConvertedAttributesSequence": {keyword: values[v]}})
        for v, t in enumerate(truths)
        for k in range(4)
    ]
    made = make.enhanced(frames)
    made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4.4"
    path = make.save(made, tmp_path / "a.dcm")
    assert make.compared(everything(path).values(), truths) == []


def test_ultrasound_cine_is_time(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 6, 8)).astype(np.uint8)
    made = make.plane(
        pixels, make.grid(1), 0, Modality="US", ImagePositionPatient=None, ImageOrientationPatient=None, FrameTime=33.3
    )
    made.SOPClassUID, made.NumberOfFrames = "1.2.840.10008.5.1.4.1.1.3.1", 5
    path = make.save(made, tmp_path / "a.dcm")
    frames = fio.frames(path)
    assert len(frames) == 5
    for k, frame in enumerate(frames):
        assert np.array_equal(fio.read(path, frame).data[0], pixels[k])


@pytest.mark.parametrize("said", ["volume by volume", "slice by slice"])
def test_frames_counted_through_by_acquisition_or_dimension(tmp_path: Path, said: str) -> None:
    """Each frame has a number of its own, which says nothing but its order."""
    truths = make.truths(3, make.grid(4))
    for keyword in ("FrameAcquisitionNumber", "dimension"):
        frames = []
        for v, truth in enumerate(truths):
            for k in range(4):
                number = v * 4 + k + 1 if said == "volume by volume" else k * 3 + v + 1
                groups = {} if keyword == "dimension" else {"FrameContentSequence": {keyword: number}}
                index = (number,) if keyword == "dimension" else ()
                frames.append(make.Frame(truth.values[k], truth.grid, k, groups, index))
        path = make.save(make.enhanced(frames), tmp_path / f"{keyword}.dcm")
        assert make.compared(everything(path).values(), truths) == []


def test_repeats_of_one_place_are_images_whatever_they_say(tmp_path: Path) -> None:
    """A slice watched while contrast arrives: nothing could be mixed."""
    [truth] = make.truths(1, make.grid(6, 0.0))
    for k in range(6):
        made = make.plane(truth.values[k], truth.grid, k, "CT", InstanceNumber="")
        make.save(made, tmp_path / make.hashed(k), instance=k)
    images = everything(tmp_path)
    assert sorted(float(image.data.sum()) for image in images.values()) == sorted(map(float, truth.values.sum((1, 2))))


def test_thick_and_thin_slices_over_one_range(tmp_path: Path) -> None:
    thin, thick = make.truths(2, [make.grid(9, 1.0), make.grid(5, 2.0)])
    make.classic(tmp_path, [thin], modality="CT", SliceThickness=1, name=lambda v, k: f"{k}")
    for k in range(5):
        made = make.plane(thick.values[k], thick.grid, k, "CT", SliceThickness=2, InstanceNumber=k + 1)
        make.save(made, tmp_path / f"thick{k}", instance=k + 100)
    assert make.compared(everything(tmp_path).values(), [thin, thick]) == []


def test_three_planes_are_three_images(tmp_path: Path) -> None:
    truths = make.truths(3, [make.grid(3), make.grid(3, plane="sagittal"), make.grid(3, plane="coronal")])
    make.classic(tmp_path, truths)
    assert make.compared(everything(tmp_path).values(), truths) == []
