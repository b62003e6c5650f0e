"""The exceptions of a guard.

    GuardError
    +-- Denied                 the PDP denied
    |   +-- Unauthenticated    401: the token does not prove the actor's identity
    |   +-- Forbidden          403: the actor is known and not allowed
    +-- PdpUnavailable         503: there is no answer; a retry may help
    +-- PdpRefused             500: the PDP rejects the question; a retry does not help
    +-- RouteRefused           403: no route matches the path, or the path is ambiguous

An application answers with `http_status`, `grpc_status` (a code's name) and `word`. No text of an
exception contains a token or a key.
"""

import re
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from pdp_client.values import Actor, Decision, DenialKind, Effect, Token

_TOKEN_SHAPE = re.compile(r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)?")
_REDACTED = "<token>"

# Codes for an error of the question or of its caller. All other codes: there is no answer now.
_REFUSALS = frozenset(
    (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    )
)


@dataclass(frozen=True, slots=True)
class Violation:
    """A problem of a request: the field and the reason."""

    field: str
    description: str


class GuardError(Exception):
    """Base of all exceptions about an answer. It always means: do not continue."""

    http_status = 500
    grpc_status = "INTERNAL"
    word = "internal"


class Denied(GuardError):
    """The PDP denied."""

    http_status = 403
    grpc_status = "PERMISSION_DENIED"
    word = "forbidden"

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision)
        self.decision = decision

    def __str__(self) -> str:
        decision = self.decision
        return f"{decision.reason}: {decision.message} (decision {decision.decision_id})"


class Unauthenticated(Denied):
    """The token does not prove the actor's identity."""

    http_status = 401
    grpc_status = "UNAUTHENTICATED"
    word = "unauthenticated"


class Forbidden(Denied):
    """The actor is known and not allowed."""


class PdpUnavailable(GuardError):
    """There is no answer: the PDP is unreachable, did not answer in time, or sent an invalid
    answer."""

    http_status = 503
    grpc_status = "UNAVAILABLE"
    word = "unavailable"

    def __init__(self, message: str, code: str = "", reason: str = "") -> None:
        super().__init__(message, code, reason)
        self.message = message
        self.code = code
        """Name of the gRPC status code; empty if an answer broke the contract."""
        self.reason = reason
        """Name of an ErrorReason without its prefix, e.g. `FACTS_STALE`; empty: not given."""

    def __str__(self) -> str:
        return " ".join(part for part in (self.code, self.reason, self.message) if part)


class PdpRefused(GuardError):
    """The PDP rejects the question: it is malformed, or this caller may not ask it."""

    def __init__(
        self, message: str, code: str = "", reason: str = "", violations: tuple[Violation, ...] = ()
    ) -> None:
        super().__init__(message, code, reason, violations)
        self.message = message
        self.code = code
        """Name of the gRPC status code."""
        self.reason = reason
        """Name of an ErrorReason without its prefix, e.g. `REQUEST_INVALID`; empty: not given."""
        self.violations = violations
        """The malformed fields, if the PDP named them."""

    def __str__(self) -> str:
        return " ".join(part for part in (self.code, self.reason, self.message) if part)


class RouteRefused(GuardError):
    """A route map refuses a request. The PDP was not asked."""

    http_status = 403
    grpc_status = "PERMISSION_DENIED"
    word = "forbidden"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """`no_route`: no route matches the request; `ambiguous_path`: its path has several
        readings; `request_changed`: its path or method changed behind the guard."""


def actor_of(decision: Decision) -> Actor:
    """The actor of an allow. Raises Denied for a denial."""
    if decision.effect is Effect.ALLOW and decision.actor is not None:
        return decision.actor
    if decision.denial_kind is DenialKind.UNAUTHENTICATED:
        raise Unauthenticated(decision)
    raise Forbidden(decision)


def failure_of(error: grpc.Call, token: Token) -> PdpUnavailable | PdpRefused:
    """The exception for a failed call. Every status code has one; none is an allow."""
    code = error.code()
    message = _without_tokens(error.details() or "", token)
    reason, violations = _details(error, token)
    # RESOURCE_EXHAUSTED has two meanings: a limit of the contract (a retry does not help), or a
    # server at capacity.
    over_limit = code is grpc.StatusCode.RESOURCE_EXHAUSTED and reason == "LIMIT_EXCEEDED"
    if code in _REFUSALS or over_limit:
        return PdpRefused(message, code.name, reason, violations)
    return PdpUnavailable(message, code.name, reason)


def _details(error: grpc.Call, token: Token) -> tuple[str, tuple[Violation, ...]]:
    """ErrorInfo's reason and BadRequest's violations; empty if the details are unreadable, because
    the status code alone shows that there is no answer."""
    reason, violations = "", []
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    try:
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            if detail.Unpack(info):
                reason = _without_tokens(info.reason, token)
            elif detail.Unpack(bad_request):
                violations += [
                    Violation(
                        _without_tokens(found.field, token),
                        _without_tokens(found.description, token),
                    )
                    for found in bad_request.field_violations
                ]
    except (ValueError, DecodeError):
        return "", ()
    return reason, tuple(violations)


def _without_tokens(text: str, token: Token) -> str:
    """Removes tokens from a peer's text, which may repeat the request. A token that was passed as
    another argument by mistake is recognised by its form."""
    secret = token.reveal()
    if len(secret) > len(_REDACTED):
        text = text.replace(secret, _REDACTED)
    return redact(text)


def redact(text: str) -> str:
    """Removes everything that has the form of a token. Takes quadratic time: truncate long texts
    first."""
    return _TOKEN_SHAPE.sub(_REDACTED, text)
