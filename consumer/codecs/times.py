"""Times as producers write them, as milliseconds since 1970: numbers in some unit, or text by ISO 8601 and near it.

Runs for a time that is not yet a whole number of milliseconds: ``metadata`` and the mapping of a route come here.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from consumer.events import EARLIEST_MS, LATEST_MS, LocalMilliseconds, Milliseconds

if TYPE_CHECKING:
    from consumer.config.field_sources import Unit

_MS_OF: dict[Unit, Decimal] = {
    "seconds": Decimal(1000),
    "milliseconds": Decimal(1),
    "microseconds": Decimal("0.001"),
    "nanoseconds": Decimal("0.000001"),
    "days": Decimal(86_400_000),
}
_CHARS = 64
"""No time is longer, but for the name of a zone; so much is looked at, however long a text is."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,24}(\.[0-9]{0,24})?([eE][+-]?[0-9]{1,2})?")
_DATE_IN_DIGITS = re.compile(r"(19|20|21)[0-9]{2}([01][0-9][0-3][0-9](([01][0-9]|2[0-3])[0-5][0-9][0-5][0-9])?)?")
_ISO = re.compile(
    r"(?:(?P<year>[0-9]{4})(?P<dash>[-/.])(?P<month>[0-9]{1,2})(?P=dash)(?P<day>[0-9]{1,2})"
    r"|(?P<date>[0-9]{8}))"
    r"(?:(?:[Tt_]|\ +|(?<=[0-9]{8})(?=[0-9]{6}))"
    r"(?P<hour>[0-9]{1,2})(?::?(?P<minute>[0-9]{2})(?::?(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]+))?)?)?)?"
    r"\ ?(?:(?P<utc>[Zz]|UTC|GMT)|(?P<sign>[+\-\u2212])(?P<hours>[0-9]{2})(?::?(?P<minutes>[0-9]{2})(?::?00)?)?)?"
    r"(?:\[[A-Za-z0-9_+\-/:]+\])?"
)
"""The extended form and the basic one; a space, ``T`` or ``_`` before the time; slashes or dots in the date; months and
days of one digit; zones as offset, ``Z``, ``UTC`` or ``GMT``, with Java's ``[Asia/Shanghai]`` behind. Week dates are
left to Python."""


def milliseconds(value: object, unit: Unit | None = None, utc_offset_minutes: int = 0) -> int:
    """Milliseconds since 1970 of a number or a text, within the years 1 to 9999.

    With a unit, numbers (those in texts, too) are in it, and what is finer than a millisecond is cut off; ``iso`` takes
    texts by ISO 8601 only. Without one, a number is whole milliseconds, and a text is either such a number or ISO 8601:
    of digits alone, 8 or 14 that make a date from 1900 to 2199 are that, and four that make such a year are no time.
    ``Milliseconds`` is taken as it is, whatever the unit. A text without a zone, and ``LocalMilliseconds``, is read as
    a time of ``utc_offset_minutes`` east of UTC.

    Raises ValueError, which quotes nothing, for what is no time, and for a time in no such year.
    """
    if isinstance(value, Milliseconds):
        ahead = utc_offset_minutes * 60_000 if isinstance(value, LocalMilliseconds) else 0
        return _in_range(Decimal(value) - ahead)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise ValueError("not a time")
    if isinstance(value, str):
        text = value.strip()
        if len(text) > _CHARS:
            raise ValueError(f"a string of {len(value)} characters that is not a time")
        is_number = unit != "iso" and _NUMBER.fullmatch(text) is not None
        if not is_number or (unit is None and _DATE_IN_DIGITS.fullmatch(text)):
            return _in_range(Decimal(_iso(text, utc_offset_minutes)))
        number = Decimal(text)
    elif unit == "iso":
        raise ValueError("a number, where a text by ISO 8601 is wanted")
    else:
        # A float by its shortest text: 1690000000.123 is meant as it is written.
        number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        raise ValueError("not a finite number")
    try:
        exact = number * _MS_OF[unit or "milliseconds"]
    except InvalidOperation:
        raise ValueError("a number of no year from 1 to 9999") from None
    if unit is None and exact != exact.to_integral_value():
        raise ValueError("a number with a fraction, not whole milliseconds")
    return _in_range(exact)


def _in_range(exact: Decimal) -> int:
    if not EARLIEST_MS <= exact < LATEST_MS + 1:
        raise ValueError("a time outside the years 1 to 9999, as milliseconds since 1970")
    return math.floor(exact)


def _iso(text: str, utc_offset_minutes: int) -> int:
    """Milliseconds since 1970; may be just outside the years that Python has, by its zone."""
    found = _ISO.fullmatch(text)
    try:
        if found is None:
            # Week dates, mostly.
            moment = datetime.fromisoformat(text)
            zone = moment.utcoffset()
            since = moment.replace(tzinfo=UTC) - _EPOCH
        else:
            date = found["date"]
            year, month, day = (date[:4], date[4:6], date[6:]) if date else found.group("year", "month", "day")
            hour, minute, second = (int(found[part] or 0) for part in ("hour", "minute", "second"))
            # 24:00:00 is the end of a day, and a second 60 is a leap one.
            if minute > 59 or second > 60 or hour * 3600 + minute * 60 + second > 86_400:
                raise ValueError
            zone = timedelta() if found["utc"] else None
            if found["sign"]:
                east = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"] or 0))
                zone = east if found["sign"] == "+" else -east
            since = datetime(int(year), int(month), int(day), tzinfo=UTC) - _EPOCH
            # Of digits beyond the sixth nothing is left in milliseconds.
            fraction = int((found["fraction"] or "0")[:3].ljust(3, "0"))
            since += timedelta(hours=hour, minutes=minute, seconds=second, milliseconds=fraction)
    except ValueError:
        raise ValueError("a string that is not a time by ISO 8601") from None
    if zone is None:
        zone = timedelta(minutes=utc_offset_minutes)
    return (since - zone) // timedelta(milliseconds=1)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
