"""The replicas and the barrier; who reported a decision."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Compares byte for byte: BINARY is SQLite's default.
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "replicas",
        sa.Column("id", text, nullable=False),
        sa.Column("acknowledged", sa.BigInteger(), nullable=False),
        sa.Column("staleness_seconds_max", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replicas")),
    )
    op.add_column("audit_records", sa.Column("reported_by", text, nullable=True))
    op.create_index("ix_audit_records_reported_by", "audit_records", ["reported_by", "decision_id"])
    # Last: no replica can read this table, and so confirm anything, before the commit.
    op.add_column(
        "state", sa.Column("barrier", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
    )


def downgrade() -> None:
    op.drop_index("ix_audit_records_reported_by", "audit_records")
    op.drop_column("audit_records", "reported_by")
    op.drop_table("replicas")
    op.drop_column("state", "barrier")
