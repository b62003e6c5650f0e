"""The principal of a decision: the actor as the facts know them, and the grants that they hold
now."""

from math import inf
from typing import Any, Final

from pdp.decision.conditions import Condition
from pdp.decision.policy import Policy
from pdp.model import (
    EVERYWHERE,
    Grant,
    InOrganization,
    OnResource,
    OrganizationFacts,
    Reason,
    ResourceFacts,
    ResourceRef,
    ToUser,
    UserFacts,
    UserStatus,
    VerifiedToken,
)

# Plain tuples, here and below: a decision takes microseconds, and an object for each would be most
# of that. Candidates order by rule id, then grant id.
Candidate = tuple[str, str, int, Condition | None]
"""A rule that may decide: its id, the grant through which it applies, the reach of an allow rule
through that grant (a number below), its condition."""
Candidates = tuple[list[Candidate], list[Candidate]]
"""Allow rules and deny rules, each in order."""

# The reach of an allow rule. The same numbers say which reach a resource needs: a rule counts if
# its reach is at least that. Plain numbers, as above.
IN_ORGANIZATION: Final = 0
"""Resources in the active organization, and those whose type has no organization."""
UNKNOWN_ORGANIZATION: Final = 1
"""Also a resource whose organization is unknown."""
ANY_ORGANIZATION: Final = 2
"""Also a resource of another organization."""

CANDIDATES_MAX: Final = 256
"""The most permissions whose rules a principal keeps: a snapshot keeps principals."""

_Split = tuple[list[Grant], dict[ResourceRef, list[Grant]]]
"""The grants that do not depend on single resources, and those that do."""

_SPLIT_MEMO_MIN: Final = 32
_SPLIT_MEMO_ENTRIES_MAX: Final = 256
_splits: dict[int, tuple[tuple[Grant, ...], _Split]] = {}


class Principal:
    """The actor with everything that does not depend on the question.

    `resolve_principal` makes it. It serves any number of questions, in a single thread at a time.
    """

    def __init__(
        self,
        policy: Policy,
        token: VerifiedToken,
        user: UserFacts | None,
        organization: OrganizationFacts | None,
        now: float,
    ) -> None:
        self.policy = policy
        self.token = token
        self.user = user
        self.organization = organization
        self.now = now
        self.refusal: Reason | None = None
        self.organization_role = ""
        """The actor's role in the active organization, from the database; empty: none."""
        self.reusable_until = token.expires_at
        """The end of the token, or the next edge of a grant that counts for every resource."""
        self.wide: list[Grant] = []
        """Grants that hold now and cover the whole active organization."""
        self.elsewhere: list[Grant] = []
        """Grants that hold now, in organizations other than the active one."""
        self.on_resources: dict[ResourceRef, list[Grant]] = {}
        """Grants to the user on single resources, whether they hold now or not."""
        self.candidates: dict[str, Candidates] = {}
        """Rules through the wide grants, by permission; at most CANDIDATES_MAX."""
        self.actor_values: dict[str, Any] | None = None

    def at(self, now: float) -> "Principal":
        """The same principal at a time from its own up to `reusable_until`: no grant begins or ends
        in between. `candidates` is shared, so one permission is looked up once for both."""
        later = object.__new__(Principal)  # copy.copy takes several times as long
        later.__dict__.update(self.__dict__)
        later.now = now
        values = self.actor_values
        later.actor_values = None if values is None else {**values, "now": now}
        return later


def resolve_principal(
    policy: Policy,
    token: VerifiedToken,
    user: UserFacts | None,
    organization: OrganizationFacts | None,
    now: float,
) -> Principal:
    """Resolves the principal of a verified token.

    Args:
        policy: the policy.
        token: the verified token.
        user: the stored user; None: unknown.
        organization: what is stored for the active organization; None: nothing is stored, or no
            organization is active.
        now: seconds since 1970-01-01 UTC.

    Raises:
        ValueError: the facts belong to another user or organization.
    """
    actor = token.actor
    active = actor.organization_id
    principal = Principal(policy, token, user, organization, now)
    if organization is not None and organization.organization_id != active:
        raise ValueError("the facts are of another organization")
    if user is None:
        principal.refusal = Reason.ACTOR_UNKNOWN
        return principal
    if user.user.id != actor.user_id:
        raise ValueError("the facts are of another user")
    if user.user.status is not UserStatus.ACTIVE:
        principal.refusal = Reason.ACTOR_DISABLED
        return principal
    if actor.session_id in user.revoked_sessions:
        principal.refusal = Reason.SESSION_REVOKED
        return principal
    if active is not None:
        role = user.memberships.get(active)
        if role is None:
            principal.refusal = Reason.MEMBERSHIP_UNKNOWN
            return principal
        principal.organization_role = role

    wide, principal.on_resources = _split(user.grants)
    for grant in wide:
        _add_grant(principal, grant)
    if principal.organization_role:
        for grant in policy.grants_to(principal.organization_role):
            _add_grant(principal, grant)
        if organization is not None:
            for grant in organization.role_grants:
                _add_grant(principal, grant)
    return principal


