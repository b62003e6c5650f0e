"""Searches of the decision log: by time through the ids, and by effect."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_STRAY = (
    "CASE WHEN decided_at BETWEEN 1000 AND 100000000000 THEN substr(decision_id, 1, 8) "
    "NOT BETWEEN {before} AND {after} ELSE TRUE END"
)
_SQLITE = "printf('%08x', CAST(decided_at / 65.536 AS INTEGER) {step})"
_POSTGRESQL = "lpad(to_hex(CAST(floor(decided_at / 65.536) AS BIGINT) {step}), 8, '0')"


def upgrade() -> None:
    op.create_index(
        "ix_audit_records_stray",
        "audit_records",
        ["decided_at"],
        sqlite_where=_stray(_SQLITE),
        postgresql_where=_stray(_POSTGRESQL),
    )
    op.create_index("ix_audit_records_effect", "audit_records", ["effect", "decision_id"])
    op.drop_index("ix_audit_records_decided_at", table_name="audit_records")
    # SQLite, which has no statistics, would prefer the index by effect.
    _index_denials("substr(effect, 1) = 'DENY'")


def downgrade() -> None:
    _index_denials("effect = 'DENY'")
    op.create_index("ix_audit_records_decided_at", "audit_records", ["decided_at"])
    op.drop_index("ix_audit_records_effect", table_name="audit_records")
    op.drop_index("ix_audit_records_stray", table_name="audit_records")


def _index_denials(condition: str) -> None:
    op.drop_index("ix_audit_records_denied", table_name="audit_records")
    where = sa.text(f"{condition} AND coalesce(reported_by, '') = ''")
    op.create_index(
        "ix_audit_records_denied",
        "audit_records",
        ["user_id", "permission", "resource_type", "resource_id", "decision_id"],
        sqlite_where=where,
        postgresql_where=where,
    )


def _stray(unit: str) -> sa.TextClause:
    return sa.text(_STRAY.format(before=unit.format(step="- 1"), after=unit.format(step="+ 1")))
