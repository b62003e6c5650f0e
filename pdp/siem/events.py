"""Audit records as events: the values that every format renders, with bounded texts."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeAlias

from google.protobuf.json_format import MessageToDict
from pdpapi.v1 import core_pb2
from pdpapi.v1.audit_service_pb2 import AdministrationRecord, ChangeSource, DecisionRecord

from pdp.model import Reason

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

Record: TypeAlias = DecisionRecord | AdministrationRecord

TEXT_CHARACTERS_MAX: Final = 1_024
"""Of each text of an event. Identifiers of a server are shorter; those that sidecars report may be
longer. CEF allows 1,023 characters in most fields."""

SECONDS_MIN, SECONDS_MAX = -62_135_596_800, 253_402_300_799

_REASON: Final = "DECISION_REASON_"
_SOURCE: Final = "ANSWER_SOURCE_"
_CHANGE_SOURCE: Final = "CHANGE_SOURCE_"
_REASONS: Final = {
    number: name.removeprefix(_REASON) for name, number in core_pb2.DecisionReason.items()
}
_SOURCES: Final = {
    number: name.removeprefix(_SOURCE) for name, number in core_pb2.AnswerSource.items()
}
_CHANGE_SOURCES: Final = {
    number: name.removeprefix(_CHANGE_SOURCE) for name, number in ChangeSource.items()
}
_DETAILS: Final = {name: reason.value for name, reason in Reason.__members__.items()}


@dataclass(frozen=True, slots=True)
class DecisionEvent:
    """A decision, or a query. Texts are empty if they are unknown."""

    id: str
    """Decision id; of a reported record also its reporter. The same if the record is sent again."""
    time: int
    """When it was decided; milliseconds since 1970-01-01 UTC."""
    last_time: int
    """When the last of `count` equal decisions was made."""
    count: int
    is_allowed: bool
    code: str
    """The reason: `TOKEN_EXPIRED`."""
    permission: str
    caller: str
    user_id: str
    session_id: str
    organization_id: str
    impersonator_id: str
    resource_type: str
    resource_id: str
    resource_organization_id: str
    rule_id: str
    grant_id: str
    revision: int
    token_fingerprint: str
    token_id: str
    source: str
    """`CACHED`, `STAYED_OPEN`; empty: decided."""
    reported_by: str
    request: str
    """`GET /courses/1`: method and path of a routed request."""
    query: str
    is_erased: bool
    """Whether personal data was erased from the record."""
    is_truncated: bool
    """Whether a text was longer than the limit."""

    @property
    def detail(self) -> str:
        """The reason as a sentence; of a reason that this version does not know, its name."""
        return _DETAILS.get(self.code, self.code)

    @property
    def action(self) -> str:
        """`allowed` or `denied`."""
        return "allowed" if self.is_allowed else "denied"

    @property
    def message(self) -> str:
        """A sentence for people."""
        resource = ":".join(filter(None, (self.resource_type, self.resource_id)))
        on = f" on {resource}" if resource else ""
        erased = "; personal data was erased on request" if self.is_erased else ""
        return f"{self.permission}{on} {self.action}: {self.detail}{erased}"


@dataclass(frozen=True, slots=True)
class ChangeEvent:
    """A change of one entity of policy or facts. Texts are empty if they are unknown."""

    id: str
    """Epoch, revision and number."""
    time: int
    """When it was recorded; milliseconds since 1970-01-01 UTC."""
    action: str
    """`create`, `update` or `delete`."""
    kind: str
    """`grant`, `role`, `user`, ..."""
    key: str
    """The parts of the entity's key, separated by slashes."""
    author: str
    """The caller or account; for a change by Clerk, its source."""
    source: str
    """`API`, `COMMAND`, `CLERK_WEBHOOK`, ..."""
    reason: str
    revision: int
    user_id: str
    """The user of a grant or membership."""
    role: str
    """The role of a grant or membership."""
    before: str
    """The entity as JSON; empty: it did not exist."""
    after: str
    """The entity as JSON; empty: it was deleted."""
    is_truncated: bool

    @property
    def message(self) -> str:
        """A sentence for people."""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.action} {self.kind} {self.key} by {self.author}{why}"


Event = DecisionEvent | ChangeEvent


def record_id(record: Record) -> str:
    """Returns the id of the event of a record: the same if the record is sent again."""
    if isinstance(record, AdministrationRecord):
        return f"{record.epoch}/{record.revision}/{record.number}"
    reporter = record.reported_by
    return f"{record.decision_id}/{reporter}" if reporter else record.decision_id


