"""Access reviews: which grant a decision used, when the log was complete, and campaigns."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# Compares byte for byte: BINARY is SQLite's default.
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

_INDEXES = {
    "ix_audit_records_grant": (["grant_id", "decision_id"], "grant_id IS NOT NULL"),
    "ix_audit_records_allow_without_grant": (
        ["decision_id"],
        "CASE WHEN grant_id IS NULL THEN reason END = 'ALLOWED_BY_RULE'",
    ),
    "ix_audit_records_impersonated": (
        ["decision_id", "reason"],
        'substr(record, 1, 28) = \'{"actor":{"impersonator_id":\'',
    ),
    "ix_audit_records_allowed": (
        ["user_id", "permission", "decision_id"],
        "reason = 'ALLOWED_BY_RULE' AND coalesce(reported_by, '') = ''",
    ),
    "ix_audit_records_denied": (
        ["user_id", "permission", "resource_type", "resource_id", "decision_id"],
        "effect = 'DENY' AND coalesce(reported_by, '') = ''",
    ),
}
"""Of the decision log: columns and condition."""


def upgrade() -> None:
    # Without a value for older records: no review makes a claim about the time before.
    op.add_column("audit_records", sa.Column("grant_id", text, nullable=True))
    for name, (columns, condition) in _INDEXES.items():
        where = sa.text(condition)
        op.create_index(name, "audit_records", columns, postgresql_where=where, sqlite_where=where)
    op.create_table(
        "audit_periods",
        sa.Column("id", text, nullable=False),
        sa.Column("origin", text, nullable=False),
        sa.Column("allows", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("complete_until", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("ended", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_periods")),
    )
    ends = sa.text("expires_at IS NOT NULL")
    op.create_index(
        op.f("ix_grants_expires_at_id"),
        "grants",
        ["expires_at", "id"],
        postgresql_where=ends,
        sqlite_where=ends,
    )
    op.create_table(
        "review_campaigns",
        sa.Column("id", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("created_by", text, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_campaigns")),
    )
    op.create_table(
        "review_items",
        sa.Column("campaign_id", text, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("grant_id", text, nullable=False),
        sa.Column("content", text, nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", "number", name=op.f("pk_review_items")),
    )
    op.create_table(
        "review_verdicts",
        sa.Column("campaign_id", text, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("verdict", text, nullable=False),
        sa.Column("reviewer", text, nullable=False),
        sa.Column("reason", text, nullable=False),
        sa.Column("decided_at", sa.Double(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", "number", name=op.f("pk_review_verdicts")),
    )


def downgrade() -> None:
    for table in ("review_verdicts", "review_items", "review_campaigns", "audit_periods"):
        op.drop_table(table)
    op.drop_index(op.f("ix_grants_expires_at_id"), table_name="grants")
    for name in reversed(_INDEXES):
        op.drop_index(name, table_name="audit_records")
    op.drop_column("audit_records", "grant_id")
