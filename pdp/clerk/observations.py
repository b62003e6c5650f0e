"""What was seen of Clerk's account, by a webhook or through its Backend API. Pure values.

Times are milliseconds since 1970-01-01 UTC, as Clerk writes them. Ids are Clerk's, never made here.
"""

import enum
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pdp.facts.store.clerk_objects import ClerkKind, ClerkStatus
from pdp.model import Attributes

NOTICED = 3
"""Which part of a version says when it was noticed."""
TIME_MAX = 10**15
"""Milliseconds that a version has room for: some 30,000 years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Which object, and how new that is."""

    id: str
    updated_at: int
    """The object's own `updated_at`; 0 where it was not said."""
    noticed_at: int
    """When the event was made, or when the API was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSeen(Seen):
    email: str = ""
    """The primary address; empty where there is none."""
    name: str = ""
    attributes: Attributes = field(default_factory=dict)
    """`public_metadata`"""
    barred: bool = False
    """Banned, locked or deprovisioned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganizationSeen(Seen):
    slug: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipSeen(Seen):
    created_at: int
    """Begins a life: a member who was removed and comes back has a later one."""
    role: str
    """`org:member`"""
    organization_id: str | None = None
    user_id: str | None = None
    """None where it was not said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSeen(Seen):
    key: str
    """`org:editor`"""
    permissions: tuple[tuple[str, str], ...] = ()
    """(id, key) of each, e.g. `org:posts:edit`, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PermissionSeen(Seen):
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionSeen(Seen):
    kind: ClerkKind
    created_at: int | None = None
    """Of a membership: which life has ended; None: every one that began before `noticed_at`."""
    organization_id: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipGone:
    """A membership that is stored though Clerk has never spoken of it is not at Clerk."""

    organization_id: str
    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded:
    """A session was revoked, removed, ended or has expired."""

    session_id: str
    user_id: str


Observation = (
    UserSeen
    | OrganizationSeen
    | MembershipSeen
    | RoleSeen
    | PermissionSeen
    | DeletionSeen
    | MembershipGone
    | SessionEnded
)


@dataclass(frozen=True, slots=True)
class Message:
    """What one of Clerk's messages tells of."""

    id: str
    """The same at each delivery."""
    observation: Observation


class Drift(enum.Enum):
    """How the database differed from what was seen."""

    MISSING = "missing"
    """There, and not here."""
    DIFFERENT = "different"
    EXTRA = "extra"
    """Here, and not there."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that an observation changed, or would change."""

    kind: str
    """`user`, `organization`, `membership`, `role`, `permission` or `session`."""
    id: str
    """Clerk's id; of a membership `organization/user`, where both were said."""
    drift: Drift


@dataclass(frozen=True, slots=True)
class Observed:
    """What came of observations."""

    revision: int
    """From which on all of them hold."""
    differences: Sequence[Difference] = field(default_factory=tuple)
    duplicate: bool = False
    """The message had been handled before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Who stands behind the first valid token of somebody who is not known."""

    user_id: str
    session_id: str
    organization_id: str | None = None
    organization_slug: str = ""
    organization_role: str | None = None
    """`org:member`; None: the token does not say as what."""


def standing_of(seen: Seen) -> ClerkStatus:
    """What the object may still do."""
    if isinstance(seen, DeletionSeen):
        return ClerkStatus.DELETED
    barred = isinstance(seen, UserSeen) and seen.barred
    return ClerkStatus.BARRED if barred else ClerkStatus.ACTIVE


def life_of(version: str) -> int:
    """When the life of a membership began that a version speaks of, in milliseconds."""
    return int(version.partition(".")[0])


def noticed_at_of(version: str) -> int:
    """When what a version speaks of was noticed, in milliseconds."""
    return int(version.split(".")[NOTICED])


def version_of(seen: Seen, content: Mapping[str, Any]) -> str:
    """A text whose bytewise order is the order of what was said of one object.

    First the life (of a membership; for all else there is one), in which a deletion is the last
    word; then the object's own time of change, then when it was noticed. Where all that is equal,
    the stricter stands, and at last whatever has the greater digest: the order in which
    observations arrive never matters.
    """
    life, deleted, barred = 0, 0, 0
    match seen:
        case MembershipSeen():
            life = seen.created_at
        case DeletionSeen():
            deleted = 1
            if seen.kind is ClerkKind.MEMBERSHIP:
                life = seen.noticed_at if seen.created_at is None else seen.created_at
        case UserSeen():
            barred = int(seen.barred)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    times = (min(max(one, 0), TIME_MAX) for one in (life, seen.updated_at, seen.noticed_at))
    life_text, updated, noticed = (f"{one:016d}" for one in times)
    return f"{life_text}.{deleted}.{updated}.{noticed}.{barred}.{digest}"
