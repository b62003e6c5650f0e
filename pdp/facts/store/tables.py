"""The tables of policy and facts. `pdp.database.migrations` creates them; a test compares both.

Text compares byte for byte: collation "C" on PostgreSQL, BINARY (the default) on SQLite.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy import text as sa_text

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)
text = Text().with_variant(Text(collation="C"), "postgresql")

state = Table(
    "state",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("epoch", text, nullable=False),
    Column("page_secret", LargeBinary, nullable=False),
    # The latest revision that a caller waits for every replica to apply.
    Column("barrier", BigInteger, nullable=False, server_default=sa_text("0")),
    CheckConstraint("id = 1", name="one_row"),
)

changes = Table(
    "changes",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("kind", text, nullable=False),
    Column("key", text, nullable=False),  # a JSON list of strings
)

# The candidate policy that is decided beside the real one, and its counts.
shadow = Table(
    "shadow",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("candidate_id", text, nullable=False),
    Column("document", text, nullable=False),
    Column("sample", Double, nullable=False),
    Column("set_at", Double, nullable=False),
    Column("decided", BigInteger, nullable=False),
    Column("flipped", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("dropped", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

# Answers that the candidate would change, in groups.
shadow_flips = Table(
    "shadow_flips",
    metadata,
    Column("candidate_id", text, primary_key=True),
    Column("permission", text, primary_key=True),
    Column("effect", text, primary_key=True),  # what the candidate decides
    Column("rule_before", text, primary_key=True),  # empty: none
    Column("rule_after", text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("examples", text, nullable=False),  # a JSON list
)

# The replicas. A process without a row answers no request.
replicas = Table(
    "replicas",
    metadata,
    Column("id", text, primary_key=True),
    # No answer from before this revision is given any more because of this replica.
    Column("acknowledged", BigInteger, nullable=False),
    # Its staleness bound: how long it may answer without a confirmation.
    Column("staleness_seconds_max", Double, nullable=False),
    # By the database's clock, in Unix seconds.
    Column("seen_at", Double, nullable=False),
)

permissions = Table(
    "permissions",
    metadata,
    Column("name", text, primary_key=True),
    Column("description", text, nullable=False),
)

resource_types = Table(
    "resource_types",
    metadata,
    Column("name", text, primary_key=True),
    Column("tenancy", text, nullable=False),
    Column("stored", text, nullable=False),  # `required` or `optional`
)

roles = Table(
    "roles",
    metadata,
    Column("name", text, primary_key=True),
    Column("description", text, nullable=False),
)

role_inheritance = Table(
    "role_inheritance",
    metadata,
    Column("role", text, ForeignKey("roles.name", ondelete="CASCADE"), primary_key=True),
    Column("inherits", text, ForeignKey("roles.name"), primary_key=True, index=True),
)

rules = Table(
    "rules",
    metadata,
    Column("id", text, primary_key=True),
    Column("role", text, ForeignKey("roles.name"), nullable=False, index=True),
    Column("effect", text, nullable=False),
    Column("permission", text, nullable=False),
    Column("condition", text, nullable=False),
    Column("description", text, nullable=False),
)

grants = Table(
    "grants",
    metadata,
    Column("id", text, primary_key=True),
    Column("role", text, ForeignKey("roles.name"), nullable=False, index=True),
    # The subject: one of the two.
    Column("user_id", text),
    Column("organization_role", text),
    # The scope: an organization, a resource, or neither.
    Column("organization_id", text),
    Column("resource_type", text),
    Column("resource_id", text),
    Column("not_before", Double),
    Column("expires_at", Double),
    CheckConstraint("(user_id IS NULL) <> (organization_role IS NULL)", name="one_subject"),
    CheckConstraint("(resource_type IS NULL) = (resource_id IS NULL)", name="whole_resource"),
    CheckConstraint("organization_id IS NULL OR resource_id IS NULL", name="one_scope"),
    Index(None, "user_id"),
    Index(None, "organization_id", "organization_role"),
    Index(None, "resource_type", "resource_id", "organization_role"),
    Index(None, "organization_role"),
    Index(
        None,
        "expires_at",
        "id",
        postgresql_where=sa_text("expires_at IS NOT NULL"),
        sqlite_where=sa_text("expires_at IS NOT NULL"),
    ),
)

routes = Table(
    "routes",
    metadata,
    Column("route", text, primary_key=True),
    Column("needs", text, nullable=False),  # a permission, or `public`
    Column("resource", text),
)

users = Table(
    "users",
    metadata,
    Column("id", text, primary_key=True),
    Column("email", text, nullable=False),
    Column("name", text, nullable=False),
    Column("status", text, nullable=False),
    Column("attributes", text, nullable=False),  # a JSON object
)

organizations = Table(
    "organizations",
    metadata,
    Column("id", text, primary_key=True),
    Column("slug", text, nullable=False),
    Column("name", text, nullable=False),
)

# No foreign keys from here on, nor from grants to users: facts arrive in any order.
memberships = Table(
    "memberships",
    metadata,
    Column("organization_id", text, primary_key=True),
    Column("user_id", text, primary_key=True, index=True),
    Column("role", text, nullable=False),
)

resources = Table(
    "resources",
    metadata,
    Column("type", text, primary_key=True),
    Column("id", text, primary_key=True),
    Column("organization_id", text),
    Column("parent_type", text),
    Column("parent_id", text),
    Column("attributes", text, nullable=False),  # a JSON object
    CheckConstraint("(parent_type IS NULL) = (parent_id IS NULL)", name="whole_parent"),
    Index(None, "parent_type", "parent_id"),
    Index(None, "organization_id", "type", "id"),
)

revoked_sessions = Table(
    "revoked_sessions",
    metadata,
    Column("user_id", text, primary_key=True),
    Column("session_id", text, primary_key=True),
    Column("revoked_at", Double, index=True),  # NULL: it may still be active at Clerk
)

# --- the objects of Clerk, from which facts are derived ------------------------------------------

clerk_objects = Table(
    "clerk_objects",
    metadata,
    Column("kind", text, primary_key=True),
    Column("id", text, primary_key=True),  # Clerk's own
    Column("version", text, nullable=False),  # orders the states of one object
    Column("standing", text, nullable=False),
    # Organization and user of a membership, if they were reported.
    Column("organization_id", text),
    Column("user_id", text),
    Column("content", text, nullable=False),  # a JSON object: fields without a table of their own
    Column("seen_run", BigInteger, nullable=False),  # the sync that saw it last
    Index(None, "organization_id", "user_id"),
    Index(None, "user_id"),
    Index(None, "kind", "seen_run"),
)

webhook_messages = Table(
    "webhook_messages",
    metadata,
    Column("id", text, primary_key=True),
    Column("handled_at", Double, nullable=False, index=True),
)

clerk_sync = Table(
    "clerk_sync",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", BigInteger, nullable=False),
    Column("step", text, nullable=False),  # empty: no sync is running
    Column("cursor", text, nullable=False),
    Column("due_at", Double, nullable=False),  # when the next sync may begin or take over
    CheckConstraint("id = 1", name="one_row"),
)

# --- the console ---------------------------------------------------------------------------------

console_secrets = Table(
    "console_secrets",
    metadata,
    Column("digest", text, primary_key=True),  # SHA-256 of the secret, which only its user has
    Column("kind", text, nullable=False),  # `link` or `session`
    Column("content", text, nullable=False),  # a JSON object
    Column("expires_at", Double, nullable=False, index=True),
)
