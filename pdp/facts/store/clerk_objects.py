"""The newest state of each object that Clerk has reported; deleted objects stay as tombstones.

Clerk delivers events at least once and in any order. So the greatest version of an object wins,
whatever its source and time (see `ClerkObject.version`). The facts are derived from these states.

Every function raises `DatabaseUnavailable` if the database does not answer.
"""

import enum
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import RowMapping, Select, delete, select, tuple_, update

from pdp.database.bulk import batches, upsert
from pdp.facts.store import tables
from pdp.facts.store.changelog import Change, ChangeKind
from pdp.facts.store.reader import Reader
from pdp.facts.store.rows import check_row
from pdp.facts.store.transaction import Transaction


class ClerkKind(enum.Enum):
    """The kinds of objects that are copied from Clerk."""

    USER = "user"
    ORGANIZATION = "organization"
    MEMBERSHIP = "membership"
    ROLE = "role"
    PERMISSION = "permission"


class ClerkStatus(enum.Enum):
    """The status of an object, as Clerk reported it."""

    ACTIVE = "active"
    BARRED = "barred"
    """A user that is banned, locked or deprovisioned."""
    DELETED = "deleted"
    """Permanent: no later event restores the object, except a membership that is created again."""


@dataclass(frozen=True, slots=True)
class ClerkObject:
    """The newest reported state of one object."""

    kind: ClerkKind
    id: str
    version: str
    """The bytewise greater of two versions wins. See `pdp.clerk.observations.version_of`."""
    status: ClerkStatus = ClerkStatus.ACTIVE
    organization_id: str | None = None
    user_id: str | None = None
    """Organization and user of a membership, if they were reported."""
    content: Mapping[str, Any] = field(default_factory=dict)
    """Fields without a table of their own. Membership: `role`. Organization role: `key` and
    `permissions` (pairs of id and key). Organization permission: `key`."""


@dataclass(frozen=True, slots=True)
class SyncState:
    """The progress of the sync."""

    run: int
    """Number of the sync."""
    step: str
    """The current phase; empty: no sync is running."""
    cursor: str
    due_at: float
    """When the next sync may begin, or another process may take this one over; Unix seconds."""


# --- reading ------------------------------------------------------------------------------------


def read_objects(reader: Reader, kind: ClerkKind, ids: Collection[str]) -> dict[str, ClerkObject]:
    """Returns the objects with these ids that Clerk has reported, by id."""
    found: dict[str, ClerkObject] = {}
    for batch in batches(ids):
        query = select(_OBJECTS).where(_OBJECTS.c.kind == kind.value, _OBJECTS.c.id.in_(batch))
        found.update((object_.id, object_) for object_ in _objects(reader, query))
    return found


def read_memberships_of(reader: Reader, pairs: Collection[tuple[str, str]]) -> list[ClerkObject]:
    """Returns all reported memberships of these pairs (organization id, user id)."""
    found: list[ClerkObject] = []
    of = tuple_(_OBJECTS.c.organization_id, _OBJECTS.c.user_id)
    for batch in batches(pairs):
        query = select(_OBJECTS).where(of.in_(batch))
        found += _objects(reader, query)
    return found


def read_objects_not_seen(
    reader: Reader, kind: ClerkKind, run: int, after: str, limit: int
) -> Sequence[ClerkObject]:
    """Returns objects that are not deleted and that the sync `run` has not seen, by id, after
    `after`.
    """
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


def read_unreported_memberships(
    reader: Reader, after: tuple[str, str], limit: int
) -> Sequence[tuple[str, str]]:
    """Returns stored memberships that Clerk has not reported although it has reported their users.

    Returns:
        Pairs (organization id, user id), in order, after `after`.
    """
    stored = tables.memberships.c
    reported = select(_OBJECTS.c.id).where(
        _OBJECTS.c.organization_id == stored.organization_id,
        _OBJECTS.c.user_id == stored.user_id,
    )
    known_user = select(_OBJECTS.c.id).where(
        _OBJECTS.c.kind == ClerkKind.USER.value, _OBJECTS.c.id == stored.user_id
    )
    key = tuple_(stored.organization_id, stored.user_id)
    query = (
        select(stored.organization_id, stored.user_id)
        .where(key > tuple_(*after), ~reported.exists(), known_user.exists())
        .order_by(stored.organization_id, stored.user_id)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in reader.connection.execute(query)]


