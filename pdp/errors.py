"""Errors: there is no answer. A denial is not one of them, it is a `model.Decision`.

    PdpError
    +-- RequestError           the caller's request cannot be carried out
    |   +-- InvalidRequest     fields are malformed
    |   +-- InvalidPolicy      a policy document does not hold together
    |   +-- LimitExceeded      a bound of `limits.py` was passed
    |   +-- NotFound           the named thing does not exist
    |   +-- AlreadyExists      the named thing exists
    |   +-- BrokenReference    would refer to nothing, or in a circle, or is still referred to
    |   +-- RouteConflict      another route could take the same path
    |   +-- FilterUnsupported  a condition has a part that no filter expresses
    |   +-- RevisionChanged    somebody else has written meanwhile
    +-- CallerError            the caller may not ask
    |   +-- CallerUnauthenticated
    |   +-- CallerNotAllowed
    +-- Unavailable            no answer now; asking again may help
    |   +-- DatabaseUnavailable
    |   +-- FactsStale
    |   +-- RevisionNotReached
    |   +-- KeysUnavailable
    |   +-- AuditUnavailable
    |   +-- ShuttingDown
    |   +-- UpstreamUnavailable a sidecar reaches no server that answers
    |   +-- UpstreamRefused    a server does not let the sidecar itself ask
    +-- Overloaded             full; asking again later may help
    +-- DeadlineExceeded       the deadline that the caller set has passed
    +-- ShareExceeded          the caller has used up its share; asking again later may help
    +-- ClerkError             Clerk's Backend API did not do what it was asked; no RPC asks it
        +-- ClerkUnavailable   it may, later
        +-- ClerkRefused       it will not

`wire/statuses.py` turns each but ClerkError into a gRPC status; anything else that escapes is a bug
(INTERNAL).
No message of these may hold a token, a key or a text that a driver wrote.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong: where, and what."""

    field: str
    """Path of a request field (`resource.type`) or of a document (`roles.ADMIN.allow[0]`)."""
    description: str
    line: int | None = None
    """Line of the document, from 1; None outside documents."""
    column: int | None = None
    """Column in that line, from 1; None where only the line is known."""

    def located(self, file: str) -> str:
        """`file:line:column: field: description`, as far as the place is known."""
        place = [file, *(str(part) for part in (self.line, self.column) if part is not None)]
        return f"{':'.join(place)}: {self.field}: {self.description}"

    def __str__(self) -> str:
        line = "" if self.line is None else f"line {self.line}: "
        return f"{line}{self.field}: {self.description}"


class PdpError(Exception):
    """Base of all errors that leave a room. `metadata` goes to the caller as ErrorInfo metadata."""

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
        """The same, where the malformed message is the field `field` of another."""
        return InvalidRequest(*(replace(v, field=f"{field}.{v.field}") for v in self.violations))


class InvalidPolicy(RequestError):
    """A policy document does not hold together."""

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(map(str, violations)))
        self.violations: Sequence[Violation] = violations


class LimitExceeded(RequestError):
    """A bound was passed."""

    def __init__(self, limit: str, maximum: int, value: int) -> None:
        super().__init__(
            f"{limit} is {maximum}, the request has {value}",
            limit=limit,
            maximum=str(maximum),
            value=str(value),
        )


class NotFound(RequestError):
    """The named thing does not exist."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"there is no {kind} {key!r}", kind=kind, key=key)


class AlreadyExists(RequestError):
    """The named thing exists."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"the {kind} {key!r} exists", kind=kind, key=key)


class BrokenReference(RequestError):
    """Would refer to nothing, or in a circle, or is still referred to."""

    def __init__(self, message: str, kind: str, key: str) -> None:
        super().__init__(message, kind=kind, key=key)


class RouteConflict(RequestError):
    """Two routes do not go together: for some path neither would be the one that stands."""

    def __init__(self, route: str, other: str, problem: str) -> None:
        super().__init__(f"{route!r} and {other!r} {problem}", route=route, other=other)


class FilterUnsupported(RequestError):
    """A condition has a part that no filter expresses."""

    def __init__(self, parts: Sequence[tuple[str, str, int, int]]) -> None:
        """`parts`: rule, operator, line and column of each; at least one."""
        rule, operator, line, column = parts[0]
        named = (f"{one[1]} in rule {one[0]} (line {one[2]}, column {one[3]})" for one in parts)
        super().__init__(
            f"a filter cannot express: {', '.join(named)}",
            rule=rule,
            operator=operator,
            line=str(line),
            column=str(column),
        )


class RevisionChanged(RequestError):
    """Somebody else has written, since the revision that was expected, what is to be written."""

    def __init__(self, expected: int, revision: int) -> None:
        super().__init__(
            f"others have written since revision {expected}: the database is at {revision}",
            expected=str(expected),
            revision=str(revision),
        )


class CallerError(PdpError):
    """The caller (not the actor) may not ask."""


class CallerUnauthenticated(CallerError):
    """The caller did not prove who it is."""


class CallerNotAllowed(CallerError):
    """The caller may not use this method."""


class Unavailable(PdpError):
    """No answer now; asking again may help."""


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
            bound_seconds: The longest time that an answer may be given after a confirmation.
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
    """The revision that was asked for has not been seen here in time."""

    def __init__(self, message: str, *, wanted: int, seen: int) -> None:
        """Creates the error.

        Args:
            message: Why.
            wanted: The revision that was asked for.
            seen: The newest revision that was seen here, in memory or in the database.
        """
        super().__init__(message, wanted=str(wanted), seen=str(seen))


class KeysUnavailable(Unavailable):
    """No key set of the token's issuer is at hand."""


class AuditUnavailable(Unavailable):
    """A decision could not be put on record."""


class ShuttingDown(Unavailable):
    """The process is ending."""


class UpstreamUnavailable(Unavailable):
    """No server that a sidecar asks is in reach and answers."""


class UpstreamRefused(Unavailable):
    """A server does not let the sidecar itself ask: its API key or certificate will not do."""


class Overloaded(PdpError):
    """The process has taken on as much as it can hold: unlike LimitExceeded no fault of what was
    asked."""

    def __init__(self, limit: str, maximum: int) -> None:
        super().__init__(f"{limit} is reached: {maximum}", limit=limit, maximum=str(maximum))


class DeadlineExceeded(PdpError):
    """The deadline that the caller set has passed. Nothing was answered."""


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
    """Clerk's Backend API did not do what it was asked. No RPC asks it: it has no gRPC status."""


class ClerkUnavailable(ClerkError):
    """Clerk did not answer, or not with what its API is documented to answer; it may, later."""


class ClerkRefused(ClerkError):
    """Clerk will not do it: a wrong secret key, another instance, a feature that is not enabled."""
