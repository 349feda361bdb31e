"""Dates moved: all intervals stay, whatever the element and the time zone."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.io.dicom.deidentification.dates import moved

days = st.integers(-3652, -1)
moments = st.datetimes(datetime(1911, 1, 1), datetime(2100, 1, 1))
zones = st.integers(-12 * 4, 14 * 4).map(lambda quarters: timezone(timedelta(minutes=15 * quarters)))


def instant(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%d%H%M%S.%f%z").astimezone(UTC)


@given(moments, moments, zones, zones, days)
def test_intervals_stay_across_elements_and_time_zones(
    a: datetime, b: datetime, zone_a: timezone, zone_b: timezone, shift: int
) -> None:
    one, two = a.replace(tzinfo=zone_a), b.replace(tzinfo=zone_b)
    texts = [each.strftime("%Y%m%d%H%M%S.%f%z") for each in (one, two)]
    found = [instant(moved(text, "DT", shift)) for text in texts]
    assert found[1] - found[0] == instant(texts[1]) - instant(texts[0])
    assert found[0] - instant(texts[0]) == timedelta(shift)
    # the same moment said in two elements
    day, clock = moved(a.strftime("%Y%m%d"), "DA", shift), moved(a.strftime("%H%M%S.%f"), "TM", shift)
    assert day + clock == moved(a.strftime("%Y%m%d%H%M%S.%f"), "DT", shift)


@given(st.dates(date(1911, 1, 1)), days)
def test_what_a_shift_takes_the_opposite_gives_back(day: date, shift: int) -> None:
    text = day.strftime("%Y%m%d")
    assert moved(moved(text, "DA", shift), "DA", -shift) == text
    assert moved(text, "DA", 0) == text


@pytest.mark.parametrize(
    ("text", "vr", "wanted"),
    [
        ("20240301", "DA", "20240229"),
        ("2024.03.01", "DA", "20240229"),
        ("20240301\\20240101", "DA", "20240229\\20231231"),
        ("20240301 ", "DA", "20240229"),
        ("00010101", "DA", ""),  # nothing lies before
        ("20240231", "DA", ""),
        ("last May", "DA", ""),
        ("1213", "TM", "1213"),
        ("12:13:14", "TM", "12:13:14"),
        ("noon", "TM", ""),
        ("2024", "DT", "2024"),
        ("202403", "DT", "202403"),
        ("20240301", "DT", "20240229"),
        ("2024030112", "DT", "2024022912"),
        ("20240301121314+0100", "DT", "20240229121314+0100"),
        ("20240301121314.5", "DT", "20240229121314.5"),
        ("202403011213141516", "DT", ""),
    ],
)
def test_values_are_moved_by_a_day(text: str, vr: str, wanted: str) -> None:
    assert moved(text, vr, -1) == wanted
