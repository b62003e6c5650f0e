"""Turns strangers away before grpcio gives them a thread.

The synchronous server takes a thread for a call when its headers have come, and keeps it until its
message has. So a peer without an API key could hold all threads with calls that never go on, and
so could open reflection streams. What is said to a stranger here waits for no message.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

from pdp.errors import CallerUnauthenticated
from pdp.wire.callers import Callers, Proof
from pdp.wire.gate import Gate
from pdp.wire.statuses import status_of

_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_Handler: TypeAlias = Any  # grpc.RpcMethodHandler, whose stubs want type variables here


class Reception(grpc.ServerInterceptor):
    """Lets known callers through, to every method. To others it answers the health of the whole
    process, for probes that have no key, and UNAUTHENTICATED to everything else."""

    def __init__(self, gate: Gate, callers: Callers, serving: threading.Event) -> None:
        self._gate = gate
        self._callers = callers
        self._serving = serving
        self._health: _Handler = grpc.stream_unary_rpc_method_handler(self._say_health)
        self._refusal: _Handler = grpc.stream_unary_rpc_method_handler(_refuse)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], _Handler],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Chooses by the headers alone."""
        metadata = handler_call_details.invocation_metadata or ()
        keys = [value for key, value in metadata if key == "authorization"]
        is_probe = handler_call_details.method == _HEALTH_CHECK
        identify = self._callers.identify if is_probe else self._gate.identify
        try:
            identify(Proof(keys, None))
        except CallerUnauthenticated:
            if is_probe:
                return self._health
            self._gate.count_stranger()
            return self._refusal
        return continuation(handler_call_details)

    def _say_health(self, _: Iterator[bytes], __: grpc.ServicerContext) -> bytes:
        status = health_pb2.HealthCheckResponse.ServingStatus
        answer = health_pb2.HealthCheckResponse(
            status=status.SERVING if self._serving.is_set() else status.NOT_SERVING
        )
        said: bytes = answer.SerializeToString()
        return said


def _refuse(_: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    error = CallerUnauthenticated("the caller did not prove who it is")
    context.abort_with_status(rpc_status.to_status(status_of(error)[1]))
    raise AssertionError("abort_with_status returned")
