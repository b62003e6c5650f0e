"""Links and sessions of the console, by the hash of their secret."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0008"
branch_labels = None
depends_on = None

# Compares byte for byte: BINARY is SQLite's default.
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "console_secrets",
        sa.Column("digest", text, nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("content", text, nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_console_secrets")),
    )
    op.create_index(op.f("ix_console_secrets_expires_at"), "console_secrets", ["expires_at"])


def downgrade() -> None:
    op.drop_table("console_secrets")
