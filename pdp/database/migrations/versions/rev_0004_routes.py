"""The permissions that requests need, by method and path."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Compares byte for byte: BINARY is SQLite's default.
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "routes",
        sa.Column("route", text, nullable=False),
        sa.Column("needs", text, nullable=False),
        sa.Column("resource", text, nullable=True),
        sa.PrimaryKeyConstraint("route", name=op.f("pk_routes")),
    )


def downgrade() -> None:
    op.drop_table("routes")
