"""Lists of the resources of one type in an organization, in the order of their ids."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Serves all that the index of the organization alone does.
    op.create_index(
        op.f("ix_resources_organization_id_type_id"),
        "resources",
        ["organization_id", "type", "id"],
    )
    op.drop_index(op.f("ix_resources_organization_id"), table_name="resources")


def downgrade() -> None:
    op.create_index(op.f("ix_resources_organization_id"), "resources", ["organization_id"])
    op.drop_index(op.f("ix_resources_organization_id_type_id"), table_name="resources")
