"""What a guard raises.

    GuardError
    +-- Denied                 the PDP said no
    |   +-- Unauthenticated    401: the token does not prove who asks
    |   +-- Forbidden          403: the actor is known and may not
    +-- PdpUnavailable         503: there is no answer; asking again may help
    +-- PdpRefused             500: the PDP does not take the question; asking again does not help
    +-- RouteRefused           403: no route names the path, or it has two readings

`http_status`, `grpc_status` (a code's name) and `word` are what an application answers. No text of
these holds a token or a key.
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

# Codes that mean: the question, or who asks it, is wrong. All the others: there is no answer now.
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
    """One thing that is wrong with a request: where, and what."""

    field: str
    description: str


class GuardError(Exception):
    """Base of all that a guard raises about an answer. It always means: do not go on."""

    http_status = 500
    grpc_status = "INTERNAL"
    word = "internal"


class Denied(GuardError):
    """The PDP said no."""

    http_status = 403
    grpc_status = "PERMISSION_DENIED"
    word = "forbidden"

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision)
        self.decision = decision

    def __str__(self) -> str:
        one = self.decision
        return f"{one.reason}: {one.message} (decision {one.decision_id})"


class Unauthenticated(Denied):
    """The token does not prove who asks."""

    http_status = 401
    grpc_status = "UNAUTHENTICATED"
    word = "unauthenticated"


class Forbidden(Denied):
    """The actor is known and may not."""


class PdpUnavailable(GuardError):
    """There is no answer: the PDP is out of reach, out of time, or what it said is no answer."""

    http_status = 503
    grpc_status = "UNAVAILABLE"
    word = "unavailable"

    def __init__(self, message: str, code: str = "", reason: str = "") -> None:
        super().__init__(message, code, reason)
        self.message = message
        self.code = code
        """Name of the gRPC status code; empty where an answer came and broke the contract."""
        self.reason = reason
        """Name of an ErrorReason without its prefix, e.g. `FACTS_STALE`; empty: not given."""

    def __str__(self) -> str:
        return " ".join(part for part in (self.code, self.reason, self.message) if part)


class PdpRefused(GuardError):
    """The PDP does not take the question: it is malformed, or this caller may not ask."""

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
        """The fields that are wrong, where the PDP named them."""

    def __str__(self) -> str:
        return " ".join(part for part in (self.code, self.reason, self.message) if part)


class RouteRefused(GuardError):
    """A route map lets a request not pass, and nobody was asked."""

    http_status = 403
    grpc_status = "PERMISSION_DENIED"
    word = "forbidden"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """`no_route`: no route names it; `ambiguous_path`: it could be read otherwise;
        `request_changed`: something behind the guard changed its path or its method."""


def actor_of(decision: Decision) -> Actor:
    """The actor of an allow; everything else is raised."""
    if decision.effect is Effect.ALLOW and decision.actor is not None:
        return decision.actor
    if decision.denial_kind is DenialKind.UNAUTHENTICATED:
        raise Unauthenticated(decision)
    raise Forbidden(decision)


def failure_of(error: grpc.Call, token: Token) -> PdpUnavailable | PdpRefused:
    """The exception for a failed call: every status code has one, and none is an allow."""
    code = error.code()
    message = _without_tokens(error.details() or "", token)
    reason, violations = _details(error, token)
    # RESOURCE_EXHAUSTED is both: a limit of the contract (asking again does not help), or a server
    # that is full.
    over_limit = code is grpc.StatusCode.RESOURCE_EXHAUSTED and reason == "LIMIT_EXCEEDED"
    if code in _REFUSALS or over_limit:
        return PdpRefused(message, code.name, reason, violations)
    return PdpUnavailable(message, code.name, reason)


def _details(error: grpc.Call, token: Token) -> tuple[str, tuple[Violation, ...]]:
    """ErrorInfo's reason and BadRequest's violations; nothing where the details are unreadable,
    because the status code alone already says that there is no answer."""
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
                        _without_tokens(one.field, token), _without_tokens(one.description, token)
                    )
                    for one in bad_request.field_violations
                ]
    except (ValueError, DecodeError):
        return "", ()
    return reason, tuple(violations)


def _without_tokens(text: str, token: Token) -> str:
    """A peer may repeat what it was sent; the token must not come back in an exception. A token
    that was passed as another argument by mistake is known by its shape."""
    secret = token.reveal()
    if len(secret) > len(_REDACTED):
        text = text.replace(secret, _REDACTED)
    return redact(text)


def redact(text: str) -> str:
    """A text without what has the shape of a token. Takes quadratic time: cut long texts first."""
    return _TOKEN_SHAPE.sub(_REDACTED, text)
