import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.codec import Codec
from fabrica.errors import UsageError
from fabrica.image import Image


def image(values: np.ndarray, unit: str = "arbitrary") -> Image:
    return Image(values.astype(np.float32), unit=unit)


@given(
    low=st.floats(-2000, 2000),
    width=st.floats(1, 5000),
    part=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_window_is_reversible_inside_and_clips_outside(low: float, width: float, part: list[float]) -> None:
    codec = Codec("window", low, low + width)
    values = (low + np.array(part) * width).reshape(1, 2, 2)
    coded = codec.encode(image(values))
    assert coded.min() >= -1 and coded.max() <= 1
    np.testing.assert_allclose(codec.decode(coded), values, atol=1e-3 * width + 1e-3)
    outside = codec.encode(image(np.array([[[low - 10, low + width + 10]]])))
    np.testing.assert_array_equal(outside, [[[-1, 1]]])


def test_regions_are_laid_over_one_another_and_back() -> None:
    codec = Codec("label", classes=3, numbers=(1, 3, 2), regions=((1, 2, 3), (2, 3), (2,)))
    labels = image(np.arange(4).reshape(1, 2, 2))
    coded = codec.encode(labels)
    assert coded.reshape(3, 4).tolist() == [[-1, 1, 1, 1], [-1, -1, 1, 1], [-1, -1, 1, -1]]
    np.testing.assert_array_equal(codec.decode(coded), labels.data)
    doubtful = np.array([-0.2, 0.3, -0.9], dtype=np.float32).reshape(3, 1, 1)  # inside the second, not the first
    assert codec.decode(doubtful).item() == 3
    one = Codec("label", classes=1, numbers=(4,), regions=((4, 5),))
    assert one.decode(one.encode(image(np.array([[[0, 5, 4, 1]]])))).tolist() == [[[0, 4, 4, 0]]]
    with pytest.raises(UsageError, match="as many of each"):
        Codec("label", classes=3, numbers=(1, 2), regions=((1, 2), (2,)))


def test_percentile_uses_each_images_own_limits() -> None:
    codec = Codec("percentile", 1, 99, default_limits=(0, 10))
    ramp = np.linspace(0, 1, 10_000).reshape(1, 100, 100)
    np.testing.assert_allclose(codec.encode(image(ramp)), codec.encode(image(ramp * 1e6)), atol=1e-5)
    limits = codec.limits((ramp * 1e6).astype(np.float32))
    np.testing.assert_allclose(limits, (1e4, 99e4), rtol=1e-3)
    np.testing.assert_allclose(codec.decode(np.zeros((1, 2, 2), np.float32)), 5.0)


def test_constant_image_is_finite() -> None:
    coded = Codec("percentile", 0.5, 99.5).encode(image(np.full((1, 4, 4), 7.0)))
    assert np.isfinite(coded).all()


def test_label_round_trip_and_range() -> None:
    codec = Codec("label", unit="label", classes=3)
    labels = np.array([[[0, 1], [2, 0]]])
    coded = codec.encode(image(labels, "label"))
    assert coded.shape == (3, 2, 2) and set(np.unique(coded)) == {-1.0, 1.0}
    np.testing.assert_array_equal(codec.decode(coded), labels)
    with pytest.raises(UsageError, match="span 0 to 3; the codec expects 0 to 2"):
        codec.encode(image(np.array([[[0, 3]]]), "label"))


@pytest.mark.parametrize(
    "values",
    [{"kind": "windw"}, {"low": 5, "high": 5}, {"kind": "label"}, {"kind": "percentile", "high": 101}],
)
def test_impossible_codecs_are_refused(values: dict) -> None:
    with pytest.raises(UsageError):
        Codec(**values)
