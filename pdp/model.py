"""The vocabulary: frozen values that all packages share. No I/O.

Its only dependency is `pdp_routes`, a pure package that the guards share.

Times are seconds since 1970-01-01 UTC. Attribute values are JSON values with every number as float
(as CEL reads JSON): None, bool, float, str, list, dict. Identifiers compare byte for byte.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pdp_routes import Requirement

Attributes = Mapping[str, Any]
"""Never changed in place once it is part of a value."""
NO_ATTRIBUTES: Attributes = {}


class Effect(enum.Enum):
    """The effect of a rule, and of a decision."""

    ALLOW = "allow"
    DENY = "deny"

    # Members are singletons; the inherited hash is a slow Python function in each decision.
    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError("compare an Effect with Effect.ALLOW; it has no truth value")


class DenialKind(enum.Enum):
    """The HTTP status class of a denial: 401 or 403."""

    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"


class Reason(enum.Enum):
    """The reason of a decision. The names are those of `DecisionReason` in the contract; the value
    is a sentence for people."""

    ALLOWED_BY_RULE = "A rule allows it."
    QUERY_ANSWERED = "A query was answered."
    """Only in the decision log, for queries; never the reason of a decision."""

    TOKEN_MALFORMED = "The token is not a well-formed session token."  # noqa: S105
    TOKEN_ALGORITHM_NOT_ALLOWED = "The token's header asks for what is not accepted."  # noqa: S105
    TOKEN_NOT_A_SESSION = "The token is not a session token."  # noqa: S105
    TOKEN_ISSUER_MISMATCH = "The token's issuer is not accepted."  # noqa: S105
    TOKEN_KEY_UNKNOWN = "The token's signing key is not known."  # noqa: S105
    TOKEN_SIGNATURE_INVALID = "The token's signature does not verify."  # noqa: S105
    TOKEN_CLAIM_INVALID = "A claim of the token is missing or malformed."  # noqa: S105
    TOKEN_EXPIRED = "The token has expired."  # noqa: S105
    TOKEN_NOT_YET_VALID = "The token is not valid yet."  # noqa: S105
    TOKEN_LIFETIME_TOO_LONG = "The token was issued for too long a time."  # noqa: S105
    TOKEN_PARTY_NOT_AUTHORIZED = "The token was made for another party."  # noqa: S105
    TOKEN_AUDIENCE_MISMATCH = "The token was made for another audience."  # noqa: S105
    SESSION_PENDING = "The session is not active."
    SESSION_REVOKED = "The session was revoked or has ended."
    TOKEN_PARTY_MISSING = "The token does not say for which party it was made."  # noqa: S105

    ACTOR_UNKNOWN = "The user is not known."
    ACTOR_DISABLED = "The user is disabled."
    MEMBERSHIP_UNKNOWN = "The user is not known as a member of the active organization."
    WRONG_ORGANIZATION = "The resource belongs to another organization."
    PERMISSION_UNKNOWN = "The permission is not declared."
    PERMISSION_NOT_GRANTED = "No role of the user allows it."
    CONDITION_NOT_MET = "A rule would allow it, but its condition is not met."
    CONDITION_FAILED = "A condition could not be evaluated."
    ATTRIBUTE_MISSING = "A condition reads an attribute that is not there."
    DENIED_BY_RULE = "A rule denies it."
    ROUTE_UNKNOWN = "No route of the policy names this method and path."
    PATH_AMBIGUOUS = "The path could be read in more than one way."
    RESOURCE_ORGANIZATION_UNKNOWN = (
        "The organization of the resource is not known: store the resource with its organization, "
        "or send organization_id for a resource that is not stored."
    )
    RESOURCE_UNKNOWN = (
        "No such resource is stored, and the policy says that resources of its type are: "
        "store it, or correct its id."
    )

    __hash__ = object.__hash__  # as of Effect

    @property
    def denial_kind(self) -> DenialKind | None:
        """UNAUTHENTICATED if the token or session is refused, FORBIDDEN for other denials, None for
        an allow and for an answered query."""
        if self in (Reason.ALLOWED_BY_RULE, Reason.QUERY_ANSWERED):
            return None
        unauthenticated = self.name.startswith("TOKEN_") or self.name.startswith("SESSION_")
        return DenialKind.UNAUTHENTICATED if unauthenticated else DenialKind.FORBIDDEN


# --- actors -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Actor:
    """The user and session of a token, its active organization, and an impersonator."""

    user_id: str
    session_id: str
    organization_id: str | None = None
    impersonator_id: str | None = None


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token with a valid signature and valid claims. Does not contain the token itself."""

    actor: Actor
    issuer: str
    key_id: str
    expires_at: float
    claims: Attributes
    """The whole payload; numbers are floats."""
    token_id: str | None = None
    """`jti`"""
    claimed_permissions: tuple[str, ...] = ()
    """Organization permissions as the token claims them (`org:feature:action`), sorted. Decisions
    never rely on them alone; conditions may read them."""
    claimed_organization_role: str | None = None
    """`org:member`: the role in the active organization as the token claims it, with its prefix.
    Decisions do not read it, nor the slug. Provisioning does, if it is enabled."""
    claimed_organization_slug: str | None = None
    first_factor_minutes: float | None = None
    """Minutes since the first factor was verified; None if `fva` does not contain it."""
    second_factor_minutes: float | None = None
    fingerprint: str = ""
    """First 16 hexadecimal digits of the token's SHA-256."""


