"""How far each log is archived, and which records must stay."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Compares byte for byte: BINARY is SQLite's default.
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "audit_archived",
        sa.Column("origin", text, nullable=False),
        sa.Column("log_id", text, nullable=False),
        sa.Column("segment", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.Column("decisions", sa.BigInteger(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("origin", "log_id", name=op.f("pk_audit_archived")),
    )
    op.create_table(
        "audit_holds",
        sa.Column("name", text, nullable=False),
        sa.Column("filter", sa.Text(), nullable=False),
        sa.Column("placed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_audit_holds")),
    )


def downgrade() -> None:
    op.drop_table("audit_holds")
    op.drop_table("audit_archived")
