"""From values to a decision: who stands here (`prepare`), and may they do that (`decide`).

The order of refusals: actor unknown, actor disabled, session revoked, membership unknown,
permission unknown; then the rules. The reason of a denial is the first that fits: a deny rule
applies; a deny rule applies because its condition failed; the resource is of another organization;
an allow rule's condition failed; was not met; nothing allows it. Where several rules or grants
would decide alike, the smallest rule id decides, then the smallest grant id.

Allow rules stop at the tenant's wall: where a resource of the chain belongs to an organization that
is not the active one, they count only through a grant to the user that holds everywhere. Deny rules
do not stop there: they also count through a grant to the user in the resource's organization. A
grant to an organization role speaks to who acts for its organization, so one in another
organization never counts.
"""

from math import inf
from typing import Any, Final

from pdp.decision.conditions import Condition
from pdp.decision.policy import Policy
from pdp.decision.shortcuts import Values
from pdp.model import (
    EVERYWHERE,
    Decision,
    Effect,
    Grant,
    InOrganization,
    OnResource,
    OrganizationFacts,
    Question,
    Reason,
    ResourceFacts,
    ResourceRef,
    ToOrganizationRole,
    ToUser,
    UserFacts,
    UserStatus,
    VerifiedToken,
)

# Plain tuples, here and below: a decision takes microseconds, and an object each would be most
# of it. They order by rule id, then grant id.
_Candidate = tuple[str, str, bool, Condition | None]
"""A rule that would decide: its id, the grant through which it applies, whether it may allow on a
resource of another organization (pierces), its condition."""
_Candidates = tuple[list[_Candidate], list[_Candidate]]
"""Allowing and denying ones, each in order."""

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
        self.candidates: dict[str, _Candidates] = {}
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
    if not _is_to_actor(grant, standing):
        return
    if grant.not_before is not None or grant.expires_at is not None:
        standing.reusable_until = min(standing.reusable_until, _edge(grant, standing.now))
        if not _holds(grant, standing.now):
            return
    scope = grant.scope
    if scope is EVERYWHERE:
        standing.wide.append(grant)
    elif isinstance(scope, InOrganization):
        if scope.organization_id == standing.token.actor.organization_id:
            standing.wide.append(grant)
        else:
            standing.elsewhere.append(grant)


def decide(standing: Standing, question: Question, chain: tuple[ResourceFacts, ...]) -> Decision:
    """May they? `chain` is the asked resource as stored, then what is above it, nearest first;
    empty where the question names no resource. Raises ValueError where the two do not agree."""
    _check_agreement(question, chain)
    active = standing.token.actor.organization_id
    owner = None
    foreign = False
    narrow = bool(standing.on_resources)
    for facts in chain:
        organization = facts.resource.organization_id
        if organization is not None:
            owner = owner or organization
            foreign = foreign or organization != active
        if facts.role_grants:
            narrow = True

    until = standing.reusable_until
    if standing.refusal is not None:
        return Decision(Effect.DENY, standing.refusal, None, None, owner, until)
    permission = question.permission
    candidates = standing.candidates.get(permission)
    if candidates is None:
        if permission not in standing.policy.permissions:
            until = standing.token.expires_at  # no grant was looked at
            return Decision(Effect.DENY, Reason.PERMISSION_UNKNOWN, None, None, owner, until)
        candidates = _candidates(standing.policy, standing.wide, permission)
        standing.candidates[permission] = candidates
    if chain and (narrow or (foreign and standing.elsewhere)):
        grants, until = _narrow_grants(standing, chain, until)
        if grants:
            allow, deny = _candidates(standing.policy, grants, permission)
            candidates = (
                sorted(candidates[0] + allow, key=_order),
                sorted(candidates[1] + deny, key=_order),
            )
    return _judge(candidates, foreign, owner, until, _Outcomes(standing, question, chain))


def _check_agreement(question: Question, chain: tuple[ResourceFacts, ...]) -> None:
    # A chain that was left out would take the tenant's wall away.
    asked = question.resource
    if asked is None:
        if chain:
            raise ValueError("there are resources, but the question names none")
    elif not chain or chain[0].resource.id != asked.id or chain[0].resource.type != asked.type:
        raise ValueError("the question names a resource that is not the first one")


def _judge(
    candidates: _Candidates,
    foreign: bool,
    owner: str | None,
    until: float,
    outcomes: "_Outcomes",
) -> Decision:
    """Deny rules first, all of them until one applies; then allow rules, until one does."""
    allow, deny = candidates
    effect, reason, by = Effect.DENY, Reason.PERMISSION_NOT_GRANTED, None
    for candidate in deny:
        outcome = outcomes.of(candidate[3])
        if outcome is True:
            reason, by = Reason.DENIED_BY_RULE, candidate
            break
        if outcome is not False and by is None:
            reason, by = outcome, candidate  # it failed, so the rule applies
    if by is None:
        for candidate in allow:
            if foreign and not candidate[2]:
                continue
            outcome = outcomes.of(candidate[3])
            if outcome is True:
                effect, reason, by = Effect.ALLOW, Reason.ALLOWED_BY_RULE, candidate
                break
            if outcome is False:
                if by is None:
                    reason, by = Reason.CONDITION_NOT_MET, candidate
            elif by is None or reason is Reason.CONDITION_NOT_MET:
                reason, by = outcome, candidate
        if foreign and effect is Effect.DENY:
            reason, by = Reason.WRONG_ORGANIZATION, None
    return Decision(
        effect,
        reason,
        by[0] if by is not None else None,
        by[1] if by is not None else None,
        owner,
        until if outcomes.timeless else None,
    )


