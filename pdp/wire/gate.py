"""What every front door does with an RPC: raw bytes in, raw bytes or a status of the table out.

Requests are parsed here and not by a door, so that a message that does not parse is
INVALID_ARGUMENT, and so that what answers a method stays a function of messages.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import grpc
import structlog
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from pdp.audit import new_decision_id
from pdp.errors import (
    CallerNotAllowed,
    InvalidRequest,
    LimitExceeded,
    MustWait,
    PdpError,
    ShuttingDown,
    Violation,
)
from pdp.wire.callers import Caller, Callers, Proof
from pdp.wire.methods import Method
from pdp.wire.statuses import bug_status, status_of

log = structlog.get_logger("pdp.wire")

Observe = Callable[[str, str, float], None]
"""Told (method name, status code name, seconds) of every RPC."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """There is no answer, and this is said instead."""

    code: grpc.StatusCode
    status: status_pb2.Status


Outcome: TypeAlias = bytes | Refusal
"""A serialized response, or none."""


class Gate:
    """Lets callers in, and turns whatever comes of it into an outcome. Thread-safe.

    Raises RuntimeError at construction where protobuf runs on its pure Python backend, which
    recurses without bound (CVE-2025-4565).
    """

    def __init__(self, callers: Callers, observe: Observe) -> None:
        if api_implementation.Type() != "upb":
            raise RuntimeError("protobuf must run on its upb backend")
        self._callers = callers
        self._observe = observe
        self.closing = threading.Event()
        """Set: everything is refused as SHUTTING_DOWN."""

    def answer(self, method: Method, raw: bytes, proof: Proof) -> Outcome:
        """Answers, however long that takes."""
        started = time.perf_counter()
        outcome: Outcome
        try:
            caller = self.admit(method, len(raw), proof)
            outcome = method.answer(_parse(method, raw), caller).SerializeToString()
        except Exception as error:  # noqa: BLE001  # what it was is said by the refusal
            outcome = _refusal(method, error)
        self._count(method, outcome, started)
        return outcome

    async def answer_at_once(self, method: Method, raw: bytes, proof: Proof) -> Outcome | None:
        """Answers without keeping the event loop: it waits for the audit at most. None: this needs
        `answer`, and nothing has happened."""
        if method.at_once is None:
            return None
        started = time.perf_counter()
        outcome: Outcome
        try:
            caller = self.admit(method, len(raw), proof)
            soon = method.at_once(_parse(method, raw), caller)
            if soon.settle is not None:
                await soon.settle()
            outcome = soon.message.SerializeToString()
        except MustWait:
            return None
        except Exception as error:  # noqa: BLE001  # what it was is said by the refusal
            outcome = _refusal(method, error)
        self._count(method, outcome, started)
        return outcome

    def refuse(self, method: Method, error: PdpError) -> Refusal:
        """What a door has refused by itself."""
        refusal = refusal_of(error)
        self._count(method, refusal, time.perf_counter())
        return refusal

    def admit(self, method: Method, length: int, proof: Proof) -> Caller:
        """Who may come in, with what. Raises CallerError, LimitExceeded or ShuttingDown."""
        if self.closing.is_set():
            raise ShuttingDown("the process is shutting down")
        caller = self._callers.identify(proof)
        if method.capability not in caller.may:
            raise CallerNotAllowed(
                f"the caller lacks the capability {method.capability!r}",
                method=method.path,
                capability=method.capability,
            )
        if length > method.request_bytes_max:
            raise LimitExceeded("request_bytes_max", method.request_bytes_max, length)
        return caller

    def _count(self, method: Method, outcome: Outcome, started: float) -> None:
        code = "OK" if isinstance(outcome, bytes) else outcome.code.name
        self._observe(method.name, code, time.perf_counter() - started)


def refusal_of(error: PdpError) -> Refusal:
    """What is said of a typed error."""
    return Refusal(*status_of(error))


def _refusal(method: Method, error: Exception) -> Refusal:
    if isinstance(error, PdpError):
        return refusal_of(error)
    # The one place where everything is caught: a bug must not look like an answer.
    request_id = new_decision_id()
    log.error("bug", method=method.path, request_id=request_id, exc_info=error)
    return Refusal(*bug_status(request_id))


def _parse(method: Method, raw: bytes) -> object:
    try:
        return method.request.FromString(raw)
    except DecodeError:
        raise InvalidRequest(Violation("", f"is not a {method.request.DESCRIPTOR.name}")) from None
