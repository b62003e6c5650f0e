"""OpenTelemetry traces: a server span for each RPC, which continues the trace of the client (W3C
`traceparent`). Needs the extra `traces`; `process/traces.py` imports it only if traces are on.

A span holds the method, the status and the ids of the decisions, and nothing else of a request:
no token, no resource, no attribute. Requests for unknown methods have none.
"""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import Thread
from typing import Any, Final

from google.protobuf.message import Message
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pdpapi.v1.decision_service_pb2 import BatchCheckResponse

from pdp.wire import external_auth_pb2
from pdp.wire.application import Application, Receive, Scope, Send
from pdp.wire.callers import Caller, Callers
from pdp.wire.methods import AnyMethod, Method
from pdp.wire.pipeline import Observe

DECISION_IDS_MAX: Final = 100
"""In one span; a batch may have more."""
EXPORT_SECONDS_MAX: Final = 2.0
CLOSE_SECONDS_MAX: Final = 3.0
_ID_HEADER: Final = "x-pdp-decision-id"
# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/: the codes that are errors of a server.
_ERRORS: Final = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)
_W3C: Final = TraceContextTextMapPropagator()
# These warn of a malformed header once per request, and quote it. Anybody can send one.
for _name in ("opentelemetry.trace.span", "opentelemetry.trace.propagation.tracecontext"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def open_provider(url: str, service: str) -> TracerProvider:
    """Returns a provider that sends spans in the background; if it cannot, it drops them.

    Args:
        url: Receives OTLP over HTTP.
        service: The name of the service, unless OTEL_SERVICE_NAME names it.
    """
    resource = Resource({"service.name": service}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_SECONDS_MAX)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def close_provider(provider: TracerProvider) -> None:
    """Sends the last spans. Spans that a collector does not accept in time are dropped."""
    # The provider would wait for 30 s, and an export for as long as bytes arrive now and then.
    closing = Thread(target=provider.shutdown, name="traces-shutdown", daemon=True)
    closing.start()
    closing.join(CLOSE_SECONDS_MAX)


def outgoing_headers() -> Sequence[tuple[str, str]]:
    """Returns the headers that continue the current trace at a server."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return tuple(carrier.items())


class TracedApplication(Application):
    """An application with a span for each RPC."""

    def __init__(
        self,
        provider: TracerProvider,
        callers: Callers,
        methods: Sequence[AnyMethod],
        observe: Observe,
        **limits: int,
    ) -> None:
        """`provider`: receives the spans; see `Application` for the others."""
        super().__init__(
            callers, [_noting_ids(method) for method in methods], _noting_code(observe), **limits
        )
        self._provider = provider
        self._tracer = provider.get_tracer("pdp")
        self._names = {method.path.encode(): method.path[1:] for method in methods}

    async def drain(self, seconds: float) -> None:
        """See `Application.drain`. Then sends the last spans."""
        await super().drain(seconds)
        await asyncio.to_thread(close_provider, self._provider)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers an HTTP request within a span."""
        name = self._names.get(scope["raw_path"]) if scope["type"] == "http" else None
        if name is None:
            await super().__call__(scope, receive, send)
            return
        context, system = _origin_of(scope)
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=SpanKind.SERVER,
            attributes={"rpc.system.name": system, "rpc.method": name},
            # The text of an exception may hold anything.
            record_exception=False,
            set_status_on_exception=False,
        ):
            await super().__call__(scope, receive, send)


def _origin_of(scope: Scope) -> tuple[Context, str]:
    """The trace that the client began, and the protocol. A traceparent that comes twice, or is
    malformed, counts as none."""
    found: dict[bytes, list[str]] = {b"traceparent": [], b"tracestate": [], b"content-type": []}
    for header, value in scope["headers"]:
        if header in found:
            found[header].append(value.decode("latin-1"))
    parents, states, types = found.values()
    system = "grpc" if "".join(types).startswith("application/grpc") else "connectrpc"
    if len(parents) != 1:
        return Context(), system
    carrier = {"traceparent": parents[0], "tracestate": ",".join(states)}
    return _W3C.extract(carrier, Context()), system


def _noting_code(observe: Observe) -> Observe:
    def noting(method: str, code: str, seconds: float) -> None:
        span = get_current_span()
        span.set_attribute("rpc.response.status_code", code)
        if code in _ERRORS:
            span.set_status(StatusCode.ERROR)
        observe(method, code, seconds)

    return noting


def _noting_ids(method: AnyMethod) -> AnyMethod:
    if not isinstance(method, Method):
        return method
    answer = method.answer

    async def noting(request: Any, caller: Caller) -> Message:
        message = await answer(request, caller)
        span = get_current_span()
        if span.is_recording() and (ids := _decision_ids(message)):
            span.set_attribute("pdp.decision_ids", ids)
        return message

    return replace(method, answer=noting)


def _decision_ids(message: Any) -> list[str]:
    if isinstance(message, BatchCheckResponse):
        return [result.decision_id for result in message.results[:DECISION_IDS_MAX]]
    if isinstance(message, external_auth_pb2.CheckResponse):
        body: Mapping[str, str] = json.loads(message.denied_response.body or "{}")
        found = {option.header.key: option.header.value for option in message.ok_response.headers}
        id_ = found.get(_ID_HEADER) or body.get("decision_id", "")
    else:
        id_ = getattr(message, "decision_id", "")
    return [id_] if id_ else []
