"""What Clerk has said of its objects: the newest of each, and that a deleted one is gone.

Clerk's events come at least once and in any order. What is kept of an object is therefore always
the greatest version that was seen, whoever brought it and when (see `ClerkObject.version`); the
facts follow from that.
"""

import enum
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sqlalchemy import RowMapping, Select, delete, select, tuple_, update

from pdp.facts.store import tables
from pdp.facts.store.bulk import upsert
from pdp.facts.store.changelog import Change, ChangeKind
from pdp.facts.store.rows import check_row
from pdp.facts.store.store import BATCH_ROWS, Reader, Transaction


class ClerkKind(enum.Enum):
    """Which of Clerk's objects are followed."""

    USER = "user"
    ORGANIZATION = "organization"
    MEMBERSHIP = "membership"
    ROLE = "role"
    PERMISSION = "permission"


class ClerkStatus(enum.Enum):
    """What Clerk says an object may still do."""

    ACTIVE = "active"
    BARRED = "barred"
    """Of a user: banned, locked or deprovisioned."""
    DELETED = "deleted"
    """For ever: nothing that is said later brings it back, except another life of a membership."""


@dataclass(frozen=True, slots=True)
class ClerkObject:
    """The newest of what was said of one object."""

    kind: ClerkKind
    id: str
    version: str
    """Of two, the greater (bytewise) stands. See `administrator.observations.version_of`."""
    status: ClerkStatus = ClerkStatus.ACTIVE
    organization_id: str | None = None
    user_id: str | None = None
    """Of a membership: whose it is, as far as it was said."""
    content: Mapping[str, Any] = field(default_factory=dict)
    """What has no table of its own: of a membership `role`; of an organization role `key` and
    `permissions` (pairs of id and key); of an organization permission `key`."""


@dataclass(frozen=True, slots=True)
class SyncState:
    """How far the sync has come."""

    run: int
    """Counts syncs."""
    step: str
    """Empty: none is under way."""
    cursor: str
    due_at: float
    """When the next sync may begin, or another process may take over this one; Unix seconds."""


# --- reading ------------------------------------------------------------------------------------


def read_objects(reader: Reader, kind: ClerkKind, ids: Collection[str]) -> dict[str, ClerkObject]:
    """Those of the objects with these ids of which something was said. Raises
    DatabaseUnavailable."""
    found: dict[str, ClerkObject] = {}
    for batch in _batches(ids):
        query = select(_OBJECTS).where(_OBJECTS.c.kind == kind.value, _OBJECTS.c.id.in_(batch))
        found.update((one.id, one) for one in _objects(reader, query))
    return found


def read_memberships_of(reader: Reader, pairs: Collection[tuple[str, str]]) -> list[ClerkObject]:
    """All that was said of the memberships of these (organization id, user id). Raises
    DatabaseUnavailable."""
    found: list[ClerkObject] = []
    of = tuple_(_OBJECTS.c.organization_id, _OBJECTS.c.user_id)
    for batch in _batches(pairs):
        query = select(_OBJECTS).where(of.in_(batch))
        found += _objects(reader, query)
    return found


def read_objects_not_seen(
    reader: Reader, kind: ClerkKind, run: int, after: str, limit: int
) -> Sequence[ClerkObject]:
    """Objects that still stand and that the sync `run` has not met, by id, behind `after`. Raises
    DatabaseUnavailable."""
    query = (
        select(_OBJECTS)
        .where(
            _OBJECTS.c.kind == kind.value,
            _OBJECTS.c.seen_run < run,
            _OBJECTS.c.id > after,
            _OBJECTS.c.standing != ClerkStatus.DELETED.value,
        )
        .order_by(_OBJECTS.c.id)
        .limit(limit)
    )
    return _objects(reader, query)


def read_memberships_unsaid(
    reader: Reader, after: tuple[str, str], limit: int
) -> Sequence[tuple[str, str]]:
    """(organization id, user id) of memberships that are stored though Clerk has said nothing of
    them while it has spoken of their user, in order, behind `after`. Raises DatabaseUnavailable."""
    stored = tables.memberships.c
    said = select(_OBJECTS.c.id).where(
        _OBJECTS.c.organization_id == stored.organization_id,
        _OBJECTS.c.user_id == stored.user_id,
    )
    known_user = select(_OBJECTS.c.id).where(
        _OBJECTS.c.kind == ClerkKind.USER.value, _OBJECTS.c.id == stored.user_id
    )
    key = tuple_(stored.organization_id, stored.user_id)
    query = (
        select(stored.organization_id, stored.user_id)
        .where(key > tuple_(*after), ~said.exists(), known_user.exists())
        .order_by(stored.organization_id, stored.user_id)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in reader.connection.execute(query)]


