"""Objects of older kinds: frames of nuclear medicine, and headers that leave out what the standard asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import JPEGBaseline8Bit, JPEGLossless, JPEGLosslessSV1

from fabrica import io as fio
from fabrica.data.scan import scan
from fabrica.errors import ReadError
from fabrica.io.dicom.pixels import bits_stored, check_codestream
from tests.draws import draws
from tests.io.dicom import series as make
from tests.io.dicom.test_series import QUICK, everything, folder

VECTORS = {  # of frames of nuclear medicine, PS3.3 C.8.4.8
    "EnergyWindowVector": 0x00540010,
    "DetectorVector": 0x00540020,
    "PhaseVector": 0x00540030,
    "RotationVector": 0x00540050,
    "RRIntervalVector": 0x00540060,
    "TimeSlotVector": 0x00540070,
    "SliceVector": 0x00540080,
    "AngularViewVector": 0x00540090,
    "TimeSliceVector": 0x00540100,
}


def nuclear(truths: list[make.Truth], counted: dict[str, int], spacing: str) -> Dataset:
    """Tomographic slices of volumes that `counted` numbers (keyword -> how many), as one object; the first slice lies
    where its detector does."""
    where = truths[0].grid
    depth = len(where.places)
    between = float((where.places[1] - where.places[0]) @ where.normal)
    made = make.plane(
        np.concatenate([truth.values for truth in truths]),
        where,
        ImageType=["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"],
        Modality="NM",
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        SliceThickness=abs(between),
    )
    made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.20"
    made.NumberOfFrames = depth * len(truths)
    if spacing == "between":
        made.SpacingBetweenSlices = between
    vectors = {**counted, "SliceVector": depth}
    made.FrameIncrementPointer = [VECTORS[keyword] for keyword in vectors]
    for keyword, indices in zip(vectors, np.indices(list(vectors.values())).reshape(len(vectors), -1), strict=True):
        setattr(made, keyword, [int(k) + 1 for k in indices])
    detector = Dataset()
    detector.ImagePositionPatient = [float(v) for v in where.places[0]]
    detector.ImageOrientationPatient = where.orientation
    made.DetectorInformationSequence = Items([detector])
    return made


@settings(max_examples=draws(30), **QUICK)
@given(
    counted=st.dictionaries(st.sampled_from(sorted(VECTORS.keys() - {"SliceVector"})), st.integers(1, 3), max_size=2),
    depth=st.integers(2, 5),
    between=st.sampled_from([4.0, -3.5]),
    plane=st.sampled_from(sorted(make.PLANES)),
    spacing=st.sampled_from(["between", "thickness"]),
)
def test_frames_of_nuclear_medicine(
    counted: dict[str, int], depth: int, between: float, plane: str, spacing: str
) -> None:
    """What the vectors count is one image each, its slices in their places: by energy, gate, time ..."""
    if spacing == "thickness":  # which cannot say that slices run against their normal
        between = abs(between)
    truths = make.truths(int(np.prod([*counted.values()], dtype=int)), make.grid(depth, between, plane=plane))
    with folder() as home:
        path = make.save(nuclear(truths, counted, spacing), home / "a.dcm")
        assert make.compared(everything(path).values(), truths) == []
        assert len(scan(home).rows) == len(truths)


def test_planar_frames_of_nuclear_medicine_are_pictures(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 4000, (6, 6, 8)).astype(np.int16)
    made = make.plane(frames, make.grid(1), Modality="NM", NumberOfFrames=6, ImagePositionPatient=None)
    made.FrameIncrementPointer = [VECTORS["DetectorVector"], VECTORS["TimeSliceVector"]]
    made.DetectorVector, made.TimeSliceVector = [1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 2, 3]
    images = everything(make.save(made, tmp_path / "a.dcm"))
    assert len(images) == 6
    assert all(np.array_equal(image.data[0], frame) for image, frame in zip(images.values(), frames, strict=True))


@pytest.mark.parametrize("blank", [False, True])
@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize(
    "keyword", ["SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "HighBit", "PixelRepresentation"]
)
def test_what_a_header_leaves_out_of_its_pixels_is_as_usual_and_noted(
    tmp_path: Path, keyword: str, modality: str, blank: bool
) -> None:
    truth = make.truths(1, make.grid())[0]
    stored = make.Truth(truth.values.astype(np.uint16), truth.grid)
    for path in make.classic(tmp_path, [stored], modality=modality):
        dataset = pydicom.dcmread(path)
        if blank:
            dataset[keyword].value = None
        else:
            del dataset[keyword]
        dataset.save_as(path)
    image = fio.read(tmp_path)
    assert make.equal(image, stored) == ""
    [row] = scan(tmp_path).rows
    if keyword != "HighBit":  # of which nothing depends
        assert any(keyword in note for note in image.origin["notes"]) and keyword in row.notes


def test_colour_without_a_photometric_interpretation_is_rgb(tmp_path: Path) -> None:
    pixels: Any = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    made = make.plane(pixels, make.grid(1), Modality="OT", PhotometricInterpretation=None)
    image = fio.read(make.save(made, tmp_path / "a.dcm"))
    assert np.array_equal(image.data, np.moveaxis(pixels, -1, 0))


@pytest.mark.parametrize(
    ("components", "samples", "space"),
    [
        (3, 1, "MONOCHROME2"),
        (1, 3, "RGB"),
        (1, 1, "RGB"),
        (3, 3, "MONOCHROME2"),
        (3, 3, "PALETTE COLOR"),
        (2, 3, "RGB"),
    ],
)
def test_compressed_frames_whose_channels_contradict_the_header_are_not_decoded(
    components: int, samples: int, space: str
) -> None:
    """Conditions from the first bytes, before a decoder is asked."""
    code = b"\xff\xd8\xff\xc0\0\x11\x08\0\x06\0\x08" + bytes([components])
    options = {"rows": 6, "columns": 8, "samples_per_pixel": samples, "photometric_interpretation": space}
    with pytest.raises(ReadError, match="contradicts itself"):
        check_codestream(code, options, 10**6, Path("a.dcm"))


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLossless, JPEGLosslessSV1])
@pytest.mark.parametrize(("allocated", "stored", "given_"), [(8, 7, 8), (8, 8, 8), (16, 12, 12), (16, 16, 16)])
def test_bits_as_the_decoder_of_jpeg_takes_them(syntax: Any, allocated: int, stored: int, given_: int) -> None:
    options = {"bits_allocated": allocated, "bits_stored": stored}
    assert bits_stored(options, syntax, Path("a.dcm")) == given_
    with pytest.raises(ReadError, match="32 bits"):
        bits_stored({"bits_allocated": 32, "bits_stored": stored}, syntax, Path("a.dcm"))


@settings(max_examples=draws(40), **QUICK)
@given(start=st.integers(60, 140), junk=st.binary(min_size=1, max_size=12))
def test_a_damaged_frame_in_run_lengths_is_one_read_error(start: int, junk: bytes) -> None:
    [truth] = make.truths(1, make.grid(1))
    with folder() as home:
        [path] = make.classic(home, [truth], rle=True)
        data = bytearray(path.read_bytes())
        at = data.index(b"\xe0\x7f\x10\x00") + start
        data[at : at + len(junk)] = junk
        path.write_bytes(data)
        try:
            fio.read(path)
        except ReadError as error:
            assert "\n" not in str(error)
