"""Every table of policy, facts and the decision log."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Compares byte for byte: BINARY is SQLite's default.
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("key", text, nullable=False),
        sa.PrimaryKeyConstraint("revision", "position", name=op.f("pk_changes")),
    )
    op.create_table(
        "memberships",
        sa.Column("organization_id", text, nullable=False),
        sa.Column("user_id", text, nullable=False),
        sa.Column("role", text, nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "user_id", name=op.f("pk_memberships")),
    )
    op.create_index(op.f("ix_memberships_user_id"), "memberships", ["user_id"], unique=False)
    op.create_table(
        "organizations",
        sa.Column("id", text, nullable=False),
        sa.Column("slug", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organizations")),
    )
    op.create_table(
        "permissions",
        sa.Column("name", text, nullable=False),
        sa.Column("description", text, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_permissions")),
    )
    op.create_table(
        "resources",
        sa.Column("type", text, nullable=False),
        sa.Column("id", text, nullable=False),
        sa.Column("organization_id", text, nullable=True),
        sa.Column("parent_type", text, nullable=True),
        sa.Column("parent_id", text, nullable=True),
        sa.Column("attributes", text, nullable=False),
        sa.CheckConstraint(
            "(parent_type IS NULL) = (parent_id IS NULL)", name=op.f("ck_resources_whole_parent")
        ),
        sa.PrimaryKeyConstraint("type", "id", name=op.f("pk_resources")),
    )
    op.create_index(
        op.f("ix_resources_organization_id"), "resources", ["organization_id"], unique=False
    )
    op.create_index(
        op.f("ix_resources_parent_type_parent_id"),
        "resources",
        ["parent_type", "parent_id"],
        unique=False,
    )
    op.create_table(
        "revoked_sessions",
        sa.Column("user_id", text, nullable=False),
        sa.Column("session_id", text, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "session_id", name=op.f("pk_revoked_sessions")),
    )
    op.create_table(
        "roles",
        sa.Column("name", text, nullable=False),
        sa.Column("description", text, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_roles")),
    )
    op.create_table(
        "state",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("epoch", text, nullable=False),
        sa.Column("page_secret", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_state_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_state")),
    )
    op.create_table(
        "users",
        sa.Column("id", text, nullable=False),
        sa.Column("email", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("status", text, nullable=False),
        sa.Column("attributes", text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_table(
        "grants",
        sa.Column("id", text, nullable=False),
        sa.Column("role", text, nullable=False),
        sa.Column("user_id", text, nullable=True),
        sa.Column("organization_role", text, nullable=True),
        sa.Column("organization_id", text, nullable=True),
        sa.Column("resource_type", text, nullable=True),
        sa.Column("resource_id", text, nullable=True),
        sa.Column("not_before", sa.Double(), nullable=True),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "(resource_type IS NULL) = (resource_id IS NULL)", name=op.f("ck_grants_whole_resource")
        ),
        sa.CheckConstraint(
            "(user_id IS NULL) <> (organization_role IS NULL)", name=op.f("ck_grants_one_subject")
        ),
        sa.CheckConstraint(
            "organization_id IS NULL OR resource_id IS NULL", name=op.f("ck_grants_one_scope")
        ),
        sa.ForeignKeyConstraint(["role"], ["roles.name"], name=op.f("fk_grants_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
    )
    op.create_index(
        op.f("ix_grants_organization_id_organization_role"),
        "grants",
        ["organization_id", "organization_role"],
        unique=False,
    )
    op.create_index(
        op.f("ix_grants_organization_role"), "grants", ["organization_role"], unique=False
    )
    op.create_index(
        op.f("ix_grants_resource_type_resource_id_organization_role"),
        "grants",
        ["resource_type", "resource_id", "organization_role"],
        unique=False,
    )
    op.create_index(op.f("ix_grants_role"), "grants", ["role"], unique=False)
    op.create_index(op.f("ix_grants_user_id"), "grants", ["user_id"], unique=False)
    op.create_table(
        "role_inheritance",
        sa.Column("role", text, nullable=False),
        sa.Column("inherits", text, nullable=False),
        sa.ForeignKeyConstraint(
            ["inherits"], ["roles.name"], name=op.f("fk_role_inheritance_inherits")
        ),
        sa.ForeignKeyConstraint(
            ["role"], ["roles.name"], name=op.f("fk_role_inheritance_role"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("role", "inherits", name=op.f("pk_role_inheritance")),
    )
    op.create_index(
        op.f("ix_role_inheritance_inherits"), "role_inheritance", ["inherits"], unique=False
    )
    op.create_table(
        "rules",
        sa.Column("id", text, nullable=False),
        sa.Column("role", text, nullable=False),
        sa.Column("effect", text, nullable=False),
        sa.Column("permission", text, nullable=False),
        sa.Column("condition", text, nullable=False),
        sa.Column("description", text, nullable=False),
        sa.ForeignKeyConstraint(["role"], ["roles.name"], name=op.f("fk_rules_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rules")),
    )
    op.create_index(op.f("ix_rules_role"), "rules", ["role"], unique=False)
    op.create_table(
        "audit_gaps",
        sa.Column("origin", text, nullable=False),
        sa.Column("log_id", text, nullable=False),
        sa.Column("segment", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("noticed_at", sa.Double(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("origin", "log_id", "segment", "position"),
    )
    op.create_table(
        "audit_records",
        sa.Column("decision_id", text, nullable=False),
        sa.Column("decided_at", sa.Double(), nullable=False),
        sa.Column("effect", text, nullable=False),
        sa.Column("reason", text, nullable=False),
        sa.Column("permission", text, nullable=False),
        sa.Column("caller", text, nullable=False),
        sa.Column("user_id", text, nullable=True),
        sa.Column("organization_id", text, nullable=True),
        sa.Column("resource_type", text, nullable=True),
        sa.Column("resource_id", text, nullable=True),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("origin", text, nullable=False),
        sa.Column("log_id", text, nullable=False),
        sa.Column("segment", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id"),
    )
    op.create_index(
        "ix_audit_records_caller", "audit_records", ["caller", "decision_id"], unique=False
    )
    op.create_index("ix_audit_records_decided_at", "audit_records", ["decided_at"], unique=False)
    op.create_index(
        "ix_audit_records_organization",
        "audit_records",
        ["organization_id", "decision_id"],
        unique=False,
    )
    op.create_index(
        "ix_audit_records_permission", "audit_records", ["permission", "decision_id"], unique=False
    )
    op.create_index(
        "ix_audit_records_reason", "audit_records", ["reason", "decision_id"], unique=False
    )
    op.create_index(
        "ix_audit_records_resource",
        "audit_records",
        ["resource_type", "resource_id", "decision_id"],
        unique=False,
    )
    op.create_index(
        "ix_audit_records_user", "audit_records", ["user_id", "decision_id"], unique=False
    )
    op.create_table(
        "audit_shipping",
        sa.Column("origin", text, nullable=False),
        sa.Column("log_id", text, nullable=False),
        sa.Column("segment", sa.BigInteger(), nullable=False),
        sa.Column("byte_offset", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("origin", "log_id"),
    )
    op.bulk_insert(
        sa.table(
            "state",
            sa.column("id"),
            sa.column("revision"),
            sa.column("epoch"),
            sa.column("page_secret", sa.LargeBinary),
        ),
        [
            {
                "id": 1,
                "revision": 0,
                "epoch": secrets.token_hex(16),
                "page_secret": secrets.token_bytes(32),
            }
        ],
    )


def downgrade() -> None:
    op.drop_table("audit_shipping")
    op.drop_index("ix_audit_records_user", table_name="audit_records")
    op.drop_index("ix_audit_records_resource", table_name="audit_records")
    op.drop_index("ix_audit_records_reason", table_name="audit_records")
    op.drop_index("ix_audit_records_permission", table_name="audit_records")
    op.drop_index("ix_audit_records_organization", table_name="audit_records")
    op.drop_index("ix_audit_records_decided_at", table_name="audit_records")
    op.drop_index("ix_audit_records_caller", table_name="audit_records")
    op.drop_table("audit_records")
    op.drop_table("audit_gaps")
    op.drop_index(op.f("ix_rules_role"), table_name="rules")
    op.drop_table("rules")
    op.drop_index(op.f("ix_role_inheritance_inherits"), table_name="role_inheritance")
    op.drop_table("role_inheritance")
    op.drop_index(op.f("ix_grants_user_id"), table_name="grants")
    op.drop_index(op.f("ix_grants_role"), table_name="grants")
    op.drop_index(
        op.f("ix_grants_resource_type_resource_id_organization_role"), table_name="grants"
    )
    op.drop_index(op.f("ix_grants_organization_role"), table_name="grants")
    op.drop_index(op.f("ix_grants_organization_id_organization_role"), table_name="grants")
    op.drop_table("grants")
    op.drop_table("users")
    op.drop_table("state")
    op.drop_table("roles")
    op.drop_table("revoked_sessions")
    op.drop_index(op.f("ix_resources_parent_type_parent_id"), table_name="resources")
    op.drop_index(op.f("ix_resources_organization_id"), table_name="resources")
    op.drop_table("resources")
    op.drop_table("permissions")
    op.drop_table("organizations")
    op.drop_index(op.f("ix_memberships_user_id"), table_name="memberships")
    op.drop_table("memberships")
    op.drop_table("changes")
