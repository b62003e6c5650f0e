"""grpc.health.v1: whether this process serves, for probes and load balancers.

Everybody may call Check. Watch holds a stream, so only authenticated callers may.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

import time
from collections.abc import Callable, Sequence

from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from pdp.errors import NotFound, Overloaded
from pdp.wire.callers import Caller
from pdp.wire.methods import Method, StreamMethod

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
REQUEST_BYTES_MAX = 1024
WATCHES_MAX = 64
LOOK_SECONDS = 1.0

_Status = HealthCheckResponse.ServingStatus


class Health:
    """The health of a process as a whole. Named services are unknown."""

    def __init__(self) -> None:
        self._serving = False
        self._wake: Callable[[], None] = lambda: None
        self._watches = 0

    def set_serving(self, *, serving: bool) -> None:
        """Sets the status. Any thread may call it."""
        self._serving = serving
        self._wake()

    def methods(self) -> Sequence[Method | StreamMethod]:
        """Check and Watch."""
        return (
            Method(SERVICE, "Check", "anybody", HealthCheckRequest, self._check, REQUEST_BYTES_MAX),
            StreamMethod(
                SERVICE,
                "Watch",
                "caller",
                HealthCheckRequest,
                self._watch,
                self._listen,
                REQUEST_BYTES_MAX,
            ),
        )

    def _listen(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def status(self, service: str) -> int:
        """The status of a service by name; the empty name is the process."""
        if service:
            return int(_Status.SERVICE_UNKNOWN)
        return int(_Status.SERVING if self._serving else _Status.NOT_SERVING)

    async def _check(self, request: HealthCheckRequest, _: Caller) -> HealthCheckResponse:
        if request.service:
            raise NotFound("service", request.service)
        return HealthCheckResponse(status=self.status(""))

    def _watch(self, request: HealthCheckRequest, _: Caller) -> "_Watch":
        if self._watches >= WATCHES_MAX:
            raise Overloaded("health_watches_max", WATCHES_MAX)
        self._watches += 1
        return _Watch(self, request.service, self._closed)

    def _closed(self) -> None:
        self._watches -= 1


class _Watch:
    """A `Subscription`: the status, and each change of it."""

    def __init__(self, health: Health, service: str, closed: Callable[[], None]) -> None:
        self._health = health
        self._service = service
        self._closed = closed
        self._sent: int | None = None

    @property
    def due_at(self) -> float:
        return time.monotonic() + LOOK_SECONDS

    def take(self) -> Sequence[bytes]:
        status = self._health.status(self._service)
        if status == self._sent:
            return ()
        self._sent = status
        return (HealthCheckResponse(status=status).SerializeToString(),)

    def close(self) -> None:
        self._closed()
