"""Which permissions Clerk's organization roles carry, as far as Clerk has said it."""

import json
from collections.abc import Mapping

from sqlalchemy import select

from pdp.facts.store import tables
from pdp.facts.store.clerk_objects import ClerkKind, ClerkStatus
from pdp.facts.store.store import Reader


def read_organization_permissions(reader: Reader) -> Mapping[str, tuple[str, ...]]:
    """Organization role key (`org:editor`) -> the keys of its permissions, sorted. A role of which
    nothing was said, or that is deleted, is not among them.

    A permission is known by its id: one that is deleted is gone from every role, and one that was
    renamed has its new key in all of them. Where two roles go by one key, as one does after the
    other while events are on their way, what both carry is carried.

    Raises DatabaseUnavailable.
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
        # The permission's own word on its key; the role's where it has not said anything.
        said = (permissions.get(one, {"key": key}) for one, key in role["permissions"])
        keys = frozenset(permission["key"] for permission in said if permission is not None)
        found[role["key"]] = found.get(role["key"], keys) & keys
    return {key: tuple(sorted(keys)) for key, keys in found.items()}


_OBJECTS = tables.clerk_objects.c
_ROLES_AND_PERMISSIONS = select(
    _OBJECTS.kind, _OBJECTS.id, _OBJECTS.standing, _OBJECTS.content
).where(_OBJECTS.kind.in_((ClerkKind.ROLE.value, ClerkKind.PERMISSION.value)))
