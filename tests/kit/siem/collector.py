"""A small OpenTelemetry collector made of the official protobufs, over HTTP."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.kit.siem.receivers import HttpReceiver, http_receiver


@dataclass
class Collector:
    """What a collector received."""

    receiver: HttpReceiver
    logs: list[LogRecord] = field(default_factory=list)
    """Of all requests, also of those that were answered with an error."""
    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    raw: bytes = b""
    """All that came, as bytes."""
    reply: bytes = b""
    rejects: Callable[[LogRecord], bool] = lambda _: False


@contextlib.contextmanager
def running_collector() -> Iterator[Collector]:
    """A collector on a free port; the lines of its receiver are the bodies of log records."""

    def read_logs(body: bytes) -> list[str]:
        request = ExportLogsServiceRequest.FromString(body)
        records = [
            record
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]
        collector.logs += records
        rejected = [record for record in records if collector.rejects(record)]
        response = ExportLogsServiceResponse()
        response.partial_success.rejected_log_records = len(rejected)
        collector.reply = response.SerializeToString() if rejected else b""
        return [record.body.string_value for record in records if record not in rejected]

    with http_receiver(read_logs, lambda: collector.reply) as receiver:
        collector = Collector(receiver)
        yield collector


@contextlib.contextmanager
def running_trace_collector() -> Iterator[Collector]:
    """A collector of spans on a free port."""

    def read_spans(body: bytes) -> list[str]:
        collector.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = resource.resource.attributes
            names = {each.key: each.value.string_value for each in attributes}
            collector.services.add(names["service.name"])
            for scope in resource.scope_spans:
                collector.spans += scope.spans
        return []

    with http_receiver(read_spans) as receiver:
        collector = Collector(receiver)
        yield collector
