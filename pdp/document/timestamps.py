"""Converts between RFC 3339 text and seconds since 1970-01-01 UTC, exact to the microsecond.

`datetime.fromisoformat` accepts more than RFC 3339 (week dates, no offset), hence the grammar here.
"""

import re
from datetime import UTC, datetime, timedelta

_RFC_3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIME_MIN = -62_135_596_800.0
"""0001-01-01T00:00:00Z, the first instant of google.protobuf.Timestamp."""
TIME_MAX = 253_402_300_800.0
"""10000-01-01T00:00:00Z, the first instant after its range."""


def parse_time(text: str) -> float:
    """Seconds since 1970, rounded to microseconds. Raises ValueError with a sentence for people."""
    found = _RFC_3339.fullmatch(text)
    if found is None:
        raise ValueError("must be an RFC 3339 time with an offset, e.g. 2026-01-31T12:00:00Z")
    date, time, fraction, offset = found.groups()
    try:
        whole = datetime.fromisoformat(f"{date}T{time}{offset.upper()}")
        microseconds = round(int((fraction or "0").ljust(9, "0")) / 1000)
        since = whole - _EPOCH
    except (ValueError, OverflowError):
        raise ValueError("is not a time that exists") from None
    seconds = (since // timedelta(seconds=1) * 1_000_000 + microseconds) / 1_000_000
    if not TIME_MIN <= seconds < TIME_MAX:
        raise ValueError("must be within the years 0001 to 9999")
    return seconds


def render_time(seconds: float) -> str:
    """The RFC 3339 form in UTC, with microseconds if they are not zero."""
    moment = _EPOCH + timedelta(microseconds=round(seconds * 1_000_000))
    text = moment.replace(tzinfo=None).isoformat(timespec="auto")
    return f"{text}Z"
