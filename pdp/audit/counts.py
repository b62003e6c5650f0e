"""Count frames, which state how often a record has occurred, and their effect in SQL.

A count frame has the kind of a gap, with 0 dropped records: a version that does not know counts
reads it as an empty gap.
"""

import json
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from pdp.audit.records import MalformedRecordError
from pdp.audit.rollups import Rollups
from pdp.audit.rows import Row, filterable, row_key
from pdp.audit.segments import Frame, Log
from pdp.audit.tables import audit_counts, audit_records
from pdp.database.bulk import insert_into

_OCCURRENCES_MAX: Final = (1 << 63) - 1


class Count(NamedTuple):
    """The number of occurrences of a record, at the time of the count frame."""

    decision_id: str
    occurrences: int
    last_decided_at: float


def encode_count(decision_id: str, occurrences: int, last_decided_at: float) -> bytes:
    """Returns the canonical payload of a count frame."""
    return (
        f'{{"count":{occurrences:d},"decision_id":{json.dumps(decision_id)},"dropped":0,'
        f'"noticed_at":{last_decided_at!r}}}'
    ).encode("ascii")


def count_of(payload: bytes) -> Count | None:
    """Decodes a count; None: the payload is a gap. Raises MalformedRecordError."""
    try:
        data = json.loads(payload)
        if "count" not in data:
            return None
        count = Count(data["decision_id"], data["count"], float(data["noticed_at"]))
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        raise MalformedRecordError("not a count") from None
    if not (
        type(count.decision_id) is str
        and type(count.occurrences) is int
        and 0 < count.occurrences <= _OCCURRENCES_MAX
        and data.get("dropped") == 0
    ):
        raise MalformedRecordError("not a count")
    return count


@dataclass(slots=True)
class Counts:
    """The count frames of one commit."""

    log: Log
    reported_by: str | None = None
    _latest: dict[str, tuple[Count, int]] = field(default_factory=dict)
    """By key of the record's row: the highest count, and the position of its frame."""
    _runs: list[Row] = field(default_factory=list)

    def add(self, frame: Frame, count: Count) -> None:
        """Adds the next count frame of the log."""
        key = row_key(filterable(count.decision_id), self.reported_by)
        known = self._latest.get(key)
        if known is None or known[0].occurrences < count.occurrences:
            self._latest[key] = count, frame.position
        run = self._runs[-1] if self._runs else None
        if run is not None and run["position"] + run["frames"] == frame.position:
            run["frames"] += 1
            run["digest"] = frame.after.digest
            return
        self._runs.append(
            {
                "origin": self.log.origin,
                "log_id": self.log.log_id,
                "segment": frame.after.sequence,
                "position": frame.position,
                "frames": 1,
                "digest": frame.after.digest,
            }
        )

    def write(self, connection: Connection, rollups: Rollups) -> list[tuple[int, str]]:
        """Updates the counts of the records' rows, and stores which frames were counts. `rollups`
        gets the occurrences that are new.

        Returns:
            Position and problem of each count whose record is missing.
        """
        if not self._latest:
            return []
        _write_runs(connection, self._runs)
        column = audit_records.c
        before = select(audit_records).where(column.decision_id.in_(self._latest))
        for row in connection.execute(before).mappings():
            count = self._latest[row["decision_id"]][0]
            if count.occurrences > row["occurrences"]:
                added = count.occurrences - row["occurrences"]
                rollups.add(dict(row), count.last_decided_at, added)
        # A count that is shipped twice or late must not lower a higher one.
        statement = (
            update(audit_records)
            .where(column.decision_id == bindparam("key"), column.occurrences < bindparam("n"))
            .values(occurrences=bindparam("n"), last_decided_at=bindparam("at"))
        )
        values = [
            {"key": key, "n": count.occurrences, "at": count.last_decided_at}
            for key, (count, _) in sorted(self._latest.items())
        ]
        if connection.execute(statement, values).rowcount == len(values):
            return []
        there = select(column.decision_id).where(column.decision_id.in_(self._latest))
        missing = self._latest.keys() - set(connection.execute(there).scalars())
        return [(self._latest[key][1], "counts a record that is not here") for key in missing]


def _write_runs(connection: Connection, runs: list[Row]) -> None:
    statement = insert_into(connection, audit_counts)
    new = statement.excluded
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["origin", "log_id", "segment", "position"],
            set_={"frames": new.frames, "digest": new.digest},
            where=new.frames > audit_counts.c.frames,
        ),
        runs,
    )
