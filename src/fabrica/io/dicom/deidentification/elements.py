"""A data set walked through, element by element and item by item, and treated as the profile says."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from fabrica.io.dicom.deidentification import private, words
from fabrica.io.dicom.deidentification.dates import DATES, is_zone, moved
from fabrica.io.dicom.deidentification.profile import TEXT, action, table

PATIENT = (0x00100010, 0x00100020)  # PatientName, PatientID
_PERSON_CODES, _AGE, _ZONE = 0x00401101, 0x00101010, 0x00080201
_OLDEST = 89  # years; older people are few (45 CFR 164.514(b)(2)(i)(C))
_PERFORMED = 0x00081111  # ReferencedPerformedProcedureStepSequence
_METHOD = {0x00120062, 0x00120063, 0x00120064, 0x00280303}  # said anew at the end
DUMMIES: dict[str, Any] = {
    "DA": "19000101", "TM": "000000", "DT": "19000101000000", "PN": "REMOVED", "AS": "000Y", "DS": "0", "IS": "0",
    "UR": "urn:removed", "US": 0, "SS": 0, "UL": 0, "SL": 0, "FL": 0.0, "FD": 0.0, "OB": b"\0\0", "OW": b"\0\0",
    "UN": b"\0\0", "AT": 0,
}  # fmt: skip
_REMOVED = "REMOVED"
_FORMS = {
    "IS": re.compile(rb"[-+0-9 \\\0]*"),
    "DS": re.compile(rb"[-+0-9.eE \\\0]*"),
    "AS": re.compile(rb" *\d{1,3}[DWMY]? *\0?"),
    "UI": re.compile(rb"[0-9.\\ \0]*"),
}
_IN_TEXT = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}


class Maps(Protocol):
    """What new values come from: `Key`, or what only recognises its values."""

    def uid(self, uid: str) -> str: ...


@dataclass
class Treatment:
    """How the data set of one object is treated, and what has been done to it.

    options    of the profile (`profile.OPTIONS`).
    maps       where new UIDs come from.
    pseudonym  what stands for the patient.
    days       by which dates are moved.
    words      of identity: texts that have one of them are emptied.
    people     all parts of names and numbers of people: none of them stays in a description.
    done       (tag path, keyword, what was done) -> how often.
    """

    options: frozenset[str]
    maps: Maps
    pseudonym: str
    days: int
    words: frozenset[bytes] = frozenset()
    people: frozenset[bytes] = frozenset()
    done: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def note(self, path: str, tag: BaseTag, what: str) -> None:
        self.done[path, keyword_of(tag), what] += 1


def keyword_of(tag: BaseTag) -> str:
    """The keyword of a tag: of the table's where the dictionary has none, "private" of a private one."""
    if tag.is_private:
        return "private"
    row = table().get(tag)
    return keyword_for_tag(tag) or (row.keyword if row else "")


def clean(dataset: Dataset, how: Treatment, path: str = "") -> None:
    """Treat each element of a data set, in place, and of the items of its sequences."""
    safe = private.kept(dataset) if "private" in how.options else {}
    for tag in sorted(dataset.keys()):
        if tag in _METHOD and not path:
            continue
        here = f"{path}({tag.group:04X},{tag.element:04X})"
        try:
            if tag.is_private:
                _treat_private(dataset, tag, safe, how, here)
            else:
                _treat(dataset, tag, how, here)
        except Exception:  # what cannot be parsed cannot be vouched for
            del dataset[tag]
            how.note(here, tag, "removed: unreadable")
    _drop_reservations(dataset)


def vr_of(dataset: Dataset, tag: BaseTag) -> str:
    """The VR of an element: what its file says, or, where that says nothing, the dictionary; "" where that does not
    know the tag either."""
    said = dataset.get_item(tag).VR
    try:
        known = dictionary_VR(tag)
    except KeyError:
        known = ""
    return known if said in (None, "UN") or not known or " or " in known else str(said)