def _add_grant(principal: Principal, grant: Grant) -> None:
    """Adds a grant that does not depend on single resources, if it is to the actor and holds
    now."""
    if not is_to_actor(grant, principal):
        return
    if grant.not_before is not None or grant.expires_at is not None:
        principal.reusable_until = min(principal.reusable_until, edge_of(grant, principal.now))
        if not holds(grant, principal.now):
            return
    scope = grant.scope
    if scope is EVERYWHERE:
        principal.wide.append(grant)
    elif isinstance(scope, InOrganization):
        if scope.organization_id == principal.token.actor.organization_id:
            principal.wide.append(grant)
        else:
            principal.elsewhere.append(grant)


def grants_elsewhere(
    principal: Principal, chain: tuple[ResourceFacts, ...], reach: int
) -> list[Grant]:
    """Grants outside of the active organization whose deny rules count: in an organization that a
    resource of the chain belongs to, or in any while the resource's organization is unknown."""
    if reach == UNKNOWN_ORGANIZATION:
        return principal.elsewhere
    owners = {facts.resource.organization_id for facts in chain}
    return [
        grant
        for grant in principal.elsewhere
        if isinstance(grant.scope, InOrganization) and grant.scope.organization_id in owners
    ]


def grants_on_resources(
    principal: Principal, chain: tuple[ResourceFacts, ...], until: float
) -> tuple[list[Grant], float]:
    """The grants that hold now on a resource of the chain, and the next edge of any such grant."""
    narrow: list[Grant] = []
    for facts in chain:
        resource = facts.resource
        ref = ResourceRef(resource.type, resource.id)
        for grant in (*principal.on_resources.get(ref, ()), *facts.role_grants):
            if (
                isinstance(grant.scope, OnResource)
                and grant.scope.resource == ref
                and is_to_actor(grant, principal)
            ):
                until = min(until, edge_of(grant, principal.now))
                if holds(grant, principal.now):
                    narrow.append(grant)
    return narrow, until


def is_to_actor(grant: Grant, principal: Principal) -> bool:
    """Whether the grant is to the user, or to their role in the active organization."""
    subject = grant.subject
    if isinstance(subject, ToUser):
        return subject.user_id == principal.token.actor.user_id
    role = principal.organization_role
    return role != "" and subject.organization_role == role


def holds(grant: Grant, now: float) -> bool:
    """Whether the grant has begun and not ended."""
    return (grant.not_before is None or grant.not_before <= now) and (
        grant.expires_at is None or now < grant.expires_at
    )


def edge_of(grant: Grant, now: float) -> float:
    """When the grant next begins or ends."""
    begins, ends = grant.not_before, grant.expires_at
    return min(
        begins if begins is not None and begins > now else inf,
        ends if ends is not None and ends > now else inf,
    )


def _split(grants: tuple[Grant, ...]) -> _Split:
    """Splits grants by scope, with a memo for users with many grants.

    The key is the identity of the (immutable) tuple. An entry keeps its tuple alive, so no other
    tuple can get that identity.
    """
    if len(grants) < _SPLIT_MEMO_MIN:
        return _split_afresh(grants)
    known = _splits.get(id(grants))
    if known is None or known[0] is not grants:
        if len(_splits) >= _SPLIT_MEMO_ENTRIES_MAX:
            _splits.clear()
        known = _splits[id(grants)] = (grants, _split_afresh(grants))
    return known[1]


def _split_afresh(grants: tuple[Grant, ...]) -> _Split:
    wide: list[Grant] = []
    on_resources: dict[ResourceRef, list[Grant]] = {}
    for grant in grants:
        if isinstance(grant.scope, OnResource):
            on_resources.setdefault(grant.scope.resource, []).append(grant)
        else:
            wide.append(grant)
    return wide, on_resources