def read_sync(reader: Reader) -> SyncState:
    """Returns the progress of the sync."""
    row = reader.connection.execute(select(tables.clerk_sync)).mappings().one()
    return SyncState(row["run"], row["step"], row["cursor"], row["due_at"])


# --- writing ------------------------------------------------------------------------------------


def write_objects(
    transaction: Transaction,
    objects: Iterable[ClerkObject],
    before: Mapping[tuple[ClerkKind, str], ClerkObject],
    run: int = 0,
) -> None:
    """Stores objects, and records changes to what decisions read directly: the status of a user,
    organization roles and permissions.

    Args:
        transaction: The transaction to write in.
        objects: The new states.
        before: The stored states, by kind and id.
        run: The sync that saw the objects; 0: a webhook or a token reported them.
    """
    rows = []
    for object_ in objects:
        row = _row_of(object_, run)
        check_row(_OBJECTS, row)
        rows.append(row)
        known = before.get((object_.kind, object_.id))
        if (change := _change_of(object_, known)) is not None:
            kind = _RECORDED_KINDS[object_.kind]
            transaction.touch(change, kind, (object_.id,), _recorded(known), _recorded(object_))
    for batch in batches(rows):
        statement, parameters = upsert(transaction.connection.dialect.name, _OBJECTS, batch)
        transaction.connection.execute(statement, parameters)
    transaction.mark_written()


def mark_seen(transaction: Transaction, kind: ClerkKind, ids: Collection[str], run: int) -> None:
    """Records that the sync `run` has seen these objects."""
    for batch in batches(ids):
        where = (_OBJECTS.c.kind == kind.value, _OBJECTS.c.id.in_(batch))
        transaction.connection.execute(update(_OBJECTS).where(*where).values(seen_run=run))
    transaction.mark_written()


def record_message(transaction: Transaction, message_id: str, handled_at: float) -> bool:
    """Records a webhook message as handled; False: it was handled before."""
    row = {"id": message_id, "handled_at": handled_at}
    if not transaction.insert_new(tables.webhook_messages, row):
        return False
    transaction.mark_written()
    return True


def write_sync(transaction: Transaction, state: SyncState) -> None:
    """Stores the progress of the sync."""
    transaction.connection.execute(
        update(tables.clerk_sync).values(
            run=state.run, step=state.step, cursor=state.cursor, due_at=state.due_at
        )
    )
    transaction.mark_written()


def delete_expired(transaction: Transaction, before: float) -> int:
    """Deletes messages that were handled, and sessions that ended at Clerk, before a time.

    A session that was revoked through this service is never deleted.

    Args:
        transaction: The transaction to write in.
        before: Unix seconds.

    Returns:
        The number of deleted rows.
    """
    messages, sessions = tables.webhook_messages, tables.revoked_sessions
    dropped = 0
    for statement in (
        delete(messages).where(messages.c.handled_at < before),
        delete(sessions).where(sessions.c.revoked_at < before),
    ):
        dropped += transaction.connection.execute(statement).rowcount
    transaction.mark_written()
    return dropped


def _recorded(object_: ClerkObject | None) -> dict[str, Any] | None:
    """What the administration record of an object holds."""
    return None if object_ is None else {"status": object_.status.value, **object_.content}


def _change_of(object_: ClerkObject, before: ClerkObject | None) -> Change | None:
    match object_.kind:
        case ClerkKind.USER:
            was = before.status if before else ClerkStatus.ACTIVE
            return Change(ChangeKind.USER, (object_.id,)) if object_.status is not was else None
        case ClerkKind.ROLE | ClerkKind.PERMISSION:
            same = before is not None and (before.status, before.content) == (
                object_.status,
                object_.content,
            )
            return None if same else Change(ChangeKind.ORGANIZATION_ROLE, (object_.id,))
        case ClerkKind.ORGANIZATION | ClerkKind.MEMBERSHIP:
            return None


def _row_of(object_: ClerkObject, run: int) -> dict[str, Any]:
    return {
        "kind": object_.kind.value,
        "id": object_.id,
        "version": object_.version,
        "standing": object_.status.value,
        "organization_id": object_.organization_id,
        "user_id": object_.user_id,
        "content": json.dumps(object_.content, sort_keys=True, separators=(",", ":")),
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


_OBJECTS = tables.clerk_objects
_RECORDED_KINDS = {
    ClerkKind.USER: "clerk_user",
    ClerkKind.ROLE: "organization_role",
    ClerkKind.PERMISSION: "organization_permission",
}
"""Of the objects that decisions read directly."""
