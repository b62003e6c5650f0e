"""The gRPC front door: raw bytes in, raw bytes out, and every failure a status of one table.

Requests are parsed here and not by grpcio, so that a message that does not parse is
INVALID_ARGUMENT, and so that what answers a method stays a function of messages.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import structlog
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from pdp import limits
from pdp.audit import new_decision_id
from pdp.errors import (
    CallerNotAllowed,
    InvalidRequest,
    LimitExceeded,
    PdpError,
    ShuttingDown,
    Violation,
)
from pdp.settings import Settings, TlsSettings
from pdp.wire.callers import Caller, Callers
from pdp.wire.methods import Method
from pdp.wire.statuses import bug_status, status_of

log = structlog.get_logger("pdp.wire")

CLOSING_SECONDS = 0.2

Observe = Callable[[str, str, float], None]
"""Told (method name, status code name, seconds) of every RPC."""


@dataclass(frozen=True, slots=True)
class Door:
    """A listening server."""

    server: grpc.Server
    health: health.HealthServicer
    port: int
    """The bound TCP port; 0 for a unix socket."""
    closing: threading.Event

    def set_serving(self, *, serving: bool) -> None:
        """What `grpc.health.v1` answers from now on."""
        status = health_pb2.HealthCheckResponse.ServingStatus
        self.health.set("", status.SERVING if serving else status.NOT_SERVING)

    def close(self, grace_seconds: float) -> None:
        """Refuses what is new, finishes what is in flight.

        grpcio ends a call that it has accepted and not begun as CANCELLED, which clients take for
        their own doing. So new calls are answered for a moment, with what is worth asking again.
        """
        self.set_serving(serving=False)
        self.closing.set()
        time.sleep(CLOSING_SECONDS)
        self.server.stop(grace_seconds).wait()


def open_door(settings: Settings, methods: Sequence[Method], observe: Observe) -> Door:
    """Binds the port and serves. Raises RuntimeError where the port cannot be bound, or where
    protobuf runs on its pure Python backend (which recurses without bound, CVE-2025-4565)."""
    if api_implementation.Type() != "upb":
        raise RuntimeError("protobuf must run on its upb backend")
    server = grpc.server(
        ThreadPoolExecutor(settings.threads, thread_name_prefix="rpc"),
        options=(
            ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", limits.MESSAGE_BYTES_MAX),
            ("grpc.max_metadata_size", limits.METADATA_BYTES_MAX),
            ("grpc.absolute_max_metadata_size", limits.METADATA_BYTES_MAX),
            ("grpc.so_reuseport", int(settings.processes > 1)),
            ("grpc.server_handshake_timeout_ms", 5_000),
            ("grpc.max_concurrent_streams", 256),
            ("grpc.http.overload_protection", 1),
            # Guards ping idle connections every 30 s; the default calls that too many.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ),
        maximum_concurrent_rpcs=settings.threads * 32,
    )
    closing = threading.Event()
    admit = _admission(Callers(settings.callers), closing)
    server.add_generic_rpc_handlers(tuple(_handlers(methods, admit, observe)))
    servicer = health.HealthServicer(
        experimental_non_blocking=True, experimental_thread_pool=ThreadPoolExecutor(2)
    )
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection(
        (*{method.service for method in methods}, health.SERVICE_NAME, reflection.SERVICE_NAME),
        server,
    )
    if settings.tls is None:
        port = server.add_insecure_port(settings.listen)
    else:
        port = server.add_secure_port(settings.listen, _credentials(settings.tls))
    door = Door(server, servicer, port, closing)
    door.set_serving(serving=False)
    server.start()
    return door


def _credentials(tls: TlsSettings) -> grpc.ServerCredentials:
    client_ca = tls.client_ca_file.read_bytes() if tls.client_ca_file else None
    return grpc.ssl_server_credentials(
        [(tls.private_key_file.read_bytes(), tls.certificate_file.read_bytes())],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )


Admit = Callable[[Method, bytes, grpc.ServicerContext], Caller]


def _admission(callers: Callers, closing: threading.Event) -> Admit:
    """Who may come in, with what. Raises CallerError, LimitExceeded or ShuttingDown."""

    def admit(method: Method, raw: bytes, context: grpc.ServicerContext) -> Caller:
        if closing.is_set():
            raise ShuttingDown("the process is shutting down")
        caller = callers.identify(context)
        if method.capability not in caller.may:
            raise CallerNotAllowed(
                f"the caller lacks the capability {method.capability!r}",
                method=method.path,
                capability=method.capability,
            )
        if len(raw) > method.request_bytes_max:
            raise LimitExceeded("request_bytes_max", method.request_bytes_max, len(raw))
        return caller

    return admit


def _handlers(
    methods: Sequence[Method], admit: Admit, observe: Observe
) -> Iterable[grpc.GenericRpcHandler]:
    for service in sorted({method.service for method in methods}):
        yield grpc.method_handlers_generic_handler(
            service,
            {
                method.name: grpc.unary_unary_rpc_method_handler(_behaviour(method, admit, observe))
                for method in methods
                if method.service == service
            },
        )


def _behaviour(
    method: Method, admit: Admit, observe: Observe
) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def serve(raw: bytes, context: grpc.ServicerContext) -> bytes:
        started = time.perf_counter()
        code = grpc.StatusCode.OK
        try:
            caller = admit(method, raw, context)
            return method.answer(_parse(method, raw), caller).SerializeToString()
        except PdpError as error:
            code, status = status_of(error)
        except Exception:
            # The one place where everything is caught: a bug must not look like an answer.
            request_id = new_decision_id()
            log.exception("bug", method=method.path, request_id=request_id)
            code, status = bug_status(request_id)
        finally:
            observe(method.name, code.name, time.perf_counter() - started)
        context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("abort_with_status returned")

    return serve


def _parse(method: Method, raw: bytes) -> object:
    try:
        return method.request.FromString(raw)
    except DecodeError:
        raise InvalidRequest(Violation("", f"is not a {method.request.DESCRIPTOR.name}")) from None
