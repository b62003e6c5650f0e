"""Looks in the decision log for what an access review asks: uses of grants, impersonated decisions,
allows after denials, first accesses.

Only records of decision points count, except in the list of impersonated decisions: a caller that
reports its own records must not hide a finding. Every query uses an index of its own, so that a
flood of other records does not slow it down.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, bindparam, func, select, text

from pdp.audit.coverage import Coverage, read_coverage
from pdp.audit.queries import RECORD_COLUMNS, record_of
from pdp.audit.records import DecisionRecord, first_id_at
from pdp.audit.rows import filterable
from pdp.audit.tables import ALLOWED, DENIED, IMPERSONATED, audit_records
from pdp.database.engine import begin_read

LOOKED_AT_MAX: Final = 500
"""Records that one page looks at."""
REGRANTED_SECONDS: Final = 3_600.0
"""How long after a denial an allow of the same question is a finding."""
_CLOCK_SECONDS: Final = 3_600.0
"""How far the time in a decision id may be from the time of the decision."""


class Window(NamedTuple):
    """From `since` to before `until`; seconds since 1970-01-01 UTC."""

    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Finding:
    """A decision, and what makes it worth a look."""

    decision: DecisionRecord
    key: str
    """Where the list continues after it."""
    denied_before: DecisionRecord | None = None
    """The last denial of the same question within REGRANTED_SECONDS."""


@dataclass(frozen=True, slots=True)
class FindingPage:
    """Some findings, oldest first by id. It may be short or empty although there are more."""

    findings: Sequence[Finding]
    after: str | None
    """The key of the record that was looked at last; None: the list is complete."""


class Findings:
    """Reads the decision log. Every method raises DatabaseUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def coverage(self, seconds: float, now: float) -> Coverage:
        """See `read_coverage`."""
        with begin_read(self._engine) as connection:
            return read_coverage(connection, seconds, now)

    def last_uses(self, grant_ids: Sequence[str]) -> dict[str, float]:
        """Returns when a decision last used each of these grants, in seconds since 1970-01-01 UTC;
        without grants that no logged decision used."""
        found: dict[str, float] = {}
        with begin_read(self._engine) as connection:
            for grant_id in grant_ids:
                values = {"grant_id": filterable(grant_id)}
                row = connection.execute(_LAST_USE, values).one_or_none()
                if row is not None:
                    found[grant_id] = row.last_decided_at or row.decided_at
        return found

    def impersonated(self, window: Window, after: str, limit: int) -> FindingPage:
        """Lists the decisions about a user in whose name another one acted.

        Args:
            window: When they were decided.
            after: `FindingPage.after` of the page before; empty: the first page.
            limit: The largest number of findings.
        """
        return self._page(IMPERSONATED, window, after, limit, _impersonated)

    def granted_after_denial(self, window: Window, after: str, limit: int) -> FindingPage:
        """Lists the allows of a question that the same user was denied within REGRANTED_SECONDS
        before. Args: As `impersonated`."""
        return self._page(ALLOWED, window, after, limit, _granted_after_denial)

    def first_accesses(self, window: Window, after: str, limit: int) -> FindingPage:
        """Lists the allows that are the first logged ones of their user and permission. Args: As
        `impersonated`."""
        return self._page(ALLOWED, window, after, limit, _first_access)

    def _page(
        self,
        condition: str,
        window: Window,
        after: str,
        limit: int,
        examine: Callable[[Connection, DecisionRecord, str], Finding | None],
    ) -> FindingPage:
        column = audit_records.c
        since, until = window
        begin = after or first_id_at(since - _CLOCK_SECONDS)
        statement = (
            select(column.decision_id, *RECORD_COLUMNS)
            .where(text(condition), column.decision_id > begin)
            .where(column.decision_id < first_id_at(until + _CLOCK_SECONDS))
            .where(column.decided_at >= since, column.decided_at < until)
            .order_by(column.decision_id)
            .limit(LOOKED_AT_MAX)
        )
        findings: list[Finding] = []
        key, looked_at = "", 0
        with begin_read(self._engine) as connection:
            for key, *row in connection.execute(statement).all():
                looked_at += 1
                finding = examine(connection, record_of(*row), key)
                if finding is not None:
                    findings.append(finding)
                    if len(findings) == limit:
                        return FindingPage(findings, key)
        return FindingPage(findings, key if looked_at == LOOKED_AT_MAX else None)


def _impersonated(_: Connection, decision: DecisionRecord, key: str) -> Finding:
    return Finding(decision, key)


_column = audit_records.c
# Built once: to build a query costs more than to execute it.
_LAST_USE = (
    select(_column.decided_at, _column.last_decided_at)
    .where(_column.grant_id == bindparam("grant_id"), _column.grant_id.is_not(None))
    .where(func.coalesce(_column.reported_by, "") == "")
    .order_by(_column.decision_id.desc())
    .limit(1)
)
_EARLIER_ALLOW = (
    select(_column.decision_id)
    .where(text(ALLOWED))
    .where(_column.user_id == bindparam("user_id"), _column.permission == bindparam("permission"))
    .where(_column.decision_id < bindparam("decision_id"))
    .limit(1)
)
_DENIAL = (
    select(*RECORD_COLUMNS)
    .where(text(DENIED))
    .where(_column.user_id == bindparam("user_id"), _column.permission == bindparam("permission"))
    .where(_column.decision_id >= bindparam("first"), _column.decision_id < bindparam("end"))
    .where(func.coalesce(_column.last_decided_at, _column.decided_at) >= bindparam("since"))
    .where(_column.decided_at < bindparam("until"))
    .order_by(_column.decision_id.desc())
    .limit(1)
)
_DENIAL_ON_RESOURCE = _DENIAL.where(
    _column.resource_type == bindparam("type"), _column.resource_id == bindparam("id")
)
_DENIAL_ON_NONE = _DENIAL.where(_column.resource_type.is_(None), _column.resource_id.is_(None))


def _granted_after_denial(
    connection: Connection, allow: DecisionRecord, key: str
) -> Finding | None:
    denial = _last_denial(connection, allow)
    return None if denial is None else Finding(allow, key, denial)


def _first_access(connection: Connection, allow: DecisionRecord, key: str) -> Finding | None:
    if allow.actor is None:
        return None
    values = {
        "user_id": filterable(allow.actor.user_id),
        "permission": filterable(allow.permission),
        "decision_id": allow.decision_id,
    }
    is_first = connection.execute(_EARLIER_ALLOW, values).first() is None
    return Finding(allow, key) if is_first else None


def _last_denial(connection: Connection, allow: DecisionRecord) -> DecisionRecord | None:
    """Returns the last denial of the same question within REGRANTED_SECONDS before an allow."""
    if allow.actor is None:
        return None
    since, resource = allow.decided_at - REGRANTED_SECONDS, allow.resource
    values = {
        "user_id": filterable(allow.actor.user_id),
        "permission": filterable(allow.permission),
        "first": first_id_at(since - _CLOCK_SECONDS),
        "end": first_id_at(allow.decided_at + _CLOCK_SECONDS),
        "since": since,
        "until": allow.decided_at,
    }
    statement = _DENIAL_ON_NONE
    if resource is not None:
        statement = _DENIAL_ON_RESOURCE
        values |= {"type": filterable(resource.type), "id": filterable(resource.id)}
    for row in connection.execute(statement, values):
        return record_of(*row)
    return None
