"""The number of equal denials that one record of the decision log counts."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Compares byte for byte: BINARY is SQLite's default.
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    # With a default, so that programs that do not know the column can write beside those that do.
    op.add_column(
        "audit_records",
        sa.Column("occurrences", sa.BigInteger(), server_default="1", nullable=False),
    )
    op.add_column("audit_records", sa.Column("last_decided_at", sa.Double(), nullable=True))
    op.create_table(
        "audit_counts",
        sa.Column("origin", text, nullable=False),
        sa.Column("log_id", text, nullable=False),
        sa.Column("segment", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("frames", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "origin", "log_id", "segment", "position", name=op.f("pk_audit_counts")
        ),
    )


def downgrade() -> None:
    op.drop_table("audit_counts")
    op.drop_column("audit_records", "last_decided_at")
    op.drop_column("audit_records", "occurrences")
