"""What the numbers in label maps are called: the column `mask_labels`, and the tables beside masks that say it.

Tables are known by their names (labels.csv, label.txt, colors.ctbl, dseg.tsv, classes.json ...) and by what is in them:
numbers and names, in the form of ITK-SNAP, 3D Slicer, FreeSurfer, BIDS, JSON, or two columns. What is not of such a
form throughout is no such table: nobody asked for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from fabrica.data.names import words
from fabrica.data.tables import decoded, read_sheet
from fabrica.errors import UsageError
from fabrica.image import Image

Names = dict[tuple[int, ...], str]
"""Numbers of labels -> what they are called together. Most names have one number; a region such as a whole tumour has
several, and regions may share numbers."""

NUMBER_COLUMNS = ("number", "index", "value", "label_value", "labelvalue", "label_id", "labelid", "class_id", "classid",
                  "integer", "intensity", "pixel_value", "no", "no.", "nr", "id", "idx", "label", "class",
                  "code")  # fmt: skip
NAME_COLUMNS = ("name", "label_name", "labelname", "class_name", "classname", "structure", "organ", "region", "roi",
                "anatomy", "segment", "tissue", "label", "class", "category", "description", "abbreviation",
                "text")  # fmt: skip
CALLED = {"label", "labels", "class", "classes", "name", "names", "dseg", "lut", "ctbl", "color", "colors", "colour",
          "colours", "segment", "segments", "structure", "structures", "organ", "organs", "legend", "categories",
          "labelmap", "labelnames", "colortable"}  # fmt: skip
SUFFIXES = (".json", ".txt", ".csv", ".tsv", ".ctbl", ".label", ".lut")
OWN = (".ctbl", ".label", ".lut")  # suffixes of nothing else
LARGEST = 2**20  # bytes of a table
HIGHEST = 65535  # numbers of labels
_ITK_SNAP = re.compile(r'(\d+)\s+\d+\s+\d+\s+\d+\s+[\d.]+\s+\d+\s+\d+\s+"(.*)"')
_COLOURS = re.compile(r"(\d+)\s+(\S.*?)\s+\d+\s+\d+\s+\d+(?:\s+\d+)?")
_NUMBER_FIRST = re.compile(r"(\d+)\s*[:=,;\s]\s*([^\s,;][^,;\t]*)")
_NAME_FIRST = re.compile(r"([^\s,;][^,;\t]*?)\s*[:=,;\t]\s*(\d+)")


def together(each: Iterable[Mapping[int, str]]) -> dict[int, str]:
    """What the numbers of several label maps are called. Where one number has two names, as where each map numbers what
    it shows for itself, names are numbered anew, in their order: `renumbered` brings a map to these."""
    every, found = [dict(names) for names in each], dict[int, str]()
    for names in every:
        for number, name in names.items():
            if found.setdefault(number, name) != name:
                return dict(enumerate(sorted({name for names in every for name in names.values()}), start=1))
    return dict(sorted(found.items()))


def renumbered(labels: Image, own: Mapping[int, str], names: Mapping[int, str]) -> Image:
    """A label map whose numbers are called `own` with those that `names` give the same names."""
    known = {name: number for number, name in names.items()}
    moved = {number: known[name] for number, name in own.items() if known.get(name, number) != number}
    if not moved:
        return labels
    values = labels.data.copy()
    for number, other in moved.items():
        values[labels.data == number] = other
    return labels.with_data(values)


def column(names: Mapping[tuple[int, ...], str]) -> str:
    """The text of the column: "1=anterior|2=posterior", and "1,2,3=whole tumour" for a region. Background is not
    listed. Regions stay in their order, in which they are laid over one another in a label map.

    >>> column({(2,): "posterior", (1,): "anterior"})
    '1=anterior|2=posterior'
    """
    told = {numbers: name for numbers, name in names.items() if numbers != (0,)}
    order = list(told) if any(len(numbers) > 1 for numbers in told) else sorted(told)
    return "|".join(f"{','.join(map(str, numbers))}={_plain(told[numbers])}" for numbers in order)


def regions_in(text: str) -> Names:
    """The numbers and names of a column; {} of an empty one. Raises UsageError for another form.

    >>> regions_in("1,2=tumour|2=core")
    {(1, 2): 'tumour', (2,): 'core'}
    """
    found: Names = {}
    for part in text.split("|") if text else ():
        numbers, equals, name = part.partition("=")
        if not (equals and name and re.fullmatch(r"\s*\d+(\s*,\s*\d+)*\s*", numbers)):
            raise UsageError(f"mask_labels is {text!r}; expected numbers and names, such as 1=liver|2=spleen")
        found[tuple(int(number) for number in numbers.split(","))] = name
    return found


def labels_in(text: str) -> dict[int, str]:
    """The name of each number of a column. A number of several regions goes by the smallest; of a region, with others
    that have no smaller one, by its name and the number. Raises UsageError, as `regions_in`.

    >>> labels_in("1,2,3=whole tumour|2,3=core|3=enhancing")
    {1: 'whole tumour', 2: 'core', 3: 'enhancing'}
    >>> labels_in("1,2=tumour")
    {1: 'tumour 1', 2: 'tumour 2'}
    """
    smallest: dict[int, tuple[int, ...]] = {}
    found = regions_in(text)
    for numbers in sorted(found, key=len, reverse=True):
        smallest.update(dict.fromkeys(numbers, numbers))
    several = [numbers for numbers in found if list(smallest.values()).count(numbers) > 1]
    return {
        number: f"{found[numbers]} {number}" if numbers in several else found[numbers]
        for number, numbers in sorted(smallest.items())
    }


def overlapping(columns: Iterable[str]) -> dict[str, list[int]]:
    """The regions that columns tell of, name -> numbers, in an order in which one may be laid over the other: as told,
    where none hides another, else the larger first. {} where no label has several numbers. Raises UsageError where
    one has, and columns differ.

    >>> overlapping(["3=enhancing|2,3=core|1,2,3=whole tumour"])
    {'whole tumour': [1, 2, 3], 'core': [2, 3], 'enhancing': [3]}
    """
    told = {text: regions_in(text) for text in sorted(filter(None, set(columns)))}
    if all(len(numbers) == 1 for each in told.values() for numbers in each):
        return {}
    if len(told) > 1:
        one, other, *_ = told
        raise UsageError(
            f"regions that share labels are told in {len(told)} ways, such as {one} and {other}; say which are meant "
            "with data.regions"
        )
    (found,) = told.values()
    order = list(found)
    hidden = [k for k, own in enumerate(order) if set(own) <= {n for other in order[k + 1 :] for n in other}]
    return {found[own]: list(own) for own in (sorted(order, key=len, reverse=True) if hidden else order)}


def is_called_so(path: str) -> bool:
    """Whether the name of a file is that of a table of labels."""
    name = PurePosixPath(path)
    suffix = name.suffix.lower()
    return suffix in OWN or (suffix in SUFFIXES and bool(CALLED & set(words(name.stem))))


def names_in(path: Path) -> Names:
    """What a table says; {} of a file that is none."""
    try:
        if path.stat().st_size > LARGEST:
            return {}
        text = decoded(path)
    except (OSError, UsageError):
        return {}
    if path.suffix.lower() == ".json":
        try:
            return names_of(json.loads(text))
        except ValueError:
            return {}
    return _of_lines(text) or _of_sheet(path)


def names_of(said: Any, once: bool = True) -> Names:
    """What a JSON value says: {"1": "liver"}, {"liver": 1, "tumour": [1, 2]}, ["background", "liver"],
    [{"id": 1, "name": "liver"}], or any of these under "labels", "categories" or the like; {} of others.

    once  no name may stand there twice: what names the classes of images repeats them.
    """
    if isinstance(said, dict):
        for key in ("labels", "label_names", "names", "classes", "categories", "segments"):
            if isinstance(said.get(key), (dict, list)):
                return names_of(said[key], once)
        return _of_pairs(said.items(), once)
    if not isinstance(said, list):
        return {}
    if said and all(isinstance(each, dict) for each in said):
        numbered = ((_first(each, NUMBER_COLUMNS, int), _first(each, NAME_COLUMNS, str)) for each in said)
        return _of_pairs(numbered, once)
    if all(isinstance(each, str) for each in said):
        return _of_pairs(enumerate(said), once)
    return {}


def _first(said: Mapping[str, Any], keys: Iterable[str], kind: type) -> Any:
    lower = {str(key).lower(): value for key, value in said.items()}
    return next((lower[key] for key in keys if isinstance(lower.get(key), kind)), None)


def _of_pairs(pairs: Iterable[tuple[Any, Any]], once: bool = True) -> Names:
    """Names of pairs (number, name), or all of them (name, number or numbers); {} where one is neither."""
    listed = list(pairs)
    for turn in (False, True):
        found: Names = {}
        for pair in listed:
            number, name = pair[::-1] if turn else pair
            numbers = _numbers(number)
            if numbers is None or not isinstance(name, str) or not name.strip() or numbers in found:
                break
            found[numbers] = name.strip()
        else:
            return found if _are_names(found, once) else {}
    return {}


def _numbers(said: Any) -> tuple[int, ...] | None:
    several = said if isinstance(said, list) else [said]
    if any(isinstance(each, bool) or not isinstance(each, (int, str)) for each in several) or not several:
        return None
    if not all(str(each).strip().isdecimal() and int(each) <= HIGHEST for each in several):
        return None
    return tuple(sorted({int(each) for each in several}))


def _are_names(found: Mapping[tuple[int, ...], str], once: bool) -> bool:
    """Whether these are names of labels: words, and with `once` no word twice."""
    called = [name for numbers, name in found.items() if numbers != (0,)]
    repeated = once and len(set(called)) < len(called)
    return bool(called) and not repeated and all(re.search(r"[^\W\d_]", name) for name in called)


def _of_lines(text: str) -> Names:
    """A table whose lines are all of one form: of ITK-SNAP, of 3D Slicer and FreeSurfer, "1 liver" or "liver: 1"."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", "//"))]
    for form, turn in ((_ITK_SNAP, False), (_COLOURS, False), (_NUMBER_FIRST, False), (_NAME_FIRST, True)):
        matches = [form.fullmatch(line) for line in lines]
        found = _of_pairs(match.groups()[:: -1 if turn else 1] for match in matches if match)  # type: ignore[misc]
        if found and all(matches):
            return found
    return {}


def _of_sheet(path: Path) -> Names:
    """A table with a header: the first column of numbers, and the first of names, that are called so."""
    try:
        sheet = read_sheet(path)
    except UsageError:
        return {}
    columns = dict(zip(sheet.header, zip(*sheet.records, strict=True), strict=True)) if sheet.records else {}
    for number in (name for name in NUMBER_COLUMNS if name in columns):
        for name in (name for name in NAME_COLUMNS if name in columns and name != number):
            if found := _of_pairs(zip(columns[number], columns[name], strict=True)):
                return found
    return {}


def _plain(name: str) -> str:
    return " ".join(name.replace("|", "/").split())
