"""Records of changes, and their places in the log."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Compares byte for byte: BINARY is SQLite's default.
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "administration_records",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", text, nullable=False),
        sa.Column("recorded_at", sa.Double(), nullable=False),
        sa.Column("source", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("entity", text, nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("revision", "number", name=op.f("pk_administration_records")),
    )
    for name, columns in (
        ("entity", ["entity", "revision", "number"]),
        ("kind", ["kind", "revision", "number"]),
        ("name", ["name", "revision", "number"]),
        ("recorded_at", ["recorded_at"]),
    ):
        op.create_index(f"ix_administration_records_{name}", "administration_records", columns)
    op.create_table(
        "administration_places",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("log_id", text, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("revision", "number", name=op.f("pk_administration_places")),
    )
    op.create_index(
        "ix_administration_places_place",
        "administration_places",
        ["log_id", "position"],
        unique=True,
    )


def downgrade() -> None:
    op.drop_table("administration_places")
    op.drop_table("administration_records")
