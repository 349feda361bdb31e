"""Plans from looks at images: what a person would choose, and what is asked stands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fabrica.data.planning import Look, adopted, looked, planned, window
from fabrica.errors import UsageError
from fabrica.image import Image
from fabrica.recipe.plan import table

GIB = 2.0**30


def of(
    size: tuple[int, ...], spacing: tuple[float, ...], count: int = 10, labels: tuple[int, ...] = (0, 1)
) -> list[Look]:
    return [Look(size, spacing, labels)] * count


def test_small_volumes_are_learned_whole() -> None:
    """As nnU-Net plans the hippocampus: patches of 32 x 48 x 32 (theirs: 40 x 56 x 40), three times halved."""
    plan = planned(of((36, 50, 35), (1.0, 1.0, 1.0), labels=(0, 1, 2)), memory=8 * GIB)
    assert plan.size == [32, 48, 32] and plan.levels[1:] == [[2, 2, 2]] * 3
    assert plan.spacing == [1, 1, 1] and plan.numbers == [0, 1, 2] and plan.batch >= 2


@pytest.mark.parametrize("thick", [4.0, 6.0, 8.0])
def test_thick_slices_are_halved_last(thick: float) -> None:
    plan = planned(of((20, 300, 300), (thick, 0.7, 0.7)), memory=8 * GIB)
    assert plan.levels[1][0] == 1 and plan.kernels[0] == [1, 3, 3] and plan.kernels[-1] == [3, 3, 3]
    assert plan.turned == [1, 2] and plan.size[1] > plan.size[0]
    finest = 0.7 * np.prod(plan.levels, axis=0)[1]
    assert finest >= thick / 2  # the plane is as coarse as the slices before both are halved together


@pytest.mark.parametrize("size", [(512, 512), (3000, 2500), (60, 40)])
def test_pictures_without_mm_are_fitted_whole(size: tuple[int, ...]) -> None:
    plan = planned(of(size, ()), memory=8 * GIB)
    assert plan.spacing == [] and len(plan.size) == 2
    assert abs(plan.size[0] / plan.size[1] - size[0] / size[1]) < 0.3
    multiple = np.prod(plan.levels, axis=0)
    assert not (np.array(plan.size) % multiple).any()


@pytest.mark.parametrize("memory", [0.5, 2.0, 8.0, 64.0])
def test_more_memory_is_more_voxels_and_never_none(memory: float) -> None:
    def voxels(gib: float) -> int:
        plan = planned(of((300, 400, 400), (1.5, 0.8, 0.8)), memory=gib * GIB)
        return int(np.prod(plan.size)) * plan.batch

    assert 0 < voxels(memory) <= voxels(2 * memory)


def test_what_is_asked_stands() -> None:
    plan = planned(of((36, 50, 35), (1.0, 1.0, 1.0)), size=[16, 24, 24], spacing=[2, 2, 2], batch=3)
    assert plan.size == [16, 24, 24] and plan.spacing == [2, 2, 2] and plan.batch == 3
    assert len(planned(of((36, 50, 35), (1.0, 1.0, 1.0)), dims=2).size) == 2


def discs(size: int, radius: float, of: int = 8) -> list[Look]:
    """Pictures of a disc."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    labels = Image((x**2 + y**2 < radius**2).astype(np.float32)[None], np.eye(4), "label")
    return [looked(labels.with_data(labels.data, unit="arbitrary"), labels)] * of


@pytest.mark.parametrize(("size", "radius"), [(512, 150), (512, 80), (256, 75), (2000, 400)])
def test_pictures_are_as_small_as_what_is_labelled_in_them_allows(size: int, radius: float) -> None:
    """Of a disc of 22 pixels, counted on its grid, 8 % lie on the rim."""
    plan = planned(discs(size, radius), memory=8 * GIB)
    assert plan.size[0] == plan.size[1] and 18 < radius * plan.size[0] / size < 28
    assert "times smaller" in plan.reasons["spacing"]
    assert planned(discs(size, radius), size=[128, 128]).size == [128, 128]