def read_sync(reader: Reader) -> SyncState:
    """Raises DatabaseUnavailable."""
    row = reader.connection.execute(select(tables.clerk_sync)).mappings().one()
    return SyncState(row["run"], row["step"], row["cursor"], row["due_at"])


# --- writing ------------------------------------------------------------------------------------


def write_objects(
    transaction: Transaction,
    objects: Iterable[ClerkObject],
    before: Mapping[tuple[ClerkKind, str], ClerkObject],
    run: int = 0,
) -> None:
    """Keeps objects; `before` holds what was kept of them. Touches what decisions read of them
    directly: the standing of a user, organization roles and permissions."""
    rows = []
    for one in objects:
        row = _row_of(one, run)
        check_row(_OBJECTS, row)
        rows.append(row)
        if (change := _change_of(one, before.get((one.kind, one.id)))) is not None:
            transaction.note(change)
    for batch in _batches(rows):
        statement, parameters = upsert(transaction.connection.dialect.name, _OBJECTS, batch)
        transaction.connection.execute(statement, parameters)
    transaction.keep()


def mark_seen(transaction: Transaction, kind: ClerkKind, ids: Collection[str], run: int) -> None:
    """The sync `run` has met these objects."""
    for batch in _batches(ids):
        where = (_OBJECTS.c.kind == kind.value, _OBJECTS.c.id.in_(batch))
        transaction.connection.execute(update(_OBJECTS).where(*where).values(seen_run=run))
    transaction.keep()


def note_message(transaction: Transaction, message_id: str, handled_at: float) -> bool:
    """Takes a message up; False where it was handled before."""
    row = {"id": message_id, "handled_at": handled_at}
    if not transaction.insert_new(tables.webhook_messages, row):
        return False
    transaction.keep()
    return True


def write_sync(transaction: Transaction, state: SyncState) -> None:
    """Writes down how far the sync has come."""
    transaction.connection.execute(
        update(tables.clerk_sync).values(
            run=state.run, step=state.step, cursor=state.cursor, due_at=state.due_at
        )
    )
    transaction.keep()


def forget_old(transaction: Transaction, before: float) -> int:
    """Drops messages that were handled, and sessions that ended at Clerk, before a moment (Unix
    seconds); how many. A session that was revoked here is kept."""
    messages, sessions = tables.webhook_messages, tables.revoked_sessions
    dropped = 0
    for statement in (
        delete(messages).where(messages.c.handled_at < before),
        delete(sessions).where(sessions.c.revoked_at < before),
    ):
        dropped += transaction.connection.execute(statement).rowcount
    transaction.keep()
    return dropped


def _change_of(one: ClerkObject, before: ClerkObject | None) -> Change | None:
    match one.kind:
        case ClerkKind.USER:
            was = before.status if before else ClerkStatus.ACTIVE
            return Change(ChangeKind.USER, (one.id,)) if one.status is not was else None
        case ClerkKind.ROLE | ClerkKind.PERMISSION:
            same = before is not None and (before.status, before.content) == (
                one.status,
                one.content,
            )
            return None if same else Change(ChangeKind.ORGANIZATION_ROLE, (one.id,))
        case ClerkKind.ORGANIZATION | ClerkKind.MEMBERSHIP:
            return None


def _row_of(one: ClerkObject, run: int) -> dict[str, Any]:
    return {
        "kind": one.kind.value,
        "id": one.id,
        "version": one.version,
        "standing": one.status.value,
        "organization_id": one.organization_id,
        "user_id": one.user_id,
        "content": json.dumps(one.content, sort_keys=True, separators=(",", ":")),
        "seen_run": run,
    }


def _objects(reader: Reader, query: Select[Any]) -> list[ClerkObject]:
    return [_from_row(row) for row in reader.connection.execute(query).mappings()]


def _from_row(row: RowMapping) -> ClerkObject:
    return ClerkObject(
        ClerkKind(row["kind"]),
        row["id"],
        row["version"],
        ClerkStatus(row["standing"]),
        row["organization_id"],
        row["user_id"],
        json.loads(row["content"]),
    )


def _batches(values: Iterable[Any]) -> Iterable[list[Any]]:
    iterator = iter(values)
    while batch := list(islice(iterator, BATCH_ROWS)):
        yield batch


_OBJECTS = tables.clerk_objects
