"""The audit records that have arrived in SQL."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Engine, func, select

from pdp.audit.tables import audit_records
from pdp.database.engine import begin_read


def shipped_ids(engine: Engine) -> list[str]:
    """The ids of all records, in order."""
    with begin_read(engine) as connection:
        statement = select(audit_records.c.decision_id).order_by(audit_records.c.decision_id)
        return list(connection.execute(statement).scalars())


def shipped_occurrences(engine: Engine, ids: Sequence[str]) -> Counter[str]:
    """How many decisions each of these records counts."""
    with begin_read(engine) as connection:
        column = audit_records.c
        statement = select(column.decision_id, column.occurrences).where(
            column.decision_id.in_(ids)
        )
        return Counter({row.decision_id: row.occurrences for row in connection.execute(statement)})


def shipped_count(engine: Engine) -> int:
    """How many records there are."""
    with begin_read(engine) as connection:
        return connection.execute(select(func.count()).select_from(audit_records)).scalar_one()


class KeepAll:
    """Keeps every segment."""

    def may_delete(self, segment: Path, log_id: str, position: int) -> bool:
        return False

    def note_lost_rows(self, segment: Path, log_id: str) -> None:
        raise AssertionError(segment, log_id)
