"""Errors: there is no answer. A denial is not an error but a `model.Decision`.

    PdpError
    +-- RequestError           the caller's request cannot be carried out
    |   +-- InvalidRequest     fields are malformed
    |   +-- InvalidPolicy      a policy document is not consistent
    |   +-- LimitExceeded      a limit of `limits.py` was exceeded
    |   +-- NotFound           the entity does not exist
    |   +-- AlreadyExists      the entity exists
    |   +-- BrokenReference    refers to a missing entity or in a circle, or is still referred to
    |   +-- RouteConflict      another route could match the same path
    |   +-- FilterUnsupported  a condition has a part that no filter can express
    |   +-- RevisionChanged    somebody else has written meanwhile
    +-- CallerError            the caller may not call
    |   +-- CallerUnauthenticated
    |   +-- CallerNotAllowed
    +-- Unavailable            no answer now; a retry may help
    |   +-- DatabaseUnavailable
    |   +-- FactsStale
    |   +-- RevisionNotReached
    |   +-- KeysUnavailable
    |   +-- AuditUnavailable
    |   +-- ShuttingDown
    |   +-- UpstreamUnavailable no server of a sidecar answers
    |   +-- UpstreamRefused    a server refuses the sidecar's own credentials
    +-- Overloaded             at capacity; a later retry may help
    +-- DeadlineExceeded       the caller's deadline has passed
    +-- ShareExceeded          the caller has used up its share; a later retry may help
    +-- ClerkError             a request to Clerk's Backend API failed; no RPC makes one
    |   +-- ClerkUnavailable   a later retry may help
    |   +-- ClerkRefused       a retry does not help
    +-- ForwardingError        `pdp audit forward` cannot continue; no RPC forwards
        +-- SourceFailed       the server did not return records
        +-- DeliveryFailed     the destination did not confirm; a later retry may help
        +-- DeliveryRefused    the destination refuses the content

`wire/statuses.py` turns each except ClerkError and ForwardingError into a gRPC status; any other
exception is a bug (INTERNAL). No message may contain a token, a key or the text of a driver.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Violation:
    """An invalid field: its path, and what is wrong."""

    field: str
    """Path of a request field (`resource.type`) or of a document (`roles.ADMIN.allow[0]`)."""
    description: str
    line: int | None = None
    """Line of the document, from 1; None outside documents."""
    column: int | None = None
    """Column in that line, from 1; None if only the line is known."""

    def located(self, file: str) -> str:
        """`file:line:column: field: description`, without an unknown line or column."""
        place = [file, *(str(part) for part in (self.line, self.column) if part is not None)]
        return f"{':'.join(place)}: {self.field}: {self.description}"

    def __str__(self) -> str:
        line = "" if self.line is None else f"line {self.line}: "
        return f"{line}{self.field}: {self.description}"


class PdpError(Exception):
    """Base of all errors of the PDP. The caller gets `metadata` as ErrorInfo metadata."""

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = metadata


class RequestError(PdpError):
    """The caller's request cannot be carried out."""


class InvalidRequest(RequestError):
    """Fields of a request are malformed."""

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(map(str, violations)))
        self.violations: Sequence[Violation] = violations

    def within(self, field: str) -> "InvalidRequest":
        """The same error for a malformed message that is the field `field` of another."""
        return InvalidRequest(*(replace(v, field=f"{field}.{v.field}") for v in self.violations))


class InvalidPolicy(RequestError):
    """A policy document is not consistent."""

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(map(str, violations)))
        self.violations: Sequence[Violation] = violations


class LimitExceeded(RequestError):
    """A limit was exceeded."""

    def __init__(self, limit: str, maximum: int, value: int) -> None:
        super().__init__(
            f"{limit} is {maximum}, the request has {value}",
            limit=limit,
            maximum=str(maximum),
            value=str(value),
        )


class NotFound(RequestError):
    """The entity does not exist."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"there is no {kind} {key!r}", kind=kind, key=key)


class AlreadyExists(RequestError):
    """The entity exists."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"the {kind} {key!r} exists", kind=kind, key=key)


class BrokenReference(RequestError):
    """An entity refers to a missing one or in a circle, or is still referred to."""

    def __init__(self, message: str, kind: str, key: str) -> None:
        super().__init__(message, kind=kind, key=key)


class RouteConflict(RequestError):
    """Two routes conflict: for some path, neither is more specific than the other."""

    def __init__(self, route: str, other: str, problem: str) -> None:
        super().__init__(f"{route!r} and {other!r} {problem}", route=route, other=other)


