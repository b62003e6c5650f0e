"""Ships the sidecar's own decision log upstream: what it answered by itself.

The log is on disk before an answer goes out, and its segments stay until upstream has said that all
of them is committed. What upstream refuses stays on disk for people, with a note of why beside it
(see `pdp.audit.Shipper`). Each record has a decision id of its own: upstream takes one record for
each.
"""

from collections.abc import Callable, Sequence

from pdpapi.v1.audit_service_pb2 import ReportDecisionsRequest, ReportDecisionsResponse

from pdp.audit import Frame, Log, Place, Refusal, Shipper
from pdp.errors import AuditUnavailable
from pdp.gauges import Gauges
from pdp.wire.convert.log_frames import frame_message, place_message, place_of


def gauges(shipper: Shipper) -> Gauges:
    """For metrics: how far the log has come upstream."""
    return {
        "pdp_sidecar_unreported_bytes": (
            "Decisions on disk that upstream has not taken yet.",
            shipper.waiting_bytes,
        ),
        "pdp_sidecar_report_failures": (
            "Attempts to bring the log upstream that failed.",
            lambda: shipper.counts().failures,
        ),
    }


Report = Callable[[ReportDecisionsRequest], ReportDecisionsResponse]
"""Calls AuditService.ReportDecisions, of whichever upstream. Raises PdpError where that has no
answer, whatever the reason: the shipper tries again, with the log as it is."""


class UpstreamDestination:
    """The decision log of the decision point, to which this process is a caller that reports."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def place(self, log: Log) -> Place | None:
        """Raises PdpError."""
        response = self._report(ReportDecisionsRequest(origin=log.origin, log_id=log.log_id))
        return place_of(response.place) if response.HasField("place") else None

    def commit(self, log: Log, frames: Sequence[Frame]) -> Sequence[Refusal]:
        """Raises PdpError."""
        response = self._report(
            ReportDecisionsRequest(
                origin=log.origin,
                log_id=log.log_id,
                start=place_message(frames[0].before),
                frames=map(frame_message, frames),
            )
        )
        if place_of(response.place) != frames[-1].after:
            raise AuditUnavailable("upstream has not taken the log as it is")
        return [Refusal(one.position, one.description) for one in response.refusals]
