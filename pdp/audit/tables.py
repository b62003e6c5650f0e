"""The tables of the decision log. `migrations/` creates the same ones.

`audit_records.record` is the evidence: the canonical bytes of the record, as in the segment. The
other columns are for filters only. A text that a database cannot store or index unchanged (NUL,
lone surrogates, more than 256 characters) is altered there.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy import text as sa_text
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

metadata = MetaData()


def _text() -> TypeEngine[str]:
    """Text that compares byte for byte on both engines (the default on SQLite)."""
    return Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def _partial(name: str, *columns: str, where: str) -> Index:
    """An index of the rows that meet a condition. A query uses it if it repeats the condition."""
    condition = sa_text(where)
    return Index(name, *columns, postgresql_where=condition, sqlite_where=condition)


# Expressions instead of plain comparisons keep SQLite, which has no statistics, from preferring an
# index of those columns.
ALLOW_WITHOUT_GRANT = "CASE WHEN grant_id IS NULL THEN reason END = 'ALLOWED_BY_RULE'"
ERASED_GRANT = ""
"""In place of the grant of a decision whose record was erased: it is not known any more."""
IMPERSONATED = 'substr(record, 1, 28) = \'{"actor":{"impersonator_id":\''
"""The canonical bytes of a record with an impersonator begin so; see records.py."""
ALLOWED = "reason = 'ALLOWED_BY_RULE' AND coalesce(reported_by, '') = ''"
DENIED = "substr(effect, 1) = 'DENY' AND coalesce(reported_by, '') = ''"

# Records whose id is not of the time of their decision: of a clock that was set back, or reported.
# A search by time finds all others by a range of ids (queries.py). The first eight digits of a
# UUIDv7 count units of 65.536 s.
ID_UNIT_SECONDS = 65.536
ID_TIMES = (1_000, 100_000_000_000)
"""Times, in Unix seconds, that ids are compared with; between them, each unit has eight digits."""
_STRAY = (
    "CASE WHEN decided_at BETWEEN {first} AND {last} THEN substr(decision_id, 1, 8) "
    "NOT BETWEEN {before} AND {after} ELSE TRUE END"
)
STRAY = {
    "sqlite": _STRAY.format(
        first=ID_TIMES[0],
        last=ID_TIMES[1],
        before="printf('%08x', CAST(decided_at / 65.536 AS INTEGER) - 1)",
        after="printf('%08x', CAST(decided_at / 65.536 AS INTEGER) + 1)",
    ),
    "postgresql": _STRAY.format(
        first=ID_TIMES[0],
        last=ID_TIMES[1],
        before="lpad(to_hex(CAST(floor(decided_at / 65.536) AS BIGINT) - 1), 8, '0')",
        after="lpad(to_hex(CAST(floor(decided_at / 65.536) AS BIGINT) + 1), 8, '0')",
    ),
}
"""By dialect."""

audit_records = Table(
    "audit_records",
    metadata,
    # For reported records: decision id, slash, reporter. See rows.row_key.
    Column("decision_id", _text(), primary_key=True),
    Column("decided_at", Double, nullable=False),
    Column("effect", _text(), nullable=False),
    Column("reason", _text(), nullable=False),
    Column("permission", _text(), nullable=False),
    Column("caller", _text(), nullable=False),
    Column("user_id", _text()),
    Column("organization_id", _text()),
    Column("resource_type", _text()),
    Column("resource_id", _text()),
    Column("record", Text, nullable=False),
    # The caller that reported the record; NULL: a decision point wrote it.
    Column("reported_by", _text()),
    # The place of the record in the chain of the process that wrote it.
    Column("origin", _text(), nullable=False),
    Column("log_id", _text(), nullable=False),
    Column("segment", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    # The number of equal denials that the record counts, and the time of the last one.
    Column("occurrences", BigInteger, nullable=False, server_default="1"),
    Column("last_decided_at", Double),
    # The grant through which a rule decided; NULL: none did, or an older version wrote the row.
    Column("grant_id", _text()),
    Index(
        "ix_audit_records_stray",
        "decided_at",
        sqlite_where=sa_text(STRAY["sqlite"]),
        postgresql_where=sa_text(STRAY["postgresql"]),
    ),
    Index("ix_audit_records_effect", "effect", "decision_id"),
    Index("ix_audit_records_user", "user_id", "decision_id"),
    Index("ix_audit_records_organization", "organization_id", "decision_id"),
    Index("ix_audit_records_resource", "resource_type", "resource_id", "decision_id"),
    Index("ix_audit_records_permission", "permission", "decision_id"),
    Index("ix_audit_records_reason", "reason", "decision_id"),
    Index("ix_audit_records_caller", "caller", "decision_id"),
    Index("ix_audit_records_reported_by", "reported_by", "decision_id"),
    Index("ix_audit_records_place", "origin", "log_id", "position"),
    _partial("ix_audit_records_grant", "grant_id", "decision_id", where="grant_id IS NOT NULL"),
    _partial("ix_audit_records_allow_without_grant", "decision_id", where=ALLOW_WITHOUT_GRANT),
    _partial("ix_audit_records_impersonated", "decision_id", "reason", where=IMPERSONATED),
    _partial("ix_audit_records_allowed", "user_id", "permission", "decision_id", where=ALLOWED),
    _partial(
        "ix_audit_records_denied",
        *("user_id", "permission", "resource_type", "resource_id", "decision_id"),
        where=DENIED,
    ),
)

# Records that were dropped, between the records around this position.
audit_gaps = Table(
    "audit_gaps",
    metadata,
    Column("origin", _text(), primary_key=True),
    Column("log_id", _text(), primary_key=True),
    Column("segment", BigInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("noticed_at", Double, nullable=False),
    Column("dropped", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
)

# Runs of count frames: `frames` of them, from `position` on. They have no rows of their own.
# `digest` is that of the last one, which the next frame continues.
audit_counts = Table(
    "audit_counts",
    metadata,
    Column("origin", _text(), primary_key=True),
    Column("log_id", _text(), primary_key=True),
    Column("segment", BigInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("frames", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
)

# The progress of each log: the next frame to ship starts at `byte_offset` of `segment`.
audit_shipping = Table(
    "audit_shipping",
    metadata,
    Column("origin", _text(), primary_key=True),
    Column("log_id", _text(), primary_key=True),
    Column("segment", BigInteger, nullable=False),
    Column("byte_offset", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    # The position up to which the log has numbers in `audit_order`.
    Column("numbered", BigInteger, nullable=False, server_default="0"),
)

# The order in which readers see all logs (order.py): records of a log with positions from `first`
# to before `end`.
audit_order = Table(
    "audit_order",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("origin", _text(), nullable=False),
    Column("log_id", _text(), nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("end", BigInteger, nullable=False),
)

# How far each log is archived: the frames before `position`. `segment` and `digest` are those of
# the last of them, and the numbers are the totals of what was removed here.
audit_archived = Table(
    "audit_archived",
    metadata,
    Column("origin", _text(), primary_key=True),
    Column("log_id", _text(), primary_key=True),
    Column("segment", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("decisions", BigInteger, nullable=False),
    Column("dropped", BigInteger, nullable=False),
)

# Records that match one of these filters stay in SQL (retention.py).
audit_holds = Table(
    "audit_holds",
    metadata,
    Column("name", _text(), primary_key=True),
    Column("filter", Text, nullable=False),
    Column("placed_at", Double, nullable=False),
)

# For how long each server process logs, whether it logs allows, and up to when its log is complete
# in SQL (coverage.py). Seconds since 1970-01-01 UTC, by the clock of the process.
audit_periods = Table(
    "audit_periods",
    metadata,
    Column("id", _text(), primary_key=True),
    Column("origin", _text(), nullable=False),
    Column("allows", Boolean, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("complete_until", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("ended", Boolean, nullable=False),
)

# Decisions per minute and per hour: all by effect, denials by reason and more (rollups.py).
audit_rollups = Table(
    "audit_rollups",
    metadata,
    Column("step", BigInteger, primary_key=True, autoincrement=False),  # 60 or 3600, in seconds
    Column("dimension", _text(), primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False),  # in Unix seconds
    Column("value", _text(), primary_key=True),
    Column("decisions", BigInteger, nullable=False),
)
