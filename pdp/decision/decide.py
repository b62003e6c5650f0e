"""From values to a decision: who stands here (`prepare`), and may they do that (`decide`).

The order of refusals: actor unknown, actor disabled, session revoked, membership unknown,
permission unknown; then the rules. Deny wins. An error never allows: a condition that fails makes
an allow rule not apply and a deny rule apply.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pdp.decision.conditions import Condition
from pdp.decision.policy import Policy
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


class _Candidate(NamedTuple):
    """A rule that would decide, and the grant through which it does. Orders by both ids."""

    rule_id: str
    grant_id: str
    pierces: bool
    """Whether it may allow on a resource of another organization."""
    condition: Condition | None


class _Candidates(NamedTuple):
    allow: tuple[_Candidate, ...]
    deny: tuple[_Candidate, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """All about the actor that does not depend on the question. For one thread at a time."""

    policy: Policy
    token: VerifiedToken
    user: UserFacts | None
    now: float
    refusal: Reason | None
    organization_role: str
    """The actor's role in the active organization, from the database; empty: none."""
    reusable_until: float
    """The token's end, or the next edge of a grant that is looked at for every resource."""
    wide: tuple[Grant, ...] = ()
    """Grants that hold now, on every resource of the active organization."""
    elsewhere: tuple[Grant, ...] = ()
    """Grants that hold now, in organizations other than the active one."""
    on_resources: tuple[Grant, ...] = ()
    """Grants to the user on single resources, holding now or not."""
    _candidates: dict[str, _Candidates] = field(default_factory=dict)
    _values: dict[str, Any] = field(default_factory=dict)


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
    active = token.actor.organization_id
    if user is not None and user.user.id != token.actor.user_id:
        raise ValueError("the facts are of another user")
    if organization is not None and organization.organization_id != active:
        raise ValueError("the facts are of another organization")
    refusal, organization_role = _refusal(token, user, active)
    if refusal is not None or user is None:
        return Standing(policy, token, user, now, refusal, organization_role, token.expires_at)

    until = token.expires_at
    wide: list[Grant] = []
    elsewhere: list[Grant] = []
    on_resources: list[Grant] = []
    looked_at = user.grants
    if organization_role:
        looked_at += policy.grants_to(organization_role)
        if organization is not None:
            looked_at += organization.role_grants
    for grant in looked_at:
        scope = grant.scope
        if isinstance(scope, OnResource):
            on_resources.append(grant)
            continue
        if not _is_to(grant, token.actor.user_id, organization_role):
            continue
        until = min(until, _edge(grant, now))
        if _holds(grant, now):
            if scope is EVERYWHERE or scope.organization_id == active:
                wide.append(grant)
            else:
                elsewhere.append(grant)
    return Standing(
        policy,
        token,
        user,
        now,
        None,
        organization_role,
        until,
        tuple(wide),
        tuple(elsewhere),
        tuple(on_resources),
    )


def decide(standing: Standing, question: Question, chain: tuple[ResourceFacts, ...]) -> Decision:
    """May they? `chain` is the asked resource as stored, then what is above it, nearest first;
    empty where the question names no resource. Raises ValueError where the two do not agree."""
    asked = question.resource
    if asked is None:
        if chain:
            raise ValueError("there are resources, but the question names none")
    elif not chain or chain[0].resource.id != asked.id or chain[0].resource.type != asked.type:
        raise ValueError("the question names a resource that is not the first one")
    active = standing.token.actor.organization_id
    owners = [
        facts.resource.organization_id
        for facts in chain
        if facts.resource.organization_id is not None
    ]
    owner = owners[0] if owners else None
    if standing.refusal is not None:
        return _denial(standing.refusal, owner, standing.reusable_until)
    if question.permission not in standing.policy.permissions:
        return _denial(Reason.PERMISSION_UNKNOWN, owner, standing.token.expires_at)
    foreign = any(organization != active for organization in owners)
    candidates = _wide_candidates(standing, question.permission)
    until = standing.reusable_until
    narrow, until = _narrow_grants(standing, chain, owners, until)
    if narrow:
        more = _candidates(standing.policy, narrow, question.permission)
        candidates = _Candidates(
            tuple(sorted(candidates.allow + more.allow, key=_order)),
            tuple(sorted(candidates.deny + more.deny, key=_order)),
        )
    return _judge(standing, question, chain, candidates, foreign, owner, until)


