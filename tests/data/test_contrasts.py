"""Which contrasts are seen together: those that every training case has, in the order of the manifest, else none."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.codec import ABSENT, Codec
from fabrica.data.cases import Cases, build_cases
from fabrica.data.contrasts import contrasts, of_every_case
from fabrica.data.manifest import Row
from fabrica.data.sample import UNLABELLED
from fabrica.data.sides import matched
from fabrica.data.sources import open_source
from fabrica.recipe.plan import Plan
from fabrica.recipe.schema import DataConfig

NAMES = ("t1", "t2", "flair", "pd", "adc")
CODECS = Codec("window", 0, 1000), Codec("window", 0, 200, clip=False)


def row(case: int, name: str, mask: bool = True, split: str = "train") -> Row:
    """Of a flat folder, in which nothing but the mask says what belongs together."""
    return Row(f"x{case}{name}", "", f"x{case}{name}.nii", "", split, "MR", name, mask=f"m{case}.nii" if mask else "")


@given(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), st.integers(1, 6), st.randoms())
def test_contrasts_of_all_cases_are_seen_together(names: list[str], cases: int, rng: object) -> None:
    rows = [row(k, name) for k in range(cases) for name in names]
    rows += [row(99, "pet", mask=False)]  # without a mask: nothing to learn from
    found, why = of_every_case(rows)
    assert found == (names if len(names) > 1 else []) and bool(why) == (len(names) > 1)
    assert len(names) == 1 or f"all {cases} training cases" in why


@given(st.lists(st.sampled_from(NAMES), min_size=2, unique=True), st.integers(2, 6), st.data())
def test_of_cases_that_differ_each_image_stands_alone(names: list[str], cases: int, data: st.DataObject) -> None:
    lacks, what = data.draw(st.integers(0, cases - 1)), data.draw(st.sampled_from(names))
    rows = [row(k, name) for k in range(cases) for name in names if (k, name) != (lacks, what)]
    found, why = of_every_case(rows)
    assert found == [] and "cases differ" in why and f" of {cases - 1}" in why
    twice = [row(k, name) for k in range(cases) for name in [*names, what]]
    assert of_every_case(twice)[0] == []  # two of one contrast: which is it?
    unnamed = [replace(each, domain="") for each in rows]
    assert of_every_case(unnamed) == ([], "")


def test_images_that_share_a_mask_belong_together() -> None:
    a, b = [row(k, "t1") for k in range(4)], [row(k, "t2") for k in (3, 1, 2)]
    assert [(one.id, two.id) for one, two in matched(a, b)] == [(f"x{k}t1", f"x{k}t2") for k in (1, 2, 3)]
    everyone = [replace(each, mask="atlas.nii") for each in (*a, *b)]
    assert matched(everyone[:4], everyone[4:]) == []  # one mask for all says nothing


def test_what_is_named_stands() -> None:
    config = DataConfig("nowhere", "t1", "mask", paired=True)
    assert contrasts(config) == ([], "")
    assert contrasts(replace(config, auxiliary=["t2"])) == (["t1", "t2"], "as asked")
    assert contrasts(replace(config, source="phantom:head", a="image")) == ([], "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Four cases of a (20, 16, 12) grid and an unlabelled one: T1 in other voxels than the mask, T2 and PD in its own.
    Every value tells contrast and case; PD is not of case 2, nor of the unlabelled one."""
    home = tmp_path_factory.mktemp("contrasts")
    lines = ["id,patient,path,mask,split,modality,domain"]
    for k in range(5):
        for n, name in enumerate(("T1", "T2", "PD")):
            if name == "PD" and k in (2, 4):
                continue
            data = np.full((20, 16, 12), 100.0 * (n + 1) + 10 * k, dtype=np.float32)
            affine = np.eye(4)
            if name == "T1":
                data, affine = data[:, :, ::2], np.diag([1.0, 1.0, 2.0, 1.0])
                affine[2, 3] = 0.5
            nib.Nifti1Image(data, affine).to_filename(home / f"{name}{k}.nii.gz")
            mask = f"m{k}.nii.gz" if k != 4 else ""
            lines.append(f"{name}{k},p{k},{name}{k}.nii.gz,{mask},{'val' if k == 3 else 'train'},MR,{name}")
        labels = np.zeros((20, 16, 12), dtype=np.uint8)
        labels[4:9, 4:9, 4:9] = 1
        nib.Nifti1Image(labels, np.eye(4)).to_filename(home / f"m{k}.nii.gz")
    (home / "m.csv").write_text("\n".join(lines))
    return DataConfig(str(home / "m.csv"), "image", "mask", paired=True, size=[8, 8, 8])