@pytest.mark.parametrize(("size", "radius", "patch"), [(512, 10, 320), (256, 10, 256), (64, 30, 64)])
def test_pictures_of_small_things_and_small_pictures_keep_their_size(size: int, radius: float, patch: int) -> None:
    plan = planned(discs(size, radius), memory=8 * GIB)
    assert plan.size == [patch, patch] and "times smaller" not in plan.reasons["spacing"]


def test_few_slices_are_learned_one_by_one() -> None:
    assert len(planned(of((5, 200, 200), (8.0, 1.0, 1.0))).size) == 2


@pytest.mark.parametrize(("names", "mirrored"), [({1: "kidney left"}, False), ({1: "leftover"}, True), ({}, True)])
def test_sides_that_are_told_apart_are_never_mirrored(names: dict[int, str], mirrored: bool) -> None:
    plan = planned(of((36, 50, 35), (1.0, 1.0, 1.0)), names=names)
    assert plan.mirror == ([2] if mirrored else [])
    assert planned(of((50, 35), (1.0, 1.0)), names=names).mirror == ([1] if mirrored else [])


def test_labels_may_skip_numbers_and_differ_from_case_to_case() -> None:
    looks = [Look((30, 30, 30), (1.0,) * 3, labels) for labels in ((0,), (0, 7), (0, 3))]
    plan = planned(looks, names={3: "liver"})
    assert plan.numbers == [0, 3, 7] and plan.names == ["", "liver", ""]
    with pytest.raises(UsageError, match="all 3 training images are empty"):
        planned([Look((30, 30, 30), (1.0,) * 3, (0,))] * 3)


def test_a_window_is_where_the_labelled_values_lie() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((1, 20, 30, 40), dtype=np.float32)
    labels[:, 5:15, 5:15, 5:15] = 2
    values = np.where(labels > 0, rng.normal(100, 10, labels.shape), -1000).astype(np.float32)
    affine = np.diag([0.7, 0.7, 5.0, 1.0])
    look = looked(Image(values, affine, "HU", {"format": "nifti"}), Image(labels, affine, "label"))
    assert look.size == (20, 30, 40) and look.spacing == pytest.approx((5.0, 0.7, 0.7)) and look.labels == (0, 2)
    found = window([look, look])
    assert found is not None and found[0] == pytest.approx(100 - 25.8, abs=5) and found[1] == pytest.approx(126, abs=5)
    plain = looked(Image(values, affine, "arbitrary"), Image(labels, affine, "label"))
    assert window([plain]) is None and window([look, plain]) is None


def test_the_plan_is_a_short_table_with_reasons() -> None:
    plan = planned(of((20, 300, 300), (6.0, 0.7, 0.7), labels=(0, 4)), names={4: "liver"}, memory=8 * GIB)
    lines = table(plan).splitlines()
    assert len(lines) == 8 and all(len(line) < 160 for line in lines)
    assert any("4 liver" in line for line in lines) and any("in the plane alone" in line for line in lines)
    assert all(reason in table(plan) for reason in plan.reasons.values())


def test_several_contrasts_have_a_line_of_their_own() -> None:
    plan = planned(of((20, 30, 30), (1.0,) * 3, labels=(0, 1)), memory=8 * GIB)
    assert "contrasts" not in table(plan)
    named = replace(plan, contrasts=["t1", "t2"])
    assert any(line.split()[:4] == ["contrasts", "t1,", "t2", "as"] for line in table(named).splitlines())
    alone = replace(plan, reasons={**plan.reasons, "contrasts": "cases differ"})
    assert any(line.split() == ["contrasts", "one", "cases", "differ"] for line in table(alone).splitlines())


