"""Who stands here: the actor as the facts know them, and the grants that are theirs now."""

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

# Plain tuples, here and below: a decision takes microseconds, and an object each would be most
# of it. They order by rule id, then grant id.
Candidate = tuple[str, str, int, Condition | None]
"""A rule that would decide: its id, the grant through which it applies, how far an allow rule
reaches through that grant (one of the numbers below), its condition."""
Candidates = tuple[list[Candidate], list[Candidate]]
"""Allowing and denying ones, each in order."""

# How far an allow rule reaches. The same numbers say what a resource asks for: a rule counts if it
# reaches at least as far. Plain numbers, as above.
IN_ORGANIZATION: Final = 0
"""Resources that are known to be in the active organization, or that have none by their type."""
UNKNOWN_ORGANIZATION: Final = 1
"""Also a resource whose organization is not known."""
ANY_ORGANIZATION: Final = 2
"""Also a resource of another organization."""

_Split = tuple[list[Grant], dict[ResourceRef, list[Grant]]]
"""Grants that do not depend on single resources, and those that do."""

_SPLIT_MEMO_MIN: Final = 32
_SPLIT_MEMO_ENTRIES_MAX: Final = 256
_splits: dict[int, tuple[tuple[Grant, ...], _Split]] = {}


class Standing:
    """All about the actor that does not depend on the question. Made by `prepare`; for any number
    of questions, by one thread at a time."""

    __slots__ = (
        "actor_values",
        "candidates",
        "elsewhere",
        "now",
        "on_resources",
        "organization_role",
        "policy",
        "refusal",
        "reusable_until",
        "token",
        "user",
        "wide",
    )

    def __init__(
        self, policy: Policy, token: VerifiedToken, user: UserFacts | None, now: float
    ) -> None:
        self.policy = policy
        self.token = token
        self.user = user
        self.now = now
        self.refusal: Reason | None = None
        self.organization_role = ""
        """The actor's role in the active organization, from the database; empty: none."""
        self.reusable_until = token.expires_at
        """The token's end, or the next edge of a grant that is looked at for every resource."""
        self.wide: list[Grant] = []
        """Grants that hold now, on everything in the active organization."""
        self.elsewhere: list[Grant] = []
        """Grants that hold now, in organizations other than the active one."""
        self.on_resources: dict[ResourceRef, list[Grant]] = {}
        """Grants to the user on single resources, holding now or not."""
        self.candidates: dict[str, Candidates] = {}
        """What the wide grants give, by permission."""
        self.actor_values: dict[str, Any] | None = None


def prepare(
    policy: Policy,
    token: VerifiedToken,
    user: UserFacts | None,
    organization: OrganizationFacts | None,
    now: float,
) -> Standing:
    """Who stands here, at `now` (seconds since 1970-01-01 UTC).

    `organization` is what is stored for the active organization, None where nothing is or where
    none is active. Raises ValueError where facts are of another user or organization.
    """
    actor = token.actor
    active = actor.organization_id
    standing = Standing(policy, token, user, now)
    if organization is not None and organization.organization_id != active:
        raise ValueError("the facts are of another organization")
    if user is None:
        standing.refusal = Reason.ACTOR_UNKNOWN
        return standing
    if user.user.id != actor.user_id:
        raise ValueError("the facts are of another user")
    if user.user.status is not UserStatus.ACTIVE:
        standing.refusal = Reason.ACTOR_DISABLED
        return standing
    if actor.session_id in user.revoked_sessions:
        standing.refusal = Reason.SESSION_REVOKED
        return standing
    if active is not None:
        role = user.memberships.get(active)
        if role is None:
            standing.refusal = Reason.MEMBERSHIP_UNKNOWN
            return standing
        standing.organization_role = role

    wide, standing.on_resources = _split(user.grants)
    for grant in wide:
        _stand_on(standing, grant)
    if standing.organization_role:
        for grant in policy.grants_to(standing.organization_role):
            _stand_on(standing, grant)
        if organization is not None:
            for grant in organization.role_grants:
                _stand_on(standing, grant)
    return standing


def _stand_on(standing: Standing, grant: Grant) -> None:
    """Takes up a grant that does not depend on single resources, if it is the actor's."""
    if not is_to_actor(grant, standing):
        return
    if grant.not_before is not None or grant.expires_at is not None:
        standing.reusable_until = min(standing.reusable_until, edge_of(grant, standing.now))
        if not holds(grant, standing.now):
            return
    scope = grant.scope
    if scope is EVERYWHERE:
        standing.wide.append(grant)
    elif isinstance(scope, InOrganization):
        if scope.organization_id == standing.token.actor.organization_id:
            standing.wide.append(grant)
        else:
            standing.elsewhere.append(grant)


def grants_elsewhere(
    standing: Standing, chain: tuple[ResourceFacts, ...], reach: int
) -> list[Grant]:
    """Grants in other organizations than the active one whose deny rules count: in one that a
    resource of the chain belongs to, or in any while the resource's organization is not known."""
    if reach == UNKNOWN_ORGANIZATION:
        return standing.elsewhere
    owners = {facts.resource.organization_id for facts in chain}
    return [
        grant
        for grant in standing.elsewhere
        if isinstance(grant.scope, InOrganization) and grant.scope.organization_id in owners
    ]


def grants_on_resources(
    standing: Standing, chain: tuple[ResourceFacts, ...], until: float
) -> tuple[list[Grant], float]:
    """Grants that hold on a resource of the chain, and the next edge of any of them."""
    narrow: list[Grant] = []
    for facts in chain:
        resource = facts.resource
        ref = ResourceRef(resource.type, resource.id)
        for grant in (*standing.on_resources.get(ref, ()), *facts.role_grants):
            if (
                isinstance(grant.scope, OnResource)
                and grant.scope.resource == ref
                and is_to_actor(grant, standing)
            ):
                until = min(until, edge_of(grant, standing.now))
                if holds(grant, standing.now):
                    narrow.append(grant)
    return narrow, until


def is_to_actor(grant: Grant, standing: Standing) -> bool:
    """Whether it is to the user, or to the organization role that they have where they act."""
    subject = grant.subject
    if isinstance(subject, ToUser):
        return subject.user_id == standing.token.actor.user_id
    role = standing.organization_role
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
    """Remembered for users with many grants, by the identity of the (immutable) tuple: the entry
    keeps the tuple alive, so that its identity is not given away."""
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
