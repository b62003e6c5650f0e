"""The upstream servers of a sidecar: failover, the change stream, and the meaning of their errors.

One server is the current one: the sidecar watches it, and calls it first. If it is not reachable,
or does not answer within its share of the time, the sidecar calls the next one, which becomes the
current one.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import structlog
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from pdp_client.transport import TlsOptions, caller_metadata, open_channel
from pdpapi.v1 import audit_service_pb2, change_service_pb2
from pdpapi.v1.audit_service_pb2 import ReportDecisionsRequest, ReportDecisionsResponse
from pdpapi.v1.change_service_pb2 import WatchRequest, WatchResponse

from pdp.errors import UpstreamRefused, UpstreamUnavailable
from pdp.wire.statuses import PassedOn

log = structlog.get_logger("pdp.sidecar")

REPORT_SECONDS_MAX = 5.0
_AUDIT = audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name
_CHANGES = change_service_pb2.DESCRIPTOR.services_by_name["ChangeService"].full_name
_Code = grpc.StatusCode

# The sidecar's own credentials are refused. This is not a refusal of the sidecar's caller.
_REFUSALS = frozenset((_Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED))
# A server has processed the request, and no other would answer differently.
_VERDICTS = frozenset((_Code.INVALID_ARGUMENT, _Code.INTERNAL))
# CANCELLED is the status of requests that a stopping server accepted and did not begin.
_ABSENCES = frozenset((_Code.UNAVAILABLE, _Code.DEADLINE_EXCEEDED, _Code.CANCELLED))
# These without ErrorInfo: the server is not reachable, or hangs.
_LEFT_AFTER = frozenset((_Code.UNAVAILABLE, _Code.DEADLINE_EXCEEDED))
# A server did not decide. Not in the set: AUDIT_UNAVAILABLE, which also hides a denial that could
# not be logged, and REVISION_NOT_REACHED, whose caller requires a newer revision.
_UNDECIDED = frozenset(
    ("", "DATABASE_UNAVAILABLE", "FACTS_STALE", "KEYS_UNAVAILABLE", "SHUTTING_DOWN")
)
# How a silent stream ends: its connection may be dead without an error.
_SILENCE = frozenset((_Code.CANCELLED, _Code.DEADLINE_EXCEEDED))


@dataclass(frozen=True, slots=True)
class Answer:
    """The response of a server."""

    message: Any
    sent_at: float
    """time.monotonic() before the request was sent."""


class NoAnswer(Exception):
    """No server answered, or a server refuses to."""

    def __init__(self, error: Exception, *, out_of_reach: bool) -> None:
        super().__init__(str(error))
        self.error = error
        """The error for the caller."""
        self.out_of_reach = out_of_reach
        """Whether no server was reachable and able to decide."""


@dataclass(frozen=True, slots=True)
class _Failure:
    code: grpc.StatusCode
    status: status_pb2.Status
    reason: str
    """The reason of its ErrorInfo; empty: gRPC made the status, not a server."""


@dataclass(slots=True)
class _Upstream:
    target: str
    channel: grpc.Channel
    retired: grpc.Channel | None = None
    """The previous channel, for the calls in flight there."""
    refused: set[str] = field(default_factory=set)
    """Its services that refuse the sidecar, as logged."""
    left: bool = False
    """Whether the log says that the sidecar left it, and it has not answered since. Avoids a line
    for each request while all servers are away."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of the sidecar for upstream."""

    tls: TlsOptions | None = None
    api_key: str | None = field(default=None, repr=False)
    insecure: bool = False


