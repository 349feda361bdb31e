"""Standardised uptake values of PET by body weight: SUVbw = activity concentration x weight / injected activity.

Formulas and vendors' factors as the QIBA profile of FDG-PET/CT and its SUV Vendor-Neutral Pseudocode give them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pydicom.dataset import Dataset

from fabrica.errors import ReadError
from fabrica.io.dicom.file import as_text
from fabrica.io.dicom.header import PRIVATE
from fabrica.io.dicom.kinds import PET, SUV_UNITS


def is_suv(dataset: Dataset) -> bool:
    """Whether this PET object's values become SUVs."""
    return str(dataset.get("SOPClassUID")) in PET and str(dataset.get("Units") or "").strip() in SUV_UNITS


def factor(dataset: Dataset, path: Any, earliest: str = "") -> float:
    """What the rescaled values of a PET object are multiplied by to be SUVs (g/ml).

    earliest  date and time at which the first image of the series was acquired, "" where only this one is known.
    Raises ReadError, which names what the header lacks."""
    units = str(dataset.get("Units") or "").strip()
    if units == "GML":
        return 1.0
    per_becquerel = 1.0
    if units == "CNTS":
        to_suv = _private(dataset, "PhilipsSUVFactor")
        if to_suv:
            return to_suv
        per_becquerel = _private(dataset, "PhilipsActivityFactor")
        if not per_becquerel:
            raise ReadError(
                f"{path}: PET in counts (Units CNTS) without Philips' factors (7053,1000) and (7053,1009): SUV cannot "
                "be computed; export it in BQML"
            )
    weight = _number(dataset.get("PatientWeight"))
    injected = next(iter(dataset.get("RadiopharmaceuticalInformationSequence") or []), Dataset())
    dose = _number(injected.get("RadionuclideTotalDose"))
    lacking = [
        name for name, value in (("PatientWeight", weight), ("RadionuclideTotalDose", dose)) if not value or value <= 0
    ]
    correction = str(dataset.get("DecayCorrection") or "").strip()
    remaining = 1.0
    if correction == "START":
        half_life = _number(injected.get("RadionuclideHalfLife"))
        elapsed = _elapsed(dataset, injected, earliest)
        lacking += ["RadionuclideHalfLife"] * (not half_life or half_life <= 0)
        if elapsed is None:
            start = injected.get("RadiopharmaceuticalStartDateTime") or injected.get("RadiopharmaceuticalStartTime")
            lacking.append("SeriesTime or AcquisitionTime" if start else "RadiopharmaceuticalStartDateTime")
        if not lacking and half_life and elapsed is not None:
            remaining = 2.0 ** (-elapsed / half_life)
    elif correction != "ADMIN":
        lacking.append(f"DecayCorrection START or ADMIN (found {correction or 'none'})")
    if lacking or not weight or not dose:
        raise ReadError(
            f"{path}: PET whose SUV cannot be computed: the header lacks {', '.join(lacking)}; export it with these "
            "attributes kept"
        )
    return per_becquerel * weight * 1000 / (dose * remaining)


def _elapsed(dataset: Dataset, injected: Dataset, earliest: str) -> float | None:
    """Seconds from injection to the time that values are corrected to: the start of the series, unless that lies after
    the acquisition (it was set anew by later processing): then the earliest acquisition, or GE's own scan time."""
    series = _moment(dataset.get("SeriesDate"), dataset.get("SeriesTime"))
    acquired = _moment(dataset.get("AcquisitionDate") or dataset.get("SeriesDate"), dataset.get("AcquisitionTime"))
    scan = series
    if series is None or (acquired is not None and series > acquired):
        own = _private_text(dataset, "GEScanDateTime")
        scan = (_moment(own[:8], own[8:]) if own else None) or _moment(earliest[:8], earliest[8:]) or acquired
    if scan is None:
        return None
    whole = str(injected.get("RadiopharmaceuticalStartDateTime") or "")
    if whole:
        start = _moment(whole[:8], whole[8:])
    else:
        start = _moment(f"{scan:%Y%m%d}", injected.get("RadiopharmaceuticalStartTime"))
        if start is not None and start > scan:  # injected before midnight
            start -= timedelta(days=1)
    return None if start is None else (scan - start).total_seconds()


def _moment(date: Any, time: Any) -> datetime | None:
    date, time = str(date or "").replace(".", "").strip(), str(time or "").replace(":", "").strip()
    if not date or not time:
        return None
    clock, _, fraction = time.partition(".")
    try:
        found = datetime.strptime(date + clock[:6].ljust(6, "0"), "%Y%m%d%H%M%S")
    except ValueError:
        return None
    digits = "".join(c for c in fraction[:6] if c.isdigit())
    return found + timedelta(microseconds=int(digits.ljust(6, "0"))) if digits else found


def _private_text(dataset: Dataset, name: str) -> str:
    creator, group, element = next(key for key, value in PRIVATE.items() if value == name)
    try:
        return as_text(dataset.private_block(group, creator)[element].value)
    except KeyError:
        return ""


def _private(dataset: Dataset, name: str) -> float:
    return _number(_private_text(dataset, name)) or 0.0


def _number(value: Any) -> float | None:
    try:
        return None if value in (None, "") else float(value)
    except (TypeError, ValueError):
        return None