def record_nanoseconds(record: Record) -> int:
    """Returns when a decision was made, or a change was recorded, since 1970-01-01 UTC. A reporter
    may invent any time: methods of Timestamp raise ValueError for some."""
    is_change = isinstance(record, AdministrationRecord)
    time: Timestamp = getattr(record, "recorded_at" if is_change else "decided_at")
    return time.seconds * 1_000_000_000 + time.nanos


def decision_event(record: DecisionRecord, limit: int = TEXT_CHARACTERS_MAX) -> DecisionEvent:
    """Returns the event of a decision record.

    Args:
        record: The record.
        limit: The longest text, in characters; longer ones are cut.
    """
    actor, resource = record.actor, record.resource
    time = _milliseconds(record.decided_at)
    reporter = record.reported_by
    texts: tuple[str, ...] = (
        record_id(record),
        record.permission,
        record.caller,
        actor.user_id,
        actor.session_id,
        actor.organization_id,
        actor.impersonator_id,
        resource.type,
        resource.id,
        record.resource_organization_id,
        record.rule_id,
        record.grant_id,
        record.token_fingerprint,
        record.token_id,
        reporter,
        record.request,
        record.query,
    )
    is_truncated = max(map(len, texts)) > limit
    if is_truncated:
        texts = tuple(text[:limit] for text in texts)
    (
        id_,
        permission,
        caller,
        user_id,
        session_id,
        organization_id,
        impersonator_id,
        resource_type,
        resource_id,
        resource_organization_id,
        rule_id,
        grant_id,
        token_fingerprint,
        token_id,
        reported_by,
        request,
        query,
    ) = texts
    source = record.source
    return DecisionEvent(
        id=id_,
        time=time,
        last_time=_milliseconds(record.last_decided_at)
        if record.HasField("last_decided_at")
        else time,
        count=record.occurrences or 1,
        is_allowed=record.decision == core_pb2.DECISION_ALLOW,
        code=_REASONS.get(record.reason) or str(record.reason),
        permission=permission,
        caller=caller,
        user_id=user_id,
        session_id=session_id,
        organization_id=organization_id,
        impersonator_id=impersonator_id,
        resource_type=resource_type,
        resource_id=resource_id,
        resource_organization_id=resource_organization_id,
        rule_id=rule_id,
        grant_id=grant_id,
        revision=record.revision,
        token_fingerprint=token_fingerprint,
        token_id=token_id,
        source=(_SOURCES.get(source) or str(source)) if source else "",
        reported_by=reported_by,
        request=request,
        query=query,
        is_erased=record.HasField("erased_at"),
        is_truncated=is_truncated,
    )


def change_event(record: AdministrationRecord, limit: int = TEXT_CHARACTERS_MAX) -> ChangeEvent:
    """Returns the event of an administration record.

    Args:
        record: The record.
        limit: The longest text, in characters; longer ones are cut.
    """
    before = MessageToDict(record.before) if record.HasField("before") else None
    after = MessageToDict(record.after) if record.HasField("after") else None
    values = after or before or {}
    source = _CHANGE_SOURCES.get(record.source) or str(record.source)
    texts = {
        "id": record_id(record),
        "kind": record.kind,
        "key": "/".join(record.key),
        "author": record.caller or source,
        "source": source,
        "reason": record.reason,
        "user_id": str(values.get("user_id", "")),
        "role": str(values.get("role", "")),
        "before": "" if before is None else json.dumps(before, sort_keys=True),
        "after": "" if after is None else json.dumps(after, sort_keys=True),
    }
    return ChangeEvent(
        **{name: text[:limit] for name, text in texts.items()},
        time=_milliseconds(record.recorded_at),
        action="create" if before is None else "delete" if after is None else "update",
        revision=record.revision,
        is_truncated=max(map(len, texts.values())) > limit,
    )


def rfc3339(milliseconds: int) -> str:
    """Formats a time as RFC 3339 in UTC, to the millisecond. Years before 1 and after 9999, which a
    reporter may invent, become the first and the last second that exist."""
    seconds, rest = divmod(milliseconds, 1_000)
    when = datetime.fromtimestamp(min(max(seconds, SECONDS_MIN), SECONDS_MAX), UTC)
    return f"{when.replace(tzinfo=None).isoformat()}.{rest:03}Z"


def _milliseconds(time: "Timestamp") -> int:
    return time.seconds * 1_000 + time.nanos // 1_000_000
