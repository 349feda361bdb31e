"""The standard's table, and what it means for an attribute."""

import pytest
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag

from fabrica.errors import UsageError
from fabrica.io.dicom.deidentification.private import safe
from fabrica.io.dicom.deidentification.profile import CODES, OPTIONS, action, checked, table


def test_the_table_is_whole() -> None:
    rows = table()
    assert len(rows) == 655
    assert {row.basic for row in rows.values()} == {"X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U"}
    assert {option for row in rows.values() for option in row.options} <= set(OPTIONS)
    for tag, row in rows.items():
        known = keyword_for_tag(tag)
        assert not known or known == row.keyword or tag in (0x50000000, 0x60003000, 0x60004000)
    assert sum("uids" in row.options for row in rows.values()) == 60
    assert sum("dates" in row.options for row in rows.values()) == 169
    assert len(CODES) == 1 + len(OPTIONS)


def test_uids_that_are_retained_are_all_uids_or_refer_to_some() -> None:
    for tag, row in table().items():
        if "uids" in row.options:
            assert dictionary_VR(tag) in ("UI", "SQ"), row
        if "dates" in row.options:
            assert row.options["shifted-dates"] == "C"


@pytest.mark.parametrize(
    ("tag", "vr", "options", "wanted"),
    [
        (0x00100010, "PN", (), "Z"),
        (0x00100030, "DA", ("dates",), "Z"),  # the date of birth is no matter of retaining dates
        (0x00080020, "DA", (), "Z"),
        (0x00080020, "DA", ("dates",), "K"),
        (0x00080020, "DA", ("shifted-dates",), "C"),
        (0x00181200, "DA", ("device",), "K"),  # date of last calibration
        (0x00181200, "DA", ("device", "shifted-dates"), "C"),
        (0x0008103E, "LO", (), "X"),
        (0x0008103E, "LO", ("descriptors",), "C"),
        (0x00081155, "UI", (), "U"),
        (0x00081155, "UI", ("uids",), "K"),
        (0x00081150, "UI", (), ""),  # a class, of nobody
        (0x006A0003, "UI", (), "U"),  # D in the table: the dummy of a UID is another UID
        (0x00081010, "SH", ("device",), "K"),
        (0x00280010, "US", (), ""),
        (0x00280002, "US", (), ""),
        (0x0040A160, "UT", (), "D"),  # what reports say is not in the table
        (0x00189988, "LT", (), "X"),
        (0x60003000, "OW", ("graphics",), "X"),
        (0x60220022, "LO", (), "X"),
    ],
)
def test_an_attribute_is_treated_as_table_and_options_say(
    tag: int, vr: str, options: tuple[str, ...], wanted: str
) -> None:
    assert action(tag, vr, options) == wanted


def test_no_name_address_or_date_of_the_dictionary_is_kept_as_it_is() -> None:
    for tag, (vr, *_) in DicomDictionary.items():
        if vr in ("PN", "AE", "DA", "TM", "DT", "UR") and tag not in (0x00080120,):
            assert action(tag, vr, ()) in ("X", "Z", "D"), keyword_for_tag(tag)


def test_options_are_known_and_go_together() -> None:
    assert checked(["uids", "uids", "device"]) == {"uids", "device"}
    with pytest.raises(UsageError, match="did you mean descriptors"):
        checked(["descriptor"])
    with pytest.raises(UsageError, match="shifted"):
        checked(["dates", "shifted-dates"])


def test_what_is_safe_of_private_elements_is_named_by_its_creator() -> None:
    assert safe()[0x2005, "Philips MR Imaging DD 001", 0x0E] == "FL"
    assert all(group & 1 and creator and 0 <= element <= 0xFF for group, creator, element in safe())
