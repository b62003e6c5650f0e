"""Converts between times of messages and seconds, exact to the microsecond.

The messages are google.protobuf.Duration, and Timestamp since 1970-01-01 UTC.
"""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pdp.errors import InvalidRequest, Violation

# Years 0001 to 9999, the range in google/protobuf/timestamp.proto.
_SECONDS_MIN = -62_135_596_800
_SECONDS_MAX = 253_402_300_799
_NANOS = 1_000_000_000


def seconds_of(timestamp: Timestamp, field: str) -> float:
    """Seconds of a Timestamp. Raises InvalidRequest outside of the years 1 to 9999."""
    in_range = _SECONDS_MIN <= timestamp.seconds <= _SECONDS_MAX
    if not in_range or not 0 <= timestamp.nanos < _NANOS:
        raise InvalidRequest(Violation(field, "is not a time of the years 1 to 9999"))
    return timestamp.seconds + (timestamp.nanos // 1_000) / 1e6


def set_time(timestamp: Timestamp, seconds: float) -> None:
    """Writes seconds into a Timestamp."""
    timestamp.seconds, micros = divmod(round(seconds * 1e6), 1_000_000)
    timestamp.nanos = micros * 1_000


def set_duration(duration: Duration, seconds: float) -> None:
    """Writes seconds, which must not be negative, into a Duration. Rounds down, so it is never
    longer."""
    duration.seconds, micros = divmod(int(seconds * 1e6), 1_000_000)
    duration.nanos = micros * 1_000
