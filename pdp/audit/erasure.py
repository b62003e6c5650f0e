"""Erases personal data from records on request: tombstones take the place of their texts.

A transaction takes some records: it checks the holds, writes the tombstones, and writes an
administration record with the place and the digest of each tombstone. So it is known who erased,
when, why and how many denials, and a text that is missing for another reason does not pass as
erased.

Against holds and archives that run concurrently: `retention.lock_retention`. Against the shipper: a
row that exists is not inserted again. Records that are still in segments are left to a later run.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Engine, and_, func, or_, select, text, update

from pdp.audit.records import new_decision_id
from pdp.audit.retention import Recording, holds_in, lock_retention, matches
from pdp.audit.rows import filterable, payload_of
from pdp.audit.segments import Log
from pdp.audit.tables import ERASED_GRANT, IMPERSONATED, audit_records
from pdp.audit.tombstones import new_tombstone, tombstone_of
from pdp.database.administration_table import administration_records
from pdp.database.bulk import batches
from pdp.database.engine import begin_read, extended_timeouts, overwrite_deleted
from pdp.model import Effect

KIND: Final = "erasure"
"""The kind of the administration records of erasures."""
USER_TYPE: Final = "user"
"""The type of users as resources, e.g. in records of `pdp review user`."""
BATCH_RECORDS: Final = 200
"""In one transaction. Its administration record has about 80 bytes for each."""

Place = tuple[Log, int]
"""A log and a position in it."""


class ErasureRequest(NamedTuple):
    """Whose records to erase."""

    user_id: str
    """The records name this user as actor, as impersonator or as resource."""
    before: float
    """They were decided before; seconds since 1970-01-01 UTC."""
    resource_types: Collection[str] = (USER_TYPE,)
    """Of resources with the id of the user: those that are this person."""

    def concerns(self, record: bytes) -> Mapping[str, Any] | None:
        """Returns the parsed text of a record that is to be erased; None: it is another one, or is
        erased."""
        if json.dumps(self.user_id).encode() not in record:
            return None
        data: dict[str, Any] = json.loads(record)
        actor, resource = data.get("actor") or {}, data.get("resource") or {}
        names = [actor.get("user_id"), actor.get("impersonator_id")]
        if resource.get("type") in self.resource_types:
            names.append(resource.get("id"))
        is_meant = self.user_id in names and float(data["decided_at"]) < self.before
        return data if is_meant and tombstone_of(record) is None else None


class Erasable(NamedTuple):
    """A record that an erasure concerns."""

    place: Place
    row: Mapping[str, Any]
    """Its columns, for the filters of holds."""
    text: bytes
    data: Mapping[str, Any]


@dataclass(slots=True)
class ErasureReport:
    """What was erased."""

    records: int = 0
    denials: int = 0
    """Of these records."""
    unsalted: int = 0
    """Of these records: an earlier version wrote them without a salt."""
    held: int = 0
    """Records that a hold keeps."""


Write = Callable[[], AbstractContextManager[Recording]]


def erase_rows(
    engine: Engine, write: Write, request: ErasureRequest, at: float, report: ErasureReport
) -> None:
    """Erases records in SQL.

    Args:
        engine: The database.
        write: Begins a transaction in the name of the author.
        request: Whose records.
        at: The time of the erasure; seconds since 1970-01-01 UTC.
        report: Gets what was done.

    Raises:
        DatabaseUnavailable: The database does not answer. Earlier batches are committed.
    """
    column = audit_records.c
    for keys in batches(_find(engine, request), BATCH_RECORDS):
        with write() as transaction:
            connection = transaction.connection
            overwrite_deleted(connection)
            lock_retention(connection)
            batch = column.decision_id.in_(keys)
            statement = select(audit_records).where(batch).order_by(column.decision_id)
            found = {}
            for row in connection.execute(statement.with_for_update()).mappings():
                record = payload_of(row["record"])
                data = request.concerns(record)
                if data is not None:
                    place = Log(row["origin"], row["log_id"]), row["position"]
                    found[place] = Erasable(place, dict(row), record, data)
            tombstones = entomb(transaction, list(found.values()), at, report)
            for place, tombstone in tombstones.items():
                connection.execute(
                    update(audit_records)
                    .where(column.decision_id == found[place].row["decision_id"])
                    .values(
                        record=tombstone.decode("ascii"),
                        user_id=None,
                        organization_id=None,
                        resource_type=None,
                        resource_id=None,
                        grant_id=found[place].row["grant_id"] and ERASED_GRANT,
                    )
                )


def entomb(
    transaction: Recording, found: Sequence[Erasable], at: float, report: ErasureReport
) -> dict[Place, bytes]:
    """Makes tombstones of the records that no hold keeps, and records the erasure.

    Args:
        transaction: Holds `lock_retention`. It is discarded if nothing is to be erased.
        found: The records.
        at: The time of the erasure.
        report: Gets what was done.

    Returns:
        The tombstones, by place.
    """
    holds = holds_in(transaction.connection)
    erasure = new_decision_id()
    tombstones: dict[Place, bytes] = {}
    listed: dict[str, dict[str, str]] = {}
    denials = unsalted = 0
    for item in found:
        if any(matches(hold.filter, item.row) for hold in holds):
            report.held += 1
            continue
        tombstone = new_tombstone(item.data, item.text, erasure, at)
        tombstones[item.place] = tombstone
        log, position = item.place
        places = listed.setdefault(f"{log.origin} {log.log_id}", {})
        places[str(position)] = sha256(tombstone).hexdigest()
        denials += item.data["effect"] == Effect.DENY.name
        unsalted += "salt" not in item.data
    if not tombstones:
        transaction.discard()
        return {}
    counts = {"count": len(tombstones), "denials": denials, "unsalted": unsalted}
    transaction.record_event(KIND, (erasure,), None, {**counts, "records": listed})
    report.records += len(tombstones)
    report.denials += denials
    report.unsalted += unsalted
    return tombstones


def recorded_tombstones(connection: Connection) -> dict[Place, set[str]]:
    """Returns the digests of all tombstones that administration records list, by place.

    Needs memory for each erased record.
    """
    column = administration_records.c
    found: dict[Place, set[str]] = {}
    for record in connection.execute(select(column.record).where(column.kind == KIND)).scalars():
        for name, places in json.loads(record)["after"]["records"].items():
            origin, _, log_id = name.rpartition(" ")
            for position, digest in places.items():
                found.setdefault((Log(origin, log_id), int(position)), set()).add(digest)
    return found


def last_erasure(connection: Connection) -> int:
    """Returns the revision of the last erasure; 0: there was none."""
    column = administration_records.c
    statement = select(func.max(column.revision)).where(column.kind == KIND)
    return connection.execute(statement).scalar() or 0


def other_resources(engine: Engine, request: ErasureRequest) -> dict[str, int]:
    """Returns how many records in SQL name a resource with the id of the user that is not this
    person, by type. Raises DatabaseUnavailable."""
    column = audit_records.c
    statement = (
        select(column.resource_type, func.count())
        .where(column.resource_id == filterable(request.user_id))
        .where(column.decided_at < request.before)
        .where(column.resource_type.not_in([filterable(t) for t in request.resource_types]))
        .group_by(column.resource_type)
        .order_by(column.resource_type)
    )
    with begin_read(engine) as connection, extended_timeouts(connection):
        return {row[0]: row[1] for row in connection.execute(statement)}


def _find(engine: Engine, request: ErasureRequest) -> list[str]:
    """Returns the keys of rows that may be meant, in a read: writers need not wait for a scan."""
    column = audit_records.c
    user = filterable(request.user_id)
    types = [filterable(name) for name in request.resource_types]
    impersonator = '{"actor":{"impersonator_id":' + json.dumps(request.user_id)
    statement = (
        select(column.decision_id)
        .where(
            column.decided_at < request.before,
            or_(
                column.user_id == user,
                and_(column.resource_id == user, column.resource_type.in_(types)),
                and_(text(IMPERSONATED), column.record.startswith(impersonator, autoescape=True)),
            ),
        )
        .order_by(column.decision_id)
    )
    with begin_read(engine) as connection, extended_timeouts(connection):
        return list(connection.execute(statement).scalars())
