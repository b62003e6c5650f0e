"""Decides a question: may the principal do that?

The order of refusals: actor unknown, actor disabled, session revoked, membership unknown,
permission unknown, resource unknown; then the rules. The reason of a denial is the first that fits:
a deny rule applies; a deny rule applies because its condition failed; the resource belongs to
another organization; its organization is unknown; the condition of an allow rule failed; it was not
met; no rule allows it. If several rules or grants would decide alike, the smallest rule id decides,
then the smallest grant id.

Tenant isolation limits allow rules. If a resource of the chain belongs to an organization other
than the active one, they count only through a grant to the user that holds everywhere. If no
resource of the chain belongs to an organization, and the policy does not declare the type to have
no tenants, they count through a grant to the user everywhere or on a resource of the chain, because
such a grant names that very resource. Tenant isolation does not limit deny rules: they also count
through a grant to the user in the resource's organization, or in any organization while the
resource's is unknown. A grant to an organization role is for users who act in its organization, so
a grant in another organization never counts.

The permissions of the console (`policy.CONSOLE`) belong to no organization: allow rules count for
them only through a grant to the user that holds everywhere, and `*` does not match them. There is
one exception: `console:view` on a resource of the type `tenant-console` is also reached through a
grant to the user in the active organization. Deny rules count as ever.
"""

from collections.abc import Callable
from typing import Final

from pdp.decision.outcomes import Outcomes
from pdp.decision.policy import (
    CONSOLE,
    CONSOLE_VIEW,
    TENANT_CONSOLE,
    Policy,
    reaches_console,
)
from pdp.decision.principal import (
    ANY_ORGANIZATION,
    CANDIDATES_MAX,
    IN_ORGANIZATION,
    UNKNOWN_ORGANIZATION,
    Candidate,
    Candidates,
    Principal,
    grants_elsewhere,
    grants_on_resources,
)
from pdp.model import (
    EVERYWHERE,
    Decision,
    Effect,
    Grant,
    OnResource,
    Question,
    Reason,
    ResourceFacts,
    ToUser,
)

Judge = Callable[[Candidates, int, str | None, float, Outcomes], Decision]
"""Decides. The arguments: the rules that apply, the reach that an allow rule needs (a number of
`principal`), the resource's organization, until when a decision may be reused, and the evaluation
of the conditions."""

_NONE: Final[Candidates] = ([], [])


def decide(
    principal: Principal,
    question: Question,
    chain: tuple[ResourceFacts, ...],
    judge: Judge | None = None,
) -> Decision:
    """Decides a question of a principal.

    Args:
        principal: the actor with their grants.
        question: the question.
        chain: the resource of the question as stored, then its ancestors, nearest first; empty if
            the question names no resource.
        judge: receives what the decision depends on, and returns the result of `judge_rules` for
            it.

    Raises:
        ValueError: question and chain do not agree.
    """
    _check_agreement(question, chain)
    refusal, candidates, needed, owner, until = applicable(principal, question.permission, chain)
    if refusal is not None:
        return Decision(Effect.DENY, refusal, None, None, owner, until)
    # A resource without organization by its type reads as "". An unknown organization is absent, so
    # that reading it is an error.
    organization = "" if owner is None and needed == IN_ORGANIZATION else owner
    outcomes = Outcomes(principal, question, chain, organization)
    return (judge or judge_rules)(candidates, needed, owner, until, outcomes)


def applicable(
    principal: Principal, permission: str, chain: tuple[ResourceFacts, ...]
) -> tuple[Reason | None, Candidates, int, str | None, float]:
    """Finds the rules that apply, before any condition is evaluated.

    Returns:
        The reason to deny whatever the rules say, or None; the rules that apply, allow and deny,
        in order; the reach that an allow rule needs; the resource's organization; until when all
        of this holds (seconds since 1970-01-01 UTC).
    """
    policy = principal.policy
    owner = None
    cross_tenant = False
    has_role_grants = False
    active = principal.token.actor.organization_id
    for facts in chain:
        organization = facts.resource.organization_id
        if organization is not None:
            owner = owner or organization
            cross_tenant = cross_tenant or organization != active
        if facts.role_grants:
            has_role_grants = True
    needed = IN_ORGANIZATION
    if cross_tenant:
        needed = ANY_ORGANIZATION
    elif owner is None and chain and not policy.has_no_tenants(chain[0].resource.type):
        needed = UNKNOWN_ORGANIZATION
    until = principal.reusable_until
    if principal.refusal is not None:
        return principal.refusal, _NONE, needed, owner, until
    of_tenant = permission == CONSOLE_VIEW and is_tenant_console(chain)
    memo = TENANT_CONSOLE if of_tenant else permission  # no permission is without a colon
    candidates = principal.candidates.get(memo)
    if candidates is None:
        if permission not in policy.permissions:
            # No grant was consulted, so only the token limits the reuse.
            return Reason.PERMISSION_UNKNOWN, _NONE, needed, owner, principal.token.expires_at
        candidates = _candidates(policy, principal.wide, permission, of_tenant=of_tenant)
        if len(principal.candidates) < CANDIDATES_MAX:
            principal.candidates[memo] = candidates
    if policy.resource_types and not all(map(policy.accepts, chain)):
        return Reason.RESOURCE_UNKNOWN, _NONE, needed, owner, principal.token.expires_at
    if principal.on_resources or has_role_grants or (needed and principal.elsewhere):
        allow, deny, until = _narrow_candidates(principal, permission, chain, needed, until)
        if allow or deny:
            candidates = (
                sorted(candidates[0] + allow, key=_order),
                sorted(candidates[1] + deny, key=_order),
            )
    return None, candidates, needed, owner, until


