"""Words: those that identify the people of an object, wherever its texts repeat them, and those that say nothing of a
person and may stay in a description."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from pydicom.dataset import Dataset

_PEOPLE = (
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ReferringPhysicianName",
    "ConsultingPhysicianName", "PhysiciansOfRecord", "PerformingPhysicianName", "NameOfPhysiciansReadingStudy",
    "OperatorsName", "RequestingPhysician", "ResponsiblePerson", "ContentCreatorName", "ReviewerName", "PatientAddress",
)  # fmt: skip
_NUMBERS = (
    "PatientID", "OtherPatientIDs", "AccessionNumber", "PatientBirthDate", "AdmissionID", "PatientTelephoneNumbers",
    "MedicalRecordLocator",
)  # fmt: skip
_NOBODY = {b"anonymous", b"anon", b"unknown", b"none", b"name", b"patient", b"phantom", b"test", b"study", b"removed"}
_LEAST = 4  # letters: shorter names are parts of ordinary abbreviations
_PART = re.compile(rb"[^\s\^=,;/\\\0]+")
_WORD = re.compile(r"[^\W_]+(?:\.\d+[^\W_]*)?")
_DATE = re.compile(r"\d+(?:[./:-]\d+){2,}")
_NUMBER = re.compile(
    r"\d{1,3}(?:\.\d{1,3})?(?:mm|cm|ms|sec|min|hz|khz|kv|ma|mas|mg|ml|deg|vol|dir|ch|slices|s|t|d|x|b)?"
)


@lru_cache(maxsize=1)
def vocabulary() -> frozenset[str]:
    """The words that a description may keep."""
    text = (Path(__file__).parent / "vocabulary.txt").read_text("ascii")
    return frozenset(text.split("\n", 2)[2].split())


def of_people(dataset: Dataset) -> frozenset[bytes]:
    """The names and numbers that the top level of a data set gives to its people, in lower case and in its own
    encoding: of names each part of four letters or more."""
    found: set[bytes] = set()
    for keyword in (*_PEOPLE, *_NUMBERS):
        value = _raw(dataset, keyword)
        found |= {part.lower() for part in _PART.findall(value) if len(part) >= _LEAST}
    return frozenset(found)


def of_identity(dataset: Dataset) -> frozenset[bytes]:
    """Those of them that are no words of anatomy or technique, no makers, and no stand-ins for a name."""
    maker = {part.lower() for part in _PART.findall(_raw(dataset, "Manufacturer"))}
    return frozenset(
        w for w in of_people(dataset) if w not in _NOBODY | maker and w.decode("latin-1") not in vocabulary()
    )


def holds(value: bytes, words: frozenset[bytes]) -> bool:
    """Whether a text has one of these words in it, as a word of its own."""
    low = value.lower()
    return any(w in low and re.search(rb"(?<![a-z0-9])" + re.escape(w) + rb"(?![a-z0-9])", low) for w in words)


def cleaned(text: str, people: frozenset[bytes] = frozenset()) -> str:
    """The words of a description that are known to say nothing of a person, and numbers below 1000; but none that is
    part of a name or number of these people."""
    known = vocabulary()
    found = [word for word in _WORD.findall(_DATE.sub(" ", text)) if word.lower().encode() not in people]
    kept = (word for word in found if word.lower() in known or _NUMBER.fullmatch(word.lower()))
    return " ".join(kept)


def _raw(dataset: Dataset, keyword: str) -> bytes:
    if keyword not in dataset:
        return b""
    value = dataset.get_item(keyword).value
    if isinstance(value, bytes):
        return value
    several = value if isinstance(value, list) or hasattr(value, "append") else [value]
    return "\\".join(str(each or "") for each in several).encode("utf-8", "replace")
