"""What every front door does with an RPC: raw bytes in, raw bytes or a status of the table out.

Requests are parsed here and not by a door, so that a message that does not parse is
INVALID_ARGUMENT, and so that what answers a method stays a function of messages.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import grpc
import structlog
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from pdp.audit import new_decision_id
from pdp.errors import (
    CallerNotAllowed,
    CallerUnauthenticated,
    InvalidRequest,
    LimitExceeded,
    MustWait,
    PdpError,
    ShuttingDown,
    Violation,
)
from pdp.wire.callers import Caller, Callers, Proof
from pdp.wire.methods import AnyMethod, Feed, Method, StreamMethod
from pdp.wire.shares import Places
from pdp.wire.statuses import PassedOn, bounded, bug_status, status_of

log = structlog.get_logger("pdp.wire")

STRANGERS_LOG_SECONDS = 60.0
_UNBOUNDED = 1 << 30

Observe = Callable[[str, str, float], None]
"""Told (method name, status code name, seconds) of every RPC."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """There is no answer, and this is said instead."""

    code: grpc.StatusCode
    status: status_pb2.Status


Outcome: TypeAlias = bytes | Refusal
"""A serialized response, or a status."""


class Stream:
    """An open stream, with which nothing can go wrong: what ends it is a refusal, or None."""

    def __init__(
        self, method: StreamMethod, feed: Feed, gate: "Gate", give_back: Callable[[], None]
    ) -> None:
        self._method = method
        self._gate = gate
        self._give_back = give_back
        self._began = time.perf_counter()
        self._closed = threading.Lock()
        self.feed = feed

    def refusal(self) -> Refusal | None:
        """Why it has to end whatever there is to say; None: it has not."""
        try:
            self._gate.require_open()
        except ShuttingDown as error:
            return refusal_of(error)
        return None

    def take(self) -> Sequence[bytes] | Refusal | None:
        """What is to be sent now; None or a refusal: the stream ends."""
        try:
            return self.refusal() or self.feed.take()
        except Exception as error:  # noqa: BLE001  # what it was is said by the refusal
            return _refusal(self._method, error)

    def close(self, code: str) -> None:
        """The stream is over, with the status of this name. The first to say so is believed."""
        if self._closed.acquire(blocking=False):
            self.feed.close()
            self._give_back()
            self._gate.count(self._method, code, self._began)


class Gate:
    """Lets callers in, and turns whatever comes of it into an outcome. Thread-safe.

    Raises RuntimeError at construction where protobuf runs on its pure Python backend, which
    recurses without bound (CVE-2025-4565).
    """

    def __init__(
        self,
        callers: Callers,
        observe: Observe,
        streams: Places | None = None,
        rpcs: Places | None = None,
    ) -> None:
        """Creates the gate.

        Args:
            callers: Who may come in.
            observe: Told of every RPC that is over.
            streams: Shares in open streams; None: without bound.
            rpcs: Shares in RPCs that are being answered, for `take_place`; None: without bound.
        """
        if api_implementation.Type() != "upb":
            raise RuntimeError("protobuf must run on its upb backend")
        self._callers = callers
        self._observe = observe
        self._strangers = _Strangers()
        self._streams = streams or Places("streams_share", _UNBOUNDED)
        self._rpcs = rpcs or Places("concurrent_rpcs_share", _UNBOUNDED)
        self.closing = threading.Event()
        """Set: everything is refused as SHUTTING_DOWN."""

    def answer(self, method: Method, raw: bytes, proof: Proof) -> Outcome:
        """Answers, however long that takes."""
        started = time.perf_counter()
        outcome: Outcome
        code = "OK"
        try:
            caller = self.admit(method, len(raw), proof)
            outcome = method.answer(_parse(method, raw), caller).SerializeToString()
        except Exception as error:  # noqa: BLE001  # what it was is said by the refusal
            code, outcome = _no_answer(method, error)
        self.count(method, code, started)
        return outcome

    async def answer_at_once(self, method: Method, raw: bytes, proof: Proof) -> Outcome | None:
        """Answers without keeping the event loop: it waits for the audit at most. None: this needs
        `answer`, and nothing has happened."""
        if method.at_once is None:
            return None
        started = time.perf_counter()
        outcome: Outcome
        code = "OK"
        try:
            caller = self.admit(method, len(raw), proof)
            soon = method.at_once(_parse(method, raw), caller)
            message = soon if isinstance(soon, Message) else await soon()
            outcome = message.SerializeToString()
        except MustWait:
            return None
        except Exception as error:  # noqa: BLE001  # what it was is said by the refusal
            code, outcome = _no_answer(method, error)
        self.count(method, code, started)
        return outcome

    def open(self, method: StreamMethod, raw: bytes, proof: Proof) -> Stream | Refusal:
        """Opens a stream, which whoever asked for it has to close."""
        started = time.perf_counter()
        try:
            caller = self.admit(method, len(raw), proof)
            give_back = self._streams.take(caller.name)
            try:
                return Stream(method, method.open(_parse(method, raw), caller), self, give_back)
            except BaseException:
                give_back()
                raise
        except Exception as error:  # noqa: BLE001  # what it was is said by the refusal
            refusal = _refusal(method, error)
        self.count(method, refusal.code.name, started)
        return refusal

    @property
    def in_flight(self) -> int:
        """How many RPCs hold a place of `take_place`."""
        return self._rpcs.taken

    def take_place(self, proof: Proof) -> Callable[[], None]:
        """Takes a place for an RPC that has arrived; the function returned gives it back.

        Raises CallerUnauthenticated, Overloaded, ShareExceeded.
        """
        return self._rpcs.take(self.identify(proof).name)

    def identify(self, proof: Proof) -> Caller:
        """The caller. Raises CallerUnauthenticated, which the log says at a bounded rate."""
        try:
            return self._callers.identify(proof)
        except CallerUnauthenticated:
            self._strangers.note(proof)
            raise

    def refuse(self, method: AnyMethod, error: PdpError) -> Refusal:
        """What a door has refused by itself."""
        refusal = refusal_of(error)
        self.count(method, refusal.code.name, time.perf_counter())
        return refusal

    def require_open(self) -> None:
        """Raises ShuttingDown once the process does."""
        if self.closing.is_set():
            raise ShuttingDown("the process is shutting down")

    def admit(self, method: AnyMethod, length: int, proof: Proof) -> Caller:
        """Who may come in, with what. Raises CallerError, LimitExceeded or ShuttingDown."""
        self.require_open()
        caller = self.identify(proof)
        if method.capability not in caller.may:
            raise CallerNotAllowed(
                f"the caller lacks the capability {method.capability!r}",
                method=method.path,
                capability=method.capability,
            )
        if length > method.request_bytes_max:
            raise LimitExceeded("request_bytes_max", method.request_bytes_max, length)
        return caller

    def count_stranger(self) -> None:
        """Tells the metrics of an RPC that was refused before its method was looked at."""
        self._observe("unknown", grpc.StatusCode.UNAUTHENTICATED.name, 0.0)

    def count(self, method: AnyMethod, code: str, started: float) -> None:
        """Tells the metrics of an RPC that is over."""
        # Envoy's method is called as one of ours is.
        is_ours = method.service.startswith("pdpapi.")
        name = method.name if is_ours else f"{method.service.rpartition('.')[2]}/{method.name}"
        self._observe(name, code, time.perf_counter() - started)


class _Strangers:
    """Logs that callers do not prove who they are: the first, the tenth, the hundredth ... within
    STRANGERS_LOG_SECONDS, so that a flood does not fill the log. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = float("-inf")
        self._refused = 0
        self._next = 1

    def note(self, proof: Proof) -> None:
        """One more. Nothing of what it sent is logged."""
        with self._lock:
            now = time.monotonic()
            if now >= self._since + STRANGERS_LOG_SECONDS:
                self._since, self._refused, self._next = now, 0, 1
            self._refused += 1
            if self._refused < self._next:
                return
            self._next *= 10
            refused = self._refused
        log.warning(
            "caller_unauthenticated",
            refused=refused,
            within_seconds=STRANGERS_LOG_SECONDS,
            sent="api key" if proof.authorizations else "no api key",
            certificate=proof.certificate is not None,
        )


def refusal_of(error: PdpError) -> Refusal:
    """What is said of a typed error."""
    return Refusal(*status_of(error))


def _refusal(method: AnyMethod, error: Exception) -> Refusal:
    if isinstance(error, PdpError):
        return refusal_of(error)
    if isinstance(error, PassedOn):
        return Refusal(error.code, bounded(error.status))
    # The one place where everything is caught: a bug must not look like an answer.
    request_id = new_decision_id()
    log.error("bug", method=method.path, request_id=request_id, exc_info=error)
    return Refusal(*bug_status(request_id))


def _no_answer(method: Method, error: Exception) -> tuple[str, Outcome]:
    """The code that counts, and what is said."""
    refusal = _refusal(method, error)
    said = None if method.in_place_of is None else method.in_place_of(error)
    return refusal.code.name, refusal if said is None else said.SerializeToString()


def _parse(method: AnyMethod, raw: bytes) -> object:
    try:
        return method.request.FromString(raw)
    except DecodeError:
        raise InvalidRequest(Violation("", f"is not a {method.request.DESCRIPTOR.name}")) from None
