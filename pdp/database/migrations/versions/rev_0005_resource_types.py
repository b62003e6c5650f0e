"""The properties of resource types."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Compares byte for byte: BINARY is SQLite's default.
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "resource_types",
        sa.Column("name", text, nullable=False),
        sa.Column("tenancy", text, nullable=False),
        sa.Column("stored", text, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_resource_types")),
    )


def downgrade() -> None:
    op.drop_table("resource_types")
