"""The candidate policy of the shadow, and the answers that it would change."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Compares byte for byte: BINARY is SQLite's default.
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "shadow",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("candidate_id", text, nullable=False),
        sa.Column("document", text, nullable=False),
        sa.Column("sample", sa.Double(), nullable=False),
        sa.Column("set_at", sa.Double(), nullable=False),
        sa.Column("decided", sa.BigInteger(), nullable=False),
        sa.Column("flipped", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_shadow_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadow")),
    )
    op.create_table(
        "shadow_flips",
        sa.Column("candidate_id", text, nullable=False),
        sa.Column("permission", text, nullable=False),
        sa.Column("effect", text, nullable=False),
        sa.Column("rule_before", text, nullable=False),
        sa.Column("rule_after", text, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("examples", text, nullable=False),
        sa.PrimaryKeyConstraint(
            "candidate_id",
            "permission",
            "effect",
            "rule_before",
            "rule_after",
            name=op.f("pk_shadow_flips"),
        ),
    )


def downgrade() -> None:
    op.drop_table("shadow_flips")
    op.drop_table("shadow")
