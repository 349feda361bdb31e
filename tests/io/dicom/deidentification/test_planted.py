"""Identity planted wherever DICOM has room for it: none of it is left in any byte, and images stay what they were."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from fabrica import io
from fabrica.errors import FabricaError
from fabrica.io.dicom.deidentification import Key, deidentify
from fabrica.io.dicom.deidentification.folder import files_below
from fabrica.io.dicom.deidentification.profile import CLEANABLE
from fabrica.io.dicom.mark import is_dicom
from tests.io.dicom import segmentation, series, structures
from tests.io.dicom.deidentification.planted import TRACES, plant, traces
from tests.real import DATA

KEY = Key(b"a key of sixteen bytes and more")
SETS = [DATA / "dicom_scanners", DATA / "dicom_pydicom"]
SHIFTED = ("private", "shifted-dates")
QUICK = (
    ("siemens_ct_gantry_tilt", ()),
    ("philips_two_planes", ()),
    ("uih_vframe_dti", SHIFTED),
    ("siemens_mosaic_axial_asc", SHIFTED),
)


def planted(sources: list[Path], folder: Path, parts: int = 1) -> list[Path]:
    """Those of the files that pydicom can write again, with identity in them, each below a folder of its own; `parts`:
    one after another has another part of the table."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k, path in enumerate(sources):
            try:
                found.append(plant(path, folder / str(k), k % parts, parts))
            except Exception:  # files that are broken on purpose
                continue
    return found


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CT slice, a mosaic, a segmentation and a structure set, with identity in them."""
    home, where = tmp_path_factory.mktemp("synthetic"), series.grid(2)
    volume = series.truths(1, where)[0]
    files = series.classic(home / "made", [volume], modality="CT")[:1]
    files += [series.save(series.mosaic(volume), home / "made" / "mosaic.dcm")]
    drawn = segmentation.segmentation(segmentation.frames_of(segmentation.masks([[True] * 2]), where))
    files += [series.save(drawn, home / "made" / "seg.dcm")]
    square = structures.Contour(1, ((1, 1), (4, 1), (4, 3)))
    files += [series.save(structures.structures({"heart": [square]}, where), home / "made" / "rt.dcm")]
    there = planted(files, home / "in")
    assert len(there) == 4 and all(any(t in path.read_bytes() for t in TRACES) for path in there)
    return home / "in"


@pytest.mark.parametrize("options", [(), (*CLEANABLE, "private")], ids=["basic", "cleaned"])
def test_nothing_planted_in_synthetic_objects_is_left(
    options: tuple[str, ...], synthetic: Path, tmp_path: Path
) -> None:
    account = deidentify(synthetic, tmp_path, KEY, options=options)
    assert account.written == 4 and not account.left_out
    assert traces(tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(not all(path.is_dir() for path in SETS), reason="no real files; set FABRICA_DATA")
def test_nothing_planted_in_real_files_is_left(tmp_path: Path) -> None:
    sources = [path for folder in SETS[0].glob("*/dicom") for path in [*files_below(folder)][:1]]
    sources += [path for path in files_below(SETS[1]) if is_dicom(path)]
    there = planted(sources, tmp_path / "in", parts=8)
    account = deidentify(tmp_path / "in", tmp_path / "out", KEY, options=["structured-content"])
    assert len(there) >= 240 and account.written >= 220
    assert traces(tmp_path / "out") == []


@pytest.mark.skipif(not SETS[0].is_dir(), reason="no scanners' series; set FABRICA_DATA")
@pytest.mark.parametrize(("name", "options"), QUICK, ids=[name for name, _ in QUICK])
def test_series_with_identity_in_them_stay_what_they_were(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    folder = SETS[0] / name / "dicom"
    planted(list(files_below(folder)), tmp_path / "in", parts=8)
    account = deidentify(tmp_path / "in", tmp_path / "out", KEY, options=options)
    assert account.written == sum(is_dicom(path) for path in files_below(folder))
    assert traces_but_times(tmp_path / "out") == []
    assert_same_images(folder, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.skipif(not SETS[0].is_dir(), reason="no scanners' series; set FABRICA_DATA")
def test_all_series_of_scanners_stay_what_they_were(tmp_path: Path) -> None:
    for folder in sorted(SETS[0].glob("*/dicom")):
        if folder.parent.name != "siemens_phoenix_sr":  # reports
            deidentify(folder, tmp_path / folder.parent.name, KEY, options=["private"])
            assert_same_images(folder, tmp_path / folder.parent.name)


def traces_but_times(folder: Path) -> list[str]:
    """The same, but for times of day, which a shift by days keeps."""
    return [found for found in traces(folder) if "070707.77" not in found]


def assert_same_images(before: Path, after: Path) -> None:
    """Each image of one folder is one of the other: the same values, at the same places, in the same unit."""
    wanted, found = ([_image(folder, frame) for frame in io.frames(folder)] for folder in (before, after))
    assert len(wanted) == len(found)
    for image in wanted:
        fits = [k for k, other in enumerate(found) if _equal(image, other)]
        assert fits, f"{before}: an image of {getattr(image, 'origin', image)} is gone"
        found.pop(fits[0])


def _image(folder: Path, frame: str) -> io.Image | str:
    try:
        return io.read(folder, frame)
    except FabricaError:
        return "refused"


def _equal(a: io.Image | str, b: io.Image | str) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return np.array_equal(a.data, b.data) and np.array_equal(a.affine, b.affine) and a.unit == b.unit


def test_the_traces_are_found_where_they_are(synthetic: Path) -> None:
    assert {t for t in TRACES if any(repr(t) in found for found in traces(synthetic))} >= set(TRACES)
