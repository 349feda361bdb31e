"""What comes from a key: the same for the same key, another for another, and of the right form."""

from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID, CTImageStorage

from fabrica.errors import UsageError
from fabrica.io.dicom.deidentification.key import LONGEST_SHIFT, Key, is_made, is_pseudonym, read_key

A, B = Key(b"first key, long enough"), Key(b"second key, long enough")
uids = st.from_regex(r"[1-9]\.[0-9]{1,3}(\.(0|[1-9][0-9]{0,8})){1,5}", fullmatch=True)


@given(uids, uids)
def test_new_uids_are_valid_stable_and_of_their_key_alone(uid: str, other: str) -> None:
    made = A.uid(uid)
    if uid.startswith("1.2.840.10008."):
        assert made == uid
        return
    assert made == A.uid(uid) and made != B.uid(uid) and is_made(made) and UID(made).is_valid and len(made) <= 64
    assert (made == A.uid(other)) == (uid == other)
    number = UUID(int=int(made.removeprefix("2.25.")))
    assert number.variant == "specified in RFC 4122" and number.version == 8


def test_uids_of_the_standard_stay() -> None:
    assert A.uid(CTImageStorage) == CTImageStorage and A.uid("") == ""


@given(st.text(max_size=20))
def test_a_patient_has_one_pseudonym_and_one_shift(patient: str) -> None:
    assert A.pseudonym(patient) == A.pseudonym(patient) != B.pseudonym(patient)
    assert is_pseudonym(A.pseudonym(patient)) and not is_pseudonym(patient)
    assert -LONGEST_SHIFT <= A.days(patient) == A.days(patient) <= -1


def test_made_uids_are_told_from_others() -> None:
    assert not any(map(is_made, ("2.25.1", "1.2.3", "", "2.25.", "2.25." + "9" * 50, "2.25.1\\2.25.2")))


def test_a_key_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"0123456789abcdef\n")
    path.chmod(0o600)
    assert read_key(path) == Key(b"0123456789abcdef")
    assert "0123" not in repr(read_key(path))
    path.chmod(0o644)
    with pytest.raises(UsageError, match=r"everybody can read the key.*chmod 600"):
        read_key(path)
    path.chmod(0o600)
    path.write_bytes(b"too short\n")
    with pytest.raises(UsageError, match="9 bytes, expected at least 16"):
        read_key(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_key(tmp_path / "none")
