"""Converts entities to rows and back. Refuses values that a database cannot store."""

import enum
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pdp_routes import PUBLIC, Needs
from sqlalchemy import Column, RowMapping, Table

from pdp.errors import InvalidRequest, Violation
from pdp.facts.store import tables
from pdp.limits import IDENTIFIER_CHARACTERS_MAX
from pdp.model import (
    EVERYWHERE,
    Attributes,
    Effect,
    Entity,
    Grant,
    InOrganization,
    Key,
    Membership,
    OnResource,
    Organization,
    Permission,
    Resource,
    ResourceRef,
    ResourceType,
    Role,
    Route,
    Rule,
    Scope,
    Tenancy,
    ToOrganizationRole,
    ToUser,
    User,
    UserStatus,
)

Row = Mapping[str, Any] | RowMapping

_NO_ATTRIBUTES: Attributes = {}
_REQUIRED = "required"
_OPTIONAL = "optional"


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of entity is stored."""

    table: Table
    from_row: Callable[[Row], Any]
    """Leaves `inherits` of a role empty: it has its own table."""

    @property
    def key(self) -> Sequence[Column[Any]]:
        """The columns of the primary key."""
        return list(self.table.primary_key.columns)


def to_row(entity: Entity) -> dict[str, Any]:
    """Converts an entity to a row.

    Raises:
        InvalidRequest: A text, number or attribute cannot be stored as it is.
    """
    row: dict[str, Any]
    match entity:
        case ResourceType(name, tenancy, required):
            stored = _REQUIRED if required else _OPTIONAL
            row = {"name": name, "tenancy": tenancy.value, "stored": stored}
        case Grant():
            row = _grant_row(entity)
        case Route(route, Needs(permission, resource)):
            row = {"route": route, "needs": permission, "resource": resource}
        case Route(route):
            row = {"route": route, "needs": PUBLIC.value, "resource": None}
        case Resource(type_, id_, organization_id, parent, attributes):
            row = {
                "type": type_,
                "id": id_,
                "organization_id": organization_id,
                "parent_type": parent.type if parent else None,
                "parent_id": parent.id if parent else None,
                "attributes": _attributes_text(attributes),
            }
        case _:
            # The columns have the names of the fields.
            columns = _columns(KINDS[type(entity)].table)
            row = {name: _stored_value(getattr(entity, name)) for name in columns}
    check_row(KINDS[type(entity)].table, row)
    return row


@functools.cache
def _columns(table: Table) -> Sequence[str]:
    return [column.name for column in table.columns]


def _stored_value(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    return _attributes_text(value) if isinstance(value, Mapping) else value


def _grant_row(grant: Grant) -> dict[str, Any]:
    resource = grant.scope.resource if isinstance(grant.scope, OnResource) else None
    scope = grant.scope
    return {
        "id": grant.id,
        "role": grant.role,
        "user_id": grant.subject.user_id if isinstance(grant.subject, ToUser) else None,
        "organization_role": (
            grant.subject.organization_role
            if isinstance(grant.subject, ToOrganizationRole)
            else None
        ),
        "organization_id": scope.organization_id if isinstance(scope, InOrganization) else None,
        "resource_type": resource.type if resource else None,
        "resource_id": resource.id if resource else None,
        "not_before": grant.not_before,
        "expires_at": grant.expires_at,
    }


def check_row(table: Table, row: Row) -> None:
    """Refuses values that an engine would refuse with its own error, truncate or alter.

    Raises:
        InvalidRequest: A value holds NUL or a lone surrogate, is a too long identifier, or is not
            a finite number.
    """
    indexed = _indexed(table)
    for field, value in row.items():
        if isinstance(value, str):
            check_text(value, field, identifier=field in indexed)
        elif isinstance(value, float) and not math.isfinite(value):
            # SQLite stores NaN as NULL, and an expiry of NULL means never.
            raise InvalidRequest(Violation(field, "must be a finite number"))


@functools.cache
def _indexed(table: Table) -> frozenset[str]:
    indexes = [*(index.columns for index in table.indexes), table.primary_key.columns]
    return frozenset(column.name for columns in indexes for column in columns)


def check_text(value: str, field: str, *, identifier: bool = True) -> None:
    """Refuses a text that an engine cannot store and compare unchanged.

    Raises:
        InvalidRequest: It holds NUL or a lone surrogate, or is a too long identifier.
    """
    if identifier and len(value) > IDENTIFIER_CHARACTERS_MAX:
        # PostgreSQL limits the size of index entries.
        most = f"must have at most {IDENTIFIER_CHARACTERS_MAX} characters"
        raise InvalidRequest(Violation(field, most))
    if value.isascii():
        storable = "\0" not in value
    else:
        storable = not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value)
    if not storable:
        raise InvalidRequest(Violation(field, "must not hold NUL or a lone surrogate"))


def key_text(key: Key) -> str:
    """Formats a key for messages and error metadata."""
    return "/".join(key)


def grant_from_row(row: Row) -> Grant:
    """Converts a row of `grants`."""
    scope: Scope = EVERYWHERE
    if row["organization_id"] is not None:
        scope = InOrganization(row["organization_id"])
    elif row["resource_type"] is not None:
        scope = OnResource(ResourceRef(row["resource_type"], row["resource_id"]))
    return Grant(
        id=row["id"],
        role=row["role"],
        subject=(
            ToUser(row["user_id"])
            if row["user_id"] is not None
            else ToOrganizationRole(row["organization_role"])
        ),
        scope=scope,
        not_before=row["not_before"],
        expires_at=row["expires_at"],
    )


def _resource_type_from_row(row: Row) -> ResourceType:
    return ResourceType(row["name"], Tenancy(row["tenancy"]), row["stored"] == _REQUIRED)


def _route_from_row(row: Row) -> Route:
    public = row["needs"] == PUBLIC.value
    return Route(row["route"], PUBLIC if public else Needs(row["needs"], row["resource"]))


def user_from_row(row: Row) -> User:
    """Converts a row of `users`."""
    return User(
        id=row["id"],
        email=row["email"],
        name=row["name"],
        status=UserStatus(row["status"]),
        attributes=_attributes(row["attributes"]),
    )


def resource_from_row(row: Row) -> Resource:
    """Converts a row of `resources`."""
    parent = row["parent_type"]
    return Resource(
        type=row["type"],
        id=row["id"],
        organization_id=row["organization_id"],
        parent=ResourceRef(parent, row["parent_id"]) if parent is not None else None,
        attributes=_attributes(row["attributes"]),
    )


def _rule_from_row(row: Row) -> Rule:
    return Rule(
        id=row["id"],
        role=row["role"],
        effect=Effect(row["effect"]),
        permission=row["permission"],
        condition=row["condition"],
        description=row["description"],
    )


def _attributes_text(attributes: Attributes) -> str:
    # ASCII only: it escapes NUL and lone surrogates, so that any text column can store them.
    try:
        return json.dumps(attributes, allow_nan=False, separators=(",", ":"), sort_keys=True)
    except (ValueError, TypeError, RecursionError):
        raise InvalidRequest(Violation("attributes", "must be a JSON object")) from None


def _attributes(text: str) -> Attributes:
    if text == "{}":
        return _NO_ATTRIBUTES  # shared: attributes are never changed in place
    value: Attributes = json.loads(text, parse_int=float)
    return value


KINDS: Mapping[type, Kind] = {
    Permission: Kind(tables.permissions, lambda row: Permission(**row)),
    ResourceType: Kind(tables.resource_types, _resource_type_from_row),
    Role: Kind(tables.roles, lambda row: Role(**row)),
    Rule: Kind(tables.rules, _rule_from_row),
    Grant: Kind(tables.grants, grant_from_row),
    Route: Kind(tables.routes, _route_from_row),
    User: Kind(tables.users, user_from_row),
    Organization: Kind(tables.organizations, lambda row: Organization(**row)),
    Membership: Kind(tables.memberships, lambda row: Membership(**row)),
    Resource: Kind(tables.resources, resource_from_row),
}