def _narrow_candidates(
    principal: Principal,
    permission: str,
    chain: tuple[ResourceFacts, ...],
    needed: int,
    until: float,
) -> tuple[list[Candidate], list[Candidate], float]:
    """Rules through grants that depend on the resource: allow rules, deny rules, and until when."""
    grants, until = grants_on_resources(principal, chain, until)
    allow, deny = _candidates(principal.policy, grants, permission)
    if needed != IN_ORGANIZATION:
        grants = grants_elsewhere(principal, chain, needed)
        deny += _candidates(principal.policy, grants, permission)[1]
    return allow, deny, until


def _check_agreement(question: Question, chain: tuple[ResourceFacts, ...]) -> None:
    # Without its chain a resource would escape tenant isolation.
    asked = question.resource
    if asked is None:
        if chain:
            raise ValueError("there are resources, but the question names none")
    elif not chain or chain[0].resource.id != asked.id or chain[0].resource.type != asked.type:
        raise ValueError("the question names a resource that is not the first one")


def judge_rules(
    candidates: Candidates,
    needed: int,
    owner: str | None,
    until: float,
    outcomes: Outcomes,
) -> Decision:
    """Evaluates deny rules until one applies, then allow rules until one does."""
    allow, deny = candidates
    effect, reason, by = Effect.DENY, Reason.PERMISSION_NOT_GRANTED, None
    for candidate in deny:
        outcome = outcomes.of(candidate)
        if outcome is True:
            reason, by = Reason.DENIED_BY_RULE, candidate
            break
        if outcome is not False and by is None:
            reason, by = outcome, candidate  # the condition failed, so the rule applies
    if by is None:
        stopped = None
        for candidate in allow:
            if candidate[2] < needed:
                stopped = stopped or candidate
                continue
            outcome = outcomes.of(candidate)
            if outcome is True:
                effect, reason, by = Effect.ALLOW, Reason.ALLOWED_BY_RULE, candidate
                break
            if outcome is False:
                if by is None:
                    reason, by = Reason.CONDITION_NOT_MET, candidate
            elif by is None or reason is Reason.CONDITION_NOT_MET:
                reason, by = outcome, candidate
        if effect is Effect.DENY and needed == ANY_ORGANIZATION:
            reason, by = Reason.WRONG_ORGANIZATION, None
        elif effect is Effect.DENY and stopped is not None:
            reason, by = Reason.RESOURCE_ORGANIZATION_UNKNOWN, stopped
    return Decision(
        effect,
        reason,
        by[0] if by is not None else None,
        by[1] if by is not None else None,
        owner,
        until if outcomes.timeless else None,
        tuple(outcomes.too_expensive),
    )


def _candidates(
    policy: Policy, grants: list[Grant], permission: str, *, of_tenant: bool = False
) -> Candidates:
    allow: list[Candidate] = []
    deny: list[Candidate] = []
    for grant in grants:
        allowing, denying = policy.rules_of(grant.role, permission)
        if allowing:
            reach = reach_of(grant)
            if permission.startswith(CONSOLE) and not reaches_console(grant, of_tenant=of_tenant):
                allowing = ()
            allow += [(rule, grant.id, reach, condition) for rule, condition in allowing]
        if denying:
            deny += [(rule, grant.id, IN_ORGANIZATION, condition) for rule, condition in denying]
    if len(grants) > 1:
        allow.sort(key=_order)
        deny.sort(key=_order)
    return allow, deny


def reach_of(grant: Grant) -> int:
    """The reach of allow rules through a grant."""
    if not isinstance(grant.subject, ToUser):
        return IN_ORGANIZATION
    if grant.scope is EVERYWHERE:
        return ANY_ORGANIZATION
    return UNKNOWN_ORGANIZATION if isinstance(grant.scope, OnResource) else IN_ORGANIZATION


def is_tenant_console(chain: tuple[ResourceFacts, ...]) -> bool:
    """Whether a question is about the console of one organization."""
    return bool(chain) and chain[0].resource.type == TENANT_CONSOLE


def _order(candidate: Candidate) -> tuple[str, str]:
    return candidate[:2]