def test_the_first_is_one_that_the_labels_were_drawn_on(folder: DataConfig) -> None:
    whole = replace(folder, where={"patient": "p0"})
    assert contrasts(whole)[0] == ["T2", "T1", "PD"]
    names, why = contrasts(folder)
    assert names == [] and "PD + T1 + T2 of 2; T1 + T2 of 1" in why


def opened(folder: DataConfig, with_labels: bool = True, **choices: object) -> Cases:
    config = replace(folder, a="T2", auxiliary=["PD", "T1"], **choices)  # type: ignore[arg-type]
    plan = Plan(spacing=[1.0, 1.0, 1.0], size=[8, 8, 8], numbers=[0, 1], names=["", "x"])
    return build_cases(config, CODECS[0], plan, "train", auxiliary=[CODECS[1], CODECS[0]], with_labels=with_labels)


def test_each_contrast_goes_through_its_codec_into_its_channel(folder: DataConfig) -> None:
    cases = opened(folder)
    assert cases.ids == ["T20", "T21", "T22"] and cases.meta.channels == 3 and cases.meta.absent == [[], [], [1]]
    for k in range(3):
        values = cases.image(k)
        assert values.shape == (3, 12, 16, 20)
        wanted = [(200 + 10 * k) / 500 - 1, (300 + 10 * k) / 100 - 1, (100 + 10 * k) / 500 - 1]
        for channel, value in enumerate(wanted):
            if (k, channel) != (2, 1):
                np.testing.assert_allclose(values[channel, 1:-1], value, atol=1e-3)
        assert np.array_equal(cases.read([k])[0], values[:1])
    assert (cases.image(2)[1] == ABSENT).all()  # exactly, whatever its codec's reach
    assert "1 of 3 images of 'T2' have no 'PD' beside them: kept, without it" in cases.meta.notes
    assert np.array_equal(cases.image(1, [2, 3, 4], [5, 6, 7]), cases.image(1)[:, 2:7, 3:9, 4:11])


def test_unlabelled_images_have_theirs_too(folder: DataConfig) -> None:
    cases = opened(folder, with_labels=False)
    assert cases.ids == ["T24"] and cases.meta.absent == [[1]]
    np.testing.assert_allclose(cases.image(0)[2, 1:-1], 140 / 500 - 1, atol=1e-3)
    config = replace(folder, a="T2", auxiliary=["PD"])
    assert open_source(config, "train", "auxiliary:PD", of=UNLABELLED).absent == frozenset({0})


def test_another_codec_is_another_folder(folder: DataConfig) -> None:
    config = replace(folder, a="T2", auxiliary=["T1"])
    plan = Plan(spacing=[1.0, 1.0, 1.0], size=[8, 8, 8], numbers=[0, 1], names=["", "x"])
    one, other = (build_cases(config, CODECS[0], plan, "train", auxiliary=[codec]) for codec in CODECS)
    alone = build_cases(replace(config, auxiliary=[]), CODECS[0], plan, "train")
    assert len({one.folder, other.folder, alone.folder}) == 3
    assert np.array_equal(one.image(0)[:1], alone.image(0)) and not np.array_equal(one.image(0), other.image(0))