@dataclass(frozen=True, slots=True)
class RefusedToken:
    """A refused token, and why."""

    reason: Reason
    fingerprint: str
    actor: Actor | None = None
    """Set only if the signature is valid (e.g. of an expired token)."""
    token_id: str | None = None


# --- policy -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Permission:
    """A declared permission, e.g. `course:view`."""

    name: str
    description: str = ""


class Tenancy(enum.Enum):
    """Whether resources of a type belong to organizations."""

    ORGANIZATION = "organization"
    NONE = "none"

    __hash__ = object.__hash__  # as of Effect


@dataclass(frozen=True, slots=True)
class ResourceType:
    """Settings of the policy for a type of resources. Undeclared types have the defaults."""

    name: str
    tenancy: Tenancy = Tenancy.ORGANIZATION
    stored_required: bool = False
    """Whether questions about resources that are not stored are denied."""


@dataclass(frozen=True, slots=True)
class Role:
    """A named set of rules that grants refer to."""

    name: str
    description: str = ""
    inherits: tuple[str, ...] = ()
    """Names of the roles whose rules this role inherits; sorted."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Allows or denies a permission to the holders of a role."""

    id: str
    role: str
    effect: Effect
    permission: str
    """A permission, `type:*`, or `*`."""
    condition: str = ""
    """CEL of type bool; empty: always."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class ResourceRef:
    """The key of a resource."""

    type: str
    id: str


class Everywhere(enum.Enum):
    """The scope of a grant that holds everywhere."""

    EVERYWHERE = "everywhere"


EVERYWHERE = Everywhere.EVERYWHERE


@dataclass(frozen=True, slots=True)
class InOrganization:
    """The scope of a grant that holds within one organization."""

    organization_id: str


@dataclass(frozen=True, slots=True)
class OnResource:
    """The scope of a grant that holds on one resource and what is below it."""

    resource: ResourceRef


Scope = Everywhere | InOrganization | OnResource


@dataclass(frozen=True, slots=True)
class ToUser:
    """A grant's subject: one user."""

    user_id: str


@dataclass(frozen=True, slots=True)
class ToOrganizationRole:
    """A grant's subject: holders of this Clerk organization role in their active organization."""

    organization_role: str


Subject = ToUser | ToOrganizationRole


@dataclass(frozen=True, slots=True)
class Grant:
    """Gives a role to a subject within a scope."""

    id: str
    role: str
    subject: Subject
    scope: Scope = EVERYWHERE
    not_before: float | None = None
    expires_at: float | None = None
    """In force while not_before <= now < expires_at."""


@dataclass(frozen=True, slots=True)
class Route:
    """What an HTTP request needs, by method and path. Only the set of all routes decides."""

    route: str
    """`[METHOD ]/path`, e.g. `GET /courses/{id}`."""
    needs: Requirement


# --- facts --------------------------------------------------------------------------------------


