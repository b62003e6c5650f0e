"""The body of a webhook message -> an event -> an observation. Pure, as `objects` is.

A user writes some texts of an event (names, `unsafe_metadata`). If such a text could make the whole
event invalid, the user could hide their own ban. So an ambiguous value is unreadable at its place
only.

Source: Clerk's OpenAPI document `webhooks` (45 types of events), clerk.com/docs/webhooks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from pdp.clerk.objects import (
    SESSION_ENDS,
    MalformedObject,
    Object,
    deletion_seen,
    membership_seen,
    organization_seen,
    permission_seen,
    role_seen,
    session_ended,
    user_seen,
)
from pdp.clerk.observations import Observation
from pdp.facts.store.clerk_objects import ClerkKind
from pdp.strict_json import NotStrictJson, parse_tolerant

DEPTH_MAX = 64
"""Levels; deeper values are left out. Attributes may have far fewer."""

_SECONDS_MAX = 10**11
"""A smaller time is in seconds. As milliseconds this is in 1973, as seconds in the year 5138."""


@dataclass(frozen=True, slots=True)
class Event:
    """The fields that every event has."""

    type: str
    """`user.updated`"""
    instance_id: str
    envelope: Object


def parse_event(body: bytes) -> Event:
    """Parses the body of a message.

    Raises:
        MalformedObject: The body is not an event.
    """
    try:
        envelope = parse_tolerant(body, depth_max=DEPTH_MAX)
    except NotStrictJson:
        raise MalformedObject("not JSON") from None
    if not isinstance(envelope, Mapping):
        raise MalformedObject("not an object")
    return Event(_text(envelope, "type"), _text(envelope, "instance_id"), envelope)


def observation_of(event: Event) -> Observation | None:
    """The observation of an event; None: it changes nothing here.

    Raises:
        KeyError: The type is not in `TYPES`.
        MalformedObject: The data is not valid.
    """
    read = _READERS[event.type]
    data = event.envelope.get("data")
    if not isinstance(data, Mapping):
        raise MalformedObject("data")
    return read(data, _made_at(event.envelope))


def _text(envelope: Object, field: str) -> str:
    value = envelope.get(field)
    if not isinstance(value, str):
        raise MalformedObject(field)
    return value


def _made_at(envelope: Object) -> int:
    """Milliseconds. Clerk documents milliseconds, and its examples show seconds. A second counts as
    its end, so that an event is not older than the `updated_at` within that second."""
    timestamp = envelope.get("timestamp")
    if type(timestamp) is not int or timestamp < 0:
        raise MalformedObject("timestamp")
    return timestamp if timestamp >= _SECONDS_MAX else timestamp * 1000 + 999


def _end_of_session(data: Object, _: int) -> Observation | None:
    return session_ended(data)


def _state_of_session(data: Object, _: int) -> Observation | None:
    """For a session that begins: it may have ended already."""
    status = data.get("status")
    over = isinstance(status, str) and status in SESSION_ENDS
    return session_ended(data) if over else None


_READERS: Mapping[str, Callable[[Object, int], Observation | None]] = {
    "user.created": user_seen,
    "user.updated": user_seen,
    "user.deleted": partial(deletion_seen, ClerkKind.USER),
    "organization.created": organization_seen,
    "organization.updated": organization_seen,
    "organization.deleted": partial(deletion_seen, ClerkKind.ORGANIZATION),
    "organizationMembership.created": membership_seen,
    "organizationMembership.updated": membership_seen,
    "organizationMembership.deleted": partial(deletion_seen, ClerkKind.MEMBERSHIP),
    "role.created": role_seen,
    "role.updated": role_seen,
    "role.deleted": partial(deletion_seen, ClerkKind.ROLE),
    "permission.created": permission_seen,
    "permission.updated": permission_seen,
    "permission.deleted": partial(deletion_seen, ClerkKind.PERMISSION),
    "session.created": _state_of_session,
    "session.pending": _state_of_session,
    "session.ended": _end_of_session,
    "session.removed": _end_of_session,
    "session.revoked": _end_of_session,
}
TYPES = frozenset(_READERS)
"""The known types of events. Others are accepted and ignored."""
