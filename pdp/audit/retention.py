"""Legal holds, and what of each log is archived and no longer in SQL."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from sqlalchemy import (
    Connection,
    Engine,
    and_,
    delete,
    false,
    func,
    insert,
    not_,
    or_,
    select,
)

from pdp.audit.decision_filters import DecisionFilter, conditions
from pdp.audit.rows import filterable
from pdp.audit.segments import Log, Place
from pdp.audit.tables import (
    audit_archived,
    audit_counts,
    audit_gaps,
    audit_holds,
    audit_records,
)
from pdp.database.engine import begin_read, lock_table
from pdp.errors import AlreadyExists, InvalidRequest, NotFound, Violation
from pdp.model import Effect, Reason

KIND: Final = "hold"
"""The kind of the administration records of holds."""


class Recording(Protocol):
    """A transaction that writes administration records."""

    @property
    def connection(self) -> Connection:
        """The connection, in the transaction."""

    def record_event(
        self,
        kind: str,
        key: tuple[str, ...],
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> None:
        """Records something that no decision reads."""

    def discard(self) -> None:
        """Rolls back at the end."""


class Archived(NamedTuple):
    """How far a log is archived."""

    end: Place
    """After the last archived frame; its offset is meaningless."""
    records: int = 0
    decisions: int = 0
    dropped: int = 0
    """Totals of what was removed from SQL."""


class Hold(NamedTuple):
    """Records that match the filter stay in SQL."""

    name: str
    filter: DecisionFilter
    placed_at: float


def archived_places(connection: Connection) -> dict[Log, Archived]:
    """Returns how far each log is archived."""
    return {
        Log(row["origin"], row["log_id"]): Archived(
            Place(row["segment"], 0, row["position"], bytes(row["digest"])),
            row["records"],
            row["decisions"],
            row["dropped"],
        )
        for row in connection.execute(select(audit_archived)).mappings()
    }


def archived_position(connection: Connection, log: Log) -> int:
    """Returns the position before which a log is archived."""
    column = audit_archived.c
    statement = select(column.position).where(
        column.origin == log.origin, column.log_id == log.log_id
    )
    return connection.execute(statement).scalar() or 0


def prune(connection: Connection, log: Log, first: int, end: Place) -> int:
    """Removes the rows of archived frames, except records that a hold keeps.

    Args:
        connection: In a transaction that writes.
        log: The log.
        first: The position of the first frame.
        end: The place after the last frame.

    Returns:
        The number of records that were kept.
    """
    before = archived_places(connection).get(log, Archived(end))
    records, gaps, counts = audit_records.c, audit_gaps.c, audit_counts.c
    mine = and_(
        records.origin == log.origin,
        records.log_id == log.log_id,
        records.position >= first,
        records.position < end.position,
    )
    held = or_(*(and_(*conditions(hold.filter)) for hold in holds_in(connection)), false())
    total, decisions = connection.execute(
        select(func.count(), func.coalesce(func.sum(records.occurrences), 0)).where(
            mine, not_(held)
        )
    ).one()
    kept: int = connection.execute(
        select(func.count()).select_from(audit_records).where(mine, held)
    ).scalar_one()
    connection.execute(delete(audit_records).where(mine, not_(held)))
    lost = and_(
        gaps.origin == log.origin,
        gaps.log_id == log.log_id,
        gaps.position >= first,
        gaps.position < end.position,
    )
    dropped = connection.execute(
        select(func.coalesce(func.sum(gaps.dropped), 0)).where(lost)
    ).scalar_one()
    connection.execute(delete(audit_gaps).where(lost))
    connection.execute(
        delete(audit_counts).where(
            counts.origin == log.origin,
            counts.log_id == log.log_id,
            counts.position >= first,
            counts.position + counts.frames <= end.position,
        )
    )
    archived = audit_archived.c
    connection.execute(
        delete(audit_archived).where(archived.origin == log.origin, archived.log_id == log.log_id)
    )
    connection.execute(
        insert(audit_archived).values(
            origin=log.origin,
            log_id=log.log_id,
            segment=end.sequence,
            position=end.position,
            digest=end.digest,
            records=before.records + total,
            decisions=before.decisions + int(decisions),
            dropped=before.dropped + int(dropped),
        )
    )
    return kept


def lock_retention(connection: Connection) -> None:
    """Waits for others that archive, erase or place a hold; until the end, they wait for this."""
    lock_table(connection, "audit_holds")


def matches(where: DecisionFilter, row: Mapping[str, Any]) -> bool:
    """Returns whether a row matches a filter; as `decision_filters.conditions` in SQL."""
    wanted = {name: value for name, value in asdict(where).items() if value is not None}
    not_before, before = wanted.pop("not_before", None), wanted.pop("before", None)
    if not_before is not None and row["decided_at"] < not_before:
        return False
    if before is not None and row["decided_at"] >= before:
        return False
    return all(
        row[name] == (value.name if isinstance(value, Enum) else filterable(value))
        for name, value in wanted.items()
    )


def place_hold(transaction: Recording, hold: Hold) -> None:
    """Keeps the records that match a filter in SQL, and records that.

    Raises:
        AlreadyExists: There is a hold with this name.
        InvalidRequest: The filter matches everything.
    """
    content = _content(hold)
    if not content:
        raise InvalidRequest(Violation("filter", "matches every record: name a part of the log"))
    connection = transaction.connection
    lock_retention(connection)
    if any(known.name == hold.name for known in holds_in(connection)):
        raise AlreadyExists("hold", hold.name)
    stored = json.dumps(content, sort_keys=True)
    connection.execute(
        insert(audit_holds).values(name=hold.name, filter=stored, placed_at=hold.placed_at)
    )
    transaction.record_event(KIND, (hold.name,), None, _recorded(content))


def list_holds(engine: Engine) -> Sequence[Hold]:
    """Returns all holds, by name. Raises DatabaseUnavailable."""
    with begin_read(engine) as connection:
        return holds_in(connection)


def release_hold(transaction: Recording, name: str) -> None:
    """Removes a hold, and records that. Raises NotFound."""
    connection = transaction.connection
    lock_retention(connection)
    found = [hold for hold in holds_in(connection) if hold.name == name]
    if not found:
        raise NotFound("hold", name)
    connection.execute(delete(audit_holds).where(audit_holds.c.name == name))
    transaction.record_event(KIND, (name,), _recorded(_content(found[0])), None)


def _recorded(content: Mapping[str, Any]) -> dict[str, Any]:
    # Not the values: they may name a user, and the log of changes is never erased.
    return {"filter_by": sorted(content)}


def _content(hold: Hold) -> dict[str, Any]:
    return {
        name: value.name if isinstance(value, Enum) else value
        for name, value in asdict(hold.filter).items()
        if value is not None
    }


def holds_in(connection: Connection) -> list[Hold]:
    """Returns all holds, by name."""
    statement = select(audit_holds).order_by(audit_holds.c.name)
    return [
        Hold(row["name"], _filter(row["filter"]), row["placed_at"])
        for row in connection.execute(statement).mappings()
    ]


def _filter(stored: str) -> DecisionFilter:
    # A field that this version does not know must not widen a hold to nothing: it is an error.
    content = json.loads(stored)
    unknown = set(content) - {field.name for field in fields(DecisionFilter)}
    if unknown:
        raise InvalidRequest(Violation("filter", f"has fields of a newer version: {unknown}"))
    if "effect" in content:
        content["effect"] = Effect[content["effect"]]
    if "reason" in content:
        content["reason"] = Reason[content["reason"]]
    return DecisionFilter(**content)
