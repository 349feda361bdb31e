"""Descriptions keep words of technique and anatomy, and nothing else; names of the patient are found in any text."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from fabrica.io.dicom.deidentification.words import cleaned, holds, of_identity, of_people, vocabulary


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("T1 MPRAGE sag p2 iso 1.0mm", "T1 MPRAGE sag iso 1.0mm"),
        ("Brain w/o contrast, Dr. Meyer", "Brain contrast"),
        ("ABDOMEN^LIVER (Adult)", "ABDOMEN LIVER Adult"),
        ("CT Thorax 17.03.1961", "Thorax"),
        ("ID 4711008", ""),
        ("Anna-Maria 123", "123"),
        ("", ""),
    ],
)
def test_known_words_stay(text: str, wanted: str) -> None:
    assert cleaned(text) in (wanted, f"CT {wanted}")


@given(st.text(string.printable, max_size=60))
def test_whatever_is_kept_was_known_or_is_a_small_number(text: str) -> None:
    for word in cleaned(text).split():
        assert word.lower() in vocabulary() or word[0].isdigit()
        assert sum(c.isdigit() for c in word) <= 6


def test_words_that_are_common_names_are_no_vocabulary() -> None:
    assert not {"may", "mark", "grant", "young", "siemens", "philips", "anna", "smith"} & vocabulary()
    assert {"brain", "liver", "t1", "axial", "lung"} <= vocabulary()


def test_names_and_numbers_of_people_are_found_as_words_alone() -> None:
    dataset = Dataset()
    dataset.PatientName, dataset.PatientID, dataset.OperatorsName = "Meyer^Anna", "4711-08", ["Brown^X", "HEAD"]
    dataset.Manufacturer = "Brown"
    found = of_identity(dataset)
    assert found == {b"meyer", b"anna", b"4711-08"}  # a maker's name and a word of anatomy identify nobody
    assert cleaned("HEAD scan for Anna, knee", of_people(dataset)) == "scan knee"
    assert holds(b"for Dr. MEYER", found) and holds(b"4711-08/2", found)
    assert not holds(b"Meyerson", found) and not holds(b"savanna", found)
