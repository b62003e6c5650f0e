"""The request pipeline of every protocol: authenticate the caller, parse, answer, count.

It takes raw bytes, and returns raw bytes or a status of the table in `statuses`. It parses requests
itself, so that a message that does not parse is INVALID_ARGUMENT in every protocol.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import grpc
import structlog
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from pdp.audit import new_decision_id
from pdp.concurrency.waiting import within
from pdp.errors import (
    CallerNotAllowed,
    CallerUnauthenticated,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    PdpError,
    ShareExceeded,
    ShuttingDown,
    Violation,
)
from pdp.wire.callers import ANONYMOUS, Caller, Callers, Proof
from pdp.wire.methods import AnyMethod, Method, StreamMethod, Subscription
from pdp.wire.shares import Places
from pdp.wire.statuses import PassedOn, bounded, bug_status, status_of

log = structlog.get_logger("pdp.wire")

FAILURES_LOG_SECONDS = 60.0
_PASSED = "the deadline of the request has passed"

Observe = Callable[[str, str, float], None]
"""Receives (method name, status code name, seconds) of every RPC."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A format of messages."""

    parse: Callable[[type[Message], bytes], Message]
    """Raises InvalidRequest."""
    serialize: Callable[[Message], bytes]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status in place of an answer."""

    code: grpc.StatusCode
    status: status_pb2.Status


Outcome: TypeAlias = bytes | Refusal
"""A serialized response, or a status."""


class Stream:
    """An open stream. It ends with a refusal, or with None if it is complete; it never raises."""

    def __init__(
        self,
        method: StreamMethod,
        subscription: Subscription,
        pipeline: "Pipeline",
        give_back: Callable[[], None],
    ) -> None:
        self._method = method
        self._give_back = give_back
        self._pipeline = pipeline
        self._began = time.perf_counter()
        self._closed = False
        self.subscription = subscription

    def take(self) -> Sequence[bytes] | Refusal | None:
        """The messages to send now; None or a refusal: the stream ends."""
        try:
            self._pipeline.require_open()
            return self.subscription.take()
        except Exception as error:  # noqa: BLE001  # turned into a status
            return refusal_of(error, self._method)

    def close(self, code: str) -> None:
        """Closes the stream, which ended with the status of this name. Later calls do nothing."""
        if not self._closed:
            self._closed = True
            self.subscription.close()
            self._give_back()
            self._pipeline.count(self._method, code, self._began)


class Pipeline:
    """Turns requests into outcomes, on a single event loop.

    Raises RuntimeError at construction if protobuf runs on its pure Python backend, which recurses
    without a bound (CVE-2025-4565).
    """

    def __init__(
        self, callers: Callers, observe: Observe, *, rpcs_max: int, streams_share: int
    ) -> None:
        if api_implementation.Type() != "upb":
            raise RuntimeError("protobuf must run on its upb backend")
        self._callers = callers
        self._observe = observe
        self._authentication_failures = _AuthenticationFailures()
        self._streams = Places("streams_share", streams_share)
        self._rpcs_max = rpcs_max
        # With several callers, none of them may take all places.
        self._rpcs_share = rpcs_max * 3 // 4 if callers.several else rpcs_max
        self._in_flight: Counter[str] = Counter()
        self.in_flight = 0
        self.closing = False
        """Whether every request is refused as SHUTTING_DOWN."""

    async def answer(
        self,
        method: Method,
        raw: bytes,
        caller: Caller,
        codec: Codec,
        timeout_seconds: float | None,
    ) -> Outcome:
        """Answers a unary RPC of an admitted caller. If it is cancelled or times out, its work ends
        at the next await."""
        started = time.perf_counter()
        outcome: Outcome
        code = "OK"
        try:
            self.require_open()  # again, because the message may have taken seconds to arrive
            self._take_place(caller.name)
        except PdpError as error:
            return self.refuse(method, error)
        try:
            if timeout_seconds == 0:
                raise DeadlineExceeded(_PASSED)
            request = codec.parse(method.request, raw)
            if timeout_seconds is None:
                message = await method.answer(request, caller)
            else:
                message = await within(timeout_seconds, method.answer(request, caller), _PASSED)
            outcome = codec.serialize(message)
        except Exception as error:  # noqa: BLE001  # turned into a status
            refusal = refusal_of(error, method)
            code = refusal.code.name
            instead = None if method.in_place_of is None else method.in_place_of(error)
            outcome = refusal if instead is None else codec.serialize(instead)
        except BaseException:
            self.count(method, "CANCELLED", started)
            raise
        finally:
            self.in_flight -= 1
            self._in_flight[caller.name] -= 1
        self.count(method, code, started)
        return outcome

    def open(
        self, method: StreamMethod, raw: bytes, caller: Caller, codec: Codec
    ) -> Stream | Refusal:
        """Opens a stream of an admitted caller. The protocol must close it."""
        try:
            self.require_open()
            give_back = self._streams.take(caller.name)
            try:
                subscription = method.open(codec.parse(method.request, raw), caller)
            except BaseException:
                give_back()
                raise
            return Stream(method, subscription, self, give_back)
        except Exception as error:  # noqa: BLE001  # turned into a status
            return self.refuse(method, error)

    def refuse(self, method: AnyMethod, error: Exception) -> Refusal:
        """The status of an error that ended a request before its answer."""
        refusal = refusal_of(error, method)
        self.count(method, refusal.code.name, time.perf_counter())
        return refusal

    def require_open(self) -> None:
        """Raises ShuttingDown if the process is shutting down."""
        if self.closing:
            raise ShuttingDown("the process is shutting down")

    def admit(self, method: AnyMethod, proof: Proof) -> Caller:
        """Authenticates the caller, and checks that it may call the method.

        Raises CallerError or ShuttingDown.
        """
        self.require_open()
        access = method.access
        if access == "anybody":
            caller = ANONYMOUS
        else:
            try:
                caller = self._callers.identify(proof)
            except CallerUnauthenticated:
                self._authentication_failures.note(proof)
                raise
            if access != "caller" and access not in caller.may:
                raise CallerNotAllowed(
                    f"the caller lacks the capability {access!r}",
                    method=method.path,
                    capability=access,
                )
        return caller

    def _take_place(self, caller: str) -> None:
        """Takes a place for the caller. Raises Overloaded, or ShareExceeded if the caller holds too
        many."""
        if self.in_flight >= self._rpcs_max:
            raise Overloaded("concurrent_rpcs_max", self._rpcs_max)
        if self._in_flight[caller] >= self._rpcs_share:
            raise ShareExceeded("concurrent_rpcs_share", self._rpcs_share)
        self.in_flight += 1
        self._in_flight[caller] += 1

    def count(self, method: AnyMethod, code: str, started: float) -> None:
        """Counts a finished RPC. `started` is a time.perf_counter()."""
        self._observe(method.label, code, time.perf_counter() - started)


class _AuthenticationFailures:
    """Logs failed authentications of callers: the first, the tenth, the hundredth ... within
    FAILURES_LOG_SECONDS, so that a flood does not fill the log."""

    def __init__(self) -> None:
        self._since = float("-inf")
        self._refused = 0
        self._next = 1

    def note(self, proof: Proof) -> None:
        """Counts a failure. Logs nothing that the caller sent."""
        now = time.monotonic()
        if now >= self._since + FAILURES_LOG_SECONDS:
            self._since, self._refused, self._next = now, 0, 1
        self._refused += 1
        if self._refused < self._next:
            return
        self._next *= 10
        log.warning(
            "caller_unauthenticated",
            refused=self._refused,
            within_seconds=FAILURES_LOG_SECONDS,
            sent="api key" if proof.authorizations else "no api key",
            certificate=proof.certificate is not None,
        )


def _parse_proto(request: type[Message], raw: bytes) -> Message:
    try:
        return request.FromString(raw)
    except DecodeError:
        raise InvalidRequest(Violation("", f"is not a {request.DESCRIPTOR.name}")) from None


def _serialize_proto(message: Message) -> bytes:
    return message.SerializeToString()


PROTO = Codec(_parse_proto, _serialize_proto)
"""Protobuf's binary format."""


def refusal_of(error: Exception, method: AnyMethod | None = None) -> Refusal:
    """The status of an error. An exception that is not a PdpError is a bug: INTERNAL, with a
    request id."""
    if isinstance(error, PdpError):
        return Refusal(*status_of(error))
    if isinstance(error, PassedOn):
        return Refusal(error.code, bounded(error.status))
    # Only this place catches every exception: a bug must not look like an answer.
    request_id = new_decision_id()
    path = None if method is None else method.path
    log.error("bug", method=path, request_id=request_id, exc_info=error)
    return Refusal(*bug_status(request_id))
