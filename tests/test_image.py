import numpy as np
import pytest

from fabrica.image import VOLUMES, Image


def test_size_and_spacing_follow_array_order() -> None:
    affine = np.diag([0.5, 0.7, 3.0, 1.0])  # w, h, d
    volume = Image(np.zeros((1, 4, 5, 6), np.float32), affine)
    assert volume.size == (4, 5, 6) and volume.spacing == (3.0, 0.7, 0.5)
    flat = Image(np.zeros((1, 5, 6), np.float32), affine)
    assert flat.spacing == (0.7, 0.5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"data": np.zeros((4, 4), np.float32)},
        {"data": np.zeros((1, 4, 4))},
        {"data": np.zeros((1, 4, 4), np.float32), "affine": np.eye(3)},
        {"data": np.zeros((1, 4, 4), np.float32), "unit": "grey"},
    ],
)
def test_malformed_images_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="Image"):
        Image(**arguments)


def test_printing_an_image_shows_no_patient() -> None:
    image = Image(np.zeros((1, 64, 64), np.float32), origin={"patient": "Doe^Jane", "modality": "CT"})
    assert repr(image) == "Image((1, 64, 64), arbitrary, 1 x 1 mm, CT)"


SCALE, SIGNED, MOVED = np.diag([2.0, 2, 3, 1]), np.diag([-2.0, 2, 3, 1]), np.diag([2.0, 2, 3, 1]) + np.eye(4, k=3)


@pytest.mark.parametrize("form", ["", "npz", "raster", "phantom", "dicom", *VOLUMES])
@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (1, 5, 6)])
def test_what_has_a_place_and_what_has_millimetres(form: str, shape: tuple[int, ...]) -> None:
    """Scale alone is no place but that of a volume format's volume; DICOM's and pictures' slices are never turned."""
    flat, data, origin = len(shape) == 3, np.zeros(shape, np.float32), {"format": form}
    for affine in (np.eye(4), SCALE):
        image = Image(data, affine, origin=origin)
        assert image.placed == (form in VOLUMES and not flat)
        assert image.measured == (form in VOLUMES or form == "dicom" or affine is SCALE)
    for affine in (SIGNED, MOVED):
        image = Image(data, affine, origin=origin)
        assert image.placed == (form in VOLUMES or not flat)
        assert image.measured
