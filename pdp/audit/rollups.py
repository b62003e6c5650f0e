"""Counts of decisions per minute and per hour, written with the records that they count.

A chart of a day must not read a million records. The counts are of the same transaction as the
records, and only of records that are new in it: a log that is shipped twice is counted once.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from pdp.audit.rows import Row
from pdp.audit.tables import audit_records, audit_rollups
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


class Rollups:
    """The counts of one commit."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, str, int, str]] = Counter()

    def add(self, row: Mapping[str, Any], at: float, decisions: int = 1) -> None:
        """Counts decisions of a record at a time, in seconds since 1970."""
        if row["reason"] == Reason.QUERY_ANSWERED.name:
            return
        counted = {EFFECT: row["effect"]}
        if row["effect"] == Effect.DENY.name:
            counted |= {name: row[column] or "" for name, column in DIMENSIONS.items()}
        for step in (MINUTE, HOUR):
            start = int(at // step) * step
            for dimension, value in counted.items():
                self._counts[step, dimension, start, value] += decisions

    def write(self, connection: Connection) -> None:
        """Adds the counts to those in SQL. Last in a transaction, since others wait for the same
        rows; in the order of the keys, so that two of them do not wait for each other."""
        if not self._counts:
            return
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(audit_rollups)
        total = audit_rollups.c.decisions + statement.excluded.decisions
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["step", "dimension", "start", "value"],
                set_={"decisions": total},
            ),
            [
                dict(zip(("step", "dimension", "start", "value"), key, strict=True))
                | {"decisions": count}
                for key, count in sorted(self._counts.items())
            ],
        )


def new_rows(connection: Connection, rows: Sequence[Row]) -> list[Row]:
    """The rows of records that are not in SQL yet, each once."""
    if not rows:
        return []
    column = audit_records.c.decision_id
    found = {row["decision_id"]: row for row in reversed(rows)}
    known = set(connection.execute(select(column).where(column.in_(found))).scalars())
    return [row for key, row in found.items() if key not in known]
