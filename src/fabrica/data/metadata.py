"""What headers and tables say of the patient and the view, in the words of a manifest."""

from __future__ import annotations

import math
import re
from typing import Any

ABOUT = ("age", "sex", "view")  # columns of a manifest, DICOM's PatientAge, PatientSex and ViewPosition
YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}  # DICOM's units of age
AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([DWMY]?)", re.IGNORECASE)
SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F", "O": "O", "OTHER": "O"}


def age(said: str) -> str:
    """Years, "57": of "057Y" (DICOM), "57", "18M"; "" for what is no age up to 130."""
    found = AGE.fullmatch(said.strip())
    years = float(found[1]) * YEARS[found[2].upper()] if found else math.nan
    return f"{round(years, 2):g}" if 0 <= years <= 130 else ""


def sex(said: str) -> str:
    """M, F or O, as DICOM has it; "" for anything else."""
    return SEXES.get(said.strip().upper(), "")


def view(said: str) -> str:
    """PA, AP, LL, LATERAL ... as it is written, in capitals."""
    return said.strip().upper()


def about(said: dict[str, Any]) -> dict[str, str]:
    """age, sex and view of what a table or a header says under these names; those that say nothing are ""."""
    found = {name: str(said.get(name) or "") for name in ABOUT}
    return {"age": age(found["age"]), "sex": sex(found["sex"]), "view": view(found["view"])}