def _treat(dataset: Dataset, tag: BaseTag, how: Treatment, here: str) -> None:
    vr = vr_of(dataset, tag)
    if not _fits(dataset, tag, vr):
        del dataset[tag]
        how.note(here, tag, "removed: no value of its kind")
        return
    if tag in PATIENT and not here.count(">"):
        _set(dataset, tag, vr, how.pseudonym, how, here, "replaced by the pseudonym")
        return
    if is_empty(dataset, tag):
        return
    found = action(tag, vr, how.options)
    if tag == _PERFORMED and found == "X" and "ValueType" in dataset:
        found = "Z"  # documents must have it, and may have it empty; images may lack it, and not have it empty
    if found == "X":
        del dataset[tag]
        how.note(here, tag, "removed")
    elif found == "Z":
        _set(dataset, tag, vr, Sequence() if vr == "SQ" else None, how, here, "emptied")
    elif tag == _PERSON_CODES and found == "D":
        _set(dataset, tag, vr, Sequence([_dummy_code()]), how, here, "replaced by a dummy")
    elif vr == "SQ":
        _walk(dataset, tag, how, here)
    elif found == "D":
        _set(dataset, tag, vr, DUMMIES.get(vr, _REMOVED), how, here, "replaced by a dummy")
    elif found == "U":
        new = "\\".join(how.maps.uid(uid.strip(" \0")) for uid in text_of(dataset, tag).split("\\"))
        _set(dataset, tag, vr, new.split("\\") if "\\" in new else new, how, here, "replaced by a new UID")
    elif found in ("K", "C"):
        _keep(dataset, tag, vr, found, how, here)
    elif vr in TEXT and words.holds(_bytes(dataset, tag), how.words):
        _set(dataset, tag, vr, None, how, here, "emptied: repeats a name or number of the patient or staff")


def _keep(dataset: Dataset, tag: BaseTag, vr: str, found: str, how: Treatment, here: str) -> None:
    """What an option keeps or cleans."""
    text = text_of(dataset, tag)
    if tag == _ZONE:
        if not is_zone(text):
            _set(dataset, tag, vr, None, how, here, "emptied: no time zone")
    elif vr in DATES:
        if "shifted-dates" in how.options and found == "C":
            new = moved(text, vr, how.days)
            _set(dataset, tag, vr, _several(new), how, here, "shifted" if new else "emptied: no date or time")
        elif not moved(text, vr, 0):
            _set(dataset, tag, vr, None, how, here, "emptied: no date or time")
        else:
            how.note(here, tag, "kept")
    elif found == "C":
        new = words.cleaned(text, how.people) if vr in TEXT else ""
        if not new and action(tag, vr, ()) == "D":  # it must say something
            _set(dataset, tag, vr, DUMMIES.get(vr, _REMOVED), how, here, "replaced by a dummy")
        else:
            _set(dataset, tag, vr, new or None, how, here, "cleaned" if new else "emptied")
    elif tag == _AGE and text[:3].isdigit() and int(text[:3]) > _OLDEST and text[3:4] in ("Y", ""):
        _set(dataset, tag, vr, "090Y", how, here, "cleaned")
    elif vr in TEXT and words.holds(_bytes(dataset, tag), how.words):
        _set(dataset, tag, vr, None, how, here, "emptied: repeats a name or number of the patient or staff")
    else:
        how.note(here, tag, "kept")


def _treat_private(
    dataset: Dataset, tag: BaseTag, safe: dict[BaseTag, private.Place], how: Treatment, here: str
) -> None:
    place = safe.get(tag)
    if place is None:
        del dataset[tag]
        how.note(here, tag, "removed")
    elif place[2] and not _is_safe(dataset, tag, place, how, here):
        del dataset[tag]
        how.note(here, tag, "removed: no value of its kind")
    elif place[2]:
        how.note(here, tag, "kept")