def _judge(
    standing: Standing,
    question: Question,
    chain: tuple[ResourceFacts, ...],
    candidates: _Candidates,
    foreign: bool,
    owner: str | None,
    until: float,
) -> Decision:
    outcomes = _Outcomes(standing, question, chain)
    failed: tuple[_Candidate, Reason] | None = None
    for candidate in candidates.deny:
        outcome = outcomes.of(candidate.condition)
        if outcome is True:
            return outcomes.decision(Effect.DENY, Reason.DENIED_BY_RULE, candidate, owner, until)
        if outcome is not False and failed is None:
            failed = (candidate, outcome)
    if failed is not None:
        return outcomes.decision(Effect.DENY, failed[1], failed[0], owner, until)

    unmet: _Candidate | None = None
    for candidate in candidates.allow:
        if foreign and not candidate.pierces:
            continue
        outcome = outcomes.of(candidate.condition)
        if outcome is True:
            return outcomes.decision(Effect.ALLOW, Reason.ALLOWED_BY_RULE, candidate, owner, until)
        if outcome is False:
            unmet = unmet or candidate
        elif failed is None:
            failed = (candidate, outcome)
    if foreign:
        return outcomes.decision(Effect.DENY, Reason.WRONG_ORGANIZATION, None, owner, until)
    if failed is not None:
        return outcomes.decision(Effect.DENY, failed[1], failed[0], owner, until)
    if unmet is not None:
        return outcomes.decision(Effect.DENY, Reason.CONDITION_NOT_MET, unmet, owner, until)
    return outcomes.decision(Effect.DENY, Reason.PERMISSION_NOT_GRANTED, None, owner, until)


class _Outcomes:
    """Evaluates each condition at most once for one question."""

    __slots__ = ("_chain", "_known", "_question", "_standing", "_timeless", "_values")

    def __init__(
        self, standing: Standing, question: Question, chain: tuple[ResourceFacts, ...]
    ) -> None:
        self._standing = standing
        self._question = question
        self._chain = chain
        self._known: dict[Condition, bool | Reason] = {}
        self._values: dict[str, Any] | None = None
        self._timeless = True

    def of(self, condition: Condition | None) -> bool | Reason:
        if condition is None:
            return True
        known = self._known.get(condition)
        if known is None:
            if self._values is None:
                self._values = _values(self._standing, self._question, self._chain)
            known = self._known[condition] = condition.evaluate(self._values)
            if condition.reads_now:
                self._timeless = False
        return known

    def decision(
        self,
        effect: Effect,
        reason: Reason,
        candidate: _Candidate | None,
        owner: str | None,
        until: float,
    ) -> Decision:
        return Decision(
            effect,
            reason,
            candidate.rule_id if candidate else None,
            candidate.grant_id if candidate else None,
            owner,
            until if self._timeless else None,
        )


def _refusal(
    token: VerifiedToken, user: UserFacts | None, active: str | None
) -> tuple[Reason | None, str]:
    if user is None:
        return Reason.ACTOR_UNKNOWN, ""
    if user.user.status is not UserStatus.ACTIVE:
        return Reason.ACTOR_DISABLED, ""
    if token.actor.session_id in user.revoked_sessions:
        return Reason.SESSION_REVOKED, ""
    if active is None:
        return None, ""
    role = user.memberships.get(active)
    if role is None:
        return Reason.MEMBERSHIP_UNKNOWN, ""
    return None, role


