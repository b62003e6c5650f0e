"""Ships the sidecar's own decision log upstream.

A decision is on disk before its answer is sent. Segments stay until upstream confirms that all of
their records are committed. Refused records stay on disk with the reason, for an operator (see
`pdp.audit.Shipper`). Each record has its own decision id: upstream takes one record for each.
"""

from collections.abc import Callable, Sequence

from pdpapi.v1.audit_service_pb2 import ReportDecisionsRequest, ReportDecisionsResponse

from pdp.audit import Frame, Log, Place, Refusal, Shipper
from pdp.errors import AuditUnavailable
from pdp.gauges import Gauges
from pdp.wire.convert.log_frames import frame_message, place_message, place_of


def gauges(shipper: Shipper) -> Gauges:
    """Gauges of the shipping of the log."""
    return {
        "pdp_sidecar_unreported_bytes": (
            "Bytes of the log on disk that upstream has not confirmed.",
            shipper.waiting_bytes,
        ),
        "pdp_sidecar_report_failures": (
            "Attempts to ship the log upstream that failed.",
            lambda: shipper.counts().failures,
        ),
    }


Report = Callable[[ReportDecisionsRequest], ReportDecisionsResponse]
"""Calls AuditService.ReportDecisions of an upstream. Raises PdpError for every failure: the shipper
retries with the same log."""


class UpstreamDestination:
    """The decision log of upstream, to which this process reports as a caller."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def place(self, log: Log) -> Place | None:
        """Where upstream expects the next record. Raises PdpError."""
        response = self._report(ReportDecisionsRequest(origin=log.origin, log_id=log.log_id))
        return place_of(response.place) if response.HasField("place") else None

    def commit(self, log: Log, frames: Sequence[Frame]) -> Sequence[Refusal]:
        """Sends frames; returns the refused ones. Raises PdpError."""
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
        return [Refusal(refusal.position, refusal.description) for refusal in response.refusals]
