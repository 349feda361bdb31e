"""What one look at a mask finds: the labels in it, whatever type and format they were stored in."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image as Picture

from fabrica.data.mask_look import HIGHEST, labels_of, look_at


@given(
    arrays(np.float32, array_shapes(min_dims=1, max_dims=4), elements=st.integers(0, 70_000).map(float)),
    st.integers(1, 40),
)
def test_labels_are_found_in_pieces_of_any_size(data: np.ndarray, piece: int) -> None:  # type: ignore[type-arg]
    expected = tuple(int(value) for value in np.unique(data))
    assert labels_of(data, piece) == (expected if expected[-1] <= HIGHEST else None)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 1, 2], (0, 1, 2)),
        ([0, 5, 117], (0, 5, 117)),
        ([3], (3,)),
        ([0, 255], (0, 1)),
        ([255], (1,)),
        ([0, 65535], (0, 1)),
        ([0, 254, 255], (0, 254, 255)),
        ([0.0, 0.25, 0.75, 1.0], (0, 1)),
        ([0.0, 0.25], (0,)),
        ([0, 1.0001, 2], (0, 1, 2)),
        ([0, 1.5, 2], ()),
        ([-1, 0, 1], ()),
        ([0, 70_000], ()),
    ],
)
def test_values_of_volumes(tmp_path: Path, values: list[float], labels: tuple[int, ...]) -> None:
    data = np.resize(np.array(values, np.float32), (4, 3, 5))
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "m.nii.gz")  # type: ignore[no-untyped-call]
    found = look_at(tmp_path / "m.nii.gz")
    assert (found.problem, found.size, found.values, bool(found.odd)) == ("", (5, 3, 4), labels, not labels)


def test_pictures_of_jpeg_and_of_colour_are_odd(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Picture.fromarray(rng.choice([0, 255], (64, 64)).astype(np.uint8)).save(tmp_path / "m.jpg", quality=60)
    Picture.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(tmp_path / "m.png")
    assert "JPEG" in look_at(tmp_path / "m.jpg").odd and "3 channels" in look_at(tmp_path / "m.png").odd


def test_what_cannot_be_read_says_why_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "m.nii.gz").write_bytes(b"nothing")
    found = look_at(tmp_path / "m.nii.gz")
    assert found.problem and str(tmp_path) not in found.problem and not found.values