class _Outcomes:
    """Evaluates each condition at most once for one question."""

    __slots__ = ("_chain", "_known", "_question", "_standing", "_values", "timeless")

    def __init__(
        self, standing: Standing, question: Question, chain: tuple[ResourceFacts, ...]
    ) -> None:
        self._standing = standing
        self._question = question
        self._chain = chain
        self._known: dict[Condition, bool | Reason] = {}
        self._values: Values | None = None
        self.timeless = True
        """Whether nothing that was evaluated reads the time."""

    def of(self, condition: Condition | None) -> bool | Reason:
        if condition is None:
            return True
        outcome = self._known.get(condition)
        if outcome is None:
            values = self._values
            if values is None:
                values = self._values = _values(self._standing, self._question, self._chain)
            outcome = self._known[condition] = condition.evaluate(values)
            if condition.reads_now:
                self.timeless = False
        return outcome


def _is_to_actor(grant: Grant, standing: Standing) -> bool:
    subject = grant.subject
    if isinstance(subject, ToUser):
        return subject.user_id == standing.token.actor.user_id
    role = standing.organization_role
    return role != "" and subject.organization_role == role


def _holds(grant: Grant, now: float) -> bool:
    return (grant.not_before is None or grant.not_before <= now) and (
        grant.expires_at is None or now < grant.expires_at
    )


def _edge(grant: Grant, now: float) -> float:
    """When the grant next begins or ends."""
    begins, ends = grant.not_before, grant.expires_at
    return min(
        begins if begins is not None and begins > now else inf,
        ends if ends is not None and ends > now else inf,
    )


def _candidates(policy: Policy, grants: list[Grant], permission: str) -> _Candidates:
    allow: list[_Candidate] = []
    deny: list[_Candidate] = []
    for grant in grants:
        allowing, denying = policy.rules_of(grant.role, permission)
        if allowing:
            pierces = grant.scope is EVERYWHERE and not isinstance(
                grant.subject, ToOrganizationRole
            )
            allow += [(rule, grant.id, pierces, condition) for rule, condition in allowing]
        if denying:
            deny += [(rule, grant.id, False, condition) for rule, condition in denying]
    if len(grants) > 1:
        allow.sort(key=_order)
        deny.sort(key=_order)
    return allow, deny


def _order(candidate: _Candidate) -> tuple[str, str]:
    return candidate[:2]


def _narrow_grants(
    standing: Standing, chain: tuple[ResourceFacts, ...], until: float
) -> tuple[list[Grant], float]:
    """Grants that hold on some resources only: on one of the chain, or in the other organization
    that a resource of the chain belongs to (which matters to deny rules: they reach everywhere)."""
    owners = {facts.resource.organization_id for facts in chain}
    narrow = [
        grant
        for grant in standing.elsewhere
        if isinstance(grant.scope, InOrganization) and grant.scope.organization_id in owners
    ]
    for facts in chain:
        resource = facts.resource
        ref = ResourceRef(resource.type, resource.id)
        for grant in (*standing.on_resources.get(ref, ()), *facts.role_grants):
            if (
                isinstance(grant.scope, OnResource)
                and grant.scope.resource == ref
                and _is_to_actor(grant, standing)
            ):
                until = min(until, _edge(grant, standing.now))
                if _holds(grant, standing.now):
                    narrow.append(grant)
    return narrow, until


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


def _values(standing: Standing, question: Question, chain: tuple[ResourceFacts, ...]) -> Values:
    """What conditions may read: of the actor, and of the question."""
    actor = standing.actor_values
    if actor is None:
        actor = standing.actor_values = _actor_values(standing)
    if not chain:
        return actor, {"context": question.context}
    resource = chain[0].resource
    return actor, {
        "context": question.context,
        "resource.type": resource.type,
        "resource.id": resource.id,
        "resource.organization": resource.organization_id or "",
        "resource.attributes": resource.attributes,
    }


def _actor_values(standing: Standing) -> dict[str, Any]:
    token = standing.token
    actor = token.actor
    values = {
        "actor.id": actor.user_id,
        "actor.session": actor.session_id,
        "actor.organization": actor.organization_id or "",
        "actor.organization_role": standing.organization_role,
        "actor.impersonator": actor.impersonator_id or "",
        "actor.attributes": standing.user.user.attributes if standing.user else {},
        "actor.claims": token.claims,
        "actor.claimed_permissions": token.claimed_permissions,
        "now": standing.now,
    }
    # Unset stays unset: reading it is an error, so an absent factor is never a fresh one.
    if token.first_factor_minutes is not None:
        values["actor.first_factor_minutes"] = token.first_factor_minutes
    if token.second_factor_minutes is not None:
        values["actor.second_factor_minutes"] = token.second_factor_minutes
    return values
