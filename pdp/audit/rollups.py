"""Counts of decisions per minute and per hour, written with the records that they count.

A chart of a day must not read a million records. The counts are written in the transaction of the
records, for new records only: a log that is shipped twice is counted once.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, select

from pdp.audit.rows import Row, insert_new
from pdp.audit.tables import audit_records, audit_rollups
from pdp.database.bulk import insert_into
from pdp.model import Effect, Reason

MINUTE: Final = 60
HOUR: Final = 3600
EFFECT: Final = "effect"
"""The dimension of all decisions, by effect. The others are of denials."""
DIMENSIONS: Final = {
    "reason": "reason",
    "permission": "permission",
    "caller": "caller",
    "organization": "organization_id",
}
"""By dimension: the column of a record that holds its value."""


class RecordsRepeated(Exception):
    """Some records are in SQL already: roll back, and repeat the transaction as such."""


class Rollups:
    """The counts of one commit."""

    def __init__(self) -> None:
        self._minutes: Counter[tuple[int, str, str, str, str, str]] = Counter()
        """By minute, effect, and the values of DIMENSIONS: one key for each record is cheap."""

    def add(self, row: Mapping[str, Any], at: float, decisions: int = 1) -> None:
        """Counts decisions of a record at a time, in seconds since 1970."""
        if row["reason"] != Reason.QUERY_ANSWERED.name:
            key = (
                int(at // MINUTE),
                row["effect"],
                row["reason"],
                row["permission"],
                row["caller"],
                row["organization_id"] or "",
            )
            self._minutes[key] += decisions

    def counts(self) -> Counter[tuple[int, str, int, str]]:
        """Returns the counts by the primary key of the table."""
        counts: Counter[tuple[int, str, int, str]] = Counter()
        for (minute, effect, *values), decisions in self._minutes.items():
            counted = [(EFFECT, effect)]
            if effect == Effect.DENY.name:
                counted += zip(DIMENSIONS, values, strict=True)
            for step in (MINUTE, HOUR):
                start = minute * MINUTE // step * step
                for dimension, value in counted:
                    counts[step, dimension, start, value] += decisions
        return counts

    def write(self, connection: Connection) -> None:
        """Adds the counts to those in SQL. Last in a transaction, since others wait for the same
        rows; in the order of the keys, so that two of them do not wait for each other."""
        if not self._minutes:
            return
        statement = insert_into(connection, audit_rollups)
        total = audit_rollups.c.decisions + statement.excluded.decisions
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["step", "dimension", "start", "value"],
                set_={"decisions": total},
            ),
            [
                dict(zip(("step", "dimension", "start", "value"), key, strict=True))
                | {"decisions": count}
                for key, count in sorted(self.counts().items())
            ],
        )


def insert_counted(
    connection: Connection, rows: Sequence[Row], rollups: Rollups, *, repeated: bool
) -> bool:
    """Inserts rows of records and counts those that are new; returns whether all were.

    Args:
        connection: In a transaction.
        rows: The rows.
        rollups: Gets what is new.
        repeated: Whether some may be in SQL already; it takes a query to find out.

    Raises:
        RecordsRepeated: Some are, and `repeated` is false.
    """
    new: Sequence[Row] = rows
    if repeated:
        column = audit_records.c.decision_id
        found = {row["decision_id"]: row for row in reversed(rows)}
        known = set(connection.execute(select(column).where(column.in_(found))).scalars())
        new = [row for key, row in found.items() if key not in known]
    all_new = insert_new(connection, audit_records, rows)
    if not (all_new or repeated):
        raise RecordsRepeated
    for row in new:
        rollups.add(row, row["decided_at"])
    return all_new
