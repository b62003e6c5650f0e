"""Of all that was seen of each object, the newest. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pdp.clerk.observations import (
    NOTICED,
    DeletionSeen,
    MembershipSeen,
    OrganizationSeen,
    PermissionSeen,
    RoleSeen,
    Seen,
    UserSeen,
    life_of,
    standing_of,
    version_of,
)
from pdp.facts.store.clerk_objects import ClerkKind, ClerkObject

ObjectKey = tuple[ClerkKind, str]


def of_its_life(seen: Seen, before: Mapping[ObjectKey, ClerkObject]) -> Seen:
    """A sync that misses a membership ends the life that is known, whatever our clock says: a
    later life must stand."""
    known = before.get((kind_of(seen), seen.id))
    if isinstance(seen, DeletionSeen) and seen.kind is ClerkKind.MEMBERSHIP and known is not None:
        return replace(seen, created_at=life_of(known.version))
    return seen


def fold(
    state: dict[ObjectKey, ClerkObject], seen: Sequence[Seen], *, repeats: bool
) -> dict[ObjectKey, Seen]:
    """Brings `state` to the newest of each object. Returns the observations that hold now.

    With `repeats`, what only says again what stands is not written once more: a sync of a million
    users would otherwise write a million rows to say that nothing has changed.
    """
    newest: dict[ObjectKey, Seen] = {}
    for one in seen:
        key = (kind_of(one), one.id)
        new, old = object_of(one), state.get(key)
        if old is None or new.version > old.version:
            newest[key] = one
            if old is not None:
                new = _with_owner(new, old)
                if repeats and _says_the_same(new, old):
                    continue
            state[key] = new
        elif old.organization_id is None or old.user_id is None:
            state[key] = _with_owner(old, new)
    return newest


def object_of(seen: Seen) -> ClerkObject:
    content, digested = _content(seen)
    owner: tuple[str | None, str | None] = (None, None)
    if isinstance(seen, MembershipSeen | DeletionSeen):
        owner = (seen.organization_id, seen.user_id)
    return ClerkObject(
        kind_of(seen),
        seen.id,
        version_of(seen, content | digested),
        standing_of(seen),
        *owner,
        content,
    )


def _content(seen: Seen) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is kept with the object, and what has a table of its own."""
    match seen:
        case UserSeen():
            return {}, {"email": seen.email, "name": seen.name, "attributes": seen.attributes}
        case OrganizationSeen():
            return {}, {"slug": seen.slug, "name": seen.name}
        case MembershipSeen():
            return {"role": seen.role}, {}
        case RoleSeen():
            return {"key": seen.key, "permissions": [list(one) for one in seen.permissions]}, {}
        case PermissionSeen():
            return {"key": seen.key}, {}
        case _:
            return {}, {}


def kind_of(seen: Seen) -> ClerkKind:
    match seen:
        case UserSeen():
            return ClerkKind.USER
        case OrganizationSeen():
            return ClerkKind.ORGANIZATION
        case MembershipSeen():
            return ClerkKind.MEMBERSHIP
        case RoleSeen():
            return ClerkKind.ROLE
        case PermissionSeen():
            return ClerkKind.PERMISSION
        case DeletionSeen():
            return seen.kind
    raise TypeError(seen)


def _with_owner(one: ClerkObject, other: ClerkObject) -> ClerkObject:
    """The same, with whose it is taken from the other where this one does not say. `one` itself
    where nothing is to be taken."""
    organization_id = one.organization_id or other.organization_id
    user_id = one.user_id or other.user_id
    if (organization_id, user_id) == (one.organization_id, one.user_id):
        return one
    return replace(one, organization_id=organization_id, user_id=user_id)


def _says_the_same(new: ClerkObject, old: ClerkObject) -> bool:
    """Whether the two differ at most in when they were noticed."""
    parts, before = new.version.split("."), old.version.split(".")
    del parts[NOTICED], before[NOTICED]
    owners = (new.organization_id, new.user_id) == (old.organization_id, old.user_id)
    return parts == before and owners
