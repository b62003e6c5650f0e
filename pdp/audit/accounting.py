"""Accounts for every decision: records, what they count, and what the log states as dropped."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Engine, func, select

from pdp.audit.retention import Archived, archived_places
from pdp.audit.segments import Log, Place
from pdp.audit.tables import audit_gaps, audit_records, audit_shipping
from pdp.database.engine import begin_read, extended_timeouts


@dataclass(frozen=True, slots=True)
class Account:
    """The decisions of one log in SQL, with what was archived."""

    log: Log
    records: int
    recorded: int
    """Decisions that these records count: an equal denial raises the count of a record."""
    dropped: int
    """Decisions without a record, as the log itself states."""

    @property
    def decisions(self) -> int:
        """All decisions of the log."""
        return self.recorded + self.dropped


def account(engine: Engine) -> Iterator[Account]:
    """Yields the account of each log, in one snapshot. Raises DatabaseUnavailable."""
    records, gaps = audit_records.c, audit_gaps.c
    with begin_read(engine) as connection, extended_timeouts(connection):
        recorded = {
            Log(row[0], row[1]): (row[2], int(row[3]))
            for row in connection.execute(
                select(
                    records.origin, records.log_id, func.count(), func.sum(records.occurrences)
                ).group_by(records.origin, records.log_id)
            )
        }
        dropped = {
            Log(row[0], row[1]): int(row[2])
            for row in connection.execute(
                select(gaps.origin, gaps.log_id, func.sum(gaps.dropped)).group_by(
                    gaps.origin, gaps.log_id
                )
            )
        }
        archived = archived_places(connection)
        logs = connection.execute(select(audit_shipping.c.origin, audit_shipping.c.log_id))
        nothing = Archived(Place(0, 0, 0, b""))
        for log in sorted({Log(*row) for row in logs} | recorded.keys() | dropped.keys()):
            count, decisions = recorded.get(log, (0, 0))
            old = archived.get(log, nothing)
            yield Account(
                log,
                count + old.records,
                decisions + old.decisions,
                dropped.get(log, 0) + old.dropped,
            )