class UserStatus(enum.Enum):
    """Whether an administrator has disabled a user."""

    ACTIVE = "active"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class User:
    """A user, with the id that Clerk gave."""

    id: str
    email: str = ""
    name: str = ""
    status: UserStatus = UserStatus.ACTIVE
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization of Clerk: a tenant."""

    id: str
    slug: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Membership:
    """A user's membership in an organization."""

    organization_id: str
    user_id: str
    role: str
    """The Clerk organization role, e.g. `org:member`."""


# The values that are created for each question are named tuples: as immutable as a frozen
# dataclass, at a quarter of the cost of creation.


class Resource(NamedTuple):
    """A resource, stored or as a request describes it."""

    type: str
    id: str
    organization_id: str | None = None
    parent: ResourceRef | None = None
    attributes: Attributes = NO_ATTRIBUTES


@dataclass(frozen=True, slots=True)
class RevokedSession:
    """A session whose tokens are refused."""

    session_id: str
    user_id: str
    revoked_at: float | None = None
    """When Clerk reported its end, in Unix seconds; None: it may continue at Clerk."""


Entity = (
    Permission
    | ResourceType
    | Role
    | Rule
    | Grant
    | Route
    | Resource
    | User
    | Organization
    | Membership
)
"""The entities that the administration service writes."""


@dataclass(frozen=True, slots=True)
class UserFacts:
    """All stored facts about a user."""

    user: User
    memberships: Mapping[str, str]
    """Organization id -> Clerk organization role."""
    grants: tuple[Grant, ...]
    """Grants to this user, ordered by id."""
    revoked_sessions: frozenset[str]


class ResourceFacts(NamedTuple):
    """The facts about a resource, without its ancestors."""

    resource: Resource
    role_grants: tuple[Grant, ...]
    """Grants to organization roles on exactly this resource, ordered by id."""
    stored: bool = False
    """Whether the resource is stored; otherwise it is as the request describes it."""


@dataclass(frozen=True, slots=True)
class OrganizationFacts:
    """The stored facts for all members of an organization."""

    organization_id: str
    role_grants: tuple[Grant, ...]
    """Grants to organization roles scoped to exactly this organization, ordered by id."""


# --- question and answer ------------------------------------------------------------------------


class Question(NamedTuple):
    """May the actor use this permission on this resource?"""

    permission: str
    resource: Resource | None = None
    """As the request describes it."""
    context: Attributes = NO_ATTRIBUTES


class HttpRequest(NamedTuple):
    """An HTTP request; the routes of the policy determine what it needs."""

    method: str
    path: str
    """As received, with its query; one character for each byte."""
    context: Attributes
    """The attributes that conditions may read."""


class Factor(enum.Enum):
    """Which factors are to be verified again. The names are those of `StepUp.Factor` in the
    contract."""

    FIRST = "first"
    SECOND = "second"
    BOTH = "both"

    __hash__ = object.__hash__  # as of Effect


class StepUp(NamedTuple):
    """A verification that would lift a denial."""

    factor: Factor
    max_age_minutes: float
    """How long ago it may have been."""


class Decision(NamedTuple):
    """The answer to a question. Compare `effect`; a decision has no truth value."""

    effect: Effect
    reason: Reason
    rule_id: str | None = None
    grant_id: str | None = None
    resource_organization_id: str | None = None
    """The organization of the resource."""
    reusable_until: float | None = None
    """Until when the same question has the same answer if no data changes; None: not reusable."""
    too_expensive: tuple[str, ...] = ()
    """Ids of rules whose condition was not evaluated because of its cost."""
    step_up: StepUp | None = None
    """What would make this denial an allow; `pdp.decision.with_step_up` looks for it."""

    def __bool__(self) -> bool:
        raise TypeError("compare decision.effect with Effect.ALLOW; a decision has no truth value")


Key = tuple[str, ...]


def key_of(entity: Entity) -> Key:
    """The primary key of an entity, as the contract's Get and Delete name it."""
    match entity:
        case Permission() | ResourceType() | Role():
            return (entity.name,)
        case Route():
            return (entity.route,)
        case Resource():
            return (entity.type, entity.id)
        case Membership():
            return (entity.organization_id, entity.user_id)
        case Rule() | Grant() | User() | Organization():
            return (entity.id,)
