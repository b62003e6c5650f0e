"""The order in which readers of the decision log see it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Compares byte for byte: BINARY is SQLite's default.
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "audit_order",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("origin", text, nullable=False),
        sa.Column("log_id", text, nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_order")),
    )
    op.add_column(
        "audit_shipping",
        sa.Column("numbered", sa.BigInteger(), server_default="0", nullable=False),
    )
    op.create_index("ix_audit_records_place", "audit_records", ["origin", "log_id", "position"])


def downgrade() -> None:
    op.drop_index("ix_audit_records_place", table_name="audit_records")
    op.drop_column("audit_shipping", "numbered")
    op.drop_table("audit_order")
