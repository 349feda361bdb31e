"""Names of labels: the column keeps them, and the usual tables say them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.data.label_names import (
    column,
    is_called_so,
    labels_in,
    names_in,
    names_of,
    overlapping,
    regions_in,
    renumbered,
    together,
)
from fabrica.errors import UsageError
from fabrica.image import Image

NAMES = {(1,): "liver", (3,): "left kidney"}
numbers = st.lists(st.integers(1, 999), min_size=1, max_size=4, unique=True).map(lambda found: tuple(sorted(found)))
called = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="|"), min_size=1)


@given(st.dictionaries(numbers, called, max_size=6))
def test_what_the_column_is_told_it_says(names: dict[tuple[int, ...], str]) -> None:
    assert regions_in(column(names)) == names
    assert set(labels_in(column(names))) == {number for region in names for number in region}


def test_marks_of_the_column_in_names_do_no_harm() -> None:
    assert regions_in(column({(1,): "a|b = c", (2,): " two\nlines "})) == {(1,): "a/b = c", (2,): "two lines"}
    assert column({(0,): "background", (2,): "x"}) == "2=x" and regions_in("") == {}


@pytest.mark.parametrize("text", ["liver", "1=", "=liver", "1=liver|2", "a=liver", "1,=liver"])
def test_another_form_of_the_column_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="expected numbers and names"):
        regions_in(text)


def test_a_number_goes_by_its_smallest_region() -> None:
    assert labels_in("1,2,3=whole tumour|2,3=core|3=enhancing") == {1: "whole tumour", 2: "core", 3: "enhancing"}
    assert labels_in("1,2=tumour|7=edge") == {1: "tumour 1", 2: "tumour 2", 7: "edge"}


TABLES = {
    "label.txt": """
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
    0     0    0    0        0  0  0    "Clear Label"
    1   255    0    0        1  1  1    "liver"
    3     0  255    0      0.5  1  1    "left kidney"
""",
    "colors.ctbl": "# Color table file\n0 background 0 0 0 0\n1 liver 255 0 0 255\n3 left kidney 1 2 3 255\n",
    "lut.txt": "#No. Label Name:   R G B A\n\n0  Unknown 0 0 0 0\n1   liver    70 130 180 0\n3  left kidney  1 2 3 0\n",
    "labels.csv": "number,name\n1,liver\n3,left kidney\n",
    "label_map.csv": "0,background\n1,liver\n3,left kidney\n",
    "classes.csv": "name;label\nliver;1\nleft kidney;3\n",
    "colours.csv": "id,organ,r,g,b\n1,liver,255,0,0\n3,left kidney,0,0,255\n",
    "dseg.tsv": "index\tname\tabbreviation\n1\tliver\tL\n3\tleft kidney\tK\n",
    "names.txt": "1 liver\n3 left kidney\n",
    "label_names.txt": "0: background\n1: liver\n3: left kidney\n",
    "class-list.txt": "liver = 1\nleft kidney = 3\n",
    "labels.json": '{"1": "liver", "3": "left kidney"}',
    "classes.json": '{"background": 0, "liver": 1, "left kidney": 3}',
    "categories.json": '{"categories": [{"id": 1, "name": "liver"}, {"id": 3, "name": "left kidney"}]}',
    "segments.json": '{"labels": {"liver": 1, "left kidney": 3}}',
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_of_all_usual_forms(tmp_path: Path, name: str, encoding: str) -> None:
    (tmp_path / name).write_bytes(TABLES[name].replace("\n", "\r\n").encode(encoding))
    assert is_called_so(f"set/{name}")
    found = names_in(tmp_path / name)
    assert {numbers: said for numbers, said in found.items() if numbers != (0,)} == NAMES


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "file,label\na.png,benign\nb.png,malignant\n"),
        ("labels.csv", "id,label\n1,benign\n2,malignant\n3,benign\n"),  # classes of images repeat their names
        ("labels.csv", "patient,age\n1,61\n2,57\n"),
        ("label.txt", "These are the labels of our images.\n1 liver\n"),
        ("labels.txt", "benign\nmalignant\n"),
        ("labels.json", '{"version": 2, "shapes": []}'),
        ("labels.json", "[1, 2, 3]"),
        ("labels.json", "{"),
        ("labels.json", '{"1": "liver", "2": 7}'),
        ("labels.csv", ""),
        ("labels.csv", "number,name\n"),
        ("labels.csv", "number,name\n99999999,liver\n"),
        ("labels.txt", "\0\1\2" * 99),
    ],
)
def test_other_files_are_no_tables_of_labels(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert names_in(tmp_path / name) == {}


def test_names_of_files_that_may_be_tables() -> None:
    assert not any(map(is_called_so, ("README.txt", "meta.csv", "labels.png", "report.json", "participants.tsv")))
    assert all(map(is_called_so, ("Atlas_Label.txt", "x.ctbl", "desc-aseg_dseg.tsv", "labelmap.json", "a/b/LUT.txt")))


def test_what_json_says_in_each_form() -> None:
    assert names_of({"background": 0, "whole": [1, 2], "core": [2]}) == {
        (0,): "background",
        (1, 2): "whole",
        (2,): "core",
    }
    assert names_of(["background", "liver"]) == {(0,): "background", (1,): "liver"}
    assert names_of({"1": "kidney", "2": "kidney"}) == {}
    assert names_of({"1": "kidney", "2": "kidney"}, once=False) == {(1,): "kidney", (2,): "kidney"}
    for other in (None, 3, "liver", [], {}, {"a": "b"}, {"1": ""}, {"liver": True}, {"liver": []}, [["liver"]]):
        assert names_of(json.loads(json.dumps(other))) == {}


def test_maps_that_number_what_they_show_for_themselves_come_together_by_name() -> None:
    each = [{1: "liver", 2: "spleen"}, {1: "spleen"}, {}]
    names = together(each)
    assert names == {1: "liver", 2: "spleen"}
    values = np.array([[[0, 1, 0]]], dtype=np.float32)
    assert renumbered(Image(values, unit="label"), each[1], names).data.tolist() == [[[0, 2, 0]]]
    assert renumbered(Image(values, unit="label"), each[0], names).data.tolist() == [[[0, 1, 0]]]
    swapped = renumbered(
        Image(np.array([[[1, 2, 3]]], dtype=np.float32), unit="label"), {1: "b", 2: "a"}, {1: "a", 2: "b"}
    )
    assert swapped.data.tolist() == [[[2, 1, 3]]]
    assert together([{3: "liver"}, {7: "spleen"}]) == {3: "liver", 7: "spleen"}  # as they are, where they agree


def test_regions_are_laid_over_one_another_or_refused_where_tables_differ() -> None:
    nested = "3=enhancing|2,3=core|1,2,3=whole"
    assert list(overlapping([nested, "", nested])) == ["whole", "core", "enhancing"]
    assert overlapping(["1=a, b|2=c", "1=a"]) == {} and overlapping([]) == {}  # no label has several numbers
    for other in ("1=whole", "1,2,3=whole|2,3=core"):
        with pytest.raises(UsageError, match=r"told in 2 ways, .*data\.regions"):
            overlapping([nested, other])