class FilterUnsupported(RequestError):
    """A condition has a part that no filter can express."""

    def __init__(self, parts: Sequence[tuple[str, str, int, int]]) -> None:
        """Creates the error. `parts`: rule, operator, line and column of each part, not empty."""
        rule, operator, line, column = parts[0]
        named = (
            f"{part[1]} in rule {part[0]} (line {part[2]}, column {part[3]})" for part in parts
        )
        super().__init__(
            f"a filter cannot express: {', '.join(named)}",
            rule=rule,
            operator=operator,
            line=str(line),
            column=str(column),
        )


class RevisionChanged(RequestError):
    """Somebody else has written the same entity since the expected revision."""

    def __init__(self, expected: int, revision: int) -> None:
        super().__init__(
            f"others have written since revision {expected}: the database is at {revision}",
            expected=str(expected),
            revision=str(revision),
        )


class CallerError(PdpError):
    """The caller (not the actor) may not call."""


class CallerUnauthenticated(CallerError):
    """The caller is not authenticated."""


class CallerNotAllowed(CallerError):
    """The caller may not use this method."""


class Unavailable(PdpError):
    """No answer now; a retry may help."""


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached, or does not answer in time."""


class FactsStale(Unavailable):
    """The process cannot confirm that it has seen every change."""

    def __init__(
        self, message: str, *, age_seconds: float | None = None, bound_seconds: float = 0
    ) -> None:
        """Creates the error.

        Args:
            message: Why.
            age_seconds: Time since the last confirmation, if that is the reason.
            bound_seconds: The longest time after a confirmation in which answers are allowed.
        """
        if age_seconds is None:
            super().__init__(message)
            return
        super().__init__(
            message,
            age_ms=str(math.ceil(age_seconds * 1000)),
            bound_ms=str(round(bound_seconds * 1000)),
        )


class RevisionNotReached(Unavailable):
    """The requested revision was not seen here in time."""

    def __init__(self, message: str, *, wanted: int, seen: int) -> None:
        """Creates the error.

        Args:
            message: Why.
            wanted: The requested revision.
            seen: The newest revision seen here, in memory or in the database.
        """
        super().__init__(message, wanted=str(wanted), seen=str(seen))


class KeysUnavailable(Unavailable):
    """No key set of the token's issuer is available."""


class AuditUnavailable(Unavailable):
    """A decision could not be written to the audit log."""


class ShuttingDown(Unavailable):
    """The process is shutting down."""


class UpstreamUnavailable(Unavailable):
    """No upstream server of a sidecar is reachable and answers."""


class UpstreamRefused(Unavailable):
    """A server refuses the sidecar's own API key or certificate."""


class Overloaded(PdpError):
    """The process is at capacity. Unlike LimitExceeded, the request is not at fault."""

    def __init__(self, limit: str, maximum: int) -> None:
        super().__init__(f"{limit} is reached: {maximum}", limit=limit, maximum=str(maximum))


class DeadlineExceeded(PdpError):
    """The caller's deadline has passed without an answer."""


class ShareExceeded(PdpError):
    """The caller has used up its share of something. Other callers still have theirs."""

    def __init__(self, share: str, maximum: int, retry_after_ms: int = 0) -> None:
        """Creates the error.

        Args:
            share: Name of the share, as in the settings.
            maximum: How much of it one caller may have.
            retry_after_ms: Milliseconds until there is room again; 0 if that is not known.
        """
        super().__init__(
            f"the caller's share is used up: {share} is {maximum}",
            limit=share,
            maximum=str(maximum),
        )
        self.retry_after_ms = retry_after_ms


class ClerkError(PdpError):
    """A request to Clerk's Backend API failed. No RPC makes one, so it has no gRPC status."""


class ClerkUnavailable(ClerkError):
    """Clerk did not answer, or not as its API documents; a later retry may help."""


class ClerkRefused(ClerkError):
    """Clerk refuses: a wrong secret key, another instance, or a disabled feature."""


class ForwardingError(PdpError):
    """Records cannot be forwarded to a SIEM. No RPC forwards, so it has no gRPC status."""


class SourceFailed(ForwardingError):
    """The server did not return records."""


class DeliveryFailed(ForwardingError):
    """The destination did not confirm the records. Some may have arrived; send all again."""


class DeliveryRefused(ForwardingError):
    """The destination refuses the content of the records; sending the same again does not help."""
