import numpy as np
import pytest

from fabrica.image import Image


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