class Upstreams:
    """The upstream servers. Connects at the first call. Thread-safe."""

    def __init__(
        self,
        targets: Sequence[str],
        credentials: Credentials,
        *,
        deadline_seconds: float,
        trace_headers: Callable[[], Sequence[tuple[str, str]]] = tuple,
    ) -> None:
        """Creates the channels.

        Args:
            targets: The servers.
            credentials: The sidecar's own.
            deadline_seconds: For a request, all servers together.
            trace_headers: The headers that continue the current trace.

        Raises:
            ValueError: Tokens would cross a network in clear text.
            OSError: A PEM file cannot be read.
        """
        self._credentials = credentials
        self._deadline_seconds = deadline_seconds
        self._trace_headers = trace_headers
        self._metadata = caller_metadata(credentials.api_key)
        self._lock = threading.Lock()
        self._all = [_Upstream(target, self._open(target)) for target in targets]
        self._current = self._all[0]
        self._watched = self._all[0]

    def ask(self, path: str, request: Message, response: type[Message]) -> Answer:
        """Calls the current server and, while there is no answer, the others, within the deadline.

        Each server gets an equal share of the remaining time.

        Raises:
            NoAnswer: No server answered, or a server refuses to.
        """
        ends_at = time.monotonic() + self._deadline_seconds
        metadata = (*self._metadata, *self._trace_headers())
        failures: list[_Failure] = []
        for upstreams_left, upstream in self._in_turn():
            sent_at = time.monotonic()
            if failures and sent_at >= ends_at:
                break
            call = upstream.channel.unary_unary(
                path, type(request).SerializeToString, response.FromString
            )
            try:
                share = (ends_at - sent_at) / upstreams_left
                message = call(request, timeout=share, metadata=metadata)
            except grpc.RpcError as error:
                failure = _failure(cast(grpc.Call, error))
            except ValueError:
                break  # the channel is closed: the process is ending
            else:
                upstream.refused.discard(_service(path))
                upstream.left = False
                return Answer(message, sent_at)
            if failure.reason and (failure.code in _VERDICTS or failure.reason == "LIMIT_EXCEEDED"):
                raise NoAnswer(PassedOn(failure.code, failure.status), out_of_reach=False)
            self._note(upstream, failure, _service(path))
            failures.append(failure)
        raise _no_answer(failures)

    def watch(self, request: WatchRequest) -> Any:
        """Opens a stream of changes from the current server."""
        with self._lock:
            upstream = self._watched = self._current
        call = upstream.channel.unary_stream(
            f"/{_CHANGES}/Watch", WatchRequest.SerializeToString, WatchResponse.FromString
        )
        return call(request, metadata=self._metadata)

    def lost(self, code: grpc.StatusCode) -> None:
        """Notes that the stream has ended. Unless the status is OK, the next server is used."""
        if code is _Code.OK:
            return
        with self._lock:
            upstream = self._watched
        if code in _SILENCE:
            self._renew(upstream)
        if code in _REFUSALS:
            self._say_refused(upstream, code, _CHANGES)
        self._leave(upstream)

    def report(self, request: ReportDecisionsRequest) -> ReportDecisionsResponse:
        """Sends a part of the sidecar's own log to the current server.

        Raises:
            UpstreamRefused: The server does not accept the sidecar's credentials.
            UpstreamUnavailable: The server does not answer.
        """
        upstream = self._current
        call = upstream.channel.unary_unary(
            f"/{_AUDIT}/ReportDecisions",
            ReportDecisionsRequest.SerializeToString,
            ReportDecisionsResponse.FromString,
        )
        try:
            response = call(request, timeout=REPORT_SECONDS_MAX, metadata=self._metadata)
        except grpc.RpcError as error:
            failure = _failure(cast(grpc.Call, error))
        except ValueError:
            raise UpstreamUnavailable("the process is ending") from None
        else:
            upstream.refused.discard(_AUDIT)
            upstream.left = False
            return response
        self._note(upstream, failure, _AUDIT)
        if failure.code in _REFUSALS:
            raise UpstreamRefused("the server does not let this sidecar report")
        raise UpstreamUnavailable(f"the server takes no report: {failure.code.name}")

    def close(self) -> None:
        """Closes all connections."""
        for upstream in self._all:
            upstream.channel.close()
            if upstream.retired is not None:
                upstream.retired.close()

    def _open(self, target: str) -> grpc.Channel:
        credentials = self._credentials
        return open_channel(
            target, credentials.tls, credentials.api_key, insecure=credentials.insecure
        )

    def _in_turn(self) -> Iterator[tuple[int, _Upstream]]:
        """The servers from the current one on, each with the number of servers left."""
        first = self._all.index(self._current)
        in_turn = (*self._all[first:], *self._all[:first])
        return zip(range(len(in_turn), 0, -1), in_turn, strict=True)

    def _note(self, upstream: _Upstream, failure: _Failure, service: str) -> None:
        if failure.code in _REFUSALS:
            self._say_refused(upstream, failure.code, service)
        elif failure.code in _LEFT_AFTER and not failure.reason:
            self._leave(upstream)

    def _say_refused(self, upstream: _Upstream, code: grpc.StatusCode, service: str) -> None:
        if service not in upstream.refused:
            upstream.refused.add(service)
            log.error(
                "upstream_refuses_the_sidecar",
                upstream=upstream.target,
                service=service,
                code=code.name,
            )

    def _leave(self, upstream: _Upstream) -> None:
        """Makes the next server the current one, if `upstream` is current and there is another."""
        with self._lock:
            if upstream is not self._current or len(self._all) == 1:
                return
            following = self._all[(self._all.index(upstream) + 1) % len(self._all)]
            self._current, logged, upstream.left = following, upstream.left, True
        if not logged:
            log.warning("upstream_left", upstream=upstream.target, current=following.target)

    def _renew(self, upstream: _Upstream) -> None:
        """Opens a new connection: gRPC needs half a minute to notice that a silent one is dead."""
        try:
            channel = self._open(upstream.target)
        except (OSError, ValueError) as error:  # perhaps its certificates are being replaced
            log.warning("upstream_not_renewed", upstream=upstream.target, error=str(error))
            return
        if upstream.retired is not None:
            upstream.retired.close()
        upstream.retired, upstream.channel = upstream.channel, channel


def _service(path: str) -> str:
    """The service in a method's path."""
    return path.split("/")[1]


def _no_answer(failures: Sequence[_Failure]) -> NoAnswer:
    out_of_reach = bool(failures) and all(
        failure.code in _ABSENCES and failure.reason in _UNDECIDED for failure in failures
    )
    explained = next(
        (failure for failure in failures if failure.reason and failure.code is _Code.UNAVAILABLE),
        None,
    )
    if explained is not None:
        status = PassedOn(explained.code, explained.status)
        return NoAnswer(status, out_of_reach=out_of_reach)
    if any(failure.code in _REFUSALS for failure in failures):
        error = UpstreamRefused("the server does not let this sidecar ask")
        return NoAnswer(error, out_of_reach=False)
    full = next((failure for failure in failures if failure.code is _Code.RESOURCE_EXHAUSTED), None)
    if full is not None:
        return NoAnswer(PassedOn(full.code, full.status), out_of_reach=False)
    unavailable = UpstreamUnavailable("no server is in reach and answers")
    return NoAnswer(unavailable, out_of_reach=out_of_reach)


def _failure(error: grpc.Call) -> _Failure:
    code = error.code()
    plain = status_pb2.Status(code=code.value[0], message=error.details() or "")
    info = error_details_pb2.ErrorInfo()
    try:
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            if detail.Unpack(info):
                return _Failure(code, status, info.reason)
    except (ValueError, DecodeError):
        pass  # unreadable details: the code is enough
    return _Failure(code, plain, "")
