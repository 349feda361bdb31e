"""A segmenter of several contrasts at work: each in its channel, on the voxels of the image, whichever that is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fabrica.codec import ABSENT, Codec
from fabrica.errors import UsageError
from fabrica.image import Float32, Image
from fabrica.inference.refusal import refusals
from fabrica.inference.translation import Way
from fabrica.inference.translator import apply
from fabrica.recipe.found import Fingerprint
from fabrica.recipe.schema import DataConfig

CODECS = {"t1": Codec("window", 0, 100), "t2": Codec("window", 0, 1000), "ct": Codec("window", -1000, 1000, "HU")}
LABELS = Codec("label", classes=2, unit="label", numbers=(0, 7))
SPACING = {2: [1.0, 1.0], 3: [2.0, 1.0, 1.0]}


def way(channel: int, dims: int = 3, context: int = 0, seen: list[Float32] | None = None, **choices: Any) -> Way:
    """A network that labels what is above 0 in one of its channels, and keeps what it was shown."""

    def net(windows: Float32) -> Float32:
        if seen is not None:
            seen.append(windows)
        inside = windows[:, channel : channel + 1] > 0
        return np.concatenate([np.where(inside, -1, 1), np.where(inside, 1, -1)], axis=1).astype(np.float32)

    size = [8, 16, 16][-dims:]
    data = DataConfig("x", "t1", "mask", paired=True, auxiliary=["t2", "ct"], size=size, context=context, fit="pad")
    own, *others = CODECS.values()
    return Way(
        net,
        own,
        LABELS,
        data,
        Fingerprint(spacing=SPACING[dims]),
        "SEG",
        auxiliary=others,
        labels={7: "box"},
        **choices,
    )


def images(spacing: float = 1.0) -> dict[str, Image]:
    """Volumes (10, 24, 20) at 2 x 1 x 1 mm with a bright box each, at places of their own, T2 turned upside down and CT
    in voxels half as wide."""
    found = {}
    for n, (name, codec) in enumerate(CODECS.items()):
        fine = 2 if name == "ct" else 1
        values = np.full((1, 10, 24 * fine, 20 * fine), codec.low, dtype=np.float32)
        values[:, 2 + n : 5 + n, 4 * fine : 10 * fine, (2 + 4 * n) * fine : (6 + 4 * n) * fine] = codec.high
        affine = np.diag([1 / fine, 1 / fine, 2.0, 1.0])
        affine[:2, 3] = (1 / fine - 1) / 2
        if name == "t2":
            affine[:, 3] += 9 * affine[:, 2]
            affine[:, 2] *= -1
            values = values[:, ::-1]
        found[name] = Image(values, affine, codec.unit, {"format": "nifti"})
    return found


def box(n: int) -> Float32:
    found = np.zeros((10, 24, 20), dtype=np.float32)
    found[2 + n : 5 + n, 4:10, 2 + 4 * n : 6 + 4 * n] = 7
    return found


@pytest.mark.parametrize(("dims", "context"), [(3, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_each_contrast_is_seen_in_its_channel(dims: int, context: int, n: int) -> None:
    given = images()
    channel = n + (2 * context if n else context)  # of side a the slice in the middle
    made = apply(given["t1"], way(channel, dims, context), auxiliary={k: given[k] for k in ("ct", "t2")}).result
    assert np.array_equal(made.data[0], box(n)) and np.array_equal(made.affine, given["t1"].affine)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_image_may_be_any_of_them(dims: int) -> None:
    given = images()
    for n, name in enumerate(CODECS):
        made = apply(given["t2"], way(n, dims), contrast="t2", auxiliary={k: given[k] for k in ("t1", "ct")}).result
        assert np.array_equal(made.data[0], box(n)[::-1]), name  # on the voxels of T2
    seen: list[Float32] = []
    alone = apply(given["t2"], way(0, dims, seen=seen), contrast="t2").result
    assert not alone.data.any()  # T1 is not there, and T2 is not taken for it
    values = np.concatenate(seen)
    assert (values[:, 0] == ABSENT).all() and (values[:, 2] == ABSENT).all() and (values[:, 1] > 0).any()


def test_volumes_at_another_spacing_keep_all_contrasts() -> None:
    given = images()
    for n in range(3):
        asked = replace(way(n), seen=Fingerprint(spacing=[1.0, 2.0, 2.0]))
        made = apply(given["t1"], asked, auxiliary={k: given[k] for k in ("ct", "t2")}).result.data[0]
        both = 2 * ((made == 7) & (box(n) == 7)).sum() / ((made == 7).sum() + (box(n) == 7).sum())
        assert both > 0.75


def test_what_makes_no_sense_is_told() -> None:
    given = images()
    with pytest.raises(UsageError, match="sees t1, t2, ct; found contrast 'pd'"):
        apply(given["t1"], way(0), contrast="pd")
    with pytest.raises(UsageError, match="sees no 't1' beside the image"):
        apply(given["t1"], way(0), auxiliary={"t1": given["t2"]})
    with pytest.raises(UsageError, match="sees no 't2' beside the image"):
        apply(given["t2"], way(0), contrast="t2", auxiliary={"t2": given["t2"]})
    other = replace(way(0), target=CODECS["t1"], labels={})
    with pytest.raises(UsageError, match="needs the image itself; leave contrast out"):
        apply(given["t2"], other, contrast="t2")


def test_only_the_first_contrast_is_known_from_training() -> None:
    seen = Fingerprint(modality="MR", spacing=[2.0, 1.0, 1.0])
    image = images()["ct"].with_data(images()["ct"].data, origin={"modality": "CT"})
    assert any("its modality is CT" in why for why in refusals(image, replace(way(0), seen=seen)))
    assert refusals(image, replace(way(0), seen=seen), contrast="ct") == []