def _is_safe(dataset: Dataset, tag: BaseTag, place: private.Place, how: Treatment, here: str) -> bool:
    """Whether an element that is safe by its name holds what it should; sequences are walked through."""
    vr = private.safe()[place]
    if vr == "SQ":
        element = dataset[tag]
        if element.VR == "SQ":
            _walk(dataset, tag, how, here)
        return element.VR == "SQ"
    value = _bytes(dataset, tag)
    if place == private.CSA:
        said = dataset.get_item(tag).VR or "OB"
        new = private.numbers_of_csa(value)
        dataset[tag] = DataElement(tag, said, new)
        return bool(new)
    if place[1] == "SIEMENS MR HEADER" and vr == "SH":
        return private.is_size(value)
    if vr == "CS":
        return re.fullmatch(rb"[A-Z0-9_ \\]{0,64}\0?", value) is not None
    form = _FORMS.get(vr)
    said_text = dataset.get_item(tag).VR in _IN_TEXT
    if form is None and said_text and vr not in TEXT:
        return False
    return form.fullmatch(value) is not None if form else not words.holds(value, how.words)


def _walk(dataset: Dataset, tag: BaseTag, how: Treatment, here: str) -> None:
    for item in dataset[tag].value:
        clean(item, how, here + ">")


def _fits(dataset: Dataset, tag: BaseTag, vr: str) -> bool:
    """Whether the value is one of its kind: numbers in text are numbers, and no attribute of numbers holds text."""
    if vr in _FORMS and not _FORMS[vr].fullmatch(_bytes(dataset, tag)):
        return vr == "UI" and action(tag, vr, ()) == "U"
    if vr not in _IN_TEXT or vr in _FORMS:
        return True
    try:
        known = dictionary_VR(tag)
    except KeyError:
        return True
    return known in _IN_TEXT and known not in _FORMS


def is_empty(dataset: Dataset, tag: BaseTag) -> bool:
    value = dataset.get_item(tag).value
    return value is None or (isinstance(value, bytes | str | list | Sequence) and not len(value))


def text_of(dataset: Dataset, tag: BaseTag) -> str:
    """The value as text, several joined by a backslash."""
    value = dataset[tag].value
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("latin-1").strip(" \0")
    return "\\".join(map(str, value)) if isinstance(value, list) or hasattr(value, "append") else str(value)


def _bytes(dataset: Dataset, tag: BaseTag) -> bytes:
    value = dataset.get_item(tag).value
    return value if isinstance(value, bytes) else text_of(dataset, tag).encode("utf-8", "replace")


def _several(text: str) -> Any:
    return text.split("\\") if "\\" in text else text or None


def _set(dataset: Dataset, tag: BaseTag, vr: str, value: Any, how: Treatment, here: str, what: str) -> None:
    """Give an element a value, and note it where that is another one."""
    before = text_of(dataset, tag) if vr in _IN_TEXT else dataset[tag].value
    after = "\\".join(value) if type(value) is list else "" if value is None else value
    same = before == after
    dataset[tag] = DataElement(tag, vr if len(vr) == 2 else "UN", value)
    if not same:
        how.note(here, tag, what)


def _dummy_code() -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = _REMOVED, "99REMOVED", _REMOVED
    return code


def _drop_reservations(dataset: Dataset) -> None:
    """Remove private creators that reserve a block of which nothing is left."""
    used = {(tag.group, tag.element >> 8) for tag in dataset.keys() if tag.is_private}  # noqa: SIM118
    for tag in [t for t in dataset.keys() if t.is_private and 0x10 <= t.element <= 0xFF]:  # noqa: SIM118
        if (tag.group, tag.element) not in used:
            del dataset[tag]


def settle(dataset: Dataset) -> None:
    """Give each element of a data set in explicit VR a VR, which some writers leave out half way."""
    for tag in sorted(dataset.keys()):
        if dataset.get_item(tag).VR in (None, "SQ"):
            for item in dataset[tag].value or () if dataset[tag].VR == "SQ" else ():
                settle(item)
