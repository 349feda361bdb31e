"""What a client asks of /v1, checked before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fabrica.serving.http.asked import as_header, object_of, of_apply, of_sample
from fabrica.serving.http.tasks import Refused, Served

SERVED = Served("m", "model", "0" * 12, ("apply",), directions={"a2b": "MR to CT", "b2a": "CT to MR"})


def test_parameters_become_choices() -> None:
    wanted = of_apply(
        {"model": "m", "direction": "b2a", "uncertainty": "1", "mirror": "0", "as": "nifti", "view": ""}, SERVED
    )
    assert wanted.choices == {"direction": "b2a", "uncertainty": True, "mirror": False, "as_": "nifti"}
    assert wanted.view
    assert of_apply({}, SERVED).choices == {"direction": "a2b"} and not of_apply({}, SERVED).view
    assert not wanted.explain and of_apply({"explain": "1"}, SERVED).explain


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"overlap": "0.5"}, "no parameter 'overlap'"),
        ({"direction": "a2c"}, "goes a2b, b2a; found 'a2c'"),
        ({"uncertainty": "perhaps"}, "expected 1 or 0"),
        ({"explain": "perhaps"}, "expected 1 or 0"),
        ({"as": "seg"}, "expected png"),  # of label maps alone
        ({"as": "../x"}, "expected png"),
    ],
)
def test_other_parameters_are_refused(given: dict[str, str], line: str) -> None:
    with pytest.raises(Refused, match=line) as refused:
        of_apply(given, SERVED)
    assert refused.value.status == 400


def test_a_sample_is_told_what_was_said() -> None:
    said = {
        "prompt": "Cardiomegaly.",
        "label": "",
        "age": 60,
        "seed": 7,
        "n": 3,
        "steps": 4,
        "guidance": 2,
        "as": "dicom",
    }
    task = of_sample(said)("m", Path("f"))
    assert (task.n, task.seed, task.kind) == (3, 7, "dicom")
    assert task.conditions == {"text": "Cardiomegaly.", "age": 60} and task.choices == {"steps": 4, "guidance": 2}


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"n": 0}, "expected a whole number from 1 to 64"),
        ({"n": 65}, "from 1 to 64"),
        ({"n": True}, "from 1 to 64"),
        ({"n": 1.0}, "from 1 to 64"),
        ({"seed": -1}, "from 0 to"),
        ({"seed": "7"}, "from 0 to"),
        ({"steps": 0}, "from 1 to 1000"),
        ({"guidance": "much"}, "guidance is no number"),
        ({"prompt": 3}, "prompt is no text"),
        ({"age": "old"}, "age is no number"),
        ({"as": "exe"}, "expected png"),
        ({"mask": "/etc/hostname"}, "no 'mask'"),
    ],
)
def test_other_samples_are_refused(said: dict[str, Any], line: str) -> None:
    with pytest.raises(Refused, match=line) as refused:
        of_sample(said)
    assert refused.value.status == 400


@pytest.mark.parametrize("body", [b"[]", b"x", b"\xff", b"3", b"[" * 9999])
def test_a_body_is_one_object(body: bytes) -> None:
    with pytest.raises(Refused, match="the body is no JSON"):
        object_of(body)
    assert object_of(b"") == {}


def test_notes_are_a_header_of_plain_text() -> None:
    assert json.loads(as_header(["a" * 3000, "b" * 3000])) == ["a" * 3000]
    assert as_header(["grey\r\nvalues: ü"]).isascii() and "\n" not in as_header(["grey\r\nvalues: ü"])
