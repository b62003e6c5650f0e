"""Clerk's objects, from webhooks and from the Backend API -> observations. Pure except for logs.

An object with an invalid id is refused. Any other invalid field is left out alone, and the log
names it: some fields are texts that the user writes, and they must not hide a ban.

`noticed_at` is when the event was created, or when the API was requested, in milliseconds.

Source: Clerk's OpenAPI documents `bapi` and `webhooks`, schemas User, Organization,
OrganizationMembership, Role, Permission, Session and DeletedObject.
"""

from collections.abc import Mapping
from typing import Any

import structlog

from pdp import names
from pdp.attributes import normalise_attributes
from pdp.clerk.observations import (
    DeletionSeen,
    MembershipSeen,
    OrganizationSeen,
    PermissionSeen,
    RoleSeen,
    SessionEnded,
    UserSeen,
)
from pdp.errors import InvalidRequest, LimitExceeded
from pdp.facts.store.clerk_objects import ClerkKind
from pdp.model import NO_ATTRIBUTES, Attributes

log = structlog.get_logger("pdp.clerk")

BARRING = ("banned", "locked", "deprovisioned")
SESSION_ENDS = frozenset(("ended", "removed", "revoked", "expired", "abandoned", "replaced"))
"""Statuses that a session never leaves. `active` and `pending` are the others."""
ROLE_PREFIX = "org:"

Object = Mapping[str, Any]
"""A JSON object from Clerk."""


class MalformedObject(ValueError):
    """Not a valid Clerk object. The message names the field and quotes nothing."""


def user_seen(data: Object, noticed_at: int) -> UserSeen:
    """Parses a User. Of its metadata only `public_metadata` is read: the browser writes
    `unsafe_metadata`, and `private_metadata` is not ours to read.

    Raises:
        MalformedObject: A required field is missing or invalid. The other functions here likewise.
    """
    id_ = _identifier(data, "id")
    return UserSeen(
        id=id_,
        updated_at=_time(data, "updated_at"),
        noticed_at=noticed_at,
        email=_prose(_primary_address(data), id_, "email_addresses"),
        name=_prose(_name(data), id_, "first_name, last_name, username"),
        attributes=_attributes(data.get("public_metadata"), id_),
        barred=any(data.get(flag) for flag in BARRING),
    )


def organization_seen(data: Object, noticed_at: int) -> OrganizationSeen:
    """Parses an Organization."""
    id_ = _identifier(data, "id")
    return OrganizationSeen(
        id=id_,
        updated_at=_time(data, "updated_at"),
        noticed_at=noticed_at,
        slug=_prose(data.get("slug"), id_, "slug"),
        name=_prose(data.get("name"), id_, "name"),
    )


def membership_seen(data: Object, noticed_at: int) -> MembershipSeen:
    """Parses an OrganizationMembership; `public_user_data` may be missing."""
    if data.get("created_at") is None:
        raise MalformedObject("created_at")
    return MembershipSeen(
        id=_identifier(data, "id"),
        updated_at=_time(data, "updated_at"),
        noticed_at=noticed_at,
        created_at=_time(data, "created_at"),
        role=_role_key(data, "role"),
        organization_id=_identifier_within(data, "organization", "id"),
        user_id=_identifier_within(data, "public_user_data", "user_id"),
    )


def role_seen(data: Object, noticed_at: int) -> RoleSeen:
    """Parses a Role with its permissions."""
    permissions = data.get("permissions") or ()
    if not isinstance(permissions, list | tuple):
        raise MalformedObject("permissions")
    return RoleSeen(
        id=_identifier(data, "id"),
        updated_at=_time(data, "updated_at"),
        noticed_at=noticed_at,
        key=_role_key(data, "key"),
        permissions=tuple(
            sorted(
                {
                    (_identifier(permission, "id"), _identifier(permission, "key"))
                    for permission in map(_object, permissions)
                }
            )
        ),
    )


def permission_seen(data: Object, noticed_at: int) -> PermissionSeen:
    """Parses a Permission."""
    return PermissionSeen(
        id=_identifier(data, "id"),
        updated_at=_time(data, "updated_at"),
        noticed_at=noticed_at,
        key=_identifier(data, "key"),
    )


def deletion_seen(kind: ClerkKind, data: Object, noticed_at: int) -> DeletionSeen:
    """Parses a DeletedObject: its id, and of a membership also its owners and creation time."""
    membership = kind is ClerkKind.MEMBERSHIP
    began = data.get("created_at") if membership else None
    return DeletionSeen(
        kind=kind,
        id=_identifier(data, "id"),
        updated_at=_time(data, "updated_at"),
        noticed_at=noticed_at,
        created_at=None if began is None else _time(data, "created_at"),
        organization_id=_identifier_within(data, "organization", "id") if membership else None,
        user_id=_identifier_within(data, "public_user_data", "user_id") if membership else None,
    )


def session_ended(data: Object) -> SessionEnded:
    """Parses a Session that has ended."""
    return SessionEnded(session_id=_identifier(data, "id"), user_id=_identifier(data, "user_id"))


# --- fields -------------------------------------------------------------------------------------


def _object(value: Any) -> Object:
    if not isinstance(value, Mapping):
        raise MalformedObject("not an object")
    return value


def _identifier(data: Object, field: str) -> str:
    value = data.get(field)
    if not isinstance(value, str) or names.check_identifier(value, field) is not None:
        raise MalformedObject(field)
    return value


def _identifier_within(data: Object, field: str, name: str) -> str | None:
    """The id of an inner object; None if the object or its id is missing."""
    inner = data.get(field)
    if inner is None or (isinstance(inner, Mapping) and inner.get(name) is None):
        return None
    return _identifier(_object(inner), name)


def _role_key(data: Object, field: str) -> str:
    """A role key with its prefix, which Clerk sometimes leaves out."""
    name = _identifier(data, field).removeprefix(ROLE_PREFIX)
    return _identifier({field: name and ROLE_PREFIX + name}, field)


def _time(data: Object, field: str) -> int:
    """Milliseconds; 0 if the field is missing."""
    value = data.get(field)
    if value is None:
        return 0
    if type(value) is not int or value < 0:
        raise MalformedObject(field)
    return value


def _primary_address(data: Object) -> Any:
    """The address that `primary_email_address_id` names; not merely the first."""
    primary, addresses = data.get("primary_email_address_id"), data.get("email_addresses")
    if primary is None or not isinstance(addresses, list | tuple):
        return None
    for address in addresses:
        if isinstance(address, Mapping) and address.get("id") == primary:
            return address.get("email_address")
    return None


def _name(data: Object) -> Any:
    parts = (data.get("first_name"), data.get("last_name"))
    return " ".join(part for part in parts if isinstance(part, str) and part) or data.get(
        "username"
    )


def _prose(value: Any, id_: str, field: str) -> str:
    """A text for display; empty if it is missing or cannot be stored."""
    if value is None:
        return ""
    if not isinstance(value, str):
        _left_out(id_, field, "is not text")
        return ""
    violation = names.check_description(value, field)
    if violation is not None:
        _left_out(id_, field, violation.description)
        return ""
    return value


def _attributes(value: Any, id_: str) -> Attributes:
    if value is None:
        return NO_ATTRIBUTES
    try:
        return normalise_attributes(value, "public_metadata")
    except InvalidRequest as error:
        _left_out(id_, "public_metadata", error.violations[0].description)
    except LimitExceeded as error:
        _left_out(id_, "public_metadata", error.message)
    return NO_ATTRIBUTES


def _left_out(id_: str, field: str, why: str) -> None:
    log.warning("clerk_field_left_out", id=id_, field=field, why=why)
