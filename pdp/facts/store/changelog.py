"""The changes of a write, as in the table `changes`: which cache entries a replica must drop."""

import enum
import json
from dataclasses import dataclass

from pdp.model import (
    Entity,
    Grant,
    InOrganization,
    Key,
    Membership,
    OnResource,
    Organization,
    Permission,
    Resource,
    ResourceType,
    Role,
    Route,
    Rule,
    ToUser,
    User,
)

CHANNEL = "pdp_changes"
"""The channel on which PostgreSQL notifies listeners of changes."""

CHANGES_PER_REVISION_MAX = 10_000
"""A write that touches more is stored as one change of EVERYTHING."""


class ChangeKind(enum.Enum):
    """The kinds of changes."""

    PERMISSION = "permission"
    RESOURCE_TYPE = "resource_type"
    ROLE = "role"
    RULE = "rule"
    ROLE_GRANT = "role_grant"
    """A grant to an organization role everywhere."""
    ROUTE = "route"
    USER = "user"
    """A user with their memberships, grants and revoked sessions."""
    ORGANIZATION = "organization"
    """An organization with the grants to organization roles within it."""
    RESOURCE = "resource"
    """A resource (type, id) with the grants to organization roles on it."""
    ORGANIZATION_ROLE = "organization_role"
    """An organization role of Clerk, or one of its permissions (by Clerk's id)."""
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class Change:
    """One key that a revision touched."""

    kind: ChangeKind
    key: Key

    @property
    def key_json(self) -> str:
        """The key as the table stores it."""
        return json.dumps(self.key)


EVERYTHING = Change(ChangeKind.EVERYTHING, ())


def change_from_row(kind: str, key: str) -> Change:
    """Reads a row of the table. A kind that only a newer version knows becomes EVERYTHING."""
    try:
        return Change(ChangeKind(kind), tuple(json.loads(key)))
    except ValueError:
        return EVERYTHING


def change_of(entity: Entity) -> Change:
    """Returns the change that a write or deletion of an entity causes."""
    match entity:
        case Permission(name):
            change = Change(ChangeKind.PERMISSION, (name,))
        case ResourceType(name):
            change = Change(ChangeKind.RESOURCE_TYPE, (name,))
        case Role(name):
            change = Change(ChangeKind.ROLE, (name,))
        case Rule(rule_id):
            change = Change(ChangeKind.RULE, (rule_id,))
        case Route(route):
            change = Change(ChangeKind.ROUTE, (route,))
        case User(id=user_id) | Membership(user_id=user_id) | Grant(subject=ToUser(user_id)):
            change = Change(ChangeKind.USER, (user_id,))
        case Grant(scope=InOrganization(organization_id)) | Organization(organization_id):
            change = Change(ChangeKind.ORGANIZATION, (organization_id,))
        case Grant(scope=OnResource(resource)):
            change = Change(ChangeKind.RESOURCE, (resource.type, resource.id))
        case Grant(grant_id):
            change = Change(ChangeKind.ROLE_GRANT, (grant_id,))
        case Resource(type_, resource_id):
            change = Change(ChangeKind.RESOURCE, (type_, resource_id))
    return change