BRATS = {"whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]}


def test_regions_are_planned_with_the_numbers_that_they_become() -> None:
    plan = planned(of((36, 50, 35), (1.0,) * 3, labels=(0, 1, 2, 4)), regions=BRATS, memory=8 * GIB)
    assert plan.numbers == [0, 1, 2, 4] and plan.channels == [[1, 2, 3], [1, 3], [3]]
    assert plan.names == ["", "core without enhancing", "whole without core", "enhancing"]
    assert plan.judged == {2: ("whole", [1, 2, 4]), 1: ("core", [1, 4]), 4: ("enhancing", [4])}
    assert "whole: 1, 2, 4; core: 1, 4; enhancing: 4" in table(plan)


def test_regions_that_no_image_shows_are_left_out_and_said() -> None:
    looks = of((36, 50, 35), (1.0,) * 3, labels=(0, 2))
    plan = planned(looks, regions=BRATS, names={2: "edema", 9: "ignore"}, memory=8 * GIB)
    assert plan.regions == {"whole": [1, 2, 4]} and "without core, enhancing" in table(plan)
    assert plan.numbers == [0, 1, 2, 4] and plan.names == ["", "whole", "edema", ""]
    with pytest.raises(UsageError, match="no training image has a label of the regions cyst"):
        planned(looks, regions={"cyst": [7]})
    with pytest.raises(UsageError, match="'core', \\[1, 4\\], holds nothing"):
        planned(of((36, 50, 35), (1.0,) * 3, labels=(0, 1, 2)), regions=dict(reversed(BRATS.items())) | {"x": [1]})
    ignored = planned(of((36, 50, 35), (1.0,) * 3, labels=(0, 1, 2, 4, 9)), regions=BRATS | {"ignore": [9]},
                      names={9: "ignore"}, memory=8 * GIB)  # fmt: skip
    assert ignored.regions == BRATS and 9 not in ignored.numbers


def test_an_ignored_label_is_no_class() -> None:
    plan = planned(of((30, 30, 30), (1.0,) * 3, labels=(0, 1, 4)), names={1: "liver", 4: "ignore"})
    assert plan.numbers == [0, 1] and plan.names == ["", "liver"]


def test_a_plan_is_taken_as_it_is_but_for_what_is_asked() -> None:
    looks = of((36, 50, 35), (1.0,) * 3, labels=(0, 1, 3))
    plan = planned(of((36, 50, 35), (1.0,) * 3, labels=(0, 1, 2, 3)), memory=8 * GIB)
    same = adopted(plan, looks, source="runs/a")
    assert replace(same, reasons=plan.reasons) == plan and "of runs/a" in table(same)
    other = adopted(plan, looks, source="runs/a", size=[24, 24, 24], spacing=[2.0] * 3, batch=7)
    assert (other.size, other.spacing, other.batch, other.numbers) == ([24] * 3, [2.0] * 3, 7, [0, 1, 2, 3])
    assert np.prod(other.levels, axis=0).tolist() == [4, 4, 4]
    ignored = of((36, 50, 35), (1.0,) * 3, labels=(0, 1, 9))
    assert adopted(plan, ignored, source="x", names={9: "ignore"}).numbers == plan.numbers


@pytest.mark.parametrize(
    ("changes", "looks", "said"),
    [
        ({}, of((36, 50, 35), (1.0,) * 3, labels=(0, 7)), "have 7, too"),
        ({}, of((36, 50), (1.0,) * 2), "10 of 10 training images are pictures"),
        ({}, of((36, 50, 35), ()), "which not all training images know"),
        ({"levels": [[1, 1]]}, of((36, 50, 35), (1.0,) * 3), "levels"),
        ({"names": ["", "a"]}, of((36, 50, 35), (1.0,) * 3), "2 names"),
        ({"numbers": [0, 1, 1], "names": [""] * 3}, of((36, 50, 35), (1.0,) * 3), "numbers .0, 1, 1."),
        ({"mirror": [3]}, of((36, 50, 35), (1.0,) * 3), "axes from 0 to 2"),
        ({"regions": {"whole": [4]}}, of((36, 50, 35), (1.0,) * 3), "regions"),
        ({"batch": 0}, of((36, 50, 35), (1.0,) * 3), "batch 0"),
    ],
)
def test_a_plan_that_does_not_fit_is_one_line(changes: dict[str, object], looks: list[Look], said: str) -> None:
    plan = planned(of((36, 50, 35), (1.0,) * 3, labels=(0, 1, 2)), memory=8 * GIB)
    with pytest.raises(UsageError, match=said):
        adopted(replace(plan, **changes), looks, source="runs/a")  # type: ignore[arg-type]
