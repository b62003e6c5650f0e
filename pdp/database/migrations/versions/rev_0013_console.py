"""The secrets of the console by their hashes, and decisions per minute and per hour."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
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
    op.create_table(
        "audit_rollups",
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("dimension", text, nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", text, nullable=False),
        sa.Column("decisions", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("step", "dimension", "start", "value"),
    )
    count_what_is_there()
    op.create_index(op.f("ix_console_secrets_expires_at"), "console_secrets", ["expires_at"])


def count_what_is_there() -> None:
    """Takes some ten seconds for a million records."""
    quotient = "decided_at / {step}"
    if op.get_bind().dialect.name == "postgresql":  # whose casts round
        quotient = f"floor({quotient})"
    dimensions = {
        "effect": "effect",
        "reason": "reason",
        "permission": "permission",
        "caller": "caller",
        "organization": "coalesce(organization_id, '')",
    }
    for step in (60, 3600):
        start = f"CAST({quotient.format(step=step)} AS BIGINT) * {step}"
        for dimension, value in dimensions.items():
            denials = "" if dimension == "effect" else "AND effect = 'DENY'"
            op.execute(
                f"INSERT INTO audit_rollups (step, dimension, start, value, decisions) "  # noqa: S608
                f"SELECT {step}, '{dimension}', {start}, {value}, SUM(occurrences) "
                f"FROM audit_records WHERE reason <> 'QUERY_ANSWERED' {denials} "
                f"GROUP BY {start}, {value}"
            )


def downgrade() -> None:
    op.drop_table("audit_rollups")
    op.drop_table("console_secrets")
