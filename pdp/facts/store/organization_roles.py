"""The permissions of Clerk's organization roles, as far as Clerk has reported them."""

import json
from collections.abc import Mapping

from sqlalchemy import select

from pdp.facts.store import tables
from pdp.facts.store.clerk_objects import ClerkKind, ClerkStatus
from pdp.facts.store.reader import Reader


def read_organization_permissions(reader: Reader) -> Mapping[str, tuple[str, ...]]:
    """Maps the key of each organization role (`org:editor`) to the sorted keys of its permissions.

    Roles that are unreported or deleted are left out. Permissions are identified by id: a deleted
    permission disappears from every role, and a renamed one has its new key in all of them. If two
    roles have the same key (while events are in flight), only the permissions of both count.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    rows = reader.connection.execute(_ROLES_AND_PERMISSIONS).all()
    permissions = {
        row.id: None if row.standing == ClerkStatus.DELETED.value else json.loads(row.content)
        for row in rows
        if row.kind == ClerkKind.PERMISSION.value
    }
    found: dict[str, frozenset[str]] = {}
    for row in rows:
        if row.kind != ClerkKind.ROLE.value or row.standing == ClerkStatus.DELETED.value:
            continue
        role = json.loads(row.content)
        # The key that the permission itself reports; if it reports none, that of the role.
        reported = (permissions.get(id_, {"key": key}) for id_, key in role["permissions"])
        keys = frozenset(permission["key"] for permission in reported if permission is not None)
        found[role["key"]] = found.get(role["key"], keys) & keys
    return {key: tuple(sorted(keys)) for key, keys in found.items()}


_OBJECTS = tables.clerk_objects.c
_ROLES_AND_PERMISSIONS = select(
    _OBJECTS.kind, _OBJECTS.id, _OBJECTS.standing, _OBJECTS.content
).where(_OBJECTS.kind.in_((ClerkKind.ROLE.value, ClerkKind.PERMISSION.value)))
