"""The objects of Clerk, handled messages, the progress of a sync; when sessions were revoked."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Compares byte for byte: BINARY is SQLite's default.
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("revoked_sessions", sa.Column("revoked_at", sa.Double(), nullable=True))
    op.create_index(op.f("ix_revoked_sessions_revoked_at"), "revoked_sessions", ["revoked_at"])
    op.create_table(
        "clerk_objects",
        sa.Column("kind", text, nullable=False),
        sa.Column("id", text, nullable=False),
        sa.Column("version", text, nullable=False),
        sa.Column("standing", text, nullable=False),
        sa.Column("organization_id", text, nullable=True),
        sa.Column("user_id", text, nullable=True),
        sa.Column("content", text, nullable=False),
        sa.Column("seen_run", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "id", name=op.f("pk_clerk_objects")),
    )
    op.create_index(
        op.f("ix_clerk_objects_organization_id_user_id"),
        "clerk_objects",
        ["organization_id", "user_id"],
    )
    op.create_index(op.f("ix_clerk_objects_user_id"), "clerk_objects", ["user_id"])
    op.create_index(op.f("ix_clerk_objects_kind_seen_run"), "clerk_objects", ["kind", "seen_run"])
    op.create_table(
        "webhook_messages",
        sa.Column("id", text, nullable=False),
        sa.Column("handled_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_messages")),
    )
    op.create_index(op.f("ix_webhook_messages_handled_at"), "webhook_messages", ["handled_at"])
    op.create_table(
        "clerk_sync",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.BigInteger(), nullable=False),
        sa.Column("step", text, nullable=False),
        sa.Column("cursor", text, nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_clerk_sync_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clerk_sync")),
    )
    op.bulk_insert(
        sa.table(
            "clerk_sync",
            sa.column("id"),
            sa.column("run"),
            sa.column("step"),
            sa.column("cursor"),
            sa.column("due_at"),
        ),
        [{"id": 1, "run": 0, "step": "", "cursor": "", "due_at": 0.0}],
    )


def downgrade() -> None:
    op.drop_table("clerk_sync")
    op.drop_index(op.f("ix_webhook_messages_handled_at"), table_name="webhook_messages")
    op.drop_table("webhook_messages")
    op.drop_index(op.f("ix_clerk_objects_kind_seen_run"), table_name="clerk_objects")
    op.drop_index(op.f("ix_clerk_objects_user_id"), table_name="clerk_objects")
    op.drop_index(op.f("ix_clerk_objects_organization_id_user_id"), table_name="clerk_objects")
    op.drop_table("clerk_objects")
    op.drop_index(op.f("ix_revoked_sessions_revoked_at"), table_name="revoked_sessions")
    op.drop_column("revoked_sessions", "revoked_at")
