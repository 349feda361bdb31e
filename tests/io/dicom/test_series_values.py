"""Values as the patient has them: padding, SUV, dose, real world values; each computed here beside the reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from fabrica import io as fio
from fabrica.errors import ReadError
from fabrica.image import Image
from tests.draws import draws
from tests.io.dicom import series as make

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(100, 4000, (6, 8)).astype(np.int16)
WHERE = make.grid(1)
HALF_LIFE = 6586.2


def one(path: Path, pixels: Any = PIXELS, modality: str = "CT", **attributes: Any) -> Image:
    """A slice written and read."""
    return fio.read(make.save(make.plane(pixels, WHERE, 0, modality, **attributes), path / "a.dcm"))


# ---------------------------------------------------------------- padding


def test_padding_of_ct_is_the_lowest_real_value_and_counted(tmp_path: Path) -> None:
    pixels = PIXELS.copy()
    pixels[:2] = -2000
    image = one(tmp_path, pixels, PixelPaddingValue=-2000, RescaleIntercept=-1024)
    assert np.array_equal(image.data[0, 2:], pixels[2:] - 1024.0)
    assert (image.data[0, :2] == image.data[0, 2:].min()).all()
    assert any("16" in note and "padding" in note for note in image.origin["notes"]), image.origin["notes"]


@pytest.mark.parametrize(("value", "limit"), [(-2000, -1990), (-1990, -2000)])
def test_a_range_of_padding(tmp_path: Path, value: int, limit: int) -> None:
    pixels = PIXELS.copy()
    pixels[0, :6] = [-2000, -1995, -1990, -1989, -2001, 150]
    image = one(tmp_path, pixels, PixelPaddingValue=value, PixelPaddingRangeLimit=limit)
    assert (image.data[0, 0, :3] == -2001).all()  # the lowest that is no padding
    assert image.data[0, 0, 3:6].tolist() == [-1989, -2001, 150]


def test_padding_of_monochrome1_is_dark_after_the_inversion(tmp_path: Path) -> None:
    pixels = PIXELS.astype(np.uint16)
    pixels[:, 0] = 0
    image = one(tmp_path, pixels, "MR", PixelPaddingValue=0, PhotometricInterpretation="MONOCHROME1")
    inner = image.data[0, :, 1:]
    assert (image.data[0, :, 0] == inner.min()).all()
    assert np.array_equal(inner, inner.min() + pixels[:, 1:].max() - pixels[:, 1:].astype(float))


def test_a_picture_of_padding_alone_stays_what_it_is(tmp_path: Path) -> None:
    image = one(tmp_path, np.full((6, 8), -2000, np.int16), PixelPaddingValue=-2000)
    assert np.isfinite(image.data).all() and np.ptp(image.data) == 0


def test_padding_that_does_not_occur_is_not_spoken_of(tmp_path: Path) -> None:
    assert one(tmp_path, PixelPaddingValue=-2000).origin["notes"] == ()


def test_padding_differs_from_slice_to_slice_of_a_volume(tmp_path: Path) -> None:
    truth = make.truths(1, make.grid(3))[0]
    truth.values[0, 0], truth.values[2, :, 0] = -2000, -2000
    make.classic(tmp_path, [truth], modality="CT", PixelPaddingValue=-2000, RescaleIntercept=-1024)
    image = fio.read(tmp_path)
    real = truth.values != -2000
    assert np.array_equal(image.data[0][real], truth.values[real] - 1024.0)
    assert image.data.min() >= truth.values[real].min() - 1024


def test_bits_above_those_stored_are_no_values(tmp_path: Path) -> None:
    pixels = (PIXELS | np.int16(0x4000)).astype(np.uint16)
    image = one(tmp_path, pixels, "MR", BitsStored=12, HighBit=11)
    assert np.array_equal(image.data[0], PIXELS & 0x0FFF)


# ---------------------------------------------------------------- PET


def pet(**attributes: Any) -> dict[str, Any]:
    """Half an hour from the injection to the series, an hour to its later beds."""
    drug = Dataset()
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = 3.7e8, HALF_LIFE
    drug.RadiopharmaceuticalStartTime = "093000"
    changed = attributes.pop("drug", {})
    make.put(drug, changed)
    return {
        "Units": "BQML",
        "CorrectedImage": ["ATTN", "DECY"],
        "DecayCorrection": "START",
        "PatientWeight": 70,
        "SeriesDate": "20200101",
        "SeriesTime": "100000",
        "AcquisitionDate": "20200101",
        "AcquisitionTime": "100500",
        "RescaleSlope": 2.5,
        "RescaleIntercept": 0,
        "RadiopharmaceuticalInformationSequence": Items([drug]),
        **attributes,
    }


def decayed(seconds: float) -> float:
    return 3.7e8 * 2 ** (-seconds / HALF_LIFE)


@pytest.mark.parametrize(
    ("changes", "dose"),
    [
        ({}, decayed(1800)),
        ({"DecayCorrection": "ADMIN"}, decayed(0)),
        ({"drug": {"RadiopharmaceuticalStartTime": "235000"}, "SeriesTime": "001000", "AcquisitionTime": "001500",
          "SeriesDate": "20200102", "AcquisitionDate": "20200102"}, decayed(1200)),
        ({"drug": {"RadiopharmaceuticalStartDateTime": "20200101092000", "RadiopharmaceuticalStartTime": None}},
         decayed(2400)),
        ({"SeriesTime": "113000", "AcquisitionTime": "100500"}, decayed(2100)),  # made later: the acquisition counts
        ({"SeriesTime": "113000", "AcquisitionTime": "100500", "Manufacturer": "GE MEDICAL SYSTEMS",
          (0x0009, "GEMS_PETD_01", 0x0D, "DT"): "20200101100200"}, decayed(1920)),
    ],
    ids=["start", "admin", "over midnight", "date and time", "series made later", "ge scan time"],
)  # fmt: skip
def test_activity_becomes_suv(tmp_path: Path, changes: dict[Any, Any], dose: float) -> None:
    private = {k: v for k, v in changes.items() if not isinstance(k, str)}
    dataset = make.plane(PIXELS, WHERE, 0, "PT", **pet(**{k: v for k, v in changes.items() if isinstance(k, str)}))
    image = fio.read(make.save(make.put(dataset, private), tmp_path / "a.dcm"))
    assert image.unit == "SUV"
    np.testing.assert_allclose(image.data[0], PIXELS * 2.5 * 70_000 / dose, rtol=1e-5)


def test_the_earliest_acquisition_of_a_series_counts(tmp_path: Path) -> None:
    """Beds follow one another: all are corrected to the first, whichever file is read first."""
    truth = make.truths(1, make.grid(4))[0]
    for k in range(4):
        values = pet(
            SeriesTime="113000", AcquisitionTime=f"10{20 - 5 * k:02d}00", InstanceNumber=k + 1, RescaleSlope=1 + k
        )
        make.save(make.plane(truth.values[k], truth.grid, k, "PT", **values), tmp_path / f"{k}.dcm")
    image = fio.read(tmp_path)
    scale = (1 + np.arange(4))[:, None, None] * 70_000 / decayed(2100)
    assert image.unit == "SUV"
    assert make.equal(image, make.Truth(truth.values * scale, truth.grid), rtol=1e-5) == ""


def test_grams_per_millilitre_are_suv_already(tmp_path: Path) -> None:
    image = one(tmp_path, PIXELS, "PT", **pet(Units="GML", PatientWeight=None))
    assert image.unit == "SUV" and np.allclose(image.data[0], PIXELS * 2.5)


@pytest.mark.parametrize("given_", ["suv factor", "activity factor", "none"])
def test_counts_need_the_vendors_factors(tmp_path: Path, given_: str) -> None:
    dataset = make.plane(PIXELS, WHERE, 0, "PT", **pet(Units="CNTS", Manufacturer="Philips Medical Systems"))
    creator = "Philips PET Private Group"
    factor = 0.0004
    if given_ == "suv factor":
        make.put(dataset, {(0x7053, creator, 0x00, "DS"): factor, (0x7053, creator, 0x09, "DS"): 1.7})
    elif given_ == "activity factor":
        make.put(dataset, {(0x7053, creator, 0x00, "DS"): 0, (0x7053, creator, 0x09, "DS"): 1.7})
    path = make.save(dataset, tmp_path / "a.dcm")
    if given_ == "none":
        refused(path, "CNTS")
        return
    scale = factor if given_ == "suv factor" else 1.7 * 70_000 / decayed(1800)
    image = fio.read(path)
    assert image.unit == "SUV"
    np.testing.assert_allclose(image.data[0], PIXELS * 2.5 * scale, rtol=1e-5)


def refused(path: Path, *said: str) -> None:
    """In one line that names what is missing."""
    with pytest.raises(ReadError) as error:
        fio.read(path)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in said), str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"PatientWeight": None}, "PatientWeight"),
        ({"PatientWeight": 0}, "PatientWeight"),
        ({"RadiopharmaceuticalInformationSequence": None}, "Radio"),
        ({"drug": {"RadionuclideTotalDose": None}}, "RadionuclideTotalDose"),
        ({"drug": {"RadionuclideHalfLife": None}}, "RadionuclideHalfLife"),
        ({"drug": {"RadiopharmaceuticalStartTime": None}}, "RadiopharmaceuticalStart"),
    ],
)
def test_pet_without_what_suv_needs_is_refused_and_says_what(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = make.save(make.plane(PIXELS, WHERE, 0, "PT", **pet(**changes)), tmp_path / "a.dcm")
    refused(path, said)


@settings(
    max_examples=draws(15),
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    weight=st.sampled_from([3.2, 70, 150]),
    dose=st.sampled_from([1e6, 3.7e8]),
    life=st.sampled_from([HALF_LIFE, 1224.0]),
    wait=st.integers(0, 7200),
)
def test_suv_by_its_formula(tmp_path: Path, weight: float, dose: float, life: float, wait: int) -> None:
    clock = 8 * 3600 + wait
    values = pet(
        PatientWeight=weight,
        SeriesTime=f"{clock // 3600:02d}{clock // 60 % 60:02d}{clock % 60:02d}",
        AcquisitionTime="120000",
        drug={"RadionuclideTotalDose": dose, "RadionuclideHalfLife": life, "RadiopharmaceuticalStartTime": "080000.00"},
    )
    image = one(tmp_path, PIXELS, "PT", **values)
    np.testing.assert_allclose(image.data[0], PIXELS * 2.5 * weight * 1000 / (dose * 2 ** (-wait / life)), rtol=1e-5)


# ---------------------------------------------------------------- dose, real world values


def test_dose_is_in_gray_and_in_its_place(tmp_path: Path) -> None:
    truth = make.truths(1, make.grid(4, between=2.5))[0]
    dataset = make.plane(truth.values.astype(np.uint16), truth.grid, 0, "MR", Modality="RTDOSE")
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.2"
    dataset.NumberOfFrames, dataset.DoseGridScaling, dataset.DoseUnits = 4, 2.5e-4, "GY"
    dataset.GridFrameOffsetVector = [0, 2.5, 5, 7.5]
    dataset.FrameIncrementPointer = 0x3004000C
    image = fio.read(make.save(dataset, tmp_path / "a.dcm"))
    assert image.unit == "Gy"
    assert make.equal(image, make.Truth(truth.values * 2.5e-4, truth.grid)) == ""


def test_dose_on_uneven_planes(tmp_path: Path) -> None:
    truth = make.truths(1, make.grid(offsets=[0, 2.5, 5, 10]))[0]
    dataset = make.plane(truth.values.astype(np.uint16), truth.grid, 0, "MR", Modality="RTDOSE")
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.2"
    dataset.NumberOfFrames, dataset.DoseGridScaling, dataset.DoseUnits = 4, 1e-3, "GY"
    dataset.GridFrameOffsetVector = [0, 2.5, 5, 10]
    image = fio.read(make.save(dataset, tmp_path / "a.dcm"))
    assert make.equal(image, make.Truth(truth.values * 1e-3, truth.grid)) == ""


def mapping(slope: float, intercept: float) -> Items:
    item = Dataset()
    item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, intercept
    item.RealWorldValueFirstValueMapped, item.RealWorldValueLastValueMapped = 0, 4095
    item.LUTLabel, item.LUTExplanation = "map", "map"
    return Items([item])


def test_a_real_world_value_map_where_no_rescale_stands(tmp_path: Path) -> None:
    image = one(tmp_path, PIXELS, "MR", RealWorldValueMappingSequence=mapping(2.08, -3))
    np.testing.assert_allclose(image.data[0], PIXELS * 2.08 - 3, rtol=1e-6)
    both = one(
        tmp_path, PIXELS, "MR", RealWorldValueMappingSequence=mapping(2.08, -3), RescaleSlope=3, RescaleIntercept=1
    )
    np.testing.assert_allclose(both.data[0], PIXELS * 3.0 + 1, rtol=1e-6)


def test_real_world_value_maps_of_frames(tmp_path: Path) -> None:
    truth = make.truths(1, make.grid(3))[0]
    frames = [
        make.replace(f, groups={**f.groups, "RealWorldValueMappingSequence": {
            "RealWorldValueSlope": 2.0 + k, "RealWorldValueIntercept": 0.0, "RealWorldValueFirstValueMapped": 0,
            "RealWorldValueLastValueMapped": 4095}})
        for k, f in enumerate(make.frames_of([truth]))
    ]  # fmt: skip
    image = fio.read(make.save(make.enhanced(frames), tmp_path / "a.dcm"))
    wanted = truth.values * (2.0 + np.arange(3))[:, None, None]
    assert make.equal(image, make.Truth(wanted, truth.grid)) == ""


def test_palettes_span_the_same_range_as_colours(tmp_path: Path) -> None:
    """16 bits of a palette are shades of 8 bits a display shows: 0 to 255, as RGB is."""
    pixels = RNG.integers(0, 256, (6, 8)).astype(np.uint8)
    dataset = make.plane(pixels, WHERE, 0, "MR", Modality="US", PhotometricInterpretation="PALETTE COLOR")
    tables = RNG.integers(0, 256, (3, 256)).astype(np.uint16)
    for name, values in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"{name}PaletteColorLookupTableData", (values * 257).tobytes())
    image = fio.read(make.save(dataset, tmp_path / "a.dcm"))
    assert image.data.shape == (3, 6, 8)
    np.testing.assert_allclose(image.data, tables[:, pixels], atol=1)
