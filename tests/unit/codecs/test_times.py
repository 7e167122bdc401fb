"""Times as producers write them."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.codecs.times import milliseconds
from consumer.events import EARLIEST_MS, LATEST_MS, LocalMilliseconds, Milliseconds

if TYPE_CHECKING:
    from consumer.config.field_sources import Unit

NOON = 1_672_574_400_000
"""2023-01-01T12:00:00Z."""
DAY = 1_672_531_200_000
"""2023-01-01T00:00:00Z."""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2023-01-01T12:00:00Z", NOON),
        ("2023-01-01t12:00:00z", NOON),
        (" 2023-01-01 12:00:00 ", NOON),
        ("2023-01-01T12:00", NOON),
        ("2023-01-01T12:00Z", NOON),
        ("2023-01-01T20:00:00+08:00", NOON),
        ("2023-01-01T20:00:00.000+0800", NOON),
        ("2023-01-01 20:00:00+08", NOON),
        ("2023-01-01 12:00:00 +0000", NOON),
        ("2023-01-01 12:00:00 UTC", NOON),
        ("2023-01-01T04:30:00\u221207:30", NOON),
        ("2023-01-01T20:00:00+08:00[Asia/Shanghai]", NOON),
        ("2023-01-01T12:00:00.1Z", NOON + 100),
        ("2023-01-01T12:00:00,123", NOON + 123),
        ("2023-01-01T12:00:00.123999999999999999999999Z", NOON + 123),
        ("20230101T120000Z", NOON),
        ("20230101120000", NOON),
        ("2023/1/1 12:00:00", NOON),
        ("2023.01.01 12:00", NOON),
        ("2022-W52-7T12:00:00", NOON),
        ("2022-W52-7T20:00:00+08:00", NOON),
        ("2023-01-01", DAY),
        ("20230101", DAY),
        ("2022-12-31T24:00:00", DAY),
        ("2022-12-31T23:59:60Z", DAY),
        ("1672574400000", NOON),
        ("1672574400000.0", NOON),
        ("1.6725744e12", NOON),
        ("-62135596800000", EARLIEST_MS),
        ("9999-12-31T23:59:59.999999Z", LATEST_MS),
    ],
)
def test_texts(text: str, wanted: int) -> None:
    """ISO 8601 in the forms that databases, Java, Python and browsers write, and numbers as text."""
    assert milliseconds(text) == wanted


@pytest.mark.parametrize(
    ("value", "unit", "wanted"),
    [
        (1_672_574_400, "seconds", NOON),
        (1_672_574_400.123, "seconds", NOON + 123),
        ("1672574400", "seconds", NOON),
        (Decimal("1672574400.1239"), "seconds", NOON + 123),
        (1_672_574_400_000, "milliseconds", NOON),
        (1_672_574_400_000.9, "milliseconds", NOON),
        (1_672_574_400_123_456, "microseconds", NOON + 123),
        (1_672_574_400_123_456_789, "nanoseconds", NOON + 123),
        (-1, "nanoseconds", -1),
        (19_358, "days", DAY),
        (19_358.5, "days", NOON),
        ("2023-01-01T12:00:00Z", "seconds", NOON),
        ("20230101", "iso", DAY),
        (Milliseconds(NOON), "seconds", NOON),
        (Milliseconds(NOON), None, NOON),
    ],
)
def test_units(value: object, unit: Unit | None, wanted: int) -> None:
    """A unit is that of numbers; what is finer than a millisecond is cut off, towards the past."""
    assert milliseconds(value, unit) == wanted


def test_a_text_without_a_zone_is_read_in_the_given_one() -> None:
    """One that has a zone keeps it."""
    assert milliseconds("2023-01-01 20:00:00", utc_offset_minutes=480) == NOON
    assert milliseconds("2022-W52-7 20:00:00", utc_offset_minutes=480) == NOON
    assert milliseconds("2023-01-01", "iso", 480) == DAY - 480 * 60_000
    assert milliseconds("2023-01-01T12:00:00Z", utc_offset_minutes=480) == NOON
    assert milliseconds(NOON, utc_offset_minutes=480) == NOON
    assert milliseconds(Milliseconds(NOON), utc_offset_minutes=480) == NOON
    assert milliseconds(LocalMilliseconds(NOON), utc_offset_minutes=480) == NOON - 8 * 3_600_000


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (None, None),
        (True, None),
        ({}, None),
        ([2023, 1, 1], None),
        (b"2023-01-01", None),
        ("", None),
        ("soon", None),
        ("2023", None),
        ("2023-02-30", None),
        ("2023-13-01", None),
        ("20230230", None),
        ("2023-01-01T25:00:00", None),
        ("2023-01-01T12:60:00", None),
        ("2023-01-01T24:00:01", None),
        ("2023-01-01T12:00:00+0", None),
        ("01/02/2023", None),
        ("x" * 1_000_000, None),
        ("9" * 1_000_000, None),
        ("9" * 24 + "e99", None),
        ("\u0662\u0660\u0662\u0663-01-01", None),
        (1.5, None),
        ("1672574400000.5", None),
        (float("nan"), None),
        (float("inf"), "seconds"),
        (Decimal("NaN"), "seconds"),
        (LATEST_MS + 1, None),
        (EARLIEST_MS - 1, None),
        (10**4000, None),
        (1e300, "days"),
        (1_672_574_400_000, "seconds"),
        (Milliseconds(LATEST_MS + 1), "days"),
        ("0001-01-01T00:00:00+08:00", None),
        ("9999-12-31T23:59:59-08:00", None),
        ("0000-01-01", None),
        (20_230_101, "iso"),
        ("1672574400000", "iso"),
    ],
)
def test_what_is_no_time(value: object, unit: Unit | None) -> None:
    """Nor a time in a year that a reader may have. The message quotes nothing."""
    with pytest.raises(ValueError, match=r"time|number|ISO 8601") as caught:
        milliseconds(value, unit)
    assert len(str(caught.value)) < 100
    if isinstance(value, str) and value:
        assert value[:20] not in str(caught.value)


zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


FIRST, LAST = datetime(1, 1, 3), datetime(9999, 12, 30)  # noqa: DTZ001 - hypothesis adds the zone


@given(st.datetimes(FIRST, LAST, timezones=zones), st.sampled_from(["T", " "]))
def test_every_time_that_python_writes_is_read(moment: datetime, between: str) -> None:
    """To the millisecond, whatever the zone."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    assert milliseconds(moment.isoformat(between)) == since // timedelta(milliseconds=1)


@given(st.text(max_size=30) | st.from_regex(r"[0-9]{4}[-/]?[0-9]{2}[-/]?[0-9]{2}[T ]?[0-9:.+Z-]*", fullmatch=True))
def test_any_text(text: str) -> None:
    """It is a time within the years that all readers have, or a ValueError."""
    with contextlib.suppress(ValueError):
        assert EARLIEST_MS <= milliseconds(text) <= LATEST_MS
