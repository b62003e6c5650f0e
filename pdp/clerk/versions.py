"""The last-writer-wins merge of observations: the newest version of each object. Pure."""

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
    status_of,
    version_of,
)
from pdp.facts.store.clerk_objects import ClerkKind, ClerkObject

ObjectKey = tuple[ClerkKind, str]


def of_its_life(seen: Seen, before: Mapping[ObjectKey, ClerkObject]) -> Seen:
    """A membership deletion, limited to the lifetime that is stored; others are unchanged.

    A sync that does not find a membership ends the lifetime that it knew, whatever our clock says:
    a later lifetime must survive.
    """
    known = before.get((kind_of(seen), seen.id))
    if isinstance(seen, DeletionSeen) and seen.kind is ClerkKind.MEMBERSHIP and known is not None:
        return replace(seen, created_at=life_of(known.version))
    return seen


def fold(
    state: dict[ObjectKey, ClerkObject], seen: Sequence[Seen], *, repeats: bool
) -> dict[ObjectKey, Seen]:
    """Merges observations into `state`, in place: of each object the newest version wins.

    Args:
        state: The stored objects.
        seen: The new observations.
        repeats: Whether `seen` comes from a sync. An observation with equal content is then not
            written again: otherwise a sync of a million unchanged users writes a million rows.

    Returns:
        The observation of each object that won.
    """
    newest: dict[ObjectKey, Seen] = {}
    for observation in seen:
        key = (kind_of(observation), observation.id)
        new, old = object_of(observation), state.get(key)
        if old is None or new.version > old.version:
            newest[key] = observation
            if old is not None:
                new = _with_owner(new, old)
                if repeats and _has_same_content(new, old):
                    continue
            state[key] = new
        elif old.organization_id is None or old.user_id is None:
            state[key] = _with_owner(old, new)
    return newest


def object_of(seen: Seen) -> ClerkObject:
    """The row to store for an observation."""
    content, digested = _content(seen)
    owner: tuple[str | None, str | None] = (None, None)
    if isinstance(seen, MembershipSeen | DeletionSeen):
        owner = (seen.organization_id, seen.user_id)
    return ClerkObject(
        kind_of(seen),
        seen.id,
        version_of(seen, content | digested),
        status_of(seen),
        *owner,
        content,
    )


def _content(seen: Seen) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content stored with the object, and the content that has a table of its own."""
    match seen:
        case UserSeen():
            return {}, {"email": seen.email, "name": seen.name, "attributes": seen.attributes}
        case OrganizationSeen():
            return {}, {"slug": seen.slug, "name": seen.name}
        case MembershipSeen():
            return {"role": seen.role}, {}
        case RoleSeen():
            return {
                "key": seen.key,
                "permissions": [list(permission) for permission in seen.permissions],
            }, {}
        case PermissionSeen():
            return {"key": seen.key}, {}
        case _:
            return {}, {}


def kind_of(seen: Seen) -> ClerkKind:
    """The kind of the observed object."""
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


def _with_owner(target: ClerkObject, source: ClerkObject) -> ClerkObject:
    """`target`, with a missing organization or user taken from `source`; itself if none is."""
    organization_id = target.organization_id or source.organization_id
    user_id = target.user_id or source.user_id
    if (organization_id, user_id) == (target.organization_id, target.user_id):
        return target
    return replace(target, organization_id=organization_id, user_id=user_id)


def _has_same_content(new: ClerkObject, old: ClerkObject) -> bool:
    """Whether the two differ at most in `noticed_at`."""
    parts, before = new.version.split("."), old.version.split(".")
    del parts[NOTICED], before[NOTICED]
    owners = (new.organization_id, new.user_id) == (old.organization_id, old.user_id)
    return parts == before and owners
