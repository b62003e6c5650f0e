"""Observations of a Clerk account, from a webhook or from the Backend API. Pure values.

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
"""Index of the part of a version that holds `noticed_at`."""
TIME_MAX = 10**15
"""The greatest time in milliseconds that fits into a version: some 30,000 years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Base of the observations of one object: its id, and how new the observation is."""

    id: str
    updated_at: int
    """The object's own `updated_at`; 0 if Clerk did not send it."""
    noticed_at: int
    """When the event was created, or when the API was requested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSeen(Seen):
    """A user exists at Clerk."""

    email: str = ""
    """The primary address; empty if there is none."""
    name: str = ""
    attributes: Attributes = field(default_factory=dict)
    """`public_metadata`"""
    barred: bool = False
    """Banned, locked or deprovisioned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganizationSeen(Seen):
    """An organization exists at Clerk."""

    slug: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipSeen(Seen):
    """A user is a member of an organization at Clerk."""

    created_at: int
    """Identifies the lifetime: a member who is removed and added again has a later one."""
    role: str
    """`org:member`"""
    organization_id: str | None = None
    user_id: str | None = None
    """None if Clerk did not send it; `organization_id` likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSeen(Seen):
    """An organization role exists at Clerk."""

    key: str
    """`org:editor`"""
    permissions: tuple[tuple[str, str], ...] = ()
    """(id, key) of each, e.g. `org:posts:edit`, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PermissionSeen(Seen):
    """An organization permission exists at Clerk."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionSeen(Seen):
    """An object was deleted at Clerk."""

    kind: ClerkKind
    created_at: int | None = None
    """Of a membership: the lifetime that has ended; None: each that began before `noticed_at`."""
    organization_id: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipGone:
    """A membership is stored, Clerk never reported it, and it does not exist at Clerk."""

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
    """One webhook message of Clerk and its observation."""

    id: str
    """`svix-id`: the same at each delivery."""
    observation: Observation


class Drift(enum.Enum):
    """How the database differed from Clerk."""

    MISSING = "missing"
    """At Clerk, not in the database."""
    DIFFERENT = "different"
    EXTRA = "extra"
    """In the database, not at Clerk."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that an observation changed, or would change."""

    kind: str
    """`user`, `organization`, `membership`, `role`, `permission` or `session`."""
    id: str
    """Clerk's id; of a membership `organization/user`, if both are known."""
    drift: Drift


@dataclass(frozen=True, slots=True)
class Observed:
    """The result of writing observations."""

    revision: int
    """The revision from which on the facts contain all of them."""
    differences: Sequence[Difference] = field(default_factory=tuple)
    duplicate: bool = False
    """The message had been handled before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIdentity:
    """What a valid token proves about its user, and claims about the active organization."""

    user_id: str
    session_id: str
    organization_id: str | None = None
    organization_slug: str = ""
    organization_role: str | None = None
    """`org:member`; None: the token has no role."""


def status_of(seen: Seen) -> ClerkStatus:
    """The state that the observation reports: active, barred or deleted."""
    if isinstance(seen, DeletionSeen):
        return ClerkStatus.DELETED
    barred = isinstance(seen, UserSeen) and seen.barred
    return ClerkStatus.BARRED if barred else ClerkStatus.ACTIVE


def names_of(observation: Observation) -> frozenset[str]:
    """The ids of the objects that an observation names."""
    fields = ("id", "organization_id", "user_id", "session_id")
    ids = (getattr(observation, name, None) for name in fields)
    return frozenset(id_ for id_ in ids if id_)


def life_of(version: str) -> int:
    """When the membership lifetime of a version began, in milliseconds."""
    return int(version.partition(".")[0])


def noticed_at_of(version: str) -> int:
    """`noticed_at` of a version, in milliseconds."""
    return int(version.split(".")[NOTICED])


def version_of(seen: Seen, content: Mapping[str, Any]) -> str:
    """A version of one object as text; of two versions, the bytewise greater wins.

    Compared in this order: the lifetime of a membership (0 for other kinds); a deletion, which ends
    its lifetime; the object's own `updated_at`; `noticed_at`. If all of these are equal, the
    stricter state wins, then the greater digest of the content. So the order in which observations
    arrive never matters.
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
    times = (min(max(number, 0), TIME_MAX) for number in (life, seen.updated_at, seen.noticed_at))
    life_text, updated, noticed = (f"{number:016d}" for number in times)
    return f"{life_text}.{deleted}.{updated}.{noticed}.{barred}.{digest}"
