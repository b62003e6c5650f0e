"""What `pdp review` says about the log."""

import pytest
from pdpapi.v1 import review_service_pb2 as pb

from pdp.cli.review import days_known

DAY = 86_400


@pytest.mark.parametrize(
    ("seconds", "nanos", "known"),
    [
        (90 * DAY, 0, "90.0"),
        (90 * DAY - 1, 999_999_900, "90.0"),
        (90 * DAY - 120, 0, "89.9"),
        (60, 0, "0.0"),
    ],
)
def test_a_hole_of_minutes_is_never_rounded_away(seconds: int, nanos: int, known: str) -> None:
    coverage = pb.LogCoverage()
    coverage.covered.seconds, coverage.covered.nanos = seconds, nanos
    assert days_known(coverage) == known
