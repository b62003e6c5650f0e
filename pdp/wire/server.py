"""The front door by grpcio: a thread for each RPC that is being answered."""

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from pdp import limits
from pdp.errors import Cancelled, DeadlineExceeded
from pdp.settings import TlsSettings
from pdp.wire.arrivals import Arrivals
from pdp.wire.callers import Callers, Proof
from pdp.wire.door import CLOSING_SECONDS, DoorSettings, rpcs_max
from pdp.wire.gate import Gate, Observe
from pdp.wire.methods import AnyMethod, Method, StreamMethod
from pdp.wire.reception import Reception
from pdp.wire.shares import Places
from pdp.wire.streams import Streams
from pdp.wire.wanted import wanted_while

SOCKET_UMASK = 0o117
"""A unix socket is for processes of the same user or group."""

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True)
class GrpcDoor:
    """A listening server."""

    server: grpc.Server
    health: health.HealthServicer
    port: int
    """The bound TCP port; 0 for a unix socket."""
    closing: threading.Event
    serving: threading.Event
    streams: Streams
    arrivals: Arrivals

    def is_open(self) -> bool:
        """Whether the port answers."""
        return True

    def set_serving(self, *, serving: bool) -> None:
        """What `grpc.health.v1` answers from now on."""
        status = health_pb2.HealthCheckResponse.ServingStatus
        if serving:
            self.serving.set()
        else:
            self.serving.clear()
        self.health.set("", status.SERVING if serving else status.NOT_SERVING)

    def close(self, grace_seconds: float) -> None:
        """Refuses what is new, finishes what is in flight.

        grpcio ends a call that it has accepted and not begun as CANCELLED, which clients take for
        their own doing. So new calls are answered for a moment, with what is worth asking again;
        a short one, because only the stop tells clients that their calls should go elsewhere.
        """
        self.set_serving(serving=False)
        self.closing.set()
        self.streams.wake()
        time.sleep(CLOSING_SECONDS)
        stopped = self.server.stop(grace_seconds)
        self.streams.stop()
        stopped.wait()
        self.arrivals.stop()


def open_grpc_door(
    settings: DoorSettings, methods: Sequence[AnyMethod], observe: Observe
) -> GrpcDoor:
    """Binds the port and serves. Raises RuntimeError where the port cannot be bound."""
    callers = Callers(settings.callers)
    # Streams count among the RPCs that grpcio takes on at once: half of them stay for questions.
    streams_each = min(settings.streams_share, rpcs_max(settings) // 2)
    gate = Gate(callers, observe, Places("streams_share", streams_each))
    serving = threading.Event()
    mtls = settings.tls is not None and settings.tls.client_ca_file is not None
    # With mTLS the handshake has turned strangers away; without callers there are none.
    arrivals = Arrivals()
    interceptors: list[grpc.ServerInterceptor] = [arrivals]
    if settings.callers and not mtls:
        interceptors.insert(0, Reception(gate, callers, serving))
    server = grpc.server(
        ThreadPoolExecutor(settings.threads, thread_name_prefix="rpc"),
        interceptors=interceptors,
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
            ("grpc.keepalive_time_ms", limits.PING_SECONDS * 1_000),
            ("grpc.http2.ping_timeout_ms", limits.PING_ANSWER_SECONDS_MAX * 1_000),
        ),
        maximum_concurrent_rpcs=rpcs_max(settings),
    )
    streams = Streams(gate, arrivals, functools.partial(_proof, mtls=mtls))

    def handler_of(method: AnyMethod) -> _Handler:
        if isinstance(method, StreamMethod):
            return streams.handler(method)
        return grpc.unary_unary_rpc_method_handler(_behaviour(method, gate, mtls=mtls))

    server.add_generic_rpc_handlers(tuple(_handlers(methods, handler_of)))
    servicer = health.HealthServicer(
        experimental_non_blocking=True, experimental_thread_pool=ThreadPoolExecutor(2)
    )
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection(
        (*{method.service for method in methods}, health.SERVICE_NAME, reflection.SERVICE_NAME),
        server,
    )
    with _socket_mode(settings.listen):
        if settings.tls is None:
            port = server.add_insecure_port(settings.listen)
        else:
            port = server.add_secure_port(settings.listen, _credentials(settings.tls))
    door = GrpcDoor(server, servicer, port, gate.closing, serving, streams, arrivals)
    door.set_serving(serving=False)
    arrivals.start()
    streams.start()
    server.start()
    return door


@contextlib.contextmanager
def _socket_mode(listen: str) -> Iterator[None]:
    """Has a unix socket made with the mode 0660 from the start: whoever can connect may ask."""
    if not listen.startswith("unix:"):
        yield
        return
    before = os.umask(SOCKET_UMASK)
    try:
        yield
    finally:
        os.umask(before)


def _credentials(tls: TlsSettings) -> grpc.ServerCredentials:
    client_ca = tls.client_ca_file.read_bytes() if tls.client_ca_file else None
    return grpc.ssl_server_credentials(
        [(tls.private_key_file.read_bytes(), tls.certificate_file.read_bytes())],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )


def _handlers(
    methods: Sequence[AnyMethod], handler_of: Callable[[AnyMethod], _Handler]
) -> Iterable[grpc.GenericRpcHandler]:
    for service in sorted({method.service for method in methods}):
        yield grpc.method_handlers_generic_handler(
            service,
            {method.name: handler_of(method) for method in methods if method.service == service},
        )


def _behaviour(
    method: Method, gate: Gate, *, mtls: bool
) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def serve(raw: bytes, context: grpc.ServicerContext) -> bytes:
        with wanted_while(functools.partial(_require_wanted, context)):
            outcome = gate.answer(method, raw, _proof(context, mtls=mtls))
        if isinstance(outcome, bytes):
            return outcome
        context.abort_with_status(rpc_status.to_status(outcome.status))
        raise AssertionError("abort_with_status returned")

    return serve


def _require_wanted(context: grpc.ServicerContext) -> None:
    if context.time_remaining() == 0:  # None: there is no deadline
        raise DeadlineExceeded("the deadline of the call has passed")
    if not context.is_active():
        raise Cancelled("the call was cancelled")


def _proof(context: grpc.ServicerContext, *, mtls: bool) -> Proof:
    metadata = context.invocation_metadata() or ()
    certificates = context.auth_context().get("x509_pem_cert", ()) if mtls else ()
    return Proof(
        [value for key, value in metadata if key == "authorization"],
        bytes(certificates[0]) if certificates else None,
    )