def _is_to(grant: Grant, user_id: str, organization_role: str) -> bool:
    match grant.subject:
        case ToUser(who):
            return who == user_id
        case ToOrganizationRole(role):
            return bool(organization_role) and role == organization_role


def _holds(grant: Grant, now: float) -> bool:
    return (grant.not_before is None or grant.not_before <= now) and (
        grant.expires_at is None or now < grant.expires_at
    )


def _edge(grant: Grant, now: float) -> float:
    """When the grant next begins or ends."""
    edge = float("inf")
    if grant.not_before is not None and grant.not_before > now:
        edge = grant.not_before
    if grant.expires_at is not None and grant.expires_at > now:
        edge = min(edge, grant.expires_at)
    return edge


def _wide_candidates(standing: Standing, permission: str) -> _Candidates:
    known = standing._candidates.get(permission)  # noqa: SLF001  # its own module
    if known is None:
        known = _candidates(standing.policy, standing.wide, permission)
        standing._candidates[permission] = known  # noqa: SLF001
    return known


def _candidates(
    policy: Policy, grants: tuple[Grant, ...] | list[Grant], permission: str
) -> _Candidates:
    allow: list[_Candidate] = []
    deny: list[_Candidate] = []
    for grant in grants:
        rules = policy.rules_of(grant.role, permission)
        pierces = grant.scope is EVERYWHERE and isinstance(grant.subject, ToUser)
        for rule in rules.allow:
            allow.append(_Candidate(rule.id, grant.id, pierces, rule.condition))
        for rule in rules.deny:
            deny.append(_Candidate(rule.id, grant.id, pierces, rule.condition))
    allow.sort(key=_order)
    deny.sort(key=_order)
    return _Candidates(tuple(allow), tuple(deny))


def _order(candidate: _Candidate) -> tuple[str, str]:
    return candidate[:2]


def _narrow_grants(
    standing: Standing, chain: tuple[ResourceFacts, ...], owners: list[str], until: float
) -> tuple[list[Grant], float]:
    """Grants that hold on some resources only: on one of the chain, or (for deny rules) in the
    other organization that a resource of the chain belongs to."""
    narrow = [
        grant
        for grant in standing.elsewhere
        if isinstance(grant.scope, InOrganization) and grant.scope.organization_id in owners
    ]
    if chain:
        refs = {ResourceRef(facts.resource.type, facts.resource.id) for facts in chain}
        on_resources = [*standing.on_resources]
        for facts in chain:
            on_resources += facts.role_grants
        for grant in on_resources:
            if not isinstance(grant.scope, OnResource) or grant.scope.resource not in refs:
                continue
            if not _is_to(grant, standing.token.actor.user_id, standing.organization_role):
                continue
            until = min(until, _edge(grant, standing.now))
            if _holds(grant, standing.now):
                narrow.append(grant)
    return narrow, until


def _values(
    standing: Standing, question: Question, chain: tuple[ResourceFacts, ...]
) -> dict[str, Any]:
    """What conditions may read."""
    values = standing._values  # noqa: SLF001
    if not values:
        values.update(_actor_values(standing))
    values = {**values, "context": question.context}
    if chain:
        resource = chain[0].resource
        values["resource.type"] = resource.type
        values["resource.id"] = resource.id
        values["resource.organization"] = resource.organization_id or ""
        values["resource.attributes"] = resource.attributes
    return values


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
        "actor.claimed_permissions": list(token.claimed_permissions),
        "now": datetime.fromtimestamp(standing.now, UTC),
    }
    # Unset stays unset: reading it is an error, so an absent factor is never a fresh one.
    if token.first_factor_minutes is not None:
        values["actor.first_factor_minutes"] = token.first_factor_minutes
    if token.second_factor_minutes is not None:
        values["actor.second_factor_minutes"] = token.second_factor_minutes
    return values


def _denial(reason: Reason, owner: str | None, until: float) -> Decision:
    return Decision(Effect.DENY, reason, resource_organization_id=owner, reusable_until=until)
