"""OTLP logs over HTTP in protobuf, for an OpenTelemetry collector. Needs the extra `otlp`.

A record is a log record, whose body is the line of the format.
Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber
from pdpapi.v1.audit_service_pb2 import AdministrationRecord
from pdpapi.v1.core_pb2 import DECISION_ALLOW

from pdp.errors import DeliveryFailed, DeliveryRefused
from pdp.siem.destinations.http import Encoding
from pdp.siem.events import TEXT_CHARACTERS_MAX, Record, record_id, record_nanoseconds
from pdp.siem.formats import Line

_NANOSECONDS_MAX: Final = (1 << 64) - 1
_SERVICE: Final = KeyValue(key="service.name", value=AnyValue(string_value="pdp"))


def otlp_encoding(line: Line) -> Encoding:
    """Returns the encoding as OTLP logs.

    Args:
        line: The format of the bodies.
    """

    def encode(records: Sequence[Record]) -> bytes:
        request = ExportLogsServiceRequest()
        logs = request.resource_logs.add()
        logs.resource.attributes.append(_SERVICE)
        scope = logs.scope_logs.add()
        scope.scope.name = "pdp.siem"
        scope.log_records.extend(_log_record(record, line) for record in records)
        return request.SerializeToString()

    return Encoding("application/x-protobuf", encode, _check_answer)


def _log_record(record: Record, line: Line) -> LogRecord:
    if isinstance(record, AdministrationRecord):
        event, severity = "pdp.change", SeverityNumber.SEVERITY_NUMBER_INFO2
    else:
        allowed = record.decision == DECISION_ALLOW
        info, warn = SeverityNumber.SEVERITY_NUMBER_INFO, SeverityNumber.SEVERITY_NUMBER_WARN
        event, severity = "pdp.decision", info if allowed else warn
    # A time that a reporter invented must not stop the feed.
    time = min(max(record_nanoseconds(record), 0), _NANOSECONDS_MAX)
    id_ = AnyValue(string_value=record_id(record)[:TEXT_CHARACTERS_MAX])
    return LogRecord(
        time_unix_nano=time,
        severity_number=severity,
        event_name=event,
        body=AnyValue(string_value=line(record, TEXT_CHARACTERS_MAX)),
        attributes=[KeyValue(key="log.record.uid", value=id_)],
    )


def _check_answer(content: bytes) -> None:
    """Raises DeliveryRefused for a partial success: which records were rejected is not in it, so
    the forwarder sends them again in smaller parts, which repeats accepted ones."""
    try:
        partial = ExportLogsServiceResponse.FromString(content).partial_success
    except DecodeError:
        raise DeliveryFailed("the OTLP receiver's answer is not OTLP in protobuf") from None
    if partial.rejected_log_records:
        raise DeliveryRefused(
            f"the OTLP receiver rejects {partial.rejected_log_records} log records"
        )
