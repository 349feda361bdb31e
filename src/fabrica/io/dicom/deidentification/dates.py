"""Dates and times of DICOM (PS3.5 6.2: DA, TM, DT) checked, and moved by whole days.

By whole days, since all intervals then stay exact: between dates, between times, and between a date with its time in
two elements and both in one, whatever time zone each is said in. Times of day stay as they are.
"""

from __future__ import annotations

import re
from datetime import date, timedelta

DATES = ("DA", "TM", "DT")
_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)|(\d{4})\.(\d\d)\.(\d\d)")  # the second: ACR-NEMA's
_TIME = re.compile(r"\d\d(\d\d(\d\d(\.\d{1,6})?)?)?|\d\d:\d\d(:\d\d(\.\d{1,6})?)?")
_DATE_TIME = re.compile(r"(\d{4})(\d\d)?(\d\d)?((?:\d\d){0,3}(?:\.\d{1,6})?)([+-]\d{4})?")
_ZONE = re.compile(r"[+-]\d{4}")


def moved(text: str, vr: str, days: int) -> str:
    """The values of a DA, TM or DT, moved by so many days; "" where one is no such value, or leaves the calendar."""
    parts = [_moved(part.strip(" \0"), vr, days) for part in text.split("\\")]
    return "" if "" in parts else "\\".join(parts)


def is_zone(text: str) -> bool:
    """Whether a text is an offset from UTC: +0100."""
    return _ZONE.fullmatch(text) is not None


def _moved(text: str, vr: str, days: int) -> str:
    if vr == "TM":
        return text if _TIME.fullmatch(text) else ""
    if vr == "DA":
        found = _DATE.fullmatch(text)
        if not found:
            return ""
        year, month, day = (int(part) for part in found.groups() if part)
        return _day(year, month, day, days)
    found = _DATE_TIME.fullmatch(text)
    if not found or (found[4] and not found[3]):
        return ""
    rest, zone = found[4] or "", found[5] or ""
    length = 8 if found[3] else 6 if found[2] else 4
    # a year or a month alone is moved from its middle, and told as exactly as before
    start = _day(int(found[1]), int(found[2] or 7), int(found[3] or (15 if found[2] else 1)), days)[:length]
    return start + rest + zone if start else ""


def _day(year: int, month: int, day: int, days: int) -> str:
    try:
        found = date(year, month, day) + timedelta(days)
    except (ValueError, OverflowError):
        return ""
    return f"{found.year:04d}{found.month:02d}{found.day:02d}"
