"""A volume is read and written beside itself and a few slices: no second copy of it, whatever the format.

The bound is a part of the array's own size, counted by tracemalloc (numpy reports its arrays to it), so it holds
on any machine. Its peak of a 512 x 512 x 600 series is what keeps `fabrica apply` below 2 GiB.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from fabrica import io as fio
from fabrica.image import Image
from fabrica.io.dicom import stored as dicom_stored

FRACTION = 0.4  # of the volume, beside it: pixels of 16 bits would be a half of it


def peak(work: Callable[[], Any], of: Image) -> float:
    """The most memory that `work` needed at once, in sizes of the volume."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / of.data.nbytes
    finally:
        tracemalloc.stop()


def volume(slices: int, unit: str = "HU", fraction: float = 0.0) -> Image:
    data = np.random.default_rng(0).integers(-1000, 1000, (1, slices, 256, 256)).astype(np.float32)
    modality = {"modality": "CT" if unit == "HU" else "MR"}
    return Image(data + np.float32(fraction), np.diag([0.7, 0.7, 3.0, 1.0]), unit, modality)


@pytest.mark.parametrize("unit", ["HU", "arbitrary"])
def test_dicom_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str) -> None:
    monkeypatch.setattr(dicom_stored, "_SAMPLE", 2**14)  # small against this volume as 2**22 is against a real one
    image = volume(20, unit, 0.0 if unit == "HU" else 0.25)
    fio.write(image, tmp_path / "a", synthetic=True, seed=1)
    source = fio.read(tmp_path / "a")  # now all is imported
    assert peak(lambda: fio.read(tmp_path / "a"), image) < 1 + FRACTION
    if unit == "HU":  # to another modality; else to a copy of its source
        source = source.with_data(source.data, origin={**source.origin, "modality": "MR"})
    assert peak(lambda: fio.write(source, tmp_path / "b", translated=True, seed=1), image) < FRACTION


def test_multi_frame_dicom_needs_only_its_own_bytes_beside_it(tmp_path: Path) -> None:
    image = volume(40)
    path = fio.write(image.with_data(image.data[:, 0]), tmp_path / "a.dcm", synthetic=True)[0]
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames, dataset.PixelData = 40, (image.data + 1000).astype(np.uint16).tobytes()
    dataset.PerFrameFunctionalGroupsSequence = [pydicom.Dataset() for _ in range(40)]
    for k, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        where = pydicom.Dataset()
        where.ImagePositionPatient = [0, 0, 3.0 * k]
        group.PlanePositionSequence = [where]
    dataset.save_as(path)
    assert fio.read(path).data.shape == image.data.shape
    assert peak(lambda: fio.read(path), image) < 1.5 + FRACTION


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("unit", ["HU", "label"])
def test_nifti(tmp_path: Path, suffix: str, unit: str) -> None:
    image, path = volume(40, unit), tmp_path / f"a{suffix}"
    fio.write(image, path)
    fio.read(path)
    assert peak(lambda: fio.read(path), image) < 1 + FRACTION
    assert peak(lambda: fio.write(image, path), image) < FRACTION
